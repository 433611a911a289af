package keyring

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

const (
	// chargeTimeout bounds how long a request waits for its credits to be taken or
	// given back. What the store has begun by then may still happen.
	chargeTimeout = 2 * time.Second
	// takeAttempts is how often the store may find too few credits where enough were
	// expected: each time another request was faster. Then its answer is final.
	takeAttempts = 20
	// returners is how many keys return their leases at a time. The store puts them into
	// few transactions.
	returners = 64
	// holderName is that of every process that leases: one at a time has the store.
	holderName = "local"
)

// ledger takes the credits of requests. The database is the truth: a credit is taken
// there before the request goes on, one by one, or in blocks that are leased and spent
// from memory. Locks are taken in the order account.mu, ledger.mu.
type ledger struct {
	clock   func() instant
	report  func(error)
	settled func(id string) // called when nobody pays from an account any more, or it is idle again
	timeout time.Duration   // chargeTimeout; longer in tests
	holder  key.Holder      // whose leases are this process's; set when the store is opened

	mu     sync.Mutex
	listed map[*account]struct{} // those that may have a lease
	closed bool
}

// receipt is the answer to take.
type receipt struct {
	result  result
	credits key.Credits // of the account, after it
	now     int64       // when, in Unix milliseconds
	taken   int64       // what a refund gives back; 0 where the credits are unlimited
}

type result uint8

const (
	paid result = iota
	short
	deleted // there is no such key any more
	evicted // the account has left memory: find the key again
)

// step is what a request does next to take its credits: one of the first three, or it
// is done and the receipt holds.
type step struct {
	wait       *settlement // wait for it, and plan again
	settlement *settlement // carry it out
	move       key.Move    // make this movement; zero: none

	receipt receipt
	now     int64
}

func (p *step) done() bool { return p.wait == nil && p.settlement == nil && p.move == key.Move{} }

// take takes n credits of an account: from its lease if there are enough, else in the
// store. most is how many credits may be leased, 0 for none. A client that goes away
// does not undo what has begun.
func (g *ledger) take(ctx context.Context, st store.Store, a *account, n, most int64) (receipt, error) {
	p := a.plan(g, st, n, most, false)
	if p.done() {
		return p.receipt, nil
	}
	defer g.leave(a)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.timeout)
	defer cancel()
	for refused := 0; !p.done(); p = a.plan(g, st, n, most, true) {
		if p.wait != nil {
			if err := p.wait.await(ctx); err != nil {
				return receipt{}, err
			}
			continue
		}
		t, err := g.execute(ctx, st, a, &p)
		switch {
		case errors.Is(err, store.ErrNotFound):
			return receipt{result: deleted}, nil
		case errors.Is(err, key.ErrNotLeased):
			g.report(fmt.Errorf("lost the lease of key %s: %w", a.id, err))
		case err != nil:
			return receipt{}, fmt.Errorf("taking credits: %w", err)
		case t.OK:
			return a.receipt(g.clock, n, &t), nil
		}
		if refused++; refused == takeAttempts {
			return receipt{result: short, credits: t.Credits, now: p.now}, nil
		}
	}
	return p.receipt, nil
}

// plan returns the next step of a request that takes n credits. A request that has not
// finished with its first step counts as paying until it leaves.
func (a *account) plan(g *ledger, st store.Store, n, most int64, again bool) (p step) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.gone {
		p.receipt.result = evicted
		return p
	}
	now := g.clock()
	if most > 0 && !again {
		a.traffic.add(n, now.tick)
	}
	p.now = now.wall
	p.receipt = receipt{credits: a.credits, now: now.wall}
	if !a.credits.Limited {
		return p
	}
	if a.spend(n, most, now) {
		p.receipt.credits, _ = a.view(now.wall)
		p.receipt.taken = n
		g.renew(st, a, a.block(most, &p.receipt.credits, now.tick), now)
		return p
	}
	c, exact := a.view(now.wall)
	// What is known of the credits is never behind the store for long, and enough to
	// refuse without asking it.
	if _, ok := c.Take(n, now.wall); exact && !ok {
		p.receipt.result, p.receipt.credits = short, c
		return p
	}
	switch m := a.moveFor(n, most, &c, now); {
	case a.settlement == nil && (m.Lease > 0 || m.Returned > 0):
		p.settlement = g.begin(a, m, now)
	case a.holdsAtHome(n, now.wall):
		p.move = key.Move{Take: n} // beside whatever is being settled
	case a.settlement != nil:
		p.wait = a.settlement
	default:
		p.settlement = g.begin(a, m, now)
	}
	if !again {
		a.paying++
	}
	return p
}

