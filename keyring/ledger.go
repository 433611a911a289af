package keyring

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

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
	// holderName is that of every process that leases: one at a time has the store.
	holderName = "local"
)

// Ledger takes the credits that requests cost. The database is the truth: a credit is
// taken there before the request goes on, one by one ([Strict]), or in blocks that are
// leased and spent from memory ([Lease]).
//
// A client that goes away does not undo what has begun.
type Ledger interface {
	// Take takes n credits, or none: it is Hold and Settle in one step.
	Take(ctx context.Context, st store.Store, a *account, n int64) (receipt, error)
	// Hold sets n credits aside, or none, for a request whose cost is known later.
	Hold(ctx context.Context, st store.Store, a *account, n int64) (receipt, error)
	// Settle ends a hold with what the request cost. What it cost less comes back; what it
	// cost more is taken, and where that is not there it is a debt. a is the account of the
	// key now, which may have left memory since Hold.
	Settle(ctx context.Context, st store.Store, a *account, h hold, cost int64) error
	// Give gives n credits back durably.
	Give(ctx context.Context, st store.Store, a *account, n int64) error
	// Peek returns the credits exactly, and when they were so.
	Peek(ctx context.Context, a *account) (key.Credits, int64, error)
	// Balance is Peek for people, with what the store has just said.
	Balance(a *account, stored key.Credits, now int64) key.Credits
	// Reclaim returns what is leased beyond what the traffic of a key needs: all of it
	// where the key is idle.
	Reclaim(st store.Store) error
	// Close returns all that is leased, and leases nothing any more. What is held of it is
	// spent.
	Close(st store.Store) error
}

// Strict takes every credit in the store.
type Strict struct{ *accounts }

// Take implements Ledger.
func (g Strict) Take(ctx context.Context, st store.Store, a *account, n int64) (receipt, error) {
	return g.claim(ctx, st, a, claim{n: n}, g.plan)
}

// Hold implements Ledger.
func (g Strict) Hold(ctx context.Context, st store.Store, a *account, n int64) (receipt, error) {
	return g.claim(ctx, st, a, claim{n: n, hold: true}, g.plan)
}

// plan is a planner. What an earlier configuration has leased is returned.
func (g Strict) plan(_ store.Store, a *account, c claim, now instant, _ bool) step {
	return g.claimInStore(a, c, now, key.Move{Returned: a.unspent})
}

// accounts is what the ledgers of a process share: how credits are moved, and which
// accounts have a lease. Locks are taken in the order account.mu, accounts.mu.
type accounts struct {
	clock   func() instant
	report  func(error)
	settled func(id string)   // called when nobody pays from an account any more, or it is idle again
	spent   func(store.Spent) // told what was reported
	timeout time.Duration     // chargeTimeout; longer in tests
	holder  key.Holder        // whose leases are this process's; set when the store is opened

	mu     sync.Mutex
	leased map[*account]struct{} // those that may have a lease
	closed bool
}

// ledger returns the ledger that leases at most block credits of a key; 0: none.
func (r *Engine) ledger(block int64) Ledger {
	if block == 0 {
		return Strict{&r.accounts}
	}
	return Lease{&r.accounts, block}
}

// claim is what a request asks for.
type claim struct {
	n    int64
	hold bool // set aside, not spent
}

// hold is what a request has set aside.
type hold struct {
	n int64
	// lease is the account whose lease it is part of, for as long as that has this term;
	// nil: the store has it.
	lease *account
	term  uint64
}

// receipt is the answer to Take and Hold.
type receipt struct {
	result  result
	credits key.Credits // of the account, after it
	now     int64       // when, in Unix milliseconds
	taken   int64       // what a refund gives back; 0 where the credits are unlimited
	hold    hold
}

type result uint8

const (
	paid result = iota
	short
	deleted // there is no such key any more
	evicted // the account has left memory: find the key again
)

// step is what a request does next: one of the first three, or it is done and the receipt
// holds.
type step struct {
	wait       *settlement // wait for it, and plan again
	settlement *settlement // carry it out
	move       key.Move    // make this movement; zero: none

	receipt receipt
	now     int64
}

func (p *step) done() bool { return p.wait == nil && p.settlement == nil && p.move == key.Move{} }

// planner returns the next step of a request with a claim on limited credits. It is called
// with the account locked, first or again.
type planner func(st store.Store, a *account, c claim, now instant, first bool) step

// claim takes or holds credits as plan says.
func (g *accounts) claim(ctx context.Context, st store.Store, a *account, c claim, plan planner) (receipt, error) {
	p := g.next(st, a, c, plan, true)
	if p.done() {
		return p.receipt, nil
	}
	defer g.leave(a)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.timeout)
	defer cancel()
	for refused := 0; !p.done(); p = g.next(st, a, c, plan, false) {
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
			return a.receipt(g.clock, c, &t), nil
		}
		if refused++; refused == takeAttempts {
			return receipt{result: short, credits: t.Credits, now: p.now}, nil
		}
	}
	return p.receipt, nil
}

// next returns the next step. A request that has not finished with its first step counts
// as paying until it leaves.
func (g *accounts) next(st store.Store, a *account, c claim, plan planner, first bool) step {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := g.clock()
	switch {
	case a.gone:
		return step{receipt: receipt{result: evicted}}
	case !a.credits.Limited:
		return step{receipt: receipt{credits: a.credits, now: now.wall}}
	}
	p := plan(st, a, c, now, first)
	if first && !p.done() {
		a.paying++
	}
	return p
}

