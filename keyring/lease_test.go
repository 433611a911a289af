package keyring

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// leasing makes the requests that follow lease up to most credits; 0 is strict.
func (g *rig) leasing(most int64) *rig {
	g.lease = most
	g.use(&Settings{Rules: g.set.Rules, Lease: most})
	return g
}

// crash ends the engine as kill -9 would: what it had in memory is gone, what the
// store had answered is there. It opens another engine on the same file.
func (g *rig) crash() {
	g.t.Helper()
	g.land()
	g.engine.closed.Store(true)
	st := g.engine.store.Swap(nil)
	g.engine.stopping()
	g.engine.loops.Wait()
	g.land() // those of the loops
	if err := st.Close(); err != nil {
		g.t.Error(err)
	}
	g.start()
}

// land waits for everything that is being settled.
func (g *rig) land() {
	for _, a := range g.engine.accounts.all(false) {
		settled(a)
	}
}

// settled waits until nothing of an account is on its way.
func settled(a *account) {
	for {
		a.mu.Lock()
		s := a.settlement
		a.mu.Unlock()
		if s == nil {
			return
		}
		<-s.done
	}
}

// out returns what a key has leased and not spent.
func (g *rig) out(id string) int64 {
	l := g.entry(id)
	if l == nil || l.account.Load() == nil {
		return 0
	}
	l.account.Load().mu.Lock()
	defer l.account.Load().mu.Unlock()
	return l.account.Load().unspent
}

// stored returns the key's row, and holds it against the invariant.
func (g *rig) stored(id string) key.Credits {
	g.t.Helper()
	e, err := g.engine.store.Load().Get(context.Background(), id)
	if err != nil {
		g.t.Fatal(err)
	}
	if c := e.Credits; c.Granted != c.Remaining+c.Leased+c.Held+c.Spent+c.Forfeited+c.Expired-c.Debt {
		g.t.Fatalf("the sum is wrong: %+v", c)
	}
	return e.Credits
}

// pin returns the entry of a key, which stays in memory until done.
func (g *rig) pin(id string) (e *entry, done func()) {
	g.t.Helper()
	e, err := g.engine.cache.pin(context.Background(), g.engine.store.Load(), id)
	if err != nil {
		g.t.Fatal(err)
	}
	return e, func() { g.engine.cache.unpin(e) }
}

// warm sends requests until the key has a lease of some size, and returns how
// many passed.
func (g *rig) warm(raw, id string) (passed int64) {
	g.t.Helper()
	for g.out(id) < 5 {
		g.want(raw, Allowed)
		g.land()
		if passed++; passed > 100 {
			g.t.Fatal("nothing is leased")
		}
	}
	return passed
}

// K1 in lease mode: exactly as many pass as there are credits, with blocks out
// and coming home all the time, through a restart and a crash, where what was
// forfeited is missing.
func TestK1_Lease(t *testing.T) {
	for _, c := range []leaseCase{
		{1, 1, 1000}, {2, 1, 1000}, {19, 1, 1000}, {999, 1, 1000}, {1000, 7, 1000}, {20_000, 1, 1000}, {5000, 1, 3}, {1000, 1, 1},
	} {
		for _, end := range []string{"", "restart", "crash"} {
			t.Run(fmt.Sprintf("%d by %d, lease %d, %s", c.credits, c.cost, c.most, end), func(t *testing.T) {
				g := newRig(t).leasing(c.most)
				for range times(1, 50) {
					c.race(g, end)
				}
			})
		}
	}
}

type leaseCase struct{ credits, cost, most int64 }