func (g *ledger) leave(a *account) {
	a.mu.Lock()
	a.paying--
	last := a.paying == 0
	a.mu.Unlock()
	if last {
		g.settled(a.id)
	}
}

// spend takes n of what is leased, if that is there. Nothing is spent from memory past a
// refill that is due: the refill makes up for what was spent before it, and after a
// crash nobody could tell that from what was spent since.
func (a *account) spend(n, most int64, now instant) bool {
	if a.unspent < n || a.unspent > most || a.credits.Due(now.wall) != 0 {
		return false
	}
	a.unspent -= n
	a.used += n
	return true
}

// moveFor returns the movement that takes n and brings the lease to what it should be:
// it is returned where it is above what is allowed, or where only together there may be
// enough.
func (a *account) moveFor(n, most int64, view *key.Credits, now instant) key.Move {
	m := key.Move{Take: n, Returned: max(0, a.unspent-most)}
	if a.credits.Remaining < n {
		m.Returned = a.unspent
	}
	if now.tick >= a.resume {
		m.Lease = max(0, a.block(most, view, now.tick)-a.unspent+m.Returned)
	}
	return m
}

// holdsAtHome reports whether n credits can be taken without regard to the lease.
func (a *account) holdsAtHome(n, now int64) bool {
	if a.idle() {
		return true // the store knows all
	}
	return a.credits.Due(now) == 0 && a.credits.Remaining >= n
}

// receipt returns the receipt for credits that the store has taken.
func (a *account) receipt(clock func() instant, n int64, t *store.Taken) receipt {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := receipt{now: clock().wall}
	r.credits, _ = a.view(r.now)
	if t.Credits.Limited {
		r.taken = n
	}
	return r
}

// execute makes the movement of a step.
func (g *ledger) execute(ctx context.Context, st store.Store, a *account, p *step) (store.Taken, error) {
	if s := p.settlement; s != nil {
		go g.settle(st, a, s)
		if err := s.await(ctx); err != nil {
			return store.Taken{}, err
		}
		return s.taken, s.err
	}
	return g.move(ctx, st, a, p.move, p.now)
}

// move makes a movement that neither settles nor leases.
func (g *ledger) move(ctx context.Context, st store.Store, a *account, m key.Move, now int64) (store.Taken, error) {
	t, err := g.moveCredits(ctx, st, a.id, m, now)
	if err == nil {
		a.update(t.Credits)
	}
	return t, err
}

// moveCredits asks the store, in the name of this process.
func (g *ledger) moveCredits(ctx context.Context, st store.Store, id string, m key.Move, now int64) (store.Taken, error) {
	m.Holder = g.holder
	return st.MoveCredits(ctx, store.OfKey(id), m, now)
}

// settle carries a settlement to the store and back. Nobody's leaving ends it: how many
// credits are leased must be known.
func (g *ledger) settle(st store.Store, a *account, s *settlement) {
	defer g.settled(a.id)
	t, err := g.moveCredits(context.Background(), st, a.id, s.Move, s.now)
	if !a.finish(s, t, err, g.clock) && t.Leased > 0 {
		// The key was deleted meanwhile, and another one made under its ID.
		if _, err := g.moveCredits(context.Background(), st, a.id, key.Move{Returned: t.Leased}, s.now); err != nil && !errors.Is(err, store.ErrNotFound) && !errors.Is(err, key.ErrNotLeased) {
			g.report(fmt.Errorf("returning what was leased of a deleted key %s: %w", a.id, err))
		}
	}
}

// await waits until the settlement is done.
func (s *settlement) await(ctx context.Context) error {
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: gave up waiting for credits: %w", store.ErrUnavailable, ctx.Err())
	}
}

// begin begins a settlement that may ask for a lease. The caller holds the account's
// lock.
func (g *ledger) begin(a *account, m key.Move, now instant) *settlement {
	if m.Lease > 0 && !g.list(a) {
		m.Lease = 0 // the ledger is being closed
	}
	return a.begin(m, now)
}

