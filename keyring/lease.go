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

// returners is how many keys return their leases at a time. The store puts them into few
// transactions.
const returners = 64

// Lease takes credits from blocks that the store has leased, which it settles behind the
// requests. A crash loses what is leased.
type Lease struct {
	*accounts
	Block int64 // how many credits of a key may be leased at most
}

// Take implements Ledger.
func (g Lease) Take(ctx context.Context, st store.Store, a *account, n int64) (receipt, error) {
	return g.claim(ctx, st, a, claim{n: n}, g.plan)
}

// Hold implements Ledger.
func (g Lease) Hold(ctx context.Context, st store.Store, a *account, n int64) (receipt, error) {
	return g.claim(ctx, st, a, claim{n: n, hold: true}, g.plan)
}

// plan is a planner.
func (g Lease) plan(st store.Store, a *account, c claim, now instant, first bool) step {
	if first {
		a.traffic.add(c.n, now.monotonic)
	}
	if r, ok := a.spend(c, g.Block, now); ok {
		g.renew(st, a, a.block(g.Block, &r.credits, now.monotonic), now)
		return step{receipt: r}
	}
	m := key.Move{Returned: max(0, a.unspent-g.Block)}
	if a.credits.Remaining < c.n {
		m.Returned = a.unspent
	}
	if now.monotonic >= a.resume {
		view, _ := a.view(now.wall)
		m.Lease = max(0, a.block(g.Block, &view, now.monotonic)-a.unspent-a.held+m.Returned)
	}
	return g.claimInStore(a, c, now, m)
}

// spend takes a claim from what is leased, if that is there. Nothing is spent from memory
// past a refill that is due: the refill makes up for what was spent before it, and after a
// crash nobody could tell that from what was spent since.
func (a *account) spend(c claim, most int64, now instant) (r receipt, ok bool) {
	if a.unspent < c.n || a.unspent > most || a.credits.Due(now.wall) != 0 {
		return r, false
	}
	a.unspent -= c.n
	if c.hold {
		a.held += c.n
		r.hold = hold{n: c.n, lease: a, term: a.term}
	} else {
		a.used += c.n
		r.taken = c.n
	}
	r.credits, _ = a.view(now.wall)
	r.now = now.wall
	return r, true
}

// renew tops a lease up in the background, well before it runs out. The caller holds the
// account's lock. An error is returned to the request that finds the lease empty.
func (g *accounts) renew(st store.Store, a *account, block int64, now instant) {
	if a.settlement == nil && (a.unspent+a.held)*2 < block && now.monotonic >= a.resume {
		go g.settle(st, a, g.begin(a, key.Move{Lease: block - a.unspent - a.held}, now))
	}
}

// list notes an account that is about to lease, and reports whether it may. The caller
// holds its lock.
func (g *accounts) list(a *account) bool {
	if a.listed {
		return true // Close finds it
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	if g.leased == nil {
		g.leased = make(map[*account]struct{})
	}
	g.leased[a], a.listed = struct{}{}, true
	return true
}

// unlist is the opposite of list. The caller holds the account's lock.
func (g *accounts) unlist(a *account) {
	g.mu.Lock()
	delete(g.leased, a)
	g.mu.Unlock()
	a.listed = false
}

func (g *accounts) all(closing bool) []*account {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = g.closed || closing
	list := make([]*account, 0, len(g.leased))
	for a := range g.leased {
		list = append(list, a)
	}
	return list
}

// Reclaim implements Ledger.
func (g *accounts) Reclaim(st store.Store) error {
	return g.returnLeases(st, g.all(false), g.surplus)
}

// Close implements Ledger.
func (g *accounts) Close(st store.Store) error {
	return g.returnLeases(st, g.all(true), g.everything)
}

// surplus begins the settlement that returns what an account does not need, if any.
func (g *accounts) surplus(a *account) (s, wait *settlement) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := g.clock()
	switch {
	case a.idle():
		g.unlist(a)
		return nil, nil
	case a.settlement != nil || now.monotonic < a.resume:
		return nil, nil // next time
	}
	view, _ := a.view(now.wall)
	keep := a.block(key.MaxCount, &view, now.monotonic)
	if keep > 0 && a.unspent <= 2*keep || a.unspent == 0 && a.used == 0 {
		return nil, nil
	}
	return a.begin(key.Move{Returned: a.unspent - keep}, now), nil
}

func (g *accounts) everything(a *account) (s, wait *settlement) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.settlement != nil {
		return nil, a.settlement
	}
	g.unlist(a)
	if a.idle() {
		return nil, nil
	}
	a.used, a.held = a.used+a.held, 0
	return a.begin(key.Move{Returned: a.unspent}, g.clock()), nil
}

// returnLeases carries out what plan begins for each account.
func (g *accounts) returnLeases(st store.Store, list []*account, plan func(*account) (s, wait *settlement)) error {
	var group errgroup.Group
	group.SetLimit(returners)
	var mu sync.Mutex
	var errs []error
	for _, a := range list {
		s, wait := plan(a)
		for ; wait != nil; s, wait = plan(a) {
			<-wait.done
		}
		if s == nil {
			g.settled(a.id)
			continue
		}
		group.Go(func() error {
			g.settle(st, a, s)
			if s.err != nil && !errors.Is(s.err, store.ErrNotFound) {
				mu.Lock()
				errs = append(errs, s.err)
				mu.Unlock()
			}
			return nil
		})
	}
	_ = group.Wait()
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("returning leased credits of %d keys: %w", len(errs), errs[0])
}

// Guard.
var _ Ledger = Lease{}
