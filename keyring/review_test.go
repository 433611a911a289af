package keyring

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
)

// C4: a look-up that took long does not bring back what was changed meanwhile. The clock
// may have stepped.
func TestC4_NoResurrectionAfterSweep(t *testing.T) {
	ctx := context.Background()
	for name, change := range map[string]func(*rig, string) error{
		"key": func(g *rig, id string) error { return g.Delete(ctx, id) },
		"owner": func(g *rig, _ string) error {
			_, err := g.PutOwner(ctx, "alice", OwnerPatch{Enabled: to(false)})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			k := g.create(Draft{})
			read, resume := make(chan struct{}), make(chan struct{})
			var once sync.Once
			g.spy.onFind(func() { once.Do(func() { close(read); <-resume }) })
			late := make(chan Decision)
			go func() {
				d, _ := g.Verify(ctx, k.Raw, &Request{Cost: 1})
				late <- d
			}()
			<-read
			if err := change(g, k.Key.ID); err != nil {
				t.Fatal(err)
			}
			g.clock.advance(time.Hour)
			g.flush()
			g.evict()
			close(resume)
			if d := <-late; d.Outcome == Allowed {
				t.Error("the look-up brought the old state back")
			}
			if d := g.verify(k.Raw); d.Outcome == Allowed {
				t.Error("the key still works")
			}
		})
	}
}

// Keys that are changed but never used do not stay in memory.
func TestChangedKeysLeaveMemory(t *testing.T) {
	g := newRig(t)
	for range 100 {
		k := g.create(Draft{})
		g.update(k.Key.ID, Patch{Name: to("x")})
	}
	if keys, owners := g.inMemory(); keys != 0 || owners != 0 {
		t.Errorf("%d keys and %d owners are in memory", keys, owners)
	}
}

// T3: a grace that was seen over stays over when the clock steps back.
func TestT3_GraceStaysOver(t *testing.T) {
	g := newRig(t)
	k := g.create(Draft{})
	if _, err := g.Rotate(context.Background(), k.Key.ID, Rotation{Grace: 60_000}); err != nil {
		t.Fatal(err)
	}
	g.want(k.Raw, Allowed)
	g.clock.advance(61 * time.Second)
	g.want(k.Raw, Invalid)
	g.clock.advance(-30 * time.Second)
	g.want(k.Raw, Invalid)
}

// TestQ28_OneSecret: a new secret is that of all raw keys of the key; without one
// they keep theirs.
func TestQ28_OneSecret(t *testing.T) {
	g := newRig(t)
	k := g.create(Draft{WithSecret: true})
	with := func(secret string) Request { return Request{Cost: 1, CheckSecret: true, Secret: secret} }
	kept := g.rotate(k.Key.ID, Rotation{Grace: 60_000})
	for _, raw := range []string{k.Raw, kept.Raw} {
		g.want(raw, Allowed, with(k.Secret))
	}
	next := g.rotate(k.Key.ID, Rotation{Grace: 60_000, WithSecret: true})
	for range 2 { // from memory, then from the store
		for _, raw := range []string{k.Raw, kept.Raw, next.Raw} {
			g.want(raw, Allowed, with(next.Secret))
			g.want(raw, InvalidSecret, with(k.Secret))
		}
		g.restart()
	}
}

// K8: the first request after the announced wait passes, also where both the
// rate limit and the credits are used up.
func TestK8_WaitForBoth(t *testing.T) {
	g := newRig(t)
	k := g.create(Draft{
		Remaining: ptr(int64(1)), RefillAmount: ptr(int64(1)), RefillInterval: ptr(int64(60_000)),
		RateLimitMax: ptr(int64(1)), RateLimitTimeWindow: ptr(int64(10_000)),
	})
	g.want(k.Raw, Allowed)
	d := g.want(k.Raw, RateLimited)
	if d.Wait != 60_000 || !d.Waitable {
		t.Fatalf("wait %d, %v", d.Wait, d.Waitable)
	}
	g.clock.advance(time.Duration(d.Wait) * time.Millisecond)
	g.want(k.Raw, Allowed)

	spent := g.create(Draft{Remaining: ptr(int64(1)), RateLimitMax: ptr(int64(1)), RateLimitTimeWindow: ptr(int64(10_000))})
	g.want(spent.Raw, Allowed)
	if d := g.want(spent.Raw, RateLimited); d.Waitable {
		t.Errorf("waiting %d helps a key without credits", d.Wait)
	}
}

// K5: a request that a later gate refuses has cost nothing.
func TestK5_CanceledAdmission(t *testing.T) {
	g := newRig(t)
	ctx := context.Background()
	k := g.create(Draft{Remaining: ptr(int64(5)), RateLimitMax: ptr(int64(5)), RateLimitTimeWindow: ptr(int64(60_000))})
	first := g.want(k.Raw, Allowed, Request{Cost: 2})
	second, err := g.more(ctx, &first, &Request{Cost: 3})
	if err != nil || second.Outcome != Allowed {
		t.Fatalf("%q, %v", second.Outcome.Code(), err)
	}
	refused, err := g.more(ctx, &second, &Request{Cost: 1, Require: []key.Permission{{Resource: "a", Action: "b"}}})
	if err != nil || refused.Outcome != Forbidden {
		t.Fatalf("%q, %v", refused.Outcome.Code(), err)
	}
	for range 2 {
		if err := g.Cancel(ctx, &second); err != nil {
			t.Fatal(err)
		}
	}
	if i := g.get(k.Key.ID); i.Credits.Remaining != 5 || i.RequestCount != 0 {
		t.Errorf("%+v", i)
	}
}

// Setting the refill to what it is does not delay it.
func TestRefillUnchanged(t *testing.T) {
	g := newRig(t)
	k := g.create(Draft{Remaining: ptr(int64(0)), RefillAmount: ptr(int64(5)), RefillInterval: ptr(int64(60_000))})
	g.clock.advance(59 * time.Second)
	g.update(k.Key.ID, Patch{RefillAmount: to(int64(7))})
	g.want(k.Raw, UsageExceeded)
	g.clock.advance(time.Second)
	g.want(k.Raw, Allowed, Request{Cost: 7})
	g.clock.advance(59 * time.Second)
	g.update(k.Key.ID, Patch{RefillInterval: to(int64(10_000))})
	g.clock.advance(9 * time.Second)
	g.want(k.Raw, UsageExceeded)
	g.clock.advance(time.Second)
	g.want(k.Raw, Allowed)
}

// Clearing one half of a rate limit lifts it; setting one half needs the other.
func TestRateLimitCleared(t *testing.T) {
	g := newRig(t)
	k := g.create(Draft{RateLimitMax: ptr(int64(1)), RateLimitTimeWindow: ptr(int64(60_000))})
	g.want(k.Raw, Allowed)
	g.want(k.Raw, RateLimited)
	got := g.update(k.Key.ID, Patch{RateLimitMax: cleared[int64]()})
	if got.Key.RateLimitMax != 0 || got.Key.RateLimitTimeWindow != 60_000 {
		t.Errorf("%+v", got.Key)
	}
	g.want(k.Raw, Allowed)
	g.update(k.Key.ID, Patch{RateLimitMax: to(int64(1))})
	g.want(k.Raw, RateLimited)
}
