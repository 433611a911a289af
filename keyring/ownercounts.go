package keyring

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/singleflight"

	"github.com/caddy-apikey/caddy-apikey/ratelimit"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// ownerCounts is what an owner's keys have used together, by unit. It is loaded
// when it is first needed, and may be forgotten once it is written: whoever needs
// it next loads it again.
type ownerCounts struct {
	loading singleflight.Group
	loaded  atomic.Bool

	mu      sync.Mutex // taken after window.mu
	dead    bool       // forgotten; whoever finds it so looks the key up again
	units   []*unitCount
	version int64 // grows with each change
	saved   int64 // the version that the store has
	listed  bool  // waits to be written
}

type unitCount struct {
	unit  Unit
	state ratelimit.State
}

// load reads the counts from the store, if that has not been done.
func (o *liveOwner) load(ctx context.Context, st store.Store, l *lookups) error {
	c := &o.counts
	if c.loaded.Load() {
		return nil
	}
	_, err := l.wait(ctx, c.loading.DoChan("", func() (any, error) {
		return nil, l.run(func(ctx context.Context) error {
			stored, err := st.Windows(ctx, store.OfOwner(o.id))
			if err != nil {
				return fmt.Errorf("reading what an owner has used: %w", err)
			}
			c.restore(stored)
			return nil
		})
	}))
	return err
}

// restore takes over what was written before. What cannot be read is dropped, as
// live.restore does.
func (c *ownerCounts) restore(stored []store.Window) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.loaded.Load() {
		return // or the owner was deleted meanwhile
	}
	for _, s := range stored {
		if u, ok := unitOf(s.Unit); ok {
			n := &unitCount{unit: u}
			if n.state.UnmarshalBinary(s.State) == nil {
				c.units = append(c.units, n)
			}
		}
	}
	c.loaded.Store(true)
}

// state returns the state of a unit. The caller holds the lock; the state stays
// the unit's afterwards.
func (c *ownerCounts) state(p *plans, u Unit, now instant) *ratelimit.State {
	for _, n := range c.units {
		if n.unit == u {
			return &n.state
		}
	}
	// Of units that no configuration counts any more, those may go that are over.
	c.units = slices.DeleteFunc(c.units, func(n *unitCount) bool {
		return !slices.Contains(p.units, n.unit) && n.over(p, now)
	})
	n := &unitCount{unit: u}
	c.units = append(c.units, n)
	return &n.state
}

func (n *unitCount) over(p *plans, now instant) bool {
	at := now.tick
	if n.unit < 0 {
		at = now.wall
	}
	return n.state.Idle(p.policy(n.unit, 1, now.wall), at)
}

// die marks the counts as forgotten, if the store has them.
func (c *ownerCounts) die() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.version != c.saved {
		return false
	}
	c.dead = true
	return true
}

// clear forgets the counts of an owner that is deleted. A new one of the same
// name begins with none.
func (c *ownerCounts) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.units, c.saved = nil, c.version
	c.loaded.Store(true)
}

// reload has the counts read again when they are next needed, unless something
// has been counted here.
func (c *ownerCounts) reload() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.units) == 0 {
		c.loaded.Store(false)
	}
}

// ownerList holds the owners whose counts wait to be written, each once. Locks
// are taken in the order ownerCounts.mu, ownerList.mu.
type ownerList struct {
	mu sync.Mutex
	l  []*liveOwner
	// saving is held while counts are on their way to the store, so that a
	// deletion does not fall between.
	saving sync.Mutex
}

// changed notes that counts have changed. The caller holds their lock.
func (s *ownerList) changed(o *liveOwner) {
	o.counts.version++
	if o.counts.listed {
		return
	}
	o.counts.listed = true
	s.mu.Lock()
	s.l = append(s.l, o)
	s.mu.Unlock()
}

// pause waits until nothing is on its way to the store, and keeps it so.
func (s *ownerList) pause() (resume func()) {
	s.saving.Lock()
	return s.saving.Unlock
}

func (s *ownerList) drain() []*liveOwner {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.l
	s.l = nil
	return all
}

// flush writes the counts that have changed. What could not be written stays in
// memory and is tried again.
func (s *ownerList) flush(ctx context.Context, st store.Store) error {
	s.saving.Lock()
	defer s.saving.Unlock()
	all := s.drain()
	for len(all) > 0 {
		n := min(len(all), flushBatch)
		if err := saveCounts(ctx, st, all[:n]); err != nil {
			s.mu.Lock()
			s.l = append(s.l, all...) // they are still marked as listed
			s.mu.Unlock()
			return fmt.Errorf("writing what %d owners have used: %w", len(all), err)
		}
		all = all[n:]
	}
	return nil
}

func saveCounts(ctx context.Context, st store.Store, some []*liveOwner) error {
	var batch []store.Counters
	versions := make([]int64, len(some))
	for i, o := range some {
		batch, versions[i] = o.snapshot(batch)
	}
	if err := st.SaveCounters(ctx, batch); err != nil {
		return err
	}
	for i, o := range some {
		o.counts.wrote(versions[i])
	}
	return nil
}

// snapshot adds the counts as they are to a batch.
func (o *liveOwner) snapshot(batch []store.Counters) ([]store.Counters, int64) {
	c := &o.counts
	c.mu.Lock()
	defer c.mu.Unlock()
	of := store.Counters{Subject: store.OfOwner(o.id)}
	for _, n := range c.units {
		b, _ := n.state.AppendBinary(nil) // never fails
		of.Windows = append(of.Windows, store.Window{Unit: n.unit.id(), State: b})
	}
	return append(batch, of), c.version
}

// wrote notes that the store has a version, and takes the owner off the list.
func (c *ownerCounts) wrote(version int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.saved, c.listed = max(c.saved, version), false
}