// renew tops a lease up in the background, well before it runs out. The caller holds the
// account's lock. An error is returned to the request that finds the lease empty.
func (g *ledger) renew(st store.Store, a *account, block int64, now instant) {
	if a.settlement == nil && a.unspent*2 < block && now.tick >= a.resume {
		go g.settle(st, a, g.begin(a, key.Move{Lease: block - a.unspent}, now))
	}
}

// peek returns the credits of an account exactly, and when they were so.
func (g *ledger) peek(ctx context.Context, a *account) (key.Credits, int64, error) {
	c, now, wait := a.exactly(g.clock)
	if wait == nil {
		return c, now.wall, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.timeout)
	defer cancel()
	for ; wait != nil; c, now, wait = a.exactly(g.clock) {
		if err := wait.await(ctx); err != nil {
			return c, now.wall, err
		}
	}
	return c, now.wall, nil
}

// balance returns the credits of an account for people to read, exactly.
func (g *ledger) balance(a *account, stored key.Credits, now int64) key.Credits {
	for {
		c, wait := a.balance(stored, now)
		if wait == nil {
			return c
		}
		<-wait.done
	}
}

// give gives n credits back durably. What was spent from a lease is settled with that:
// the store gives back only what it knows to be spent.
func (g *ledger) give(ctx context.Context, st store.Store, a *account, n int64) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.timeout)
	defer cancel()
	p := a.planGive(n, g.clock)
	for ; p.wait != nil; p = a.planGive(n, g.clock) {
		if err := p.wait.await(ctx); err != nil {
			return err
		}
	}
	_, err := g.execute(ctx, st, a, &p)
	return err
}

func (a *account) planGive(n int64, clock func() instant) (p step) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now, m := clock(), key.Move{Give: n}
	p.now = now.wall
	switch {
	case a.used == 0:
		p.move = m
	case a.settlement != nil:
		p.wait = a.settlement
	default:
		p.settlement = a.begin(m, now)
	}
	return p
}

// recall begins the settlement that returns the lease of an account, for a change of its
// key that the caller makes, and finishes it with. Nil: the account is gone.
func (g *ledger) recall(a *account) *settlement {
	for {
		s, wait := a.recall(g.clock)
		if wait == nil {
			return s
		}
		<-wait.done
	}
}

// list notes an account that is about to lease, and reports whether it may. The caller
// holds its lock.
func (g *ledger) list(a *account) bool {
	if a.listed {
		return true // close finds it
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	if g.listed == nil {
		g.listed = make(map[*account]struct{})
	}
	g.listed[a], a.listed = struct{}{}, true
	return true
}

// unlist is the opposite of list. The caller holds the account's lock.
func (g *ledger) unlist(a *account) {
	g.mu.Lock()
	delete(g.listed, a)
	g.mu.Unlock()
	a.listed = false
}

func (g *ledger) all(closing bool) []*account {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = g.closed || closing
	list := make([]*account, 0, len(g.listed))
	for a := range g.listed {
		list = append(list, a)
	}
	return list
}

// reclaim returns what is leased beyond what the traffic of a key needs: all of it where
// the key is idle.
func (g *ledger) reclaim(st store.Store) error {
	return g.returnLeases(st, g.all(false), g.surplus)
}

// close returns all that is leased, and leases nothing any more.
func (g *ledger) close(st store.Store) error {
	return g.returnLeases(st, g.all(true), g.everything)
}

// surplus begins the settlement that returns what an account does not need, if any.
func (g *ledger) surplus(a *account) (s, wait *settlement) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := g.clock()
	switch {
	case a.idle():
		g.unlist(a)
		return nil, nil
	case a.settlement != nil || now.tick < a.resume:
		return nil, nil // next time
	}
	view, _ := a.view(now.wall)
	keep := a.block(key.MaxCount, &view, now.tick)
	if keep > 0 && a.unspent <= 2*keep {
		return nil, nil
	}
	return a.begin(key.Move{Returned: a.unspent - keep}, now), nil
}

func (g *ledger) everything(a *account) (s, wait *settlement) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.settlement != nil {
		return nil, a.settlement
	}
	g.unlist(a)
	if a.idle() {
		return nil, nil
	}
	return a.begin(key.Move{Returned: a.unspent}, g.clock()), nil
}

// returnLeases carries out what plan begins for each account.
func (g *ledger) returnLeases(st store.Store, list []*account, plan func(*account) (s, wait *settlement)) error {
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
