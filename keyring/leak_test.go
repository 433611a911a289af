package keyring

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// leakRig is a rig with a public configuration, and a function that reports a raw key from
// an address of its own.
func leakRig(t *testing.T) (g *rig, report func(raw string)) {
	g = newRig(t)
	set := &Settings{Rules: DefaultRules(), Configs: []Rules{DefaultRules()}}
	set.Configs[0].ConfigID, set.Configs[0].Public = "pub", true
	g.use(set)
	n := uint32(0)
	return g, func(raw string) {
		t.Helper()
		n++
		ip := netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
		if err := g.ReportLeak(context.Background(), raw, ip); err != nil {
			t.Fatal(err)
		}
	}
}

// TestA10_leak: what a report of each kind of raw key does is one entry of the audit log, with
// the address of who reported it. What has no effect, or had it before, is none.
func TestA10_leak(t *testing.T) {
	const disabled = `"enabled":{"from":true,"to":false}}`
	hour := Rotation{Grace: time.Hour.Milliseconds()}
	for name, row := range map[string]struct {
		draft   Draft
		prepare func(g *rig, id string) (newRaw string)
		raw     string // that is reported, where it is not that of the draft
		owner   bool   // the owner has disabled it
		first   Outcome
		latter  Outcome // with the raw key of prepare
		by      key.DisabledBy
		changes string // of the entry; empty: there is none
	}{
		"present": {first: Disabled, by: key.DisabledByLeak, changes: `{"disabledBy":{"from":null,"to":"leak"},` + disabled},
		"disabled by an operator": {
			draft: Draft{Enabled: ptr(false)}, first: Disabled, by: key.DisabledByLeak, changes: `{"disabledBy":{"from":"operator","to":"leak"}}`,
		},
		"disabled by the owner": {owner: true, first: Disabled, by: key.DisabledByLeak, changes: `{"disabledBy":{"from":"owner","to":"leak"}}`},
		"expired": {
			draft:   Draft{ExpiresIn: to(int64(60))},
			prepare: func(g *rig, _ string) string { g.clock.advance(2 * time.Minute); return "" },
			first:   Disabled, by: key.DisabledByLeak, changes: `{"disabledBy":{"from":null,"to":"leak"},` + disabled,
		},
		"of a disabled owner": {
			prepare: func(g *rig, _ string) string {
				if _, err := g.PutOwner(context.Background(), "alice", OwnerPatch{Enabled: to(false)}); err != nil {
					t.Fatal(err)
				}
				return ""
			},
			first: Disabled, by: key.DisabledByLeak, changes: `{"disabledBy":{"from":null,"to":"leak"},` + disabled,
		},
		"replaced, in its grace": {
			prepare: func(g *rig, id string) string { return g.rotate(id, hour).Raw },
			first:   Invalid, latter: Allowed,
			changes: `{"previousKey":{"from":{"start":"START","until":"2026-11-21T13:00:00Z"},"to":null},"previousKeys":{"from":1,"to":null}}`,
		},
		"the older of two that were replaced": {
			prepare: func(g *rig, id string) string { g.rotate(id, hour); return g.rotate(id, hour).Raw },
			first:   Invalid, latter: Allowed,
			changes: `{"previousKey":{"from":{"start":"START","until":"2026-11-21T13:00:00Z"},"to":null},"previousKeys":{"from":2,"to":1}}`,
		},
		"replaced, after its grace": {
			prepare: func(g *rig, id string) string {
				raw := g.rotate(id, hour).Raw
				g.clock.advance(time.Hour)
				return raw
			},
			first: Invalid, latter: Allowed,
		},
		"replaced without a grace": {
			prepare: func(g *rig, id string) string { return g.rotate(id, Rotation{}).Raw }, first: Invalid, latter: Allowed,
		},
		"public": {draft: Draft{ConfigID: ptr("pub")}, first: Allowed, changes: "-"},
		"public, replaced, in its grace": {
			draft: Draft{ConfigID: ptr("pub")}, prepare: func(g *rig, id string) string { return g.rotate(id, hour).Raw }, first: Allowed, latter: Allowed, changes: "-",
		},
		"deleted": {prepare: func(g *rig, id string) string { noError(g, g.Delete(context.Background(), id)); return "" }, first: Invalid},
		"unknown": {raw: "ak_" + strings.Repeat("x", 64), first: Allowed},
		"none":    {raw: " ", first: Allowed},
	} {
		for _, memory := range []string{"in memory", "not in memory"} {
			t.Run(name+", "+memory, func(t *testing.T) {
				g, report := leakRig(t)
				k := g.create(row.draft)
				id, later := k.Key.ID, ""
				if row.draft.Enabled == nil {
					g.want(k.Raw, Allowed)
				}
				if row.owner {
					if _, err := g.within(&Scope{}).Update(context.Background(), id, Patch{Enabled: to(false)}); err != nil {
						t.Fatal(err)
					}
				}
				if row.prepare != nil {
					later = row.prepare(g, id)
				}
				all := g.audit(0)
				began, raw := all[len(all)-1].ID, k.Raw
				if row.raw != "" {
					raw = strings.TrimSpace(row.raw)
				}
				for range 3 {
					if memory == "not in memory" {
						g.flush()
						g.evict()
					}
					report(raw)
				}
				g.want(k.Raw, row.first)
				if later != "" {
					g.want(later, row.latter)
				}
				if name != "deleted" {
					if got := g.get(id); got.Key.DisabledBy != row.by || row.by != "" && got.Key.Enabled {
						t.Errorf("enabled %t, disabled by %q", got.Key.Enabled, got.Key.DisabledBy)
					}
				}
				entries := g.audit(began)
				var want []string
				if row.changes != "" {
					changes := strings.TrimPrefix(strings.ReplaceAll(row.changes, "START", k.Raw[:6]), "-")
					want = []string{fmt.Sprintf("key.leak_reported system  %s alice %s 0", id, changes)}
				}
				var got []string
				for _, e := range entries {
					got = append(got, auditLine(e))
					if e.Actor.Address != "10.0.0.1" {
						t.Errorf("reported from %q", e.Actor.Address)
					}
				}
				if !slices.Equal(got, want) {
					t.Errorf("%q\nwant %q", got, want)
				}
			})
		}
	}
}

