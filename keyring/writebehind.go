package keyring

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/caddy-apikey/caddy-apikey/store"
)

const (
	// writeBatch is how many subjects go into one transaction, which other writes wait for.
	writeBatch = 500
	// waitingSize is about how many bytes something takes that waits to be written: a key that
	// has left the cache, or its usage of a day; the windows of an owner take more. All that
	// waits may take about as much memory as the cache, and as that by default.
	waitingSize = 256
)

// errNoRoom is why something cannot be counted.
var errNoRoom = fmt.Errorf("%w: what waits to be written takes all the memory that it may", store.ErrUnavailable)

// counted is what requests have counted, and is written behind them: a key (when it was
// used, its windows, and the permissions that it was asked for), an owner (its windows),
// the usage of a key on a day, or that of all keys of a tier in an hour.
type counted interface {
	waiting() *pending
	shard() uint
	// subject is the ID of the key or owner that it is about; empty: of neither.
	subject() string
	// collect adds what is to be written to a batch.
	collect(*writes)
}

// writes are one batch on its way to the store.
type writes struct {
	counters []store.Counters
	used     []store.Used
	hours    []store.HourUses
	asked    []store.Asked
}

// pending tells whether something waits to be written. It also decides whether that may
// leave memory, since nothing may be counted in between unseen.
type pending struct{ state atomic.Uint32 }

const (
	pendingNothing uint32 = iota
	pendingQueued
	pendingWrite // on its way to the store
	pendingGone  // out of memory
)

func (p *pending) isGone() bool { return p.state.Load() == pendingGone }

func (p *pending) isQueued() bool { return p.state.Load() == pendingQueued }

// leave marks something as out of memory, if nothing of it waits to be written.
func (p *pending) leave() bool { return p.state.CompareAndSwap(pendingNothing, pendingGone) }

// end marks something as out of memory, whatever waits of it.
func (p *pending) end() { p.state.Store(pendingGone) }

// queue reports whether the caller has to put it into the queue. What is gone is
// queued each time it is used, which only happens to what a request found just before.
func (p *pending) queue() bool {
	for {
		switch s := p.state.Load(); s {
		case pendingQueued:
			return false
		case pendingGone:
			return true
		default:
			if p.state.CompareAndSwap(s, pendingQueued) {
				return true
			}
		}
	}
}

func (p *pending) move(from, to uint32) bool { return p.state.CompareAndSwap(from, to) }

const queueShards = 64

// queue holds what waits to be written, each once, so that a busy key takes a lock once
// a second.
//
// Windows and times of use are written as they are. Usage is written as increments, each
// exactly once: what has been counted goes into a numbered batch, which stays here until
// the store has it. If the answer is an error, or is lost on its way, the same batch is
// sent again under the same number, and the store drops it if it has it already.
//
// What waits is bounded, for a store that is away for hours. Statistics may take half of the
// room, and the windows of rate limits all of it. What waits already goes on being counted.
// Where there is no room for more, statistics are dropped, and requests are refused whose
// limits cannot be counted.
type queue struct {
	shards  [queueShards]queueShard
	room    atomic.Int64 // how much may wait
	waiting atomic.Int64 // how much does

	// mu is held while a batch is on its way, while usage is read, so that a reader finds
	// each increment either in the store or here, and while something is deleted, so that
	// nothing old is written over what takes its place.
	mu      sync.Mutex
	backlog []counted // taken from the shards, and not yet written
	writer  string
	number  int64
	unsent  *store.UsageBatch // made, and not known to be stored
}

type queueShard struct {
	mu sync.Mutex
	l  []counted
}

func (q *queue) init() {
	q.writer = rand.Text()
	q.resize(DefaultCacheSize)
}

// resize gives the queue the room that goes with the size of the cache.
func (q *queue) resize(cacheSize int64) { q.room.Store(max(cacheSize, DefaultCacheSize) / waitingSize) }

// hasRoom reports whether windows of rate limits can be counted.
func (q *queue) hasRoom(p *pending) bool {
	return p.isQueued() || q.waiting.Load() < q.room.Load()
}

// hasRoomForStatistics reports whether statistics can be counted.
func (q *queue) hasRoomForStatistics(p *pending) bool {
	return p.isQueued() || q.waiting.Load() < q.room.Load()/2
}

