package keyring

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/maypok86/otter/v2"
	"golang.org/x/sync/singleflight"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

const (
	// DefaultCacheSize is how many bytes the keys in memory may take.
	DefaultCacheSize = 64 << 20
	// cachedUnknown bounds the raw keys that are remembered as unknown. They are apart,
	// so that a flood of unknown keys does not push out the good ones.
	cachedUnknown = 65_536
)

// cache holds the keys in memory. What it holds is ordered by the revisions of the
// store: a record with a higher revision replaces one with a lower one. Changes reach it
// through apply, in the order that the store tells them; what is read from the store is
// taken where nothing that concerns it happened since the read began (see recent).
//
// An entry may leave memory at any time when nothing of it waits to be written and none
// of its credits are leased. Locks are taken in the order cache.mu, windows.mu,
// account.mu.
type cache struct {
	keys    *otter.Cache[key.Hash, *entry] // bounded in bytes
	unknown *otter.Cache[key.Hash, struct{}]
	members membership
	loads   singleflight.Group

	// plain tells that a raw key without checksum may exist.
	plain atomic.Bool
	// metadata tells that requests read metadata of keys, so that it is kept with them.
	metadata atomic.Bool

	mu     sync.Mutex // never held while waiting
	byID   map[string]*entry
	owners map[string]*ownerEntry
	recent recent
}

func (c *cache) init() {
	c.keys = otter.Must(&otter.Options[key.Hash, *entry]{
		MaximumWeight: DefaultCacheSize,
		Weigher:       func(_ key.Hash, e *entry) uint32 { return e.size() },
		OnDeletion: func(e otter.DeletionEvent[key.Hash, *entry]) {
			if e.WasEvicted() {
				c.unpin(e.Value)
			}
		},
	})
	c.unknown = otter.Must(&otter.Options[key.Hash, struct{}]{MaximumSize: cachedUnknown})
	c.byID, c.owners = make(map[string]*entry), make(map[string]*ownerEntry)
	c.members.init()
}

// find returns the key that a raw key opens, or nil where memory does not know it.
func (c *cache) find(hash key.Hash) *entry {
	if e, ok := c.keys.GetIfPresent(hash); ok && !e.pending.isGone() {
		return e
	}
	return nil
}

// excludes reports whether a raw key is certainly not stored.
func (c *cache) excludes(hash key.Hash) bool {
	if c.members.excludes(hash) {
		return true
	}
	_, ok := c.unknown.GetIfPresent(hash)
	return ok
}

// get returns the entry of a key, or nil.
func (c *cache) get(id string) *entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.byID[id]
}

// current returns the entry of a key and its record, or nil.
func (c *cache) current(id string) (*entry, *record) {
	if e := c.get(id); e != nil {
		return e, e.rec.Load()
	}
	return nil, nil
}

// mark returns the moment at which a read begins.
func (c *cache) mark() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.recent.next
}

// loaded is the key that a raw key opens, or nil for none, and the moment at which that was
// so.
type loaded struct {
	entry *entry
	mark  uint64
}

// load reads the key that a raw key opens.
func (c *cache) load(ctx context.Context, st store.Store, hash key.Hash) (loaded, error) {
	for {
		mark := c.mark()
		if e := c.find(hash); e != nil { // another look-up has ended just now
			return loaded{e, mark}, nil
		}
		stored, err := st.Find(ctx, hash)
		if errors.Is(err, store.ErrNotFound) {
			if c.miss(hash, mark) {
				return loaded{nil, mark}, nil
			}
			continue
		}
		if err != nil {
			return loaded{}, fmt.Errorf("looking up a key: %w", err)
		}
		c.mu.Lock()
		e := c.take(&stored, mark)
		if e != nil {
			c.hold(hash, e)
		}
		c.mu.Unlock()
		if e != nil {
			return loaded{e, mark}, nil
		}
	}
}