func (c leaseCase) race(g *rig, end string) {
	t := g.t
	t.Helper()
	k := g.create(Draft{Remaining: &c.credits})
	var passed, forfeited int64
	if end != "" {
		passed = race(t, g, k.Raw, 256, int(c.credits/c.cost/2), c.cost)
		if end == "crash" {
			g.crash()
		} else {
			g.restart()
		}
		row := g.stored(k.Key.ID)
		if forfeited = c.credits - passed*c.cost - row.Remaining; row.Leased != 0 || forfeited < 0 || forfeited > min(c.most, c.credits/10) || end == "restart" && forfeited != 0 {
			t.Fatalf("%d forfeited, %+v", forfeited, row)
		}
	}
	passed += race(t, g, k.Raw, 256, int(c.credits/c.cost)+2560, c.cost)
	if want := (c.credits - forfeited) / c.cost; passed != want {
		t.Errorf("%d passed, want %d", passed, want)
	}
	if i := g.get(k.Key.ID); i.Credits.Remaining != c.credits-forfeited-passed*c.cost {
		t.Errorf("%d remain", i.Credits.Remaining)
	}
	g.restart()
	if row := g.stored(k.Key.ID); row.Remaining != c.credits-forfeited-passed*c.cost || row.Leased != 0 {
		t.Errorf("after a clean stop: %+v", row)
	}
}

// K1 with credits given back, topped up and set, and readers looking on, in both
// modes and while the mode changes: nothing is lost and nothing is won, and what
// is read never rises but by what was given.
func TestK1_LeaseAmidChanges(t *testing.T) {
	for _, modes := range [][]int64{{0}, {1000}, {50, 0, 7}} {
		t.Run(fmt.Sprint(modes), func(t *testing.T) {
			const topUps, each = 40, 25
			requests, start := 1500, int64(20_000) // of each goroutine
			if modes[0] == 0 {
				requests, start = 150, 2000
			}
			g := newRig(t)
			ctx := context.Background()
			k := g.create(Draft{Remaining: &start})
			var services []*Service
			for _, m := range modes {
				services = append(services, NewService(g.engine, &Settings{Rules: g.set.Rules, Lease: m}))
			}
			var spent, refunded, given atomic.Int64
			var wg sync.WaitGroup
			for w := range 16 {
				wg.Go(func() {
					for i := range requests {
						s := services[(w+i)%len(services)]
						d, err := s.Verify(ctx, k.Raw, &Request{Cost: 1 + int64(i%3)})
						if err != nil {
							t.Error(err)
							return
						}
						if d.Outcome != Allowed {
							continue
						}
						spent.Add(d.Cost)
						if i%50 == 0 {
							if err := s.Refund(ctx, &d); err != nil {
								t.Error(err)
							}
							refunded.Add(d.Cost)
						}
					}
				})
			}
			wg.Go(func() {
				for i := range topUps {
					p := Patch{RemainingDelta: to(int64(each))}
					if i%10 == 9 {
						p = Patch{Name: to("renamed")}
					} else {
						given.Add(each)
					}
					g.update(k.Key.ID, p)
				}
			})
			done := make(chan struct{})
			var readers sync.WaitGroup
			for range 2 {
				readers.Go(func() {
					for {
						select {
						case <-done:
							return
						default:
						}
						sure := spent.Load() // spent before the look; refunds come from among them
						left := g.get(k.Key.ID).Credits.Remaining
						// Requests between taking and counting hide up to 16 of 3 each.
						if most := start + given.Load() + refunded.Load() - sure + 16*3; left > most {
							t.Errorf("%d remain, at most %d can", left, most)
							return
						}
					}
				})
			}
			wg.Wait()
			close(done)
			readers.Wait()
			want := start + given.Load() - spent.Load() + refunded.Load()
			if left := g.get(k.Key.ID).Credits.Remaining; left != want {
				t.Errorf("%d remain, want %d", left, want)
			}
			g.restart()
			row := g.stored(k.Key.ID)
			if row.Remaining != want || row.Leased != 0 || row.Forfeited != 0 || row.Granted != start+given.Load() {
				t.Errorf("%+v, want %d", row, want)
			}
		})
	}
}

