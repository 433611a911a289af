package keyring

import (
	"context"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
)

var forbidden = Request{Cost: 1, Require: []key.Permission{{Resource: "a", Action: "b"}}}

// next asks as a further gate does, which lets the request in.
func (g *rig) next(d Decision, cost int64) Decision {
	g.t.Helper()
	got, err := g.more(context.Background(), &d, &Request{Cost: cost})
	if err != nil || got.Outcome != Allowed {
		g.t.Fatalf("%q, %v", got.Outcome.Code(), err)
	}
	return got
}

// refuseLater lets a further gate refuse the request.
func (g *rig) refuseLater(d Decision) {
	g.t.Helper()
	g.again(&d, forbidden, Forbidden)
	for range 2 { // the second time gives back nothing more
		if err := g.Cancel(context.Background(), &d); err != nil {
			g.t.Fatal(err)
		}
	}
}

// wantLeft checks what remains of some limits, by name.
func (g *rig) wantLeft(raw string, want map[string]int64) {
	g.t.Helper()
	d := g.want(raw, Allowed, Request{})
	for name, n := range want {
		if got := left(g.t, d, name); got != n {
			g.t.Errorf("%s: %d remain, want %d", name, got, n)
		}
	}
}

// TestK5_CanceledTierSlots: a request that a later gate refuses gives back exactly
// what it took of each window, the key's and the owner's, also where a window
// has ended meanwhile: what others took in the next one stays taken.
func TestK5_CanceledTierSlots(t *testing.T) {
	const noon, midnight, newYear = "2026-11-21T12:00:00Z", "2026-11-21T23:59:50Z", "2026-12-31T23:59:50Z"
	for _, test := range []struct {
		name, from    string
		between, then time.Duration // between the two gates that let it in, and after them
		minute, day   int64         // that others have taken in the end, in the current windows
		month, own    int64
	}{
		{"at once", noon, 0, 0, 3, 3, 3, 1},
		{"a little later", noon, 5 * time.Second, 5 * time.Second, 3, 3, 3, 1},
		{"another minute between", noon, time.Minute, 0, 2, 3, 3, 0},
		{"another minute after", noon, 0, time.Minute, 1, 3, 3, 0},
		{"another day between", midnight, 10 * time.Second, 0, 3, 2, 3, 1},
		{"another day after", midnight, 0, 10 * time.Second, 3, 1, 3, 1},
		{"another month between", newYear, 10 * time.Second, 0, 3, 2, 2, 1},
		{"another month after", newYear, 0, 10 * time.Second, 3, 1, 1, 1},
		{"all of them", newYear, time.Minute, 32 * 24 * time.Hour, 1, 1, 1, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := newRig(t).with(tier("free", per(minute, 100), per(Day, 100), per(Month, 100)))
			g.at(test.from)
			k := g.create(Draft{Remaining: ptr(int64(100)), RateLimitMax: ptr(int64(100)), RateLimitTimeWindow: ptr(int64(30_000))})
			other := g.create(Draft{})
			g.want(k.Raw, Allowed)
			g.want(other.Raw, Allowed, Request{})
			d := g.want(k.Raw, Allowed, Request{Cost: 5})
			g.clock.advance(test.between)
			g.want(other.Raw, Allowed)
			d = g.next(d, 5) // no more than it has paid
			d = g.next(d, 7)
			g.clock.advance(test.then)
			g.want(other.Raw, Allowed)
			g.refuseLater(d)
			g.wantLeft(k.Raw, map[string]int64{
				"minute": 100 - test.minute, "day": 100 - test.day, "month": 100 - test.month, "key": 100 - test.own, "credits": 99,
			})
		})
	}
}

// TestK5_CanceledIsWritten: what a refused request has given back is given back in
// the store too.
func TestK5_CanceledIsWritten(t *testing.T) {
	tiers := tier("free", per(Day, 10))
	for _, flushed := range []bool{false, true} {
		g := newRig(t).with(tiers)
		k := g.create(Draft{RateLimitMax: ptr(int64(10)), RateLimitTimeWindow: ptr(int64(60_000))})
		g.want(k.Raw, Allowed)
		used := g.get(k.Key.ID).LastRequest
		g.clock.advance(time.Second)
		d := g.want(k.Raw, Allowed)
		g.clock.advance(time.Second)
		d = g.next(d, 2)
		if flushed {
			g.flush()
		}
		g.refuseLater(d)
		g.restart()
		g.with(tiers)
		if i := g.get(k.Key.ID); i.LastRequest != used || i.RequestCount != 1 {
			t.Errorf("flushed %v: the last of %d requests at %+d ms", flushed, i.RequestCount, i.LastRequest-used)
		}
		g.wantLeft(k.Raw, map[string]int64{"key": 9, "day": 9})
	}
}

// TestK5_CanceledAfterForgetting: a request may end so late that its key and its
// owner have left memory, and come again. The slots come back where the owner's
// counts are now, and nothing that others took is lost.
func TestK5_CanceledAfterForgetting(t *testing.T) {
	tiers := tier("free", per(Day, 10))
	for _, again := range []bool{false, true} {
		g := newRig(t).with(tiers)
		k := g.create(Draft{})
		d := g.want(k.Raw, Allowed, Request{Cost: 4})
		g.forget(k.Key.ID)
		if again {
			g.want(k.Raw, Allowed, Request{Cost: 3})
		}
		d2 := d
		if err := g.Cancel(context.Background(), &d2); err != nil {
			t.Fatal(err)
		}
		want := int64(10)
		if again {
			want = 7
		}
		for range 2 {
			g.wantLeft(k.Raw, map[string]int64{"day": want})
			g.restart()
			g.with(tiers)
		}
	}
}

// forget lets a key and its owner leave memory, as if nobody had used them for long.
func (g *rig) forget(id string) {
	g.t.Helper()
	g.flush()
	g.evict()
	if keys, owners := g.inMemory(); keys != 0 || owners != 0 {
		g.t.Fatalf("%d keys and %d owners are still in memory", keys, owners)
	}
}

// takeAt takes n slots at a time of which wall clock and monotonic clock may say
// different things.
func (g *rig) takeAt(d *Decision, at instant, n int64) {
	g.t.Helper()
	l := g.limitsOf(d)
	if err := l.owner.load(context.Background(), g.engine.store.Load(), &g.engine.lookups); err != nil {
		g.t.Fatal(err)
	}
	l.reserveAt(d, at, n, false)
}

// TestK5_CanceledWithClockSet: days follow the wall clock and durations do not, also
// when slots are given back.
func TestK5_CanceledWithClockSet(t *testing.T) {
	g := newRig(t).with(tier("free", per(minute, 10), per(Day, 10), per(Month, 10)))
	k := g.create(Draft{})
	g.want(k.Raw, Allowed, Request{})
	l, now := g.entry(k.Key.ID), g.engine.clock()
	take := func(n int64, at instant) Decision {
		d := Decision{entry: l, rec: l.rec.Load(), rules: g.rulesFor(l.rec.Load().key), plan: g.planFor(l.rec.Load().owner)}
		g.takeAt(&d, at, n)
		d.noteUse(d.rec.uses[0], at)
		return d
	}
	const month = 32 * 24 * 3600 * 1000
	for _, at := range []instant{now, {now.wall + month, now.monotonic}} { // it is set a month ahead
		take(1, at)
		d := take(3, at)
		if err := g.Cancel(context.Background(), &d); err != nil {
			t.Fatal(err)
		}
		if d := take(1, at); left(t, d, "day") != 8 || left(t, d, "month") != 8 {
			t.Errorf("%+v", d.Limits)
		}
	}
}
