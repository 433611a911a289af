package keyring

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// holdRig is a key of 1000 credits with a lease, of which one request holds some.
type holdRig struct {
	*rig
	k    Issued
	left int64 // what remains, without what is held
	hold hold
}

func newHoldRig(t *testing.T, n int64) *holdRig {
	t.Helper()
	g := &holdRig{rig: newRig(t).leasing(100)}
	g.k = g.create(Draft{Remaining: ptr(int64(1000))})
	g.left = 1000 - g.warm(g.k.Raw, g.k.Key.ID) - n
	e, done := g.pin(g.k.Key.ID)
	defer done()
	r, err := g.ledger.Hold(context.Background(), g.spy, e.ensureAccount(), n)
	g.hold = r.hold
	if err != nil || r.result != paid || r.hold.lease == nil {
		t.Fatalf("hold of the lease: %+v, %v", r, err)
	}
	g.has(n, 0)
	return g
}

// has holds the credits against what they should be, as people and requests see them.
func (g *holdRig) has(held, debt int64) {
	g.t.Helper()
	g.land()
	e, done := g.pin(g.k.Key.ID)
	defer done()
	peeked, _, err := g.ledger.Peek(context.Background(), e.ensureAccount())
	if err != nil {
		g.t.Fatal(err)
	}
	for _, c := range []key.Credits{g.get(g.k.Key.ID).Credits, peeked} {
		if c.Remaining != g.left || c.Held != held || c.Debt != debt || c.Leased != 0 {
			g.t.Fatalf("%+v, want %d remaining, %d held, debt %d", c, g.left, held, debt)
		}
	}
	g.stored(g.k.Key.ID)
}

func (g *holdRig) settle(cost int64) {
	g.t.Helper()
	e, done := g.pin(g.k.Key.ID)
	defer done()
	if err := g.ledger.Settle(context.Background(), g.spy, e.ensureAccount(), g.hold, cost); err != nil {
		g.t.Fatal(err)
	}
	g.left += g.hold.n - cost
}

// TestLeaseHold ends a hold that is part of a lease, after all that may happen to the
// lease in between.
func TestLeaseHold(t *testing.T) {
	for name, row := range map[string]struct {
		between func(g *holdRig)
		cost    int64
	}{
		"less":         {func(*holdRig) {}, 1},
		"nothing":      {func(*holdRig) {}, 0},
		"more":         {func(*holdRig) {}, 4},
		"far more":     {func(*holdRig) {}, 500},
		"after change": {func(g *holdRig) { g.update(g.k.Key.ID, Patch{Name: to("x")}) }, 2},
		"after change, more": {func(g *holdRig) {
			g.update(g.k.Key.ID, Patch{RemainingDelta: to(int64(10))})
			g.left += 10
		}, 400},
		"after two changes": {func(g *holdRig) {
			g.update(g.k.Key.ID, Patch{Name: to("x")})
			g.update(g.k.Key.ID, Patch{Name: to("y")})
		}, 3},
		"after a change that failed": {func(g *holdRig) {
			if _, err := g.Update(context.Background(), g.k.Key.ID, Patch{RemainingDelta: to(int64(-5000))}); !errors.Is(err, ErrTooFewCredits) {
				g.t.Fatal(err)
			}
		}, 2},
		"after reclaim": {func(g *holdRig) {
			g.clock.advance(5 * time.Second)
			if err := g.engine.accounts.Reclaim(g.spy); err != nil {
				g.t.Fatal(err)
			}
		}, 5},
		"after a change, out of memory": {func(g *holdRig) {
			g.update(g.k.Key.ID, Patch{Name: to("x")})
			g.flush()
			g.evict()
			if !g.hold.lease.gone {
				g.t.Fatal("the account is still in memory")
			}
		}, 500},
		"strict by now": {func(g *holdRig) {
			g.leasing(0)
			g.want(g.k.Raw, Allowed)
			g.left--
		}, 600},
	} {
		t.Run(name, func(t *testing.T) {
			g := newHoldRig(t, 2)
			row.between(g)
			g.has(2, 0)
			g.settle(row.cost)
			g.has(0, 0)
			g.restart()
			g.has(0, 0)
		})
	}
}

// TestLeaseHold_seenWhileReturning: what is held neither remains nor is gone while the lease
// it is part of is being returned, and whoever settles it then waits.
func TestLeaseHold_seenWhileReturning(t *testing.T) {
	g := newHoldRig(t, 2)
	e, done := g.pin(g.k.Key.ID)
	defer done()
	recalled := g.engine.accounts.recall(e.ensureAccount())
	c, _, err := g.ledger.Peek(context.Background(), e.ensureAccount())
	if err != nil || c.Remaining != g.left || c.Held != 2 {
		t.Errorf("%+v, %v", c, err)
	}
	if p, _ := e.account.Load().planSettleLeased(g.hold, 1, g.engine.clock()); p.wait != recalled {
		t.Errorf("%+v does not wait for what is returned", p)
	}
	e.account.Load().finish(recalled, store.Taken{}, errUnfinished, g.engine.clock)
	g.has(2, 0)
	g.settle(1)
	g.has(0, 0)
}

