package keyring

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/singleflight"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/ratelimit"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// windows are what has been counted of the limits of one subject: those of a key, or
// those that all keys of an owner share.
type windows struct {
	loaded  atomic.Bool // what the store has is in list
	loading singleflight.Group

	mu   sync.Mutex // never held while waiting; that of a key is taken before that of its owner
	gone bool       // out of memory; whoever finds it so finds the key again
	list []window
}

type window struct {
	unit  Unit
	state ratelimit.State
}

// restore takes over what was written before, once. A state that cannot be read is
// dropped: it can only be one of another version of this program.
func (w *windows) restore(stored []store.Window) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.loaded.Load() {
		return
	}
	for _, s := range stored {
		if u, ok := unitOf(s.Unit); ok {
			n := window{unit: u}
			if n.state.UnmarshalBinary(s.State) == nil {
				w.list = append(w.list, n)
			}
		}
	}
	w.loaded.Store(true)
}

// load reads the windows of an owner from the store, if that has not been done.
func (o *ownerEntry) load(ctx context.Context, st store.Store, l *lookups) error {
	if o.windows.loaded.Load() {
		return nil
	}
	_, err := l.ask(ctx, &o.windows.loading, "", func(ctx context.Context) (any, error) {
		stored, err := st.Windows(ctx, store.OfOwner(o.id))
		if err != nil {
			return nil, fmt.Errorf("reading what an owner has used: %w", err)
		}
		o.windows.restore(stored)
		return nil, nil
	})
	return err
}

// end marks windows as gone.
func (w *windows) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gone = true
}

// state returns the state of a unit, until the next call. The caller holds the lock.
func (w *windows) state(u Unit) *ratelimit.State {
	for i := range w.list {
		if w.list[i].unit == u {
			return &w.list[i].state
		}
	}
	w.list = append(w.list, window{unit: u})
	return &w.list[len(w.list)-1].state
}

// prepare makes room for the units that a configuration counts, so that their states stay
// where they are. Of units that it does not count, those go that are over. The caller
// holds the lock.
func (w *windows) prepare(p *plans, now instant) {
	missing := 0
	for _, u := range p.units {
		if !slices.ContainsFunc(w.list, func(n window) bool { return n.unit == u }) {
			missing++
		}
	}
	if missing == 0 {
		return
	}
	w.list = slices.DeleteFunc(w.list, func(n window) bool {
		return !slices.Contains(p.units, n.unit) && n.over(p, now)
	})
	w.list = slices.Grow(w.list, missing)
}

func (n *window) over(p *plans, now instant) bool {
	at := now.monotonic
	if n.unit < 0 {
		at = now.wall
	}
	return n.state.Idle(p.policy(n.unit, 1, now.wall), at)
}

// encode returns what is to be written: nothing of windows that are gone.
func (w *windows) encode() (list []store.Window) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.gone {
		return nil
	}
	for i := range w.list {
		n := store.Window{Unit: w.list[i].unit.id()}
		if state := &w.list[i].state; !state.Empty() {
			n.State, _ = state.AppendBinary(nil) // never fails
		}
		list = append(list, n)
	}
	return list
}

// count returns how many requests a key's own limit has counted in its current window.
func (w *windows) count(k *key.Key, clock func() instant) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.list {
		if w.list[i].unit == Rate {
			return countOf(&w.list[i].state, k, clock().monotonic)
		}
	}
	return 0
}
