package keyring

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-apikey/caddy-apikey/store"
)

const (
	// flushEvery leaves room for the write itself: a crash loses a second at most.
	flushEvery  = 900 * time.Millisecond
	tendEvery   = time.Second
	deleteEvery = 10 * time.Second
	deleteBatch = 1000

	// seenFor is for how long the wall clock must have shown, at every look, that a
	// key has expired before it is deleted in the background.
	seenFor = int64(time.Hour / time.Millisecond)
	// lookApart is how far apart looks are kept; those between count as the one before.
	lookApart = int64(10 * time.Second / time.Millisecond)
)

// KeepForever is the Keep of keys that are never deleted for being expired, and the
// AuditKeep of an audit log from which nothing is removed.
const KeepForever int64 = -1

// startLoops starts the background work. Close ends it.
func (r *Engine) startLoops() {
	ctx, cancel := context.WithCancel(context.Background())
	r.stopping = cancel
	st := r.store.Load()
	r.keepMembership(ctx, st)
	r.every(ctx, flushEvery, func() error { return r.flushAndRecover(ctx, st) })
	r.keeping.look(r.clock())
	r.every(ctx, tendEvery, func() error {
		r.keeping.look(r.clock())
		return r.accounts.Reclaim(st)
	})
	r.every(ctx, deleteEvery, func() error { return r.deleteKept(ctx, st) })
	r.every(ctx, watchEvery, func() error { return r.endWatched(ctx, st) })
	r.every(ctx, denialsEvery, func() error { return r.writeDenials(ctx, st, false) })
	r.every(ctx, deleteEvery, func() error { return r.trimAudit(ctx, st) })
	r.every(ctx, noticeEvery, func() error { return r.notice(ctx, st) })
	r.every(ctx, expireEvery, func() error { return r.expireDeliveries(ctx, st) })
	r.every(ctx, headEvery, func() error { return r.tellAuditHead(ctx) })
	r.loops.Go(func() { r.count(ctx, st) })
}

func (r *Engine) every(ctx context.Context, d time.Duration, work func() error) {
	r.loops.Go(func() {
		ticker := time.NewTicker(d)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				if err := work(); err != nil && ctx.Err() == nil {
					r.workFailed(err)
				}
			}
		}
	})
}

// flush writes what was counted. What could not be written stays in memory and is tried
// again.
func (r *Engine) flush(ctx context.Context, st store.Store) error {
	return r.queue.flush(ctx, st, r.cache.written)
}

// flushLast is flush for a store that is being closed: what it cannot write is lost.
func (r *Engine) flushLast(st store.Store) error {
	err := r.flush(context.Background(), st)
	if err != nil {
		err = r.flush(context.Background(), st) // the store may only have missed a moment
	}
	if err != nil {
		r.monitor.StatisticsDropped(r.queue.requests())
	}
	return err
}

// keeping holds the Keep of every configuration that is alive. While a new
// configuration is being loaded there are two, and either may be the one that
// stays: the longer one counts, because what is deleted is gone.
type keeping struct {
	mu       sync.Mutex
	attached []*Settings // in this order
	looks    looks

	current atomic.Pointer[current] // the last of attached; nil: none is
}

// current are the settings of the newest configuration.
type current struct {
	*Settings
	thresholds []int64
}

// settings returns those of the newest configuration; nil: there is none.
func (k *keeping) settings() *Settings {
	if c := k.current.Load(); c != nil {
		return c.Settings
	}
	return nil
}

// newest returns the settings that were attached last. The caller holds keeping.mu.
func (k *keeping) newest() *current {
	if len(k.attached) == 0 {
		return nil
	}
	s := k.attached[len(k.attached)-1]
	return &current{s, s.thresholds()}
}

// Attach lets the settings of a configuration govern the background work, until
// the function it returns is called.
func (r *Engine) Attach(s *Settings) (detach func()) {
	r.keeping.mu.Lock()
	defer r.keeping.mu.Unlock()
	r.keeping.attached = append(r.keeping.attached, s)
	r.attached()
	return func() {
		r.keeping.mu.Lock()
		defer r.keeping.mu.Unlock()
		r.keeping.attached = slices.DeleteFunc(r.keeping.attached, func(one *Settings) bool { return one == s })
		r.attached()
	}
}