// TestLeaseHold_ends: what is held when the process ends is spent, be it by a stop or by a
// crash; a deleted key takes its holds along.
func TestLeaseHold_ends(t *testing.T) {
	t.Run("stop", func(t *testing.T) {
		g := newHoldRig(t, 2)
		g.restart()
		g.has(0, 0)
		if c := g.stored(g.k.Key.ID); c.Forfeited != 0 || c.Spent != 1000-g.left {
			t.Errorf("%+v", c)
		}
	})
	t.Run("crash", func(t *testing.T) {
		g := newHoldRig(t, 2)
		g.left -= g.out(g.k.Key.ID)
		g.crash()
		g.has(0, 0)
	})
	t.Run("deletion", func(t *testing.T) {
		g := newHoldRig(t, 2)
		e, done := g.pin(g.k.Key.ID)
		defer done()
		if err := g.Delete(context.Background(), g.k.Key.ID); err != nil {
			t.Fatal(err)
		}
		if err := g.ledger.Settle(context.Background(), g.spy, e.ensureAccount(), g.hold, 500); err != nil {
			t.Error(err)
		}
	})
}

// TestHold_settledAtRefill: what was spent of a lease is known to the store before it makes
// the refill that is due when a hold ends.
func TestHold_settledAtRefill(t *testing.T) {
	for name, cost := range map[string]int64{"nothing": 0, "all": 500, "more": 501} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t).leasing(100)
			k := g.create(Draft{Remaining: ptr(int64(1000)), RefillAmount: ptr(int64(1000)), RefillInterval: ptr(int64(60_000))})
			g.warm(k.Raw, k.Key.ID)
			e, done := g.pin(k.Key.ID)
			defer done()
			r, err := g.ledger.Hold(context.Background(), g.spy, e.ensureAccount(), 500)
			if err != nil || r.hold.n != 500 || r.hold.lease != nil {
				t.Fatalf("hold of what is not leased: %+v, %v", r, err)
			}
			g.land()
			g.want(k.Raw, Allowed)
			g.land()
			if e.account.Load().used == 0 {
				t.Fatal("nothing was spent of the lease")
			}
			g.clock.advance(time.Minute)
			if err := g.ledger.Settle(context.Background(), g.spy, e.ensureAccount(), r.hold, cost); err != nil {
				t.Fatal(err)
			}
			g.land()
			if c := g.get(k.Key.ID).Credits; c.Remaining != 1000 {
				t.Errorf("%+v after the refill", c)
			}
		})
	}
}

// TestStrictHold makes a debt of what a request cost beyond all that was there.
func TestStrictHold(t *testing.T) {
	g := newRig(t)
	k := g.create(Draft{Remaining: ptr(int64(10))})
	e, done := g.pin(k.Key.ID)
	defer done()
	r, err := g.ledger.Hold(context.Background(), g.spy, e.ensureAccount(), 8)
	if err != nil || r.result != paid || r.credits.Remaining != 2 || r.credits.Held != 8 {
		t.Fatalf("%+v, %v", r, err)
	}
	if r, err := g.ledger.Hold(context.Background(), g.spy, e.ensureAccount(), 3); err != nil || r.result != short {
		t.Errorf("a hold of more than is there: %+v, %v", r, err)
	}
	g.want(k.Raw, UsageExceeded, Request{Cost: 3})
	if err := g.ledger.Settle(context.Background(), g.spy, e.ensureAccount(), r.hold, 15); err != nil {
		t.Fatal(err)
	}
	if c := g.get(k.Key.ID).Credits; c.Remaining != 0 || c.Held != 0 || c.Debt != 5 || c.Spent != 15 {
		t.Errorf("%+v", c)
	}
	if err := g.ledger.Settle(context.Background(), g.spy, e.ensureAccount(), r.hold, 15); err != nil {
		t.Fatal(err)
	}
	if c := g.get(k.Key.ID).Credits; c.Debt != 5 {
		t.Errorf("settled twice: %+v", c)
	}
	g.update(k.Key.ID, Patch{RemainingDelta: to(int64(6))})
	if c := g.get(k.Key.ID).Credits; c.Remaining != 1 || c.Debt != 0 {
		t.Errorf("a top-up pays the debt first: %+v", c)
	}
}