// TestA10_leakedPublic: reports of a public key are in the audit log once a day, also where many
// come at once and after a restart.
func TestA10_leakedPublic(t *testing.T) {
	g, report := leakRig(t)
	set := g.set
	k, other := g.create(Draft{ConfigID: ptr("pub")}), g.create(Draft{ConfigID: ptr("pub")})
	began := g.audit(0)[1].ID
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if err := g.ReportLeak(context.Background(), k.Raw, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	entries := func(want int) {
		t.Helper()
		if n := len(g.audit(began)); n != want {
			t.Errorf("%d entries, want %d", n, want)
		}
	}
	entries(1)
	report(other.Raw)
	entries(2)
	g.restart()
	g.use(set)
	report(k.Raw)
	entries(2)
	g.clock.advance(24 * time.Hour)
	report(k.Raw)
	entries(2)
	g.clock.advance(time.Millisecond)
	report(k.Raw)
	report(k.Raw)
	entries(3)
	g.want(k.Raw, Allowed)
}

// TestA10_leakedLease: a report without effect leaves leased credits where they are, and one
// with an effect returns them.
func TestA10_leakedLease(t *testing.T) {
	g, report := leakRig(t)
	g.leasing(100)
	k := g.create(Draft{Remaining: ptr(int64(10_000))})
	id := k.Key.ID
	fresh := g.rotate(id, Rotation{Grace: 1000})
	g.clock.advance(2 * time.Second)
	for g.out(id) == 0 {
		g.want(fresh.Raw, Allowed)
	}
	g.land()
	before := g.stored(id)
	report(k.Raw)
	if after := g.stored(id); after != before || after.Leased == 0 {
		t.Errorf("%+v, before %+v", after, before)
	}
	report(fresh.Raw)
	g.want(fresh.Raw, Disabled)
	if after := g.stored(id); after.Leased != 0 || after.Forfeited != 0 {
		t.Errorf("%+v", after)
	}
}

// TestLeakReports_noKey: a report without a raw key, or with what is none, ends no record, even
// where its hash is stored.
func TestLeakReports_noKey(t *testing.T) {
	g, report := leakRig(t)
	for i, raw := range []string{"", "no key"} {
		e, _ := g.foreign(i)
		e.Key.Hash = key.HashOf(raw)
		g.imports(false, []store.Entry{e}, "created")
		report(raw)
		if k := g.get(e.Key.ID).Key; !k.Enabled {
			t.Errorf("a report of %q disables a key", raw)
		}
	}
}

// TestLeakReports_events: webhooks and observers are told of each report that has an effect, and
// of public keys.
func TestLeakReports_events(t *testing.T) {
	g, report := leakRig(t)
	w := new(watcher)
	g.subscribe(w)
	public := DefaultRules()
	public.ConfigID, public.Public = "pub", true
	g.set.Configs = append(g.set.Configs, public)
	k, seen := g.create(Draft{}), g.create(Draft{ConfigID: ptr("pub")})
	for range 2 {
		report(k.Raw)
		report(seen.Raw)
		report("x")
	}
	want := []string{"key_created " + k.Key.ID + " alice", "key_created " + seen.Key.ID + " alice", "leak_reported " + k.Key.ID + " alice", "leak_reported " + seen.Key.ID + " alice"}
	wantEvents(t, "a webhook", g.sent(everyHook), want...)
	wantEvents(t, "observers", w.happened(), want...)
}

// TestD4_leakLimit: of each IPv4 address and each /64 of IPv6, ten reports count in a minute,
// whatever they hold. The store is not asked for more.
func TestD4_leakLimit(t *testing.T) {
	for name, address := range map[string]func(i int) string{
		"one address": func(int) string { return "192.0.2.1" },
		"a /64":       func(i int) string { return fmt.Sprintf("2001:db8:1:2:%x::1", i) },
		"mapped":      func(i int) string { return [...]string{"192.0.2.2", "::ffff:192.0.2.2"}[i%2] },
		"not known":   func(int) string { return "" },
	} {
		t.Run(name, func(t *testing.T) {
			g, _ := leakRig(t)
			k := g.create(Draft{})
			report := func(raw string, i int) {
				t.Helper()
				ip, _ := netip.ParseAddr(address(i))
				if err := g.ReportLeak(context.Background(), raw, ip); err != nil {
					t.Fatal(err)
				}
			}
			for i := range 10 {
				report([]string{"", "x", "ak_" + strings.Repeat("x", 64)}[i%3], i)
			}
			g.spy.finds.Store(0)
			for i := range 10 {
				report(k.Raw, i)
			}
			if n := g.spy.finds.Load(); n != 0 {
				t.Errorf("the store was asked %d times", n)
			}
			g.want(k.Raw, Allowed)
			g.clock.advance(time.Minute)
			report(k.Raw, 0)
			g.want(k.Raw, Disabled)
		})
	}
	g, _ := leakRig(t)
	k := g.create(Draft{})
	for i := range 11 {
		raw := "x"
		if i == 10 {
			raw = k.Raw
		}
		if err := g.ReportLeak(context.Background(), raw, netip.MustParseAddr(fmt.Sprintf("2001:db8:1:%x::1", i))); err != nil {
			t.Fatal(err)
		}
	}
	g.want(k.Raw, Disabled)
}

// TestLeakReports_storeAway: while the store is away, all reports within the limit fail alike, whatever they
// hold and memory knows.
func TestLeakReports_storeAway(t *testing.T) {
	for name, away := range map[string]func(*spy) *atomic.Bool{
		"reading": func(s *spy) *atomic.Bool { return &s.failReads }, "all": func(s *spy) *atomic.Bool { return &s.failHealth },
	} {
		t.Run(name, func(t *testing.T) {
			g, _ := leakRig(t)
			known, cold, public := g.create(Draft{}), g.create(Draft{}), g.create(Draft{ConfigID: ptr("pub")})
			old := known.Raw
			fresh := g.rotate(known.Key.ID, Rotation{Grace: 60_000}).Raw
			g.want(fresh, Allowed)
			away(g.spy).Store(true)
			for i, raw := range []string{fresh, old, cold.Raw, public.Raw, "ak_" + strings.Repeat("x", 64), "x", ""} {
				if err := g.ReportLeak(context.Background(), raw, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})); err == nil {
					t.Errorf("report %d does not fail", i)
				}
			}
			away(g.spy).Store(false)
			if err := g.ReportLeak(context.Background(), fresh, netip.MustParseAddr("192.0.2.9")); err != nil {
				t.Error(err)
			}
			g.want(fresh, Disabled)
		})
	}
}