// addStatistics is add where there is room. Else the time of the last use, and permissions
// that were asked for, are only written if the key is used again before it leaves memory.
func (q *queue) addStatistics(x counted) {
	if q.hasRoomForStatistics(x.waiting()) {
		q.add(x)
	}
}

// add notes that something has to be written.
func (q *queue) add(x counted) {
	if x.waiting().queue() {
		q.put(x)
	}
}

func (q *queue) put(x counted) {
	q.waiting.Add(1)
	sh := &q.shards[x.shard()%queueShards]
	sh.mu.Lock()
	sh.l = append(sh.l, x)
	sh.mu.Unlock()
}

// drain takes all that waits from the shards, and returns how much there is to write.
func (q *queue) drain() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range q.shards {
		sh := &q.shards[i]
		sh.mu.Lock()
		q.backlog = append(q.backlog, sh.l...)
		sh.l = nil
		sh.mu.Unlock()
	}
	// In the order of the IDs, which is that of the store's pages where IDs ascend: of very
	// many keys, each page is then read and written once.
	slices.SortFunc(q.backlog, func(a, b counted) int { return strings.Compare(a.subject(), b.subject()) })
	return len(q.backlog)
}

// flush writes what waits. What could not be written stays, for the next time: all the rest
// where the store is away. written is told of what could.
func (q *queue) flush(ctx context.Context, st store.Store, written func([]counted)) error {
	var errs []error
	// At least once, for what is unsent.
	for left := max(1, q.drain()); left > 0; left -= writeBatch {
		some, err := q.write(ctx, st)
		if err == nil {
			written(some)
			continue
		}
		errs = append(errs, err)
		if errors.Is(err, store.ErrUnavailable) {
			break
		}
	}
	return errors.Join(errs...)
}

// write writes one batch of the backlog.
func (q *queue) write(ctx context.Context, st store.Store) (some []counted, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := min(len(q.backlog), writeBatch)
	some, q.backlog = q.backlog[:n:n], q.backlog[n:]
	defer q.waiting.Add(-int64(n)) // what is put back was added again
	if err := q.send(ctx, st); err != nil {
		for _, x := range some {
			q.put(x) // they are still marked as queued
		}
		return nil, err
	}
	var batch writes
	for _, x := range some {
		// Before the values are read: what is counted after that queues it again.
		x.waiting().move(pendingQueued, pendingWrite)
		x.collect(&batch)
	}
	if batch.used != nil || batch.hours != nil || batch.asked != nil {
		q.number++
		q.unsent = &store.UsageBatch{Writer: q.writer, Number: q.number, Used: batch.used, Hours: batch.hours, Asked: batch.asked}
	}
	if batch.counters != nil {
		if err = st.SaveCounters(ctx, batch.counters); err != nil {
			err = fmt.Errorf("writing counters of %d keys and owners: %w", len(batch.counters), err)
		}
	}
	for _, x := range some {
		if err == nil || isUsage(x) {
			x.waiting().move(pendingWrite, pendingNothing)
		} else if x.waiting().move(pendingWrite, pendingQueued) {
			q.put(x)
		}
	}
	return some, errors.Join(err, q.send(ctx, st))
}

// isUsage reports whether something is written as increments, which are in a batch as
// soon as they are collected.
func isUsage(x counted) bool {
	switch x.(type) {
	case *dayCounts, *hourCounts:
		return true
	}
	return false
}

// send writes the batch of usage that waits, if there is one.
func (q *queue) send(ctx context.Context, st store.Store) error {
	if q.unsent == nil {
		return nil
	}
	if err := st.SaveUsage(ctx, *q.unsent); err != nil {
		return fmt.Errorf("writing usage: %w", err)
	}
	q.unsent = nil
	return nil
}

// with runs read, which asks the store for usage, and adds what is counted and
// not yet stored to the days it returns.
func (q *queue) with(ctx context.Context, st store.Store, read func() ([]store.DayUses, error), ours func(keyID, userID string) bool) (map[date]store.Uses, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	// Of a batch whose answer was lost only a second try tells where it is. Where
	// that fails too, it is most likely not stored.
	_ = q.send(ctx, st)
	stored, err := read()
	if err != nil {
		return nil, err
	}
	sums := make(map[date]store.Uses)
	add := func(day date, u store.Uses) {
		sum := sums[day]
		sum.Add(u)
		sums[day] = sum
	}
	for _, d := range stored {
		add(date(d.Day), d.Uses)
	}
	if q.unsent != nil {
		for _, u := range q.unsent.Used {
			if ours(u.KeyID, u.UserID) {
				add(date(u.Day), u.Uses)
			}
		}
	}
	q.eachDay(func(c *dayCounts) {
		if ours(c.keyID, c.userID) {
			add(c.day, c.rest())
		}
	})
	return sums, nil
}

