package keyring

import (
	"encoding/json"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/ratelimit"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// live is one key in memory: the current record, and beside it what use changes.
// It is found by hash in the cache and by ID in lives, which holds at most one
// per key, so that a key is never counted twice side by side.
type live struct {
	id  string
	rec atomic.Pointer[record] // nil: the key is gone
	// dead is set when lives lets go of it; whoever finds a dead one looks the
	// key up again.
	dead atomic.Bool
	// expired is the expiry that was once seen to be over: a clock that steps
	// back does not revive a key.
	expired atomic.Int64
	// graceOver is the latest time at which the grace of a previous raw key was seen
	// to be over.
	graceOver atomic.Int64
	// lastRequest is that of raw keys whose uses the record does not hold.
	lastRequest atomic.Int64
	tally       atomic.Pointer[tally] // of the day of the last request
	dirty       atomic.Bool           // waits to be written

	window  window
	account account

	// Guarded by the shard of lives.
	changed   uint64 // Ring.changes after the last change made here
	changedAt int64
	evicted   bool // the cache does not hold it, or has let go of it
}

// newLive returns a key that only its windows keep in memory, until the cache holds it.
func newLive(id string) *live {
	l := &live{id: id, evicted: true}
	l.account.id = id
	return l
}

// record is an immutable key with what is derived from it once.
type record struct {
	key         *key.Key
	owner       *liveOwner
	policy      ratelimit.Policy
	limited     bool // policy holds
	permissions string
	metadata    func() map[string]string
	// uses are the last requests of the raw keys: that of the present one, then those
	// of key.Previous. A raw key takes its own along from record to record.
	uses []*atomic.Int64
}

// newRecord returns the record of k, which follows old, if that is not nil.
func newRecord(k *key.Key, o *liveOwner, old *record) *record {
	rec := &record{key: k, owner: o, permissions: strings.Join(k.Permissions.List(), " "), uses: []*atomic.Int64{old.usesOf(k.Hash)}}
	for _, p := range k.Previous {
		uses := old.usesOf(p.Hash)
		uses.CompareAndSwap(0, p.LastRequest)
		rec.uses = append(rec.uses, uses)
	}
	rec.policy, rec.limited = k.RatePolicy()
	rec.metadata = sync.OnceValue(func() map[string]string { return flatten(k.Metadata) })
	return rec
}

// usesOf returns what holds the last request of a raw key; for one that is not of
// this record, a new one.
func (rec *record) usesOf(h key.Hash) *atomic.Int64 {
	if rec != nil {
		if m := rec.key.Match(h, 0); m.OK {
			return rec.uses[m.Previous+1]
		}
	}
	return new(atomic.Int64)
}

// used returns previous raw keys with their last requests.
func (rec *record) used(previous []key.PreviousKey) []key.PreviousKey {
	previous = slices.Clone(previous)
	for i := range previous {
		p := &previous[i]
		p.LastRequest = max(p.LastRequest, rec.usesOf(p.Hash).Load())
	}
	return previous
}

// replace makes rec the record of the key, and returns the one before.
func (l *live) replace(rec *record) (old *record) {
	old = l.rec.Swap(rec)
	if old == nil {
		return nil
	}
	for _, uses := range old.uses {
		if !slices.Contains(rec.uses, uses) { // of a raw key that is gone
			raise(&l.lastRequest, uses.Load())
		}
	}
	return old
}

// last returns the time of the last request with any raw key.
func (l *live) last(rec *record) int64 {
	last := l.lastRequest.Load()
	for _, uses := range rec.uses {
		last = max(last, uses.Load())
	}
	return last
}

// flatten returns the top-level fields of a JSON object as text: strings as they
// are, everything else as JSON.
func flatten(metadata json.RawMessage) map[string]string {
	var fields map[string]json.RawMessage
	if json.Unmarshal(metadata, &fields) != nil {
		return nil
	}
	text := make(map[string]string, len(fields))
	for name, raw := range fields {
		var s string
		switch {
		case string(raw) == "null":
		case json.Unmarshal(raw, &s) == nil:
			text[name] = s
		default:
			text[name] = string(raw)
		}
	}
	return text
}

// restore puts back counters that were written before.
func (l *live) restore(e *store.Entry) {
	l.lastRequest.Store(e.LastRequest)
	l.window.restore(e.Window(store.UnitRate))
}

// die marks the key as dead if it can be forgotten without changing a decision.
// It is called with the shard of lives locked.
func (l *live) die(clock func() instant) bool {
	l.window.mu.Lock()
	defer l.window.mu.Unlock()
	l.account.mu.Lock()
	defer l.account.mu.Unlock()
	now := clock() // here, because to look at a window may move it
	if now.wall-l.changedAt < remember {
		return false
	}
	if l.account.paying > 0 || l.dirty.Load() || !l.account.idle() {
		return false
	}
	if rec := l.rec.Load(); rec != nil && rec.limited && !l.window.state.Idle(rec.policy, now.tick) {
		return false
	}
	l.dead.Store(true)
	l.window.gone, l.account.gone = true, true
	return true
}

const shardCount = 64

// lives holds the keys in memory by ID.
type lives struct {
	seed   maphash.Seed
	owners *owners
	shards [shardCount]shard
}

type shard struct {
	mu sync.Mutex
	m  map[string]*live
	// floor is Ring.changes after the last change whose trace was let go of: what
	// was read before that may be older than a change nobody remembers.
	floor uint64
}

func (s *lives) init(o *owners) {
	s.seed = maphash.MakeSeed()
	s.owners = o
	for i := range s.shards {
		s.shards[i].m = make(map[string]*live)
	}
}

func (s *lives) shard(id string) *shard {
	return &s.shards[maphash.String(s.seed, id)%shardCount]
}

// adopt brings an entry that was read from the store into memory. began is
// Ring.changes before the read: where the key or its owner has been changed here
// since, the entry may be older than that change, and what is in memory stands.
// It returns nil where that cannot be told any more, and the entry has to be
// read again.
func (s *lives) adopt(e store.Entry, began uint64) *live {
	sh := s.shard(e.Key.ID)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	l := sh.m[e.Key.ID]
	switch {
	case l != nil && l.changed > began:
		return l
	case l == nil && sh.floor > began:
		return nil
	}
	return s.put(sh, l, e, began)
}

// publish brings the result of a change into memory. It is called in the order
// of the changes (see Ring.changing). Like adopt, it may ask for another read, of
// the owner.
func (s *lives) publish(e store.Entry, began, seq uint64, now int64) bool {
	sh := s.shard(e.Key.ID)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	l := s.put(sh, sh.m[e.Key.ID], e, began)
	if l == nil {
		return false
	}
	l.changed, l.changedAt = seq, now
	return true
}

// cached notes that the cache holds the key.
func (s *lives) cached(l *live) {
	sh := s.shard(l.id)
	sh.mu.Lock()
	l.evicted = false
	sh.mu.Unlock()
}

// put swaps in the record of e. It is called with the shard locked. It returns
// nil where the owner has to be read again.
func (s *lives) put(sh *shard, l *live, e store.Entry, began uint64) *live {
	owner := s.owners.take(e.Owner, began)
	if owner == nil {
		return nil
	}
	fresh := l == nil
	if fresh {
		l = newLive(e.Key.ID)
		l.restore(&e)
		sh.m[l.id] = l
	}
	if old := l.replace(newRecord(e.Key, owner, l.rec.Load())); old != nil {
		s.owners.drop(old.owner)
	} else if !fresh {
		l.begin(&e) // a new key under the ID of a deleted one
	}
	l.account.update(e.Credits)
	return l
}

// begin resets what use has changed to what the store has.
func (l *live) begin(e *store.Entry) {
	l.account.reset()
	l.restore(e)
	l.expired.Store(0)
	l.graceOver.Store(0)
}

// bury marks a key as gone, whether it was in memory or not, so that a read that
// began before the deletion cannot bring it back.
func (s *lives) bury(id string, seq uint64, now int64) {
	sh := s.shard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	l := sh.m[id]
	if l == nil {
		l = newLive(id)
		sh.m[id] = l
	}
	if old := l.rec.Swap(nil); old != nil {
		s.owners.drop(old.owner)
	}
	l.account.close()
	l.changed, l.changedAt = seq, now
}

// remember is how long the trace of a change is kept for reads that began before
// it. Reads that take longer are made again.
const remember = int64(time.Minute / time.Millisecond)

// retire lets go of a key that the cache has evicted, if that loses nothing; if
// it would, sweep tries again later.
func (s *lives) retire(l *live, clock func() instant) {
	sh := s.shard(l.id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	l.evicted = true
	s.release(sh, l, clock)
}

func (s *lives) release(sh *shard, l *live, clock func() instant) {
	if sh.m[l.id] != l || !l.die(clock) {
		return
	}
	delete(sh.m, l.id)
	sh.floor = max(sh.floor, l.changed)
	if rec := l.rec.Load(); rec != nil {
		s.owners.drop(rec.owner)
	}
}

// sweep lets go of what nobody needs any more: evicted keys whose windows are
// over, and traces of changes.
func (s *lives) sweep(clock func() instant) {
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		for _, l := range sh.m {
			if l.evicted || l.rec.Load() == nil {
				s.release(sh, l, clock)
			}
		}
		sh.mu.Unlock()
	}
	s.owners.sweep(clock().wall)
}

// get returns the key in memory, if it is there.
func (s *lives) get(id string) *live {
	sh := s.shard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.m[id]
}

// find returns the key in memory and its record, or a nil record.
func (s *lives) find(id string) (*live, *record) {
	if l := s.get(id); l != nil {
		return l, l.rec.Load()
	}
	return nil, nil
}

// stripes are locks by name.
type stripes [256]sync.Mutex

var stripeSeed = maphash.MakeSeed()

func (s *stripes) lock(name string) (unlock func()) {
	mu := &s[maphash.String(stripeSeed, name)%uint64(len(s))]
	mu.Lock()
	return mu.Unlock
}

// lockAll is for changes whose keys are known only when they are done.
func (s *stripes) lockAll() (unlock func()) {
	for i := range s {
		s[i].Lock()
	}
	return func() {
		for i := range s {
			s[i].Unlock()
		}
	}
}