// attached has the settings take effect that are attached now. The cache gets the size that
// they say, the largest where there are several, and what waits to be written its room. The
// caller holds keeping.mu.
func (r *Engine) attached() {
	r.keeping.current.Store(r.keeping.newest())
	size := int64(0)
	for _, s := range r.keeping.attached {
		size = max(size, cmp.Or(s.CacheSize, DefaultCacheSize))
	}
	if size > 0 {
		r.cache.keys.SetMaximum(uint64(size))
		r.queue.resize(size)
	}
}

// looks are readings of the clock in the past hour, by the monotonic clock, and the
// last one before that. A wall clock may be wrong for a while, and what is deleted is
// gone.
type looks []instant

// add adds a reading. Of several that are close together the earliest wall time counts.
func (s *looks) add(now instant) {
	list := slices.DeleteFunc(*s, func(at instant) bool { return at.monotonic > now.monotonic }) // only the clock of a test runs back
	if n := len(list); n > 0 && now.monotonic-list[n-1].monotonic < lookApart {
		list[n-1].wall = min(list[n-1].wall, now.wall)
	} else {
		list = append(list, now)
	}
	for len(list) > 1 && now.monotonic-list[1].monotonic >= seenFor {
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
	return wall, len(s) > 0 && now.monotonic-s[0].monotonic >= seenFor
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
	all := slices.Clone(k.attached)
	x.Before = func(configID string) int64 {
		before := seen
		for _, s := range all {
			before = min(before, s.cutoff(configID, now.wall))
		}
		return before
	}
	x.Disabled = func(configID string) int64 {
		before := seen
		for _, s := range all {
			before = min(before, s.disabledCutoff(configID, now.wall))
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

// auditCutoff returns the time before which entries are removed; 0: none are.
func (k *keeping) auditCutoff(now instant) int64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	seen, long := k.looks.earliest(now)
	if !long || len(k.attached) == 0 {
		return 0
	}
	longest := int64(0)
	for _, s := range k.attached {
		keep := cmp.Or(s.AuditKeep, DefaultAuditKeep)
		if keep == KeepForever {
			return 0
		}
		longest = max(longest, keep)
	}
	return max(seen-longest, 0)
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

// disabledCutoff returns the time before which owners must have disabled keys of a
// configuration to be deleted, so that room is made for others.
func (s *Settings) disabledCutoff(configID string, now int64) int64 {
	rules := s.rules(configID)
	if rules == nil {
		rules = &s.Rules
	}
	if rules.MaxKeys == 0 {
		return 0
	}
	return s.cutoff(configID, now)
}

// deleteKept deletes keys that have been expired for longer than they are kept, and
// that this process has seen expired for an hour.
func (r *Engine) deleteKept(ctx context.Context, st store.Store) error {
	x, ok := r.keeping.cutoffs(r.clock())
	if !ok {
		return nil
	}
	_, err := r.deleteExpired(ctx, st, x, &Actor{Kind: ActorSystem}, r.keeping.settings())
	return err
}

// deleteExpired deletes expired keys in the name of an actor, and tells of that.
func (r *Engine) deleteExpired(ctx context.Context, st store.Store, x store.Expired, by *Actor, set *Settings) (int, error) {
	total := 0
	for ctx.Err() == nil {
		n, err := r.deleteSome(ctx, st, x, by, set)
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

func (r *Engine) deleteSome(ctx context.Context, st store.Store, x store.Expired, by *Actor, set *Settings) (n int, err error) {
	record := recorded{set: set, entries: r.noteDeleted(by)}
	var changes []store.Change
	err = r.queue.pause(func() (err error) {
		changes, err = st.DeleteExpired(ctx, x, deleteBatch, record.note)
		return err
	})
	if err != nil {
		return 0, err
	}
	for _, c := range changes {
		if c.Kind == store.KindKey && c.Deleted() {
			n++
		}
	}
	tellChanged(set, *by, changes, record.events)
	return n, nil
}
