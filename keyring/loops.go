package keyring

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/caddy-apikey/caddy-apikey/store"
)

const (
	// flushEvery leaves room for the write itself: a crash loses a second at most.
	flushEvery  = 900 * time.Millisecond
	tendEvery   = time.Second
	sweepEvery  = 30 * time.Second
	deleteEvery = 10 * time.Second
	flushBatch  = 500
	deleteBatch = 1000

	// seenFor is for how long the wall clock must have shown, at every look, that a
	// key has expired before it is deleted in the background.
	seenFor = int64(time.Hour / time.Millisecond)
	// lookApart is how far apart looks are kept; those between count as the one before.
	lookApart = int64(10 * time.Second / time.Millisecond)
)

// KeepForever is the Keep of keys that are never deleted for being expired.
const KeepForever int64 = -1

// startLoops starts the background work. Close ends it.
func (r *Ring) startLoops() {
	ctx, cancel := context.WithCancel(context.Background())
	r.stopping = cancel
	st := r.store.Load()
	r.keepMembership(ctx, st)
	r.every(ctx, flushEvery, func() error { return r.flush(ctx, st) })
	r.keeping.look(r.clock())
	r.every(ctx, tendEvery, func() error {
		r.keeping.look(r.clock())
		return r.ledger.reclaim(st)
	})
	r.every(ctx, sweepEvery, func() error { r.lives.sweep(r.clock); return nil })
	r.every(ctx, deleteEvery, func() error { return r.deleteKept(ctx, st) })
}

func (r *Ring) every(ctx context.Context, d time.Duration, work func() error) {
	r.loops.Go(func() {
		ticker := time.NewTicker(d)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				if err := work(); err != nil && ctx.Err() == nil {
					r.report(err)
				}
			}
		}
	})
}

// dirtyList holds the keys that were used since they were last written. Each is
// in it once, so that a busy key takes the lock once a second.
type dirtyList struct {
	shards [shardCount]struct {
		mu sync.Mutex
		l  []*live
	}
}

func (d *dirtyList) add(l *live) {
	if l.dirty.Load() || !l.dirty.CompareAndSwap(false, true) {
		return
	}
	// IDs end in random hexadecimal digits.
	sh := &d.shards[(uint(l.id[len(l.id)-1])*16+uint(l.id[max(0, len(l.id)-2)]))%shardCount]
	sh.mu.Lock()
	sh.l = append(sh.l, l)
	sh.mu.Unlock()
}

// rewrite lets the counters of a key be written, unless others count for it now.
func (r *Ring) rewrite(l *live) {
	l.window.mu.Lock()
	defer l.window.mu.Unlock()
	if !l.window.gone {
		r.dirty.add(l)
	}
}

func (d *dirtyList) drain() (all []*live) {
	for i := range d.shards {
		sh := &d.shards[i]
		sh.mu.Lock()
		all = append(all, sh.l...)
		sh.l = nil
		sh.mu.Unlock()
	}
	return all
}

// flush writes the counters of the keys that were used. What could not be
// written stays in memory and is tried again.
func (r *Ring) flush(ctx context.Context, st store.Store) error {
	var errs []error
	all := r.dirty.drain()
	for len(all) > 0 {
		n := min(len(all), flushBatch)
		if err := flushSome(ctx, st, all[:n]); err != nil {
			errs = append(errs, fmt.Errorf("writing counters of %d keys: %w", n, err))
			for _, l := range all[:n] {
				r.dirty.add(l)
			}
		}
		all = all[n:]
	}
	return errors.Join(append(errs, r.owned.flush(ctx, st), r.book.flush(ctx, st))...)
}

func flushSome(ctx context.Context, st store.Store, some []*live) error {
	batch := make([]store.Counters, 0, len(some))
	for _, l := range some {
		// Before the values are read: what is counted after that is written next time.
		l.dirty.Store(false)
		if rec := l.rec.Load(); rec != nil {
			batch = append(batch, l.counters(rec))
		}
	}
	return st.SaveCounters(ctx, batch)
}

// previousUses returns the last requests of previous raw keys that the store does
// not have.
func (rec *record) previousUses() (list []store.PreviousUse) {
	for i, p := range rec.key.Previous {
		if last := rec.uses[i+1].Load(); last != p.LastRequest {
			list = append(list, store.PreviousUse{Hash: p.Hash, LastRequest: last})
		}
	}
	return list
}

// counters are what use has changed of a key.
func (l *live) counters(rec *record) store.Counters {
	c := store.Counters{Subject: store.OfKey(l.id), LastRequest: l.last(rec), Previous: rec.previousUses()}
	if state := l.window.encode(); state != nil || rec.limited {
		c.Windows = []store.Window{{Unit: store.UnitRate, State: state}}
	}
	return c
}