// stands reports whether the raw key opens that key, or none, since began at the latest: a
// look-up may have been joined that had its result before.
func (c *cache) stands(l loaded, hash key.Hash, began uint64) bool {
	if l.mark >= began {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	f := fingerprintOf(hash)
	return !c.recent.since(l.mark, f, f)
}

// pin returns the entry of a key, which stays in memory until unpin.
func (c *cache) pin(ctx context.Context, st store.Store, id string) (*entry, error) {
	for {
		c.mu.Lock()
		mark, e := c.recent.next, c.byID[id]
		if e != nil {
			e.refs++
		}
		c.mu.Unlock()
		if e != nil {
			return e, nil
		}
		stored, err := st.Get(ctx, id)
		if err != nil {
			return nil, err
		}
		c.mu.Lock()
		if e = c.take(&stored, mark); e != nil {
			e.refs++
		}
		c.mu.Unlock()
		if e != nil {
			return e, nil
		}
	}
}

// unpin is the opposite of pin.
func (c *cache) unpin(e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.refs--
	c.release(e)
}

// hold lets a raw key find an entry. The caller holds the lock.
func (c *cache) hold(hash key.Hash, e *entry) {
	switch before, added := c.keys.Set(hash, e); {
	case added:
		e.refs++
	case before != e: // Set returned the one that it replaced
		e.refs++
		before.refs--
		c.release(before)
	}
}

// miss notes that a raw key is unknown, unless one that was looked for since mark may
// be it.
func (c *cache) miss(hash key.Hash, mark uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := fingerprintOf(hash)
	if c.recent.since(mark, f, f) {
		return false
	}
	c.unknown.Set(hash, struct{}{})
	return true
}

// take brings a key that was read from the store into memory. It returns nil where that
// may be older than what has happened since, and has to be read again. The caller holds
// the lock.
func (c *cache) take(stored *store.Entry, mark uint64) *entry {
	if c.recent.since(mark, fingerprint(store.OfKey(stored.Key.ID)), fingerprint(store.OfOwner(stored.Owner.UserID))) {
		return nil
	}
	e := c.byID[stored.Key.ID]
	if e == nil {
		e = &entry{id: strings.Clone(stored.Key.ID)}
		e.lastRequest.Store(stored.LastRequest)
		e.windows.restore(stored.Windows)
		c.byID[e.id] = e
	}
	c.put(e, stored)
	return e
}

// put gives an entry its record and its credits, unless it has newer ones. The caller
// holds the lock.
func (c *cache) put(e *entry, stored *store.Entry) {
	e.updateCredits(stored.Credits)
	old := e.rec.Load()
	if old.loaded() && old.revision() >= stored.Key.Revision && !c.lacks(old) {
		return
	}
	owner := c.owner(stored.Owner.UserID)
	owner.update(&stored.Owner)
	k := stored.Key.Compact(e.id, owner.id)
	if !c.metadata.Load() {
		k.Metadata = nil
	}
	e.userID = owner.id
	e.setRecord(k, owner, stored.Key.Metadata != nil)
	if old.loaded() {
		c.dropOwner(old.owner)
	}
}

// lacks reports whether a record was loaded before metadata was asked for.
func (c *cache) lacks(rec *record) bool { return rec.incomplete() && c.metadata.Load() }

// forget has a key found again by whoever asks for it next.
func (c *cache) forget(hash key.Hash) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.keys.Invalidate(hash); ok {
		e.refs--
		c.release(e)
	}
}

// release lets go of an entry that is not used, if nothing is lost by that: its
// counters are written, and none of its credits are leased. Else only its record goes,
// unless that has counters of its own. The caller holds the lock.
func (c *cache) release(e *entry) {
	if e.refs > 0 {
		return
	}
	gone := e.leave()
	if rec := e.rec.Load(); rec.loaded() && (gone || len(rec.key.Previous) == 0) {
		e.rec.Store(unloaded)
		c.dropOwner(rec.owner)
	}
	if gone {
		delete(c.byID, e.id)
		c.recent.add(fingerprint(store.OfKey(e.id)))
	}
}

// leave marks an entry as gone, where that loses nothing.
func (e *entry) leave() bool {
	e.windows.mu.Lock()
	defer e.windows.mu.Unlock()
	a := e.account.Load()
	if a != nil {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.paying > 0 || !a.idle() {
			return false
		}
	}
	if !e.pending.leave() {
		return false
	}
	e.windows.gone = true
	if a != nil {
		a.gone = true
	}
	return true
}

