package keyring

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// returners is how many keys return their leases at a time. The store puts them
// into few transactions.
const returners = 64

// leases lists the keys that may have a lease, so that those which fall idle are
// found without looking at all keys. Locks are taken in the order live.mu, leases.mu.
type leases struct {
	mu     sync.Mutex
	m      map[*live]struct{}
	closed bool
}

// add lists a key that is about to lease, and reports whether it may. The caller
// holds the key's lock.
func (s *leases) add(l *live) bool {
	if l.lease.listed {
		return true // close comes for it
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if s.m == nil {
		s.m = make(map[*live]struct{})
	}
	s.m[l], l.lease.listed = struct{}{}, true
	return true
}

// remove takes a key off the list. The caller holds the key's lock.
func (s *leases) remove(l *live) {
	s.mu.Lock()
	delete(s.m, l)
	s.mu.Unlock()
	l.lease.listed = false
}

func (s *leases) all() []*live {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*live, 0, len(s.m))
	for l := range s.m {
		list = append(list, l)
	}
	return list
}

// close refuses further leases and returns all that may still be out.
func (s *leases) close() []*live {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	return s.all()
}

// fly carries a flight to the store and back.
func (r *Ring) fly(st store.Store, l *live, f *flight) (store.Taken, error) {
	t, err := st.MoveCredits(context.Background(), l.id, f.Move, f.now)
	l.mu.Lock()
	orphan := l.lease.flight != f
	l.land(f, t, err, r.clock().tick)
	l.mu.Unlock()
	if orphan && t.Leased > 0 {
		// The key was deleted meanwhile, and another one made under its ID.
		_, err = st.MoveCredits(context.Background(), l.id, key.Move{Returned: t.Leased}, f.now)
	}
	return t, err
}

// depart begins a flight that may ask for a lease.
func (r *Ring) depart(l *live, m key.Move, now instant) *flight {
	if m.Lease > 0 && !r.leases.add(l) {
		m.Lease = 0 // the ring is being closed
	}
	return l.depart(m, now)
}

// renew tops the lease up in the background, well before it runs out. The caller
// holds the key's lock.
func (r *Ring) renew(st store.Store, l *live, block int64, now instant) {
	le := &l.lease
	if le.flight != nil || le.unspent*2 >= block || now.tick < le.resume {
		return
	}
	f := r.depart(l, key.Move{Lease: block - le.unspent}, now)
	// What goes wrong is told to the request that finds the lease empty.
	go func() { _, _ = r.fly(st, l, f) }()
}

// tendLeases returns what is leased beyond what a key's traffic needs: all of it
// where the key is idle.
func (r *Ring) tendLeases(st store.Store) error {
	return r.returnLeases(st, r.leases.all(), func(l *live, now instant) (int64, bool) {
		le := &l.lease
		if le.idle() {
			r.leases.remove(l)
			return 0, false
		}
		if le.flight != nil || now.tick < le.resume {
			return 0, false // next time
		}
		view, _ := l.view(now.wall)
		keep := l.block(key.MaxCount, &view, now.tick)
		if keep == 0 {
			return le.unspent, true
		}
		return le.unspent - keep, le.unspent > 2*keep
	})
}

// closeLeases returns everything, and lets nothing out any more.
func (r *Ring) closeLeases(st store.Store) error {
	return r.returnLeases(st, r.leases.close(), func(l *live, _ instant) (int64, bool) {
		for l.lease.flight != nil {
			l.await()
		}
		r.leases.remove(l)
		return l.lease.unspent, !l.lease.idle()
	})
}

// returnLeases asks of each key, with its lock held, how much of its lease goes
// back to the store, and settles those that have something to settle.
func (r *Ring) returnLeases(st store.Store, list []*live, surplus func(*live, instant) (int64, bool)) error {
	var all errgroup.Group
	all.SetLimit(returners)
	var mu sync.Mutex
	var errs []error
	for _, l := range list {
		l.mu.Lock()
		now := r.clock()
		n, ok := surplus(l, now)
		if !ok {
			l.mu.Unlock()
			continue
		}
		f := l.depart(key.Move{Returned: n}, now)
		l.mu.Unlock()
		all.Go(func() error {
			if _, err := r.fly(st, l, f); err != nil && !errors.Is(err, store.ErrNotFound) {
				mu.Lock()
				errs = append(errs, err)
				mu.Unlock()
			}
			return nil
		})
	}
	_ = all.Wait()
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("returning leased credits of %d keys: %w", len(errs), errs[0])
}

// recall calls a key's lease home for a change of its record: it departs with
// everything and leaves it to the caller to land. Nil: the key is not in memory.
func (r *Ring) recall(id string) (*live, *flight) {
	l := r.lives.get(id)
	if l == nil {
		return nil, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.lease.flight != nil {
		l.await()
	}
	if l.dead.Load() {
		return nil, nil
	}
	return l, l.depart(key.Move{Returned: l.lease.unspent}, r.clock())
}

// updateStored changes a key in the store, with its lease called home.
func (r *Ring) updateStored(ctx context.Context, st store.Store, id string, try int, change func(*store.Entry) error) (e store.Entry, err error) {
	l, f := r.recall(id)
	err = errUnfinished
	if f != nil {
		defer func() {
			l.mu.Lock()
			l.land(f, store.Taken{Credits: e.Credits}, err, r.clock().tick)
			l.mu.Unlock()
		}()
	}
	return st.Update(context.WithoutCancel(ctx), id, func(e *store.Entry) error {
		if err := f.settle(e, try); err != nil {
			return err
		}
		return change(e)
	})
}

// errUnfinished stands where a change panicked, and so changed nothing.
var errUnfinished = errors.New("the change did not complete")

// errLeased is what settle returns where credits are leased that nobody recalled.
var errLeased = errors.New("credits are leased")

// settle is what a recall does to the entry that is being changed. Nothing is
// leased after that. Where a lease appears that nobody here holds it is forfeited,
// at the second try: by then a key that came into memory meanwhile is found there.
func (f *flight) settle(e *store.Entry, try int) error {
	if f != nil && (f.Used != 0 || f.Returned != 0) {
		after, _, _, err := e.Credits.Move(f.Move, f.now)
		if err != nil {
			return err
		}
		e.Credits = after
	}
	if e.Credits.Leased == 0 {
		return nil
	}
	if f == nil && try == 0 {
		return errLeased
	}
	e.Credits = e.Credits.Forfeit()
	return nil
}

// giveBack gives credits back durably. What was spent from a lease is settled
// with that: the store gives back only what it knows to be spent.
func (r *Ring) giveBack(st store.Store, l *live, n int64) error {
	if now := r.lives.get(l.id); now != nil {
		l = now // the key may have left memory since, and come again
	}
	m := key.Move{Give: n}
	l.mu.Lock()
	for l.lease.flight != nil && l.lease.used > 0 {
		l.await()
	}
	if l.lease.used > 0 {
		f := l.depart(m, r.clock())
		l.mu.Unlock()
		_, err := r.fly(st, l, f)
		return err
	}
	era := l.era
	l.mu.Unlock()
	t, err := st.MoveCredits(context.Background(), l.id, m, r.clock().wall)
	if err == nil {
		l.hearOf(era, t.Credits)
	}
	return err
}