// claimInStore returns the step that takes a claim in the store, with a movement of the
// lease where one is needed, or refuses it. The caller holds the account's lock.
func (g *accounts) claimInStore(a *account, c claim, now instant, lease key.Move) step {
	view, exact := a.view(now.wall)
	// What is known of the credits is never behind the store for long, and enough to
	// refuse without asking it.
	if _, ok := view.Take(c.n, now.wall); exact && !ok {
		return step{receipt: receipt{result: short, credits: view, now: now.wall}}
	}
	m := c.move()
	m.Returned, m.Lease = lease.Returned, lease.Lease
	if a.credits.Remaining < c.n {
		m.Returned = a.unspent // only together there may be enough
	}
	p := step{now: now.wall}
	switch {
	case a.settlement == nil && (m.Lease > 0 || m.Returned > 0):
		p.settlement = g.begin(a, m, now)
	case a.enoughUnleased(c.n, now.wall):
		p.move = c.move() // beside whatever is being settled
	case a.settlement != nil:
		p.wait = a.settlement
	default:
		p.settlement = g.begin(a, m, now)
	}
	return p
}

func (c claim) move() key.Move {
	if c.hold {
		return key.Move{Hold: c.n}
	}
	return key.Move{Take: c.n}
}

func (g *accounts) leave(a *account) {
	a.mu.Lock()
	a.paying--
	last := a.paying == 0
	a.mu.Unlock()
	if last {
		g.settled(a.id)
	}
}

// receipt returns the receipt for a claim that the store has granted.
func (a *account) receipt(clock func() instant, c claim, t *store.Taken) receipt {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := receipt{now: clock().wall}
	r.credits, _ = a.view(r.now)
	switch {
	case !t.Credits.Limited:
	case c.hold:
		r.hold = hold{n: c.n}
	default:
		r.taken = c.n
	}
	return r
}

// execute makes the movement of a step.
func (g *accounts) execute(ctx context.Context, st store.Store, a *account, p *step) (store.Taken, error) {
	if s := p.settlement; s != nil {
		go g.settle(st, a, s) //nolint:gosec // the others that settle outlast this request
		if err := s.await(ctx); err != nil {
			return store.Taken{}, err
		}
		return s.taken, s.err
	}
	return g.move(ctx, st, a, p.move, p.now)
}

// move makes a movement that neither settles nor leases.
func (g *accounts) move(ctx context.Context, st store.Store, a *account, m key.Move, now int64) (store.Taken, error) {
	t, err := g.moveCredits(ctx, st, a.id, m, now)
	if err == nil {
		a.update(t.Credits)
	}
	return t, err
}

// moveCredits asks the store, in the name of this process.
func (g *accounts) moveCredits(ctx context.Context, st store.Store, id string, m key.Move, now int64) (store.Taken, error) {
	m.Holder = g.holder
	t, err := st.MoveCredits(ctx, store.OfKey(id), m, now)
	if err == nil && t.Spent != nil {
		g.spent(*t.Spent)
	}
	return t, err
}

// settle carries a settlement to the store and back. Nobody's leaving ends it: how many
// credits are leased must be known.
func (g *accounts) settle(st store.Store, a *account, s *settlement) {
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
func (g *accounts) begin(a *account, m key.Move, now instant) *settlement {
	if m.Lease > 0 && !g.list(a) {
		m.Lease = 0 // the ledger is being closed
	}
	return a.begin(m, now)
}

// Settle implements Ledger.
func (g *accounts) Settle(ctx context.Context, st store.Store, a *account, h hold, cost int64) error {
	if h.n == 0 && cost == 0 {
		return nil
	}
	if h.lease != nil {
		inStore := false
		err := g.until(ctx, st, h.lease, func(now instant) (p step) {
			p, inStore = h.lease.planSettleLeased(h, cost, now)
			return p
		})
		if err != nil || !inStore {
			return unlessDeleted(err)
		}
	}
	return unlessDeleted(g.until(ctx, st, a, func(now instant) step { return a.planSettle(h, cost, now) }))
}

// unlessDeleted passes over an error that says that a key was deleted, and its holds with it.
func unlessDeleted(err error) error {
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, key.ErrNotHeld) {
		return nil
	}
	return err
}

// Give implements Ledger. What was spent from a lease is settled with that: the store gives
// back only what it knows to be spent.
func (g *accounts) Give(ctx context.Context, st store.Store, a *account, n int64) error {
	return g.until(ctx, st, a, func(now instant) step { return a.planGive(n, now) })
}

// until plans until a step can be carried out, and does so.
func (g *accounts) until(ctx context.Context, st store.Store, a *account, plan func(now instant) step) error {
	p := g.locked(a, plan)
	if p.done() {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.timeout)
	defer cancel()
	for ; p.wait != nil; p = g.locked(a, plan) {
		if err := p.wait.await(ctx); err != nil {
			return err
		}
	}
	if p.done() {
		return nil
	}
	_, err := g.execute(ctx, st, a, &p)
	return err
}

func (g *accounts) locked(a *account, plan func(now instant) step) step {
	a.mu.Lock()
	defer a.mu.Unlock()
	return plan(g.clock())
}

// Peek implements Ledger.
func (g *accounts) Peek(ctx context.Context, a *account) (key.Credits, int64, error) {
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

// Balance implements Ledger.
func (g *accounts) Balance(a *account, stored key.Credits, now int64) key.Credits {
	for {
		c, wait := a.balance(stored, now)
		if wait == nil {
			return c
		}
		<-wait.done
	}
}

// recall begins the settlement that returns the lease of an account, for a change of its
// key that the caller makes, and finishes it with. Nil: the account is gone.
func (g *accounts) recall(a *account) *settlement {
	for {
		s, wait := a.recall(g.clock)
		if wait == nil {
			return s
		}
		<-wait.done
	}
}

// Guard.
var _ Ledger = Strict{}