// A lease grows with the traffic, up to what is allowed; it is spent without the
// store, renewed before it is empty, and returned when the key falls idle.
func TestLeaseLife(t *testing.T) {
	g := newRig(t).leasing(100)
	k := g.create(Draft{Remaining: ptr(int64(100_000))})
	id := k.Key.ID
	g.want(k.Raw, Allowed)
	if out := g.out(id); out != 0 {
		t.Fatalf("%d leased for a single request", out)
	}
	passed := 1 + g.warm(k.Raw, id)
	before := g.spy.takes.Load()
	for range 2000 {
		g.want(k.Raw, Allowed)
		g.land()
		if out := g.out(id); out < 1 || out > 100 {
			t.Fatalf("%d leased", out)
		}
	}
	passed += 2000
	if moves := g.spy.takes.Load() - before; moves < 20 || moves > 60 {
		t.Errorf("%d movements for 2000 requests, want a block of up to 100 when it is half empty", moves)
	}
	if left := g.get(id).Credits.Remaining; left != 100_000-passed {
		t.Errorf("%d remain, want %d", left, 100_000-passed)
	}
	tend := func() {
		t.Helper()
		if err := g.engine.accounts.Reclaim(g.spy); err != nil {
			t.Fatal(err)
		}
	}
	tend()
	if out := g.out(id); out < 50 {
		t.Errorf("%d are left of the lease of a busy key", out)
	}
	g.clock.advance(3 * time.Second)
	tend()
	if row := g.stored(id); g.out(id) != 0 || row.Leased != 0 || row.Remaining != 100_000-passed || row.Spent != passed {
		t.Errorf("the lease of an idle key: %+v", row)
	}
	tend()
	if n := len(g.engine.accounts.all(false)); n != 0 {
		t.Errorf("%d keys are still listed", n)
	}
}

// A burst leaves no large lease behind on a key that goes on slowly.
func TestLeaseShrinks(t *testing.T) {
	g := newRig(t).leasing(1000)
	k := g.create(Draft{Remaining: ptr(int64(100_000))})
	for range 600 {
		g.want(k.Raw, Allowed)
		g.land()
	}
	if out := g.out(k.Key.ID); out < 200 {
		t.Fatalf("%d leased", out)
	}
	for range 3 {
		g.clock.advance(time.Second)
		for range 10 {
			g.want(k.Raw, Allowed)
		}
		if err := g.engine.accounts.Reclaim(g.spy); err != nil {
			t.Fatal(err)
		}
	}
	if out := g.out(k.Key.ID); out > 20 {
		t.Errorf("%d leased for 10 requests a second", out)
	}
}

// A change of the credits calls the lease home first; a refused one changes nothing.
func TestLeasePatch(t *testing.T) {
	g := newRig(t).leasing(1000)
	k := g.create(Draft{Remaining: ptr(int64(1000))})
	id := k.Key.ID
	passed := g.warm(k.Raw, id)
	if _, err := g.Update(context.Background(), id, Patch{RemainingDelta: to(-(1000 - passed + 1))}); !errors.Is(err, ErrTooFewCredits) {
		t.Fatalf("error %v", err)
	}
	if out := g.out(id); out < 5 {
		t.Errorf("a refused change took the lease: %d", out)
	}
	if left := g.get(id).Credits.Remaining; left != 1000-passed {
		t.Errorf("%d remain, want %d", left, 1000-passed)
	}
	if i := g.update(id, Patch{RemainingDelta: to(-(1000 - passed))}); i.Credits.Remaining != 0 || g.out(id) != 0 {
		t.Errorf("%+v, %d leased", i.Credits, g.out(id))
	}
	g.want(k.Raw, UsageExceeded)
	g.update(id, Patch{Remaining: to(int64(500))})
	g.warm(k.Raw, id)
	g.update(id, Patch{Remaining: to(int64(1))})
	g.want(k.Raw, Allowed)
	g.want(k.Raw, UsageExceeded)
	g.update(id, Patch{Remaining: to(int64(500))})
	g.warm(k.Raw, id)
	if i := g.update(id, Patch{Remaining: cleared[int64]()}); i.Credits.Limited || g.out(id) != 0 {
		t.Errorf("%+v, %d leased", i.Credits, g.out(id))
	}
	g.want(k.Raw, Allowed)
	g.update(id, Patch{Remaining: to(int64(2))})
	g.want(k.Raw, Allowed)
	g.want(k.Raw, Allowed)
	g.want(k.Raw, UsageExceeded)
	g.stored(id)
}