// keeping holds the Keep of every configuration that is alive. While a new
// configuration is being loaded there are two, and either may be the one that
// stays: the longer one counts, because what is deleted is gone.
type keeping struct {
	mu    sync.Mutex
	keep  map[*Settings]struct{}
	looks looks
}

// Attach lets the settings of a configuration govern the background work, until
// the function it returns is called.
func (r *Ring) Attach(s *Settings) (detach func()) {
	r.keeping.mu.Lock()
	defer r.keeping.mu.Unlock()
	if r.keeping.keep == nil {
		r.keeping.keep = make(map[*Settings]struct{})
	}
	r.keeping.keep[s] = struct{}{}
	return func() {
		r.keeping.mu.Lock()
		defer r.keeping.mu.Unlock()
		delete(r.keeping.keep, s)
	}
}

// looks are readings of the clock in the past hour, by the monotonic clock, and the
// last one before that. A wall clock may be wrong for a while, and what is deleted is
// gone.
type looks []instant

// add adds a reading. Of several that are close together the earliest wall time counts.
func (s *looks) add(now instant) {
	list := slices.DeleteFunc(*s, func(at instant) bool { return at.tick > now.tick }) // only the clock of a test runs back
	if n := len(list); n > 0 && now.tick-list[n-1].tick < lookApart {
		list[n-1].wall = min(list[n-1].wall, now.wall)
	} else {
		list = append(list, now)
	}
	for len(list) > 1 && now.tick-list[1].tick >= seenFor {
		list = list[1:]
	}
	*s = list
}

// earliest returns the earliest wall time of the readings, and false while the first
// of them was less than an hour ago.
func (s looks) earliest(now instant) (wall int64, ok bool) {
	wall = now.wall
	for _, at := range s {
		wall = min(wall, at.wall)
	}
	return wall, len(s) > 0 && now.tick-s[0].tick >= seenFor
}

// look notes what the clock shows.
func (k *keeping) look(now instant) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.looks.add(now)
}

// cutoffs looks at the clock, and returns which expired keys are kept for long
// enough; false where nobody says, all are kept for ever, or none was seen expired for
// so long. A key whose configuration is not configured any more is kept as those of
// "default" are.
func (k *keeping) cutoffs(now instant) (x store.Expired, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.looks.add(now)
	seen, long := k.looks.earliest(now)
	if !long {
		return x, false
	}
	all := slices.Collect(maps.Keys(k.keep))
	x.Before = func(configID string) int64 {
		before := seen
		for _, s := range all {
			before = min(before, s.cutoff(configID, now.wall))
		}
		return before
	}
	x.Previous = seen
	for _, s := range all {
		for _, id := range s.configIDs() {
			before := x.Before(id)
			x.Previous, ok = min(x.Previous, before), ok || before > 0
		}
	}
	return x, ok
}

// cutoff returns the time before which keys of a configuration must have expired
// to be deleted.
func (s *Settings) cutoff(configID string, now int64) int64 {
	rules := s.rules(configID)
	if rules == nil {
		rules = &s.Rules
	}
	if rules.Expiration.Keep == KeepForever {
		return 0
	}
	return max(0, now-rules.Expiration.Keep)
}

// deleteKept deletes keys that have been expired for longer than they are kept, and
// that this process has seen expired for an hour.
func (r *Ring) deleteKept(ctx context.Context, st store.Store) error {
	x, ok := r.keeping.cutoffs(r.clock())
	if !ok {
		return nil
	}
	_, err := r.deleteExpired(ctx, st, x)
	return err
}

// deleteExpired deletes expired keys.
func (r *Ring) deleteExpired(ctx context.Context, st store.Store, x store.Expired) (int, error) {
	total := 0
	for ctx.Err() == nil {
		n, err := r.deleteSome(ctx, st, x)
		total += n
		if err != nil {
			return total, fmt.Errorf("deleting expired keys: %w", err)
		}
		if n < deleteBatch {
			break
		}
	}
	return total, ctx.Err()
}

func (r *Ring) deleteSome(ctx context.Context, st store.Store, x store.Expired) (int, error) {
	defer r.changing.lockAll()()
	changes, err := st.DeleteExpired(ctx, x, deleteBatch)
	if err != nil {
		return 0, err
	}
	ids := deletedKeys(changes)
	r.buried(ids...)
	return len(ids), nil
}

// buried tells the memory that keys are gone.
func (r *Ring) buried(ids ...string) {
	seq, now := r.changes.Add(1), r.clock().wall
	for _, id := range ids {
		r.lives.bury(id, seq, now)
	}
}
