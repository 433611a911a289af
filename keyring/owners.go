package keyring

import (
	"sync"
	"sync/atomic"

	"github.com/caddy-apikey/caddy-apikey/key"
)

// liveOwner is one owner in memory, shared by all its keys, so that a change of
// the owner reaches all of them at once.
type liveOwner struct {
	id  string
	cur atomic.Pointer[key.Owner]

	counts  ownerCounts
	strayed atomic.Pointer[string] // the tier, not configured, that was last warned of

	// Guarded by owners.mu.
	refs      int    // records that point here
	changed   uint64 // Ring.changes after the last change made here
	changedAt int64
}

// owners holds the owners of the keys in memory.
type owners struct {
	mu    sync.Mutex
	m     map[string]*liveOwner
	floor uint64 // as in shard
}

// take returns the owner for a record, brought up to date as lives.adopt does,
// or nil where it has to be read again.
func (s *owners) take(o key.Owner, began uint64) *liveOwner {
	s.mu.Lock()
	defer s.mu.Unlock()
	lo := s.m[o.UserID]
	if (lo == nil || lo.cur.Load() == nil) && s.floor > began {
		return nil
	}
	lo = s.get(o.UserID)
	if lo.cur.Load() == nil || lo.changed <= began {
		lo.cur.Store(&o)
	}
	lo.refs++
	return lo
}

// hold keeps an owner in memory until drop, if only for its counts: then cur is
// nil.
func (s *owners) hold(id string) *liveOwner {
	s.mu.Lock()
	defer s.mu.Unlock()
	lo := s.get(id)
	lo.refs++
	return lo
}

func (s *owners) get(id string) *liveOwner {
	lo := s.m[id]
	if lo == nil {
		if s.m == nil {
			s.m = make(map[string]*liveOwner)
		}
		lo = &liveOwner{id: id}
		s.m[id] = lo
	}
	return lo
}

// publish brings a changed owner into memory.
func (s *owners) publish(o key.Owner, seq uint64, now int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	lo := s.get(o.UserID)
	lo.cur.Store(&o)
	lo.changed, lo.changedAt = seq, now
}

func (s *owners) drop(lo *liveOwner) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if lo.refs--; lo.refs == 0 && lo.changed == 0 && lo.counts.die() {
		delete(s.m, lo.id)
	}
}

// bury forgets what a deleted owner has used.
func (s *owners) bury(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if lo := s.m[id]; lo != nil {
		lo.counts.clear()
	}
}

// reload has the counts of an owner that was imported read from the store, where
// those of a deleted one of the same name are remembered as none.
func (s *owners) reload(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if lo := s.m[id]; lo != nil {
		lo.counts.reload()
	}
}

func (s *owners) sweep(now int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, lo := range s.m {
		if lo.refs == 0 && now-lo.changedAt >= remember && lo.counts.die() {
			delete(s.m, id)
			s.floor = max(s.floor, lo.changed)
		}
	}
}