// What was spent from a lease comes back whole, though the store did not know yet
// that it was spent.
func TestLeaseRefund(t *testing.T) {
	g := newRig(t).leasing(1000)
	k := g.create(Draft{Remaining: ptr(int64(100_000))})
	paid := g.want(k.Raw, Allowed, Request{Cost: 600})
	leased := g.want(k.Raw, Allowed)
	if row := g.stored(k.Key.ID); row.Spent != 600 || row.Leased != 600 {
		t.Fatalf("%+v", row)
	}
	for i, d := range []*Decision{&paid, &leased, &leased} {
		if err := g.Refund(context.Background(), d); err != nil {
			t.Fatal(err)
		}
		if left, want := g.get(k.Key.ID).Credits.Remaining, []int64{99_999, 100_000, 100_000}[i]; left != want {
			t.Errorf("step %d: %d remain, want %d", i, left, want)
		}
	}
	if row := g.stored(k.Key.ID); row.Spent != 0 || row.Granted != 100_000 {
		t.Errorf("%+v", row)
	}
}

// Requests that are still on their way when the leases are called home pay one by one.
func TestLeaseAfterClose(t *testing.T) {
	g := newRig(t).leasing(1000)
	k := g.create(Draft{Remaining: ptr(int64(1000))})
	passed := g.warm(k.Raw, k.Key.ID)
	if err := g.engine.accounts.Close(g.spy); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		g.want(k.Raw, Allowed)
		g.land()
	}
	if row := g.stored(k.Key.ID); g.out(k.Key.ID) != 0 || row.Leased != 0 || row.Remaining != 1000-passed-10 {
		t.Errorf("%+v", row)
	}
}

// An engine that is closed under load leaves nothing leased.
func TestLeaseCloseUnderLoad(t *testing.T) {
	const start = 1 << 40
	g := newRig(t).leasing(1000)
	k := g.create(Draft{Remaining: ptr(int64(start))})
	var passed atomic.Int64
	for round := range 20 {
		before := passed.Load()
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				for {
					d, err := g.Verify(context.Background(), k.Raw, &Request{Cost: 1})
					if errors.Is(err, store.ErrClosed) {
						return
					}
					if err != nil || d.Outcome != Allowed {
						t.Errorf("%q, %v", d.Outcome.Code(), err)
						return
					}
					passed.Add(1)
				}
			})
		}
		for passed.Load() < before+100+rand.Int64N(500) {
			runtime.Gosched()
		}
		engine := g.engine
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
		g.start()
		if row := g.stored(k.Key.ID); row.Leased != 0 || row.Forfeited != 0 || row.Remaining != start-passed.Load() {
			t.Fatalf("round %d: %d passed: %+v", round, passed.Load(), row)
		}
	}
}

// A key that becomes limited gets what was set, not the refills of the time when
// it was not.
func TestRefillsWhileUnlimited(t *testing.T) {
	g := newRig(t)
	k := g.create(Draft{Remaining: ptr(int64(1)), RefillAmount: ptr(int64(100)), RefillInterval: ptr(int64(60_000))})
	g.update(k.Key.ID, Patch{Remaining: cleared[int64]()})
	g.clock.advance(90 * time.Second)
	if i := g.update(k.Key.ID, Patch{Remaining: to(int64(5))}); i.Credits.Remaining != 5 {
		t.Errorf("%+v", i.Credits)
	}
	g.clock.advance(30 * time.Second)
	if left := g.get(k.Key.ID).Credits.Remaining; left != 100 {
		t.Errorf("%d remain at the next point of the grid", left)
	}
}