// eachDay calls f for all usage of days that waits. The caller holds q.mu.
func (q *queue) eachDay(f func(*dayCounts)) { eachWaiting(q, f) }

// eachWaiting calls f for all of one kind that waits. The caller holds q.mu.
func eachWaiting[T counted](q *queue, f func(T)) {
	each := func(list []counted) {
		for _, x := range list {
			if c, ok := x.(T); ok {
				f(c)
			}
		}
	}
	each(q.backlog)
	for i := range q.shards {
		sh := &q.shards[i]
		sh.mu.Lock()
		each(sh.l)
		sh.mu.Unlock()
	}
}

// requests returns how many requests are not in the statistics of the store yet: in those
// of the hours, which have all, or in those of the keys, where the hours were written before.
func (q *queue) requests() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	var ofHours, ofKeys int64
	if q.unsent != nil {
		for _, h := range q.unsent.Hours {
			ofHours += h.N
		}
		for _, u := range q.unsent.Used {
			ofKeys += u.Sum()
		}
	}
	eachWaiting(q, func(c *hourCounts) { ofHours += c.rest() })
	q.eachDay(func(c *dayCounts) { ofKeys += c.rest().Sum() })
	return max(ofHours, ofKeys)
}

// pause runs remove, which deletes something from the store, while nothing is written.
func (q *queue) pause(remove func() error) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return remove()
}

// forget runs remove, which deletes an owner from the store, and drops the usage that is
// counted for it here: nothing of it may come to a new owner of the same name.
func (q *queue) forget(userID string, remove func() error) error {
	return q.pause(func() error {
		if err := remove(); err != nil {
			return err
		}
		if q.unsent != nil {
			kept := slices.DeleteFunc(slices.Clone(q.unsent.Used), func(u store.Used) bool { return u.UserID == userID })
			batch := *q.unsent
			batch.Used = kept
			q.unsent = &batch
		}
		q.eachDay(func(c *dayCounts) {
			if c.userID == userID {
				c.take()
			}
		})
		return nil
	})
}

// shardOf spreads keys: IDs end in random hexadecimal digits.
func shardOf(id string) uint {
	return uint(id[len(id)-1])*16 + uint(id[max(0, len(id)-2)])
}

func (e *entry) waiting() *pending { return &e.pending }
func (e *entry) subject() string   { return e.id }
func (e *entry) shard() uint       { return shardOf(e.id) }
func (e *entry) collect(w *writes) {
	if rec := e.rec.Load(); rec != nil { // else deleted
		w.counters = append(w.counters, e.counters(rec))
		for _, p := range e.takeAsked() {
			w.asked = append(w.asked, store.Asked{KeyID: e.id, Permission: p.String()})
		}
	}
}

func (o *ownerEntry) waiting() *pending { return &o.pending }
func (o *ownerEntry) subject() string   { return o.id }
func (o *ownerEntry) shard() uint       { return shardOf(o.id) }
func (o *ownerEntry) collect(w *writes) {
	if list := o.windows.encode(); list != nil {
		w.counters = append(w.counters, store.Counters{Subject: store.OfOwner(o.id), Windows: list})
	}
}

func (c *dayCounts) waiting() *pending { return &c.pending }
func (c *dayCounts) subject() string   { return c.keyID }
func (c *dayCounts) shard() uint       { return shardOf(c.keyID) }
func (c *dayCounts) collect(w *writes) {
	if u := c.take(); u != (store.Uses{}) {
		w.used = append(w.used, store.Used{KeyID: c.keyID, UserID: c.userID, Day: int32(c.day), Uses: u})
	}
}

func (c *hourCounts) waiting() *pending { return &c.pending }
func (c *hourCounts) subject() string   { return "" }
func (c *hourCounts) shard() uint       { return 0 }
func (c *hourCounts) collect(w *writes) {
	for o := range NumOutcomes {
		n := c.n[o].Load() - c.taken[o]
		if n != 0 {
			c.taken[o] += n
			w.hours = append(w.hours, store.HourUses{Hour: c.hour, Outcome: o.Label(), Tier: c.tier, N: n})
		}
	}
}