// settled is called for accounts that have become idle, or that nobody pays from.
func (c *cache) settled(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.byID[id]; e != nil {
		c.release(e)
	}
}

// written is called for what has been written, and may leave memory now.
func (c *cache) written(list []counted) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, x := range list {
		switch x := x.(type) {
		case *entry:
			if !x.pending.isGone() {
				c.release(x)
			}
		case *ownerEntry:
			c.releaseOwner(x)
		}
	}
}

// owner returns the entry of an owner, which the caller holds from now on, as it holds
// the lock.
func (c *cache) owner(id string) *ownerEntry {
	o := c.owners[id]
	if o == nil {
		o = &ownerEntry{id: id}
		c.owners[id] = o
	}
	o.refs++
	return o
}

// pinOwner returns the entry of an owner, which stays in memory until unpinOwner. Of one
// that was not there, only the windows may be used.
func (c *cache) pinOwner(id string) *ownerEntry {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.owner(id)
}

func (c *cache) unpinOwner(o *ownerEntry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropOwner(o)
}

func (c *cache) dropOwner(o *ownerEntry) {
	o.refs--
	c.releaseOwner(o)
}

// releaseOwner is release for an owner.
func (c *cache) releaseOwner(o *ownerEntry) {
	if o.refs > 0 || c.owners[o.id] != o {
		return
	}
	o.windows.mu.Lock()
	defer o.windows.mu.Unlock()
	if o.pending.leave() {
		o.windows.gone = true
		delete(c.owners, o.id)
		c.recent.add(fingerprint(store.OfOwner(o.id)))
	}
}

// update takes over an owner, unless a newer one is known.
func (o *ownerEntry) update(stored *key.Owner) {
	if cur := o.cur.Load(); cur == nil || cur.Revision < stored.Revision {
		owner := *stored
		o.cur.Store(&owner)
	}
}

// apply brings changes into memory. The store calls it, in the order of the revisions,
// before whoever made a change gets its answer.
func (c *cache) apply(changes []store.Change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range changes {
		change := &changes[i]
		c.recent.add(fingerprint(change.Subject))
		switch {
		case change.Kind == store.KindOwner:
			c.applyOwner(change)
		case change.Deleted():
			if e := c.byID[change.ID]; e != nil {
				c.remove(e)
			}
		default:
			c.applyKey(change.Entry)
		}
	}
}

func (c *cache) applyKey(stored *store.Entry) {
	k := stored.Key
	if k.Plain() {
		c.plain.Store(true)
	}
	for _, h := range hashesOf(k) {
		c.members.add(h)
		c.recent.add(fingerprintOf(h))
		c.unknown.Invalidate(h)
	}
	e := c.byID[k.ID]
	if e == nil {
		return
	}
	before := e.size()
	c.put(e, stored)
	if e.size() == before {
		return
	}
	for _, h := range hashesOf(k) { // to be weighed again
		if there, ok := c.keys.GetEntryQuietly(h); ok && there.Value == e {
			c.hold(h, e)
		}
	}
}

func (c *cache) applyOwner(change *store.Change) {
	o := c.owners[change.ID]
	if !change.Deleted() {
		if o != nil {
			o.update(&change.Owner.Owner)
		}
		return
	}
	for _, e := range c.byID { // rare, and far quicker than to keep the keys of each owner
		if e.userID == change.ID {
			c.recent.add(fingerprint(store.OfKey(e.id)))
			c.remove(e)
		}
	}
	if o != nil {
		o.windows.end()
		o.pending.end()
		delete(c.owners, o.id)
	}
}

// remove takes the entry of a deleted key out of memory, whatever waits of it.
func (c *cache) remove(e *entry) {
	delete(c.byID, e.id)
	rec := e.rec.Swap(nil)
	e.windows.end()
	if a := e.account.Load(); a != nil {
		a.end()
	}
	e.pending.end()
	if !rec.loaded() {
		return
	}
	for _, h := range hashesOf(rec.key) {
		c.keys.Invalidate(h) // the entry is gone: nobody counts its references
	}
	c.dropOwner(rec.owner)
}