// Only the balance and the lease together cover the last request.
func TestLeaseAndBalanceTogether(t *testing.T) {
	g := newRig(t).leasing(1000)
	k := g.create(Draft{Remaining: ptr(int64(100))})
	passed := g.warm(k.Raw, k.Key.ID)
	g.want(k.Raw, UsageExceeded, Request{Cost: 100 - passed + 1})
	g.want(k.Raw, Allowed, Request{Cost: 100 - passed, DryRun: true})
	g.want(k.Raw, Allowed, Request{Cost: 100 - passed})
	g.want(k.Raw, UsageExceeded)
	if row := g.stored(k.Key.ID); row.Remaining != 0 || row.Leased != 0 || row.Spent != 100 {
		t.Errorf("%+v", row)
	}
}

// A mode that changes takes effect with the next request.
func TestLeaseModeChanges(t *testing.T) {
	g := newRig(t).leasing(1000)
	k := g.create(Draft{Remaining: ptr(int64(1000))})
	id := k.Key.ID
	passed := g.warm(k.Raw, id)
	g.leasing(2)
	g.want(k.Raw, Allowed)
	if out := g.out(id); out > 2 {
		t.Errorf("%d leased, at most 2 may be", out)
	}
	g.leasing(0)
	g.want(k.Raw, Allowed)
	row := g.stored(id)
	if row.Leased != 0 || row.Spent != passed+2 || g.out(id) != 0 {
		t.Errorf("%+v", row)
	}
	moves := g.spy.takes.Load()
	g.want(k.Raw, Allowed)
	if g.spy.takes.Load() != moves+1 {
		t.Error("a strict request did not go to the store")
	}
}

// A store that fails lets what is leased be spent, and no more.
func TestLeaseStoreFails(t *testing.T) {
	g := newRig(t).leasing(1000)
	k := g.create(Draft{Remaining: ptr(int64(1000))})
	passed := g.warm(k.Raw, k.Key.ID)
	g.spy.failTake = fmt.Errorf("disk on fire: %w", store.ErrUnavailable)
	out := g.out(k.Key.ID)
	for range out {
		g.want(k.Raw, Allowed)
		g.land()
	}
	for range 3 {
		d, err := g.Verify(context.Background(), k.Raw, &Request{Cost: 1})
		if d.Outcome != Unavailable || !errors.Is(err, store.ErrUnavailable) {
			t.Fatalf("%q, %v", d.Outcome.Code(), err)
		}
	}
	g.spy.failTake = nil
	g.want(k.Raw, Allowed)
	if left := g.get(k.Key.ID).Credits.Remaining; left != 1000-passed-out-1 {
		t.Errorf("%d remain, want %d", left, 1000-passed-out-1)
	}
}

// A lease is in the store and not yet answered, and a later answer already knows
// of it: nobody is refused for credits that are on their way here, and nobody
// reads a number that is too low or too high.
func TestLeaseHeardOutOfOrder(t *testing.T) {
	g := newRig(t).leasing(1000)
	k := g.create(Draft{Remaining: ptr(int64(30))})
	g.want(k.Raw, Allowed)
	l := g.entry(k.Key.ID)
	held, release := make(chan struct{}), make(chan struct{})
	g.spy.onMove(func(m key.Move) {
		if m.Lease > 0 {
			close(held)
			<-release
		}
	})
	outcomes := make(chan Outcome, 2)
	ask := func() { outcomes <- g.verify(k.Raw).Outcome }
	go ask() // takes 1, leases 2
	<-held
	g.want(k.Raw, Allowed, Request{Cost: 26}) // the last ones at home
	left := make(chan int64)
	go ask()
	go func() { left <- g.get(k.Key.ID).Credits.Remaining }()
	for paying := 0; paying < 2 && len(outcomes) == 0; { // the request that was held, and the one that waits
		l.account.Load().mu.Lock()
		paying = l.account.Load().paying
		if _, exact := l.account.Load().view(g.clock.now().UnixMilli()); exact {
			t.Error("a view amid the confusion calls itself exact")
		}
		l.account.Load().mu.Unlock()
	}
	close(release)
	for range 2 {
		if o := <-outcomes; o != Allowed {
			t.Errorf("%q", o.Code())
		}
	}
	if n := <-left; n != 1 && n != 2 {
		t.Errorf("%d were read, 2 remained and then 1", n)
	}
	g.want(k.Raw, Allowed)
	g.want(k.Raw, UsageExceeded)
}

