package keyring

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

func TestVerifyOutcomes(t *testing.T) {
	g := newRig(t)
	read := key.Permissions{"api": {"read"}}
	good := g.create(Draft{Permissions: read})
	disabled := g.create(Draft{Enabled: ptr(false)})
	withSecret := g.create(Draft{WithSecret: true})
	local := g.create(Draft{AllowedIPs: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	short := g.create(Draft{ExpiresIn: to(int64(10))})
	other := g.create(Draft{UserID: "bob"})
	if _, err := g.PutOwner(context.Background(), "bob", OwnerPatch{Enabled: to(false)}); err != nil {
		t.Fatal(err)
	}
	unknown, err := key.Random{}.Generate("ak_", 64, true)
	if err != nil {
		t.Fatal(err)
	}
	need := func(s ...string) Request {
		ps, _ := key.ParsePermissions(s)
		q := Request{Cost: 1}
		for resource, actions := range ps {
			for _, action := range actions {
				q.Require = append(q.Require, key.Permission{Resource: resource, Action: action})
			}
		}
		return q
	}
	any := Request{Cost: 1, RequireAny: [][]key.Permission{{{Resource: "api", Action: "write"}, {Resource: "api", Action: "read"}}}}
	none := Request{Cost: 1, RequireAny: [][]key.Permission{{{Resource: "api", Action: "read"}}, {{Resource: "api", Action: "write"}}}}
	from := func(ip string) Request { return Request{Cost: 1, CheckIP: true, ClientIP: netip.MustParseAddr(ip)} }

	for _, c := range []struct {
		name string
		raw  string
		want Outcome
		q    Request
	}{
		{"good", good.Raw, Allowed, Request{Cost: 1}},
		{"malformed", "nonsense", Invalid, Request{Cost: 1}},
		{"empty", "", Invalid, Request{Cost: 1}},
		{"truncated", good.Raw[:len(good.Raw)-1], Invalid, Request{Cost: 1}},
		{"unknown", unknown, Invalid, Request{Cost: 1}},
		{"disabled", disabled.Raw, Disabled, Request{Cost: 1}},
		{"disabled owner", other.Raw, Disabled, Request{Cost: 1}},
		{"not expired", short.Raw, Allowed, Request{Cost: 1}},
		{"has permission", good.Raw, Allowed, need("read")},
		{"lacks permission", good.Raw, Forbidden, need("read", "write")},
		{"has none", local.Raw, Forbidden, need("read")},
		{"any of", good.Raw, Allowed, any},
		{"several lines of any", good.Raw, Forbidden, none},
		{"secret not asked for", withSecret.Raw, Allowed, Request{Cost: 1}},
		{"secret missing", withSecret.Raw, InvalidSecret, Request{Cost: 1, CheckSecret: true}},
		{"secret wrong", withSecret.Raw, InvalidSecret, Request{Cost: 1, CheckSecret: true, Secret: "clsk_x"}},
		{"secret right", withSecret.Raw, Allowed, Request{Cost: 1, CheckSecret: true, Secret: withSecret.Secret}},
		{"no secret, checked", good.Raw, Allowed, Request{Cost: 1, CheckSecret: true}},
		{"no secret, one sent", good.Raw, InvalidSecret, Request{Cost: 1, CheckSecret: true, Secret: "clsk_x"}},
		{"no secret, required", good.Raw, InvalidSecret, Request{Cost: 1, CheckSecret: true, RequireSecret: true}},
		{"address in network", local.Raw, Allowed, from("127.1.2.3")},
		{"address outside", local.Raw, IPNotAllowed, from("192.0.2.1")},
		{"address unknown", local.Raw, IPNotAllowed, Request{Cost: 1, CheckIP: true}},
		{"address not checked", local.Raw, Allowed, Request{Cost: 1}},
		{"no networks", good.Raw, Allowed, Request{Cost: 1, CheckIP: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, state := range []string{"cold", "warm"} {
				if d := g.verify(c.raw, c.q); d.Outcome != c.want {
					t.Errorf("%s: %q, want %q", state, d.Outcome.Code(), c.want.Code())
				}
			}
		})
	}
}

// The order of the checks decides which answer a key gets that fails several.
func TestVerifyOrder(t *testing.T) {
	g := newRig(t)
	k := g.create(Draft{
		ExpiresIn: to(int64(10)), WithSecret: true, Remaining: ptr(int64(0)),
		AllowedIPs:   []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		RateLimitMax: ptr(int64(1)), RateLimitTimeWindow: ptr(int64(60_000)), Enabled: ptr(false),
	})
	q := Request{
		Cost: 2, CheckSecret: true, CheckIP: true, ClientIP: netip.MustParseAddr("192.0.2.1"),
		Require: []key.Permission{{Resource: "api", Action: "read"}},
	}
	g.clock.advance(time.Minute)
	g.want(k.Raw, Disabled, q)
	g.update(k.Key.ID, Patch{Enabled: to(true)})
	g.want(k.Raw, Expired, q)
	g.update(k.Key.ID, Patch{ExpiresIn: cleared[int64]()})
	g.want(k.Raw, InvalidSecret, q)
	q.Secret = k.Secret
	g.want(k.Raw, IPNotAllowed, q)
	q.ClientIP = netip.MustParseAddr("127.0.0.1")
	g.want(k.Raw, Forbidden, q)
	g.update(k.Key.ID, Patch{Permissions: to(key.Permissions{"api": {"read"}})})
	g.want(k.Raw, RateLimited, q)
	q.Cost = 1
	g.want(k.Raw, UsageExceeded, q)
	g.update(k.Key.ID, Patch{RemainingDelta: to(int64(1))})
	g.want(k.Raw, Allowed, q)
}

// K5: a refused request changes nothing of its key.
func TestK5_RefusalsCostNothing(t *testing.T) {
	g := newRig(t)
	k := g.create(Draft{
		Remaining: ptr(int64(5)), RateLimitMax: ptr(int64(3)), RateLimitTimeWindow: ptr(int64(60_000)),
		AllowedIPs: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, WithSecret: true,
	})
	g.want(k.Raw, Allowed)
	before := g.get(k.Key.ID)
	if before.RequestCount != 1 || before.Credits.Remaining != 4 || before.LastRequest == 0 {
		t.Fatalf("%+v", before)
	}
	takes := g.spy.takes.Load()
	g.clock.advance(time.Second)
	for range 100 {
		g.want(k.Raw, Forbidden, Request{Cost: 1, Require: []key.Permission{{Resource: "a", Action: "b"}}})
		g.want(k.Raw, IPNotAllowed, Request{Cost: 1, CheckIP: true, ClientIP: netip.MustParseAddr("192.0.2.1")})
		g.want(k.Raw, InvalidSecret, Request{Cost: 1, CheckSecret: true})
		g.want(k.Raw, RateLimited, Request{Cost: 3})
		g.want(k.Raw, RateLimited, Request{Cost: 6})
	}
	g.update(k.Key.ID, Patch{RateLimitMax: to(int64(100))})
	for range 100 {
		g.want(k.Raw, UsageExceeded, Request{Cost: 5})
	}
	after := g.get(k.Key.ID)
	if after.RequestCount != 1 || after.Credits.Remaining != 4 || after.LastRequest != before.LastRequest {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
	if n := g.spy.takes.Load() - takes; n != 0 {
		t.Errorf("refusals went to the store %d times", n)
	}
}

// A dry run decides like a real one and takes nothing; a cost of 0 takes nothing.
func TestDryRunAndCostZero(t *testing.T) {
	g := newRig(t)
	k := g.create(Draft{Remaining: ptr(int64(1)), RateLimitMax: ptr(int64(1)), RateLimitTimeWindow: ptr(int64(60_000))})
	for range 10 {
		g.want(k.Raw, Allowed, Request{Cost: 1, DryRun: true})
		g.want(k.Raw, Allowed, Request{Cost: 0})
		g.want(k.Raw, RateLimited, Request{Cost: 2, DryRun: true})
	}
	if i := g.get(k.Key.ID); i.RequestCount != 0 || i.Credits.Remaining != 1 {
		t.Errorf("%+v", i)
	}
	g.want(k.Raw, Allowed)
	g.want(k.Raw, RateLimited, Request{Cost: 1, DryRun: true})
	g.want(k.Raw, Allowed, Request{Cost: 0})
}

// K1: of many requests that race for the last credits, exactly as many pass as
// there are credits for.
func TestK1_LastCredits(t *testing.T) {
	for _, c := range []struct{ credits, cost int64 }{{1, 1}, {2, 1}, {999, 1}, {1000, 1}, {1000, 7}} {
		for _, cache := range []string{"cold", "warm", "restarted"} {
			t.Run(fmt.Sprintf("%d by %d, %s", c.credits, c.cost, cache), func(t *testing.T) {
				g := newRig(t)
				for range times(1, 50) {
					lastCredits(g, c.credits, c.cost, cache, times(2560, 10_240))
				}
			})
		}
	}
}

func lastCredits(g *rig, credits, cost int64, cache string, requests int) {
	t := g.t
	t.Helper()
	k := g.create(Draft{Remaining: &credits})
	switch cache {
	case "warm":
		g.want(k.Raw, Allowed, Request{Cost: 0})
	case "restarted":
		g.restart()
	}
	passed := race(t, g, k.Raw, 256, requests, cost)
	if want := credits / cost; passed != want {
		t.Errorf("%d passed, want %d", passed, want)
	}
	if i := g.get(k.Key.ID); i.Credits.Remaining != credits-passed*cost {
		t.Errorf("%d remain", i.Credits.Remaining)
	}
	if row := g.stored(k.Key.ID); row.Remaining != credits-passed*cost {
		t.Errorf("%d remain in the store", row.Remaining)
	}
}

// race sends requests from several goroutines and counts those that pass.
func race(t testing.TB, g *rig, raw string, goroutines, requests int, cost int64) int64 {
	var passed atomic.Int64
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for range requests / goroutines {
				d, err := g.Verify(context.Background(), raw, &Request{Cost: cost})
				if err != nil {
					t.Error(err)
				}
				if d.Outcome == Allowed {
					passed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	return passed.Load()
}

// K7: many requests at the moment of the refill get one refill.
func TestK7_RefillOnce(t *testing.T) {
	g := newRig(t)
	k := g.create(Draft{Remaining: ptr(int64(0)), RefillAmount: ptr(int64(100)), RefillInterval: ptr(int64(60_000))})
	d := g.want(k.Raw, UsageExceeded)
	if d.Wait != 60_000 || !d.Waitable {
		t.Errorf("wait %d, %v", d.Wait, d.Waitable)
	}
	for range 3 {
		g.clock.advance(time.Minute)
		if passed := race(t, g, k.Raw, 100, 1000, 1); passed != 100 {
			t.Errorf("%d passed", passed)
		}
	}
}

// Rate limits are exact under concurrency, whatever the algorithm.
func TestRateLimitRace(t *testing.T) {
	for _, algorithm := range []string{"fixed_window", "sliding_window", "token_bucket"} {
		t.Run(algorithm, func(t *testing.T) {
			g := newRig(t)
			k := g.create(Draft{RateLimitMax: ptr(int64(100)), RateLimitTimeWindow: ptr(int64(60_000)), RateLimitAlgorithm: &algorithm})
			if passed := race(t, g, k.Raw, 64, 6400, 1); passed != 100 {
				t.Errorf("%d passed", passed)
			}
			g.clock.advance(time.Minute)
			if passed := race(t, g, k.Raw, 64, 6400, 7); passed != 14 {
				t.Errorf("%d passed", passed)
			}
		})
	}
}

// A request that gets a rate slot but no credit gives the slot back.
func TestRateSlotComesBack(t *testing.T) {
	g := newRig(t)
	k := g.create(Draft{Remaining: ptr(int64(1)), RateLimitMax: ptr(int64(2)), RateLimitTimeWindow: ptr(int64(60_000))})
	g.want(k.Raw, Allowed)
	for range 5 {
		g.want(k.Raw, UsageExceeded)
	}
	g.update(k.Key.ID, Patch{RemainingDelta: to(int64(5))})
	g.want(k.Raw, Allowed)
	g.want(k.Raw, RateLimited)
}

// A store that fails while a credit is taken lets nobody in and takes no slot.
func TestStoreFailureWhileCharging(t *testing.T) {
	g := newRig(t)
	k := g.create(Draft{Remaining: ptr(int64(5)), RateLimitMax: ptr(int64(2)), RateLimitTimeWindow: ptr(int64(60_000))})
	g.want(k.Raw, Allowed)
	g.spy.failTake = fmt.Errorf("disk on fire: %w", store.ErrUnavailable)
	for range 5 {
		d, err := g.Verify(context.Background(), k.Raw, &Request{Cost: 1})
		if d.Outcome != Unavailable || !errors.Is(err, store.ErrUnavailable) || !d.Waitable {
			t.Fatalf("%q, %v", d.Outcome.Code(), err)
		}
	}
	g.spy.failTake = nil
	g.want(k.Raw, Allowed)
	if i := g.get(k.Key.ID); i.Credits.Remaining != 3 || i.RequestCount != 2 {
		t.Errorf("%+v", i)
	}
}

// A request that meets several gates pays the highest cost once, and a refund
// gives all of it back once.
func TestAgainAndRefund(t *testing.T) {
	g := newRig(t)
	k := g.create(Draft{Remaining: ptr(int64(10)), RateLimitMax: ptr(int64(10)), RateLimitTimeWindow: ptr(int64(60_000))})
	ctx := context.Background()
	first := g.want(k.Raw, Allowed)
	for _, c := range []struct {
		cost, remain int64
		want         Outcome
	}{{1, 9, Allowed}, {0, 9, Allowed}, {4, 6, Allowed}, {2, 6, Allowed}, {100, 6, RateLimited}} {
		d, err := g.more(ctx, &first, &Request{Cost: c.cost})
		if err != nil || d.Outcome != c.want {
			t.Fatalf("cost %d: %q, %v", c.cost, d.Outcome.Code(), err)
		}
		if d.Outcome == Allowed {
			first = d
		}
		if i := g.get(k.Key.ID); i.Credits.Remaining != c.remain || i.RequestCount != 10-c.remain {
			t.Fatalf("cost %d: %+v", c.cost, i)
		}
	}
	d, err := g.more(ctx, &first, &Request{Cost: 1, Require: []key.Permission{{Resource: "a", Action: "b"}}})
	if err != nil || d.Outcome != Forbidden {
		t.Errorf("%q, %v", d.Outcome.Code(), err)
	}
	for range 3 {
		if err := g.Refund(ctx, &first); err != nil {
			t.Fatal(err)
		}
		if i := g.get(k.Key.ID); i.Credits.Remaining != 10 || i.RequestCount != 4 {
			t.Errorf("%+v", i)
		}
	}
}

// A warm request does not go to the store, nor does an unknown or a malformed key.
func TestWarmRequestsAskNobody(t *testing.T) {
	g := newRig(t)
	k := g.create(Draft{RateLimitMax: ptr(int64(1000)), RateLimitTimeWindow: ptr(int64(60_000))})
	unknown, _ := key.Random{}.Generate("ak_", 64, true)
	for range 50 {
		g.want(k.Raw, Allowed)
		g.want(unknown, Invalid)
		g.want(unknown[:60], Invalid)
		g.want(strings.Repeat("x", 600), Invalid)
	}
	if n := g.spy.finds.Load(); n != 1 {
		t.Errorf("%d look-ups, want 1", n)
	}
	// Without the filter an unknown key costs one look-up, however often it comes.
	g.engine.cache.members.current.Store(nil)
	for range 50 {
		g.want(unknown, Invalid)
	}
	if n := g.spy.finds.Load(); n != 2 {
		t.Errorf("%d look-ups, want 2", n)
	}
}

// Many requests for one cold key make one look-up.
func TestSingleFlight(t *testing.T) {
	g := newRig(t)
	k := g.create(Draft{})
	release := make(chan struct{})
	g.spy.onFind(func() { <-release })
	var wg sync.WaitGroup
	var begun sync.WaitGroup
	for range 50 {
		begun.Add(1)
		wg.Go(func() {
			begun.Done()
			if d, err := g.Verify(context.Background(), k.Raw, &Request{Cost: 1}); err != nil || d.Outcome != Allowed {
				t.Errorf("%q, %v", d.Outcome.Code(), err)
			}
		})
	}
	begun.Wait()
	close(release)
	wg.Wait()
	// Those that began after the first look-up was over find the key in memory.
	if n := g.spy.finds.Load(); n != 1 {
		t.Errorf("%d look-ups", n)
	}
}

// T1: an expired key is refused at its last millisecond, from the cache too.
func TestT1_ExpiredInCache(t *testing.T) {
	g := newRig(t)
	k := g.create(Draft{ExpiresIn: to(int64(60))})
	g.want(k.Raw, Allowed)
	g.clock.advance(time.Minute - time.Millisecond)
	g.want(k.Raw, Allowed)
	g.clock.advance(time.Millisecond)
	g.want(k.Raw, Expired)
}

// T3: what was seen expired stays so when the clock steps back.
func TestT3_ExpiredStaysExpired(t *testing.T) {
	g := newRig(t)
	k := g.create(Draft{ExpiresIn: to(int64(60))})
	g.clock.advance(time.Hour)
	g.want(k.Raw, Expired)
	g.clock.advance(-time.Hour)
	g.want(k.Raw, Expired)
	g.update(k.Key.ID, Patch{ExpiresIn: to(int64(7200))})
	g.want(k.Raw, Allowed)
}

// An engine that is not open yet says so after a moment, and lets in when it is.
func TestNotOpenYet(t *testing.T) {
	g := newRig(t)
	k := g.create(Draft{})
	g.stop()
	opener := g.engine.opener
	engine := New(opener, g.clock.now, func(err error) { t.Error(err) })
	s := NewService(engine, g.set).As(Actor{Kind: ActorOperator})
	d, err := s.Verify(context.Background(), k.Raw, &Request{Cost: 1})
	if d.Outcome != Unavailable || !errors.Is(err, store.ErrUnavailable) {
		t.Fatalf("%q, %v", d.Outcome.Code(), err)
	}
	engine.lookupTimeout, engine.lookups.silence, engine.lookups.patience = time.Minute, time.Minute, time.Minute
	answer := make(chan Decision)
	go func() {
		d, _ := s.Verify(context.Background(), k.Raw, &Request{Cost: 1})
		answer <- d
	}()
	if err := engine.Open(context.Background()); err != nil {
		t.Fatal(err)
	}
	if d := <-answer; d.Outcome != Allowed {
		t.Errorf("%q", d.Outcome.Code())
	}
	if err := engine.Close(); err != nil {
		t.Fatal(err)
	}
	d, err = s.Verify(context.Background(), k.Raw, &Request{Cost: 1})
	if d.Outcome != Unavailable || !errors.Is(err, store.ErrClosed) {
		t.Errorf("after Close: %q, %v", d.Outcome.Code(), err)
	}
	if err := engine.Open(context.Background()); !errors.Is(err, store.ErrClosed) {
		t.Errorf("open after Close: %v", err)
	}
	g.engine = engine // stop closes it again, which does nothing
}

// A key without checksum makes the engine look such keys up.
func TestPlainKeys(t *testing.T) {
	g := newRig(t)
	plain := strings.Repeat("x", 40)
	g.want(plain, Invalid)
	if n := g.spy.finds.Load(); n != 0 {
		t.Fatalf("%d look-ups", n)
	}
	rules := DefaultRules()
	rules.Checksum = false
	off := NewService(g.engine, &Settings{Rules: rules}).As(Actor{Kind: ActorOperator})
	odd := NewService(g.engine, &Settings{Rules: DefaultRules(), Configs: []Rules{rules}}).As(Actor{Kind: ActorOperator})
	if !g.Checksums() || off.Checksums() || odd.Checksums() {
		t.Errorf("checksums: %v, by rule %v, by another configuration %v", g.Checksums(), off.Checksums(), odd.Checksums())
	}
	k, err := off.Create(context.Background(), Draft{UserID: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	if key.ChecksumFits(k.Raw) {
		t.Skip("one key in four thousand million fits by chance")
	}
	g.want(k.Raw, Allowed)
	g.want(plain, Invalid)
	if n := g.spy.finds.Load(); n != 1 {
		t.Errorf("%d look-ups", n)
	}
	g.restart()
	g.want(k.Raw, Allowed)
	if g.Checksums() {
		t.Error("checksums, though a key without one is stored")
	}
}