// A key that is deleted takes its lease with it, also one that is on its way, and
// a new key under its ID has none of it.
func TestLeaseOfDeletedKey(t *testing.T) {
	ctx := context.Background()
	g := newRig(t).leasing(1000)
	quiet := g.create(Draft{Remaining: ptr(int64(1000))})
	g.warm(quiet.Raw, quiet.Key.ID)
	if err := g.Delete(ctx, quiet.Key.ID); err != nil || g.out(quiet.Key.ID) != 0 {
		t.Errorf("%v, %d are leased of a key that is gone", err, g.out(quiet.Key.ID))
	}
	k := g.create(Draft{Remaining: ptr(int64(1000))})
	g.warm(k.Raw, k.Key.ID)
	l := g.entry(k.Key.ID)
	var once sync.Once
	held, release := make(chan struct{}), make(chan struct{})
	g.spy.onMove(func(key.Move) {
		once.Do(func() { close(held); <-release })
	})
	var wg sync.WaitGroup
	wg.Go(func() { // finds the lease empty and renews it, across the deletion
		for range 100 {
			if d, err := g.Verify(ctx, k.Raw, &Request{Cost: 1}); err != nil || d.Outcome != Allowed && d.Outcome != Invalid && d.Outcome != UsageExceeded {
				t.Errorf("%q, %v", d.Outcome.Code(), err)
			}
		}
	})
	<-held
	if err := g.Delete(ctx, k.Key.ID); err != nil {
		t.Fatal(err)
	}
	if out := g.out(k.Key.ID); out != 0 {
		t.Errorf("%d are leased of a key that is gone", out)
	}
	again := k.Key.Clone()
	if _, err := g.engine.store.Load().Create(ctx, again, key.NewCredits(ptr(int64(2)), 0, 0, 0), store.KeyLimit{}, nil); err != nil {
		t.Fatal(err)
	}
	close(release)
	wg.Wait()
	settled(l.account.Load())
	if row := g.stored(k.Key.ID); row.Leased != 0 || row.Remaining < 0 || row.Granted != 2 {
		t.Errorf("%+v", row)
	}
}

// Keys and owners with leases come and go, are switched off, rotated and evicted:
// nothing comes back, and the lease goes home.
func TestLeaseAndAdministration(t *testing.T) {
	ctx := context.Background()
	for name, c := range map[string]struct {
		change func(*rig, string) error
		want   Outcome
	}{
		"disable":      {func(g *rig, id string) error { _, err := g.Update(ctx, id, Patch{Enabled: to(false)}); return err }, Disabled},
		"delete":       {func(g *rig, id string) error { return g.Delete(ctx, id) }, Invalid},
		"rotate":       {func(g *rig, id string) error { _, err := g.Rotate(ctx, id, Rotation{}); return err }, Invalid},
		"delete owner": {func(g *rig, _ string) error { return g.DeleteOwner(ctx, "alice") }, Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t).leasing(1000)
			k := g.create(Draft{Remaining: ptr(int64(1_000_000))})
			g.warm(k.Raw, k.Key.ID)
			var ends []func()
			for range 8 {
				ends = append(ends, g.repeat(func() {
					if _, err := g.Verify(ctx, k.Raw, &Request{Cost: 1}); err != nil {
						t.Error(err)
					}
				}))
			}
			if err := c.change(g, k.Key.ID); err != nil {
				t.Error(err)
			}
			g.want(k.Raw, c.want)
			for _, end := range ends {
				end()
			}
			g.land()
			if out := g.out(k.Key.ID); out != 0 && (name == "delete" || name == "delete owner") {
				t.Errorf("%d leased", out)
			}
			g.restart()
			g.want(k.Raw, c.want)
			e, err := g.engine.store.Load().Get(ctx, k.Key.ID)
			if c.want == Invalid && name != "rotate" {
				if !errors.Is(err, store.ErrNotFound) {
					t.Errorf("the key came back: %+v, %v", e, err)
				}
			} else if err != nil || e.Credits.Leased != 0 || e.Credits.Forfeited != 0 {
				t.Errorf("%+v, %v", e.Credits, err)
			}
		})
	}
}

// A key with a lease is not forgotten, even if the cache has let go of it.
func TestLeaseKeepsKeyInMemory(t *testing.T) {
	g := newRig(t).leasing(1000)
	k := g.create(Draft{Remaining: ptr(int64(1000))})
	passed := g.warm(k.Raw, k.Key.ID)
	l := g.entry(k.Key.ID)
	g.flush()
	g.evict()
	if g.entry(k.Key.ID) != l {
		t.Fatal("a key with a lease was forgotten")
	}
	g.want(k.Raw, Allowed)
	if left := g.get(k.Key.ID).Credits.Remaining; left != 1000-passed-1 {
		t.Errorf("%d remain", left)
	}
	g.clock.advance(time.Minute)
	if err := errors.Join(g.engine.accounts.Reclaim(g.spy), g.engine.flush(context.Background(), g.spy)); err != nil {
		t.Fatal(err)
	}
	g.evict()
	if g.entry(k.Key.ID) != nil {
		t.Error("a key without a lease is kept")
	}
	if row := g.stored(k.Key.ID); row.Leased != 0 || row.Remaining != 1000-passed-1 {
		t.Errorf("%+v", row)
	}
}

// K7 with a lease out: at the refill instant exactly as many pass as the refill
// gives, and the grid does not drift.
func TestK7_LeaseRefill(t *testing.T) {
	g := newRig(t).leasing(1000)
	k := g.create(Draft{Remaining: ptr(int64(1000)), RefillAmount: ptr(int64(1000)), RefillInterval: ptr(int64(60_000))})
	from := g.clock.now().UnixMilli()
	for i := range int64(4) {
		half := race(t, g, k.Raw, 64, 640, 1) // leaves a lease out
		if passed := half + race(t, g, k.Raw, 64, 6400, 1); passed != 1000 {
			t.Errorf("interval %d: %d passed", i, passed)
		}
		g.clock.advance(time.Minute + time.Duration(rand.IntN(100))*time.Millisecond)
		g.want(k.Raw, Allowed, Request{Cost: 0})
		if i := g.get(k.Key.ID); i.Credits.Remaining != 1000 || (i.Credits.LastRefillAt-from)%60_000 != 0 {
			t.Errorf("%+v", i.Credits)
		}
	}
	// Half spent, and the other half partly out: the refill counts what is out.
	race(t, g, k.Raw, 64, 512, 1)
	g.clock.advance(time.Minute)
	if passed := race(t, g, k.Raw, 64, 3200, 1); passed != 1000 {
		t.Errorf("%d passed", passed)
	}
}

// K7: no drift over 10,000 intervals, through the engine and with a lease.
func TestK7_LeaseNoDrift(t *testing.T) {
	intervals := int64(10_000)
	if testing.Short() {
		intervals = 500
	}
	g := newRig(t).leasing(10)
	k := g.create(Draft{Remaining: ptr(int64(30)), RefillAmount: ptr(int64(30)), RefillInterval: ptr(int64(977))})
	from := g.clock.now().UnixMilli()
	for i := int64(1); i <= intervals; i++ {
		g.clock.ms.Store(from + i*977 + (i*7919)%977)
		g.want(k.Raw, Allowed)
		if i%250 != 0 {
			continue
		}
		if c := g.get(k.Key.ID).Credits; c.LastRefillAt != from+i*977 || c.Remaining != 29 {
			t.Fatalf("interval %d: %+v", i, c)
		}
	}
	if row := g.stored(k.Key.ID); row.Granted < 30+intervals-1 || row.Granted > 30+intervals {
		t.Errorf("%+v", row)
	}
}
