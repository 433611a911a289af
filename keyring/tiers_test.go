package keyring

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

func tier(name string, limits ...TierLimit) Tier { return Tier{Name: name, Limits: limits} }

func per(u Unit, limit int64) TierLimit { return TierLimit{Max: limit, Unit: u} }

const tenSeconds = Unit(10_000)

// with puts the rig under a configuration with tiers. The first is the default.
func (g *rig) with(tiers ...Tier) *rig {
	g.t.Helper()
	s := &Settings{Rules: DefaultRules(), Tiers: tiers}
	if len(tiers) > 0 {
		s.DefaultTier = tiers[0].Name
	}
	g.use(s)
	return g
}

func (g *rig) at(s string) {
	g.t.Helper()
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		g.t.Fatal(err)
	}
	g.clock.ms.Store(t.UnixMilli())
}

func (g *rig) setTier(userID string, name *string) {
	g.t.Helper()
	if _, err := g.PutOwner(context.Background(), userID, OwnerPatch{Tier: Field[string]{Set: true, Value: name}}); err != nil {
		g.t.Fatal(err)
	}
}

// left returns what remains of the limit with that name.
func left(t testing.TB, d Decision, name string) int64 {
	t.Helper()
	for _, l := range d.Limits {
		if l.Name == name {
			return l.Remaining
		}
	}
	t.Fatalf("no limit %q in %+v", name, d.Limits)
	return 0
}

// drain asks until it is refused, and returns how often it was not.
func (g *rig) drain(raw string) (n int) {
	g.t.Helper()
	for g.verify(raw).Outcome == Allowed {
		n++
	}
	return n
}

// TestK5_TierRefusals: a refusal by the tier takes nothing from the key, one by the
// key nothing from the tier, one by the credits nothing from either.
func TestK5_TierRefusals(t *testing.T) {
	g := newRig(t).with(tier("free", per(tenSeconds, 3), per(Day, 5)))
	narrow := g.create(Draft{RateLimitMax: ptr(int64(2)), RateLimitTimeWindow: ptr(int64(60_000))})
	wide := g.create(Draft{RateLimitMax: ptr(int64(100)), RateLimitTimeWindow: ptr(int64(60_000))})
	poor := g.create(Draft{Remaining: ptr(int64(0))})

	g.want(narrow.Raw, Allowed)
	g.want(narrow.Raw, Allowed)
	for range 50 {
		d := g.want(narrow.Raw, RateLimited) // by the key
		if left(t, d, "key") != 0 || left(t, d, "10s") != 1 || left(t, d, "day") != 3 {
			t.Fatalf("%+v", d.Limits)
		}
		g.want(poor.Raw, UsageExceeded)
	}
	if d := g.want(wide.Raw, Allowed); left(t, d, "key") != 99 || left(t, d, "10s") != 0 || left(t, d, "day") != 2 {
		t.Fatalf("%+v", d.Limits)
	}
	for range 50 { // by the window of ten seconds
		d := g.want(wide.Raw, RateLimited)
		if d.Wait != 10_000 || left(t, d, "key") != 99 || left(t, d, "day") != 2 {
			t.Fatalf("wait %d, %+v", d.Wait, d.Limits)
		}
	}
	g.clock.advance(10 * time.Second)
	if n := g.drain(wide.Raw); n != 2 { // the day ends it
		t.Errorf("%d more today", n)
	}
	if d := g.want(wide.Raw, RateLimited); d.Wait != (12*3600-10)*1000 || left(t, d, "key") != 97 || left(t, d, "10s") != 1 {
		t.Errorf("wait %d, %+v", d.Wait, d.Limits)
	}
	if d := g.want(wide.Raw, RateLimited, Request{Cost: 6}); d.Waitable {
		t.Errorf("waiting does not help who wants more than a day has: %+v", d)
	}
	if i := g.get(wide.Key.ID); i.RequestCount != 3 {
		t.Errorf("the key counts %d", i.RequestCount)
	}
}

// TestK5_TierOther: what is refused before the limits takes nothing from them, nor
// does a dry run, nor a cost of 0.
func TestK5_TierOther(t *testing.T) {
	g := newRig(t).with(tier("free", per(Day, 2)))
	k := g.create(Draft{})
	for range 10 {
		g.want(k.Raw, Forbidden, Request{Cost: 1, Require: []key.Permission{{Resource: "api", Action: "read"}}})
		g.want(k.Raw, Allowed, Request{Cost: 1, DryRun: true})
		g.want(k.Raw, Allowed, Request{Cost: 0})
		g.want(k.Raw, RateLimited, Request{Cost: 3})
	}
	if n := g.drain(k.Raw); n != 2 {
		t.Errorf("%d passed", n)
	}
}

// TestK8_TierRetryAfter: with limits of every kind on a key and its owner, and
// credits that refill, who waits as long as the refusal says passes; a millisecond
// earlier nobody does.
func TestK8_TierRetryAfter(t *testing.T) {
	g := newRig(t)
	zone, err := time.LoadLocation("America/New_York")
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	n := func() int64 { return 1 + r.Int64N(4) }
	waited := map[Outcome]int{}
	for i := 0; waited[RateLimited] < 1000 || waited[UsageExceeded] < 100; i++ {
		tiers := []Tier{tier("t", per(Unit(1+r.Int64N(100_000)), n()), per(Day, 2+n()), per(Month, 5*n()))}
		g.use(&Settings{Rules: DefaultRules(), Tiers: tiers, DefaultTier: "t", Zone: zone})
		d := Draft{UserID: fmt.Sprint("owner", i), RateLimitMax: ptr(n()), RateLimitTimeWindow: ptr(1 + r.Int64N(200_000))}
		if i%2 == 0 {
			d.Remaining, d.RefillAmount, d.RefillInterval = ptr(n()), ptr(n()), ptr(1+r.Int64N(300_000))
		}
		raw := g.create(d).Raw
		for range 10 {
			g.clock.advance(time.Duration(r.Int64N(int64(time.Minute))))
			d := g.verify(raw)
			if d.Outcome == Allowed {
				continue
			}
			if !d.Waitable || d.Wait <= 0 {
				t.Fatalf("%+v", d)
			}
			g.clock.advance(time.Duration(d.Wait-1) * time.Millisecond)
			if d := g.verify(raw); d.Outcome == Allowed {
				t.Fatalf("passes before: %+v", d)
			}
			g.clock.advance(time.Millisecond)
			g.want(raw, Allowed)
			waited[d.Outcome]++
		}
	}
}

// TestK8_TierEdges: a window of a duration begins with the owner's first request.
func TestK8_TierEdges(t *testing.T) {
	g := newRig(t).with(tier("free", per(minute, 2)))
	a, b := g.create(Draft{}), g.create(Draft{})
	g.clock.advance(17 * time.Second)
	g.want(a.Raw, Allowed)
	g.clock.advance(59_999 * time.Millisecond)
	g.want(b.Raw, Allowed)
	if d := g.want(a.Raw, RateLimited); d.Wait != 1 {
		t.Errorf("wait %d", d.Wait)
	}
	g.clock.advance(time.Millisecond)
	if n := g.drain(b.Raw); n != 2 {
		t.Errorf("%d pass in the next window", n)
	}
}

// TestK9_TierSteady: who keeps to 95 % of every limit is never refused.
func TestK9_TierSteady(t *testing.T) {
	g := newRig(t).with(tier("free", per(minute, 100), per(Day, 95*60*24), per(Month, 95*60*24*31)))
	keys := []string{g.create(Draft{}).Raw, g.create(Draft{}).Raw, g.create(Draft{}).Raw}
	for i := range 95 * 30 {
		g.want(keys[i%3], Allowed)
		g.clock.advance(time.Minute / 95)
	}
}

// TestT3_TierClock: whatever the clock does, an owner gets no more than one more
// maximum for each leap ahead.
func TestT3_TierClock(t *testing.T) {
	for _, step := range []time.Duration{
		time.Second, -time.Second, time.Hour, -time.Hour, 24 * time.Hour, -24 * time.Hour, 10 * 365 * 24 * time.Hour, -50 * 365 * 24 * time.Hour,
	} {
		t.Run(step.String(), func(t *testing.T) {
			g := newRig(t).with(tier("free", per(minute, 5), per(Day, 20), per(Month, 30)))
			k := g.create(Draft{})
			total := g.drain(k.Raw)
			g.clock.advance(step)
			total += g.drain(k.Raw)
			if total > 10 {
				t.Errorf("%d passed", total)
			}
			g.clock.advance(-step)
			total += g.drain(k.Raw)
			if total > 10 {
				t.Errorf("%d passed after the way back", total)
			}
			g.clock.advance(32 * 24 * time.Hour)
			if n := g.drain(k.Raw); n != 5 {
				t.Errorf("%d pass a month later", n)
			}
		})
	}
}

// TestT4_TierDays: days and months are those of the time zone, to the millisecond.
func TestT4_TierDays(t *testing.T) {
	for _, c := range []struct{ zone, first, last, next string }{
		{"UTC", "2026-12-31T00:00:00Z", "2026-12-31T23:59:59.999Z", "2027-01-01T00:00:00Z"},
		{"Asia/Shanghai", "2028-02-28T16:00:00Z", "2028-02-29T15:59:59.999Z", "2028-02-29T16:00:00Z"},
		{"America/New_York", "2027-03-14T05:00:00Z", "2027-03-15T03:59:59.999Z", "2027-03-15T04:00:00Z"},
		{"America/New_York", "2026-11-01T04:00:00Z", "2026-11-02T04:59:59.999Z", "2026-11-02T05:00:00Z"},
		{"Asia/Kathmandu", "2026-11-29T18:15:00Z", "2026-11-30T18:14:59.999Z", "2026-11-30T18:15:00Z"},
		{"Pacific/Apia", "2026-11-29T11:00:00Z", "2026-11-30T10:59:59.999Z", "2026-11-30T11:00:00Z"},
		{"Africa/Casablanca", "2027-02-06T23:00:00Z", "2027-02-07T23:59:59.999Z", "2027-02-08T00:00:00Z"},
	} {
		t.Run(c.zone, func(t *testing.T) {
			zone, err := time.LoadLocation(c.zone)
			if err != nil {
				t.Fatal(err)
			}
			g := newRig(t)
			g.use(&Settings{Rules: DefaultRules(), Tiers: []Tier{tier("t", per(Day, 2))}, DefaultTier: "t", Zone: zone})
			g.at(c.first)
			k := g.create(Draft{})
			g.want(k.Raw, Allowed)
			g.at(c.last)
			g.want(k.Raw, Allowed)
			if d := g.want(k.Raw, RateLimited); d.Wait != 1 {
				t.Errorf("wait %d", d.Wait)
			}
			g.at(c.next)
			if n := g.drain(k.Raw); n != 2 {
				t.Errorf("%d on the next day", n)
			}
		})
	}
}

// TestTierRace: several keys of an owner race for its last slots, and exactly those
// are given, while refusals take nothing from the keys.
func TestTierRace(t *testing.T) {
	g := newRig(t).with(tier("free", per(minute, 1000)))
	var keys []Issued
	for range 8 {
		keys = append(keys, g.create(Draft{RateLimitMax: ptr(int64(400)), RateLimitTimeWindow: ptr(int64(60_000))}))
	}
	for range 20 {
		g.race(keys)
		g.clock.advance(time.Minute)
	}
}

// race asks with all keys at once.
func (g *rig) race(keys []Issued) {
	t := g.t
	t.Helper()
	var passed atomic.Int64
	var wg sync.WaitGroup
	for w := range 64 {
		wg.Go(func() {
			for range 100 {
				d, err := g.Verify(context.Background(), keys[w%8].Raw, &Request{Cost: 1})
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
	if n := passed.Load(); n != 1000 {
		t.Errorf("%d passed, want 1000", n)
	}
	counted := int64(0)
	for _, k := range keys {
		counted += g.get(k.Key.ID).RequestCount
	}
	if counted != 1000 {
		t.Errorf("the keys count %d, want 1000", counted)
	}
}

// TestTierDead: a request that found an owner who has been forgotten since looks again.
func TestTierDead(t *testing.T) {
	g := newRig(t).with(tier("free", per(Day, 5)))
	k := g.create(Draft{})
	g.want(k.Raw, Allowed)
	if err := g.engine.flush(context.Background(), g.spy); err != nil {
		t.Fatal(err)
	}
	l := g.entry(k.Key.ID)
	l.rec.Load().owner.windows.end()
	err := g.admit(context.Background(), g.engine.store.Load(), l, credential{hash: k.Key.Hash}, nil, &Request{Cost: 1}, &Decision{})
	if !errors.Is(err, errEvicted) {
		t.Errorf("%v", err)
	}
}

// TestT3_TierClocks: durations follow the monotonic clock, days the one on the wall.
func TestT3_TierClocks(t *testing.T) {
	g := newRig(t).with(tier("free", per(minute, 3), per(Day, 4)))
	g.at("2026-11-21T23:59:00Z")
	k := g.create(Draft{})
	g.want(k.Raw, Allowed)
	l := g.entry(k.Key.ID)
	take := func(wall, tick time.Duration) Decision {
		now := g.engine.clock()
		d := Decision{entry: l, rec: l.rec.Load(), plan: g.planFor(l.rec.Load().owner)}
		g.takeAt(&d, instant{now.wall + wall.Milliseconds(), now.monotonic + tick.Milliseconds()}, 1)
		return d
	}
	if d := take(time.Minute, time.Second); left(t, d, "minute") != 1 || left(t, d, "day") != 3 || d.Limits[1].Reset != 24*3600*1000 {
		t.Errorf("the clock was set by a minute, over midnight: %+v", d.Limits)
	}
	if d := take(2*time.Minute, time.Minute); left(t, d, "minute") != 2 || left(t, d, "day") != 2 {
		t.Errorf("a minute later: %+v", d.Limits)
	}
}

// TestTierChange: an owner's new tier holds for the next request, and finds what was
// counted before, also of units that the old tier did not limit.
func TestTierChange(t *testing.T) {
	g := newRig(t).with(tier("free", per(Day, 3)), tier("pro", per(minute, 5), per(Day, 10)), tier("open"))
	k := g.create(Draft{})
	if n := g.drain(k.Raw); n != 3 {
		t.Fatalf("%d pass under free", n)
	}
	g.setTier("alice", ptr("pro"))
	if d := g.want(k.Raw, Allowed); d.Tier() != "pro" || left(t, d, "minute") != 1 || left(t, d, "day") != 6 {
		t.Fatalf("%s, %+v", d.Tier(), d.Limits)
	}
	g.setTier("alice", ptr("open"))
	for range 20 {
		if d := g.want(k.Raw, Allowed); len(d.Limits) != 0 {
			t.Fatalf("%+v", d.Limits)
		}
	}
	g.setTier("alice", ptr("pro"))
	if d := g.want(k.Raw, RateLimited); d.Wait != 12*3600*1000 {
		t.Errorf("wait %d", d.Wait)
	}
	g.setTier("alice", nil)
	if d := g.want(k.Raw, RateLimited); d.Tier() != "free" {
		t.Errorf("tier %q", d.Tier())
	}
	if i := g.get(k.Key.ID); i.Tier == nil || *i.Tier != "free" {
		t.Errorf("the key shows %v", i.Tier)
	}
	_, err := g.PutOwner(context.Background(), "alice", OwnerPatch{Tier: to("gold")})
	var bad *FieldError
	if !errors.As(err, &bad) || bad.Field != "tier" || bad.Message != `unknown tier: must be one of "free", "pro", "open", or null` {
		t.Errorf("%v", err)
	}
}

// TestTierConfigChange: another configuration on the same engine, as after a reload,
// keeps the counts, whatever it says of tiers and of the time zone.
func TestTierConfigChange(t *testing.T) {
	g := newRig(t).with(tier("free", per(minute, 10), per(Day, 100)))
	k := g.create(Draft{})
	g.drain(k.Raw)
	g.with(tier("free", per(minute, 12), per(Day, 100)))
	if n := g.drain(k.Raw); n != 2 {
		t.Errorf("%d more after the maximum grew by 2", n)
	}
	g.with() // none
	g.want(k.Raw, Allowed)
	g.with(tier("other", per(Day, 14)))
	if n := g.drain(k.Raw); n != 2 { // the one without tiers was not counted
		t.Errorf("%d more today", n)
	}
	zone, err := time.LoadLocation("Asia/Shanghai")
	if err != nil {
		t.Fatal(err)
	}
	g.use(&Settings{Rules: DefaultRules(), Tiers: []Tier{tier("other", per(Day, 14))}, DefaultTier: "other", Zone: zone})
	if d := g.want(k.Raw, RateLimited); d.Wait != 4*3600*1000 { // 12:00 to 16:00 UTC
		t.Errorf("wait %d", d.Wait)
	}
}

// TestTierSurvives: windows of owners outlive a clean restart, and an owner that is
// forgotten and comes back.
func TestTierSurvives(t *testing.T) {
	tiers := []Tier{tier("free", per(minute, 10), per(Day, 20), per(Month, 30))}
	g := newRig(t).with(tiers...)
	k := g.create(Draft{})
	if n := g.drain(k.Raw); n != 10 {
		t.Fatalf("%d", n)
	}
	g.restart()
	g.with(tiers...)
	g.want(k.Raw, RateLimited)
	g.clock.advance(time.Minute)
	if d := g.want(k.Raw, Allowed); left(t, d, "day") != 9 || left(t, d, "month") != 19 {
		t.Errorf("%+v", d.Limits)
	}
	g.evict()
	if _, owners := g.inMemory(); owners != 1 {
		t.Fatal("an owner was forgotten whose windows are not written")
	}
	g.forget(k.Key.ID)
	if d := g.want(k.Raw, Allowed); left(t, d, "day") != 8 || left(t, d, "month") != 18 {
		t.Errorf("%+v", d.Limits)
	}
}

// TestTierForgetting: owners are written and forgotten all the time while their keys
// are used, and no count is lost.
func TestTierForgetting(t *testing.T) {
	g := newRig(t).with(tier("free", per(Day, 2000)))
	keys := []Issued{g.create(Draft{}), g.create(Draft{}), g.create(Draft{})}
	var passed atomic.Int64
	var users sync.WaitGroup
	end := g.repeat(func() {
		if err := g.engine.flush(context.Background(), g.spy); err != nil {
			t.Error(err)
		}
		g.evict()
	})
	for w := range 8 {
		users.Go(func() {
			for range 400 {
				d, err := g.Verify(context.Background(), keys[w%3].Raw, &Request{Cost: 1})
				if err != nil {
					t.Error(err)
				}
				if d.Outcome == Allowed {
					passed.Add(1)
				}
			}
		})
	}
	users.Wait()
	end()
	if n := passed.Load(); n != 2000 {
		t.Errorf("%d passed, want 2000", n)
	}
}

// TestTierDeletedOwner: a new owner of the same name begins with nothing counted.
func TestTierDeletedOwner(t *testing.T) {
	g := newRig(t).with(tier("free", per(Day, 5)))
	for _, written := range []bool{false, true} {
		k := g.create(Draft{})
		if n := g.drain(k.Raw); n != 5 {
			t.Fatalf("%d", n)
		}
		if written {
			if err := g.engine.flush(context.Background(), g.spy); err != nil {
				t.Fatal(err)
			}
		}
		if err := g.DeleteOwner(context.Background(), "alice"); err != nil {
			t.Fatal(err)
		}
		if err := g.engine.flush(context.Background(), g.spy); err != nil {
			t.Fatal(err)
		}
	}
	if n := g.drain(g.create(Draft{}).Raw); n != 5 {
		t.Errorf("%d pass", n)
	}
}

// TestTierMovedKey: a key that moves counts for its new owner.
func TestTierMovedKey(t *testing.T) {
	g := newRig(t).with(tier("free", per(Day, 5)))
	a, b := g.create(Draft{}), g.create(Draft{UserID: "bob"})
	g.drain(a.Raw)
	g.update(a.Key.ID, Patch{UserID: to("bob")})
	g.want(a.Raw, Allowed)
	if n := g.drain(b.Raw); n != 4 {
		t.Errorf("%d left for bob", n)
	}
	g.update(b.Key.ID, Patch{UserID: to("alice")})
	g.want(b.Raw, RateLimited)
}

// failing is a store that cannot say what owners have used.
type failing struct {
	store.Store
	err atomic.Pointer[error]
}

func (f *failing) Windows(ctx context.Context, of store.Subject) ([]store.Window, error) {
	if err := f.err.Load(); err != nil {
		return nil, *err
	}
	return f.Store.Windows(ctx, of)
}

// TestTierStoreAway: where the store cannot say what an owner has used, nobody is let
// in on a guess.
func TestTierStoreAway(t *testing.T) {
	g := newRig(t).with(tier("free", per(Day, 5)))
	k := g.create(Draft{})
	st := g.engine.store.Load()
	f := &failing{Store: st.Store}
	f.err.Store(&store.ErrUnavailable)
	g.engine.store.Store(&opened{f, st.at})
	d, err := g.Verify(context.Background(), k.Raw, &Request{Cost: 1})
	if d.Outcome != Unavailable || !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("%q, %v", d.Outcome.Code(), err)
	}
	f.err.Store(nil)
	if n := g.drain(k.Raw); n != 5 {
		t.Errorf("%d pass", n)
	}
}

// TestUnknownTier: the default tier stands in for one that is not configured, and
// the log says so once for each owner and tier.
func TestUnknownTier(t *testing.T) {
	g := newRig(t).with(tier("free", per(Day, 1000)), tier("gold"), tier("silver"))
	var said []error
	g.engine.report = func(err error) { said = append(said, err) }
	k := g.create(Draft{})
	g.setTier("alice", ptr("gold"))
	g.want(k.Raw, Allowed)
	for range 3 {
		g.with(tier("free", per(Day, 1000)))
		for range 5 {
			if d := g.want(k.Raw, Allowed); d.Tier() != "free" {
				t.Fatalf("tier %q", d.Tier())
			}
		}
		g.with(tier("free", per(Day, 1000)), tier("gold"), tier("silver"))
		g.want(k.Raw, Allowed)
	}
	if len(said) != 1 || said[0].Error() != `the tier "gold" of the owner "alice" is not configured: the default tier "free" applies` {
		t.Errorf("%v", said)
	}
	g.setTier("alice", ptr("silver"))
	g.with()
	if d := g.want(k.Raw, Allowed); d.Tier() != "" {
		t.Errorf("tier %q", d.Tier())
	}
	if len(said) != 2 {
		t.Errorf("%v", said)
	}
}

func TestWarnOnce(t *testing.T) {
	var w warnOnce
	first := 0
	for i := range 5 * maxWarnings {
		if w.first(UnknownTier{UserID: fmt.Sprint(i / 2)}) {
			first++
		}
	}
	remembered := 0
	w.seen.Range(func(any, any) bool { remembered++; return true })
	if first != maxWarnings || remembered != maxWarnings {
		t.Errorf("%d warnings, %d remembered", first, remembered)
	}
}

// TestTierPermissions: a tier's permissions replace the default ones, for new keys
// that do not say.
func TestTierPermissions(t *testing.T) {
	g := newRig(t)
	rules := DefaultRules()
	rules.Permissions = key.Permissions{"api": {"read"}}
	pro := Tier{Name: "pro", Permissions: key.Permissions{"files": {"read", "write"}}}
	g.use(&Settings{Rules: rules, Tiers: []Tier{tier("free"), pro}, DefaultTier: "free"})
	g.setTier("bob", ptr("pro"))
	for _, c := range []struct {
		draft Draft
		want  []string
	}{
		{Draft{UserID: "alice"}, []string{"api:read"}},
		{Draft{UserID: "bob"}, []string{"files:read", "files:write"}},
		{Draft{UserID: "bob", Permissions: key.Permissions{"api": {"admin"}}}, []string{"api:admin"}},
	} {
		if got := g.create(c.draft).Key.Permissions.List(); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.draft.UserID, got, c.want)
		}
	}
}

func TestUnits(t *testing.T) {
	for u, want := range map[Unit][2]string{
		Day: {"day", "day"}, Month: {"month", "month"}, minute: {"60000ms", "minute"}, hour: {"3600000ms", "hour"},
		tenSeconds: {"10000ms", "10s"}, 24 * hour: {"86400000ms", "24h0m0s"},
	} {
		got, ok := unitOf(u.id())
		if u.id() != want[0] || !ok || got != u || (&TierLimit{Unit: u}).label() != want[1] {
			t.Errorf("%d: id %q, read as %d, label %q", u, u.id(), got, (&TierLimit{Unit: u}).label())
		}
	}
	for _, id := range []string{"", "ms", "0ms", "-1ms", "-2", "01ms", "60000", "1s", "week"} {
		if u, ok := unitOf(id); ok {
			t.Errorf("%q is read as %d", id, u)
		}
	}
	if got := (&TierLimit{Unit: 24 * hour, Text: "1d"}).label(); got != "1d" {
		t.Errorf("%q", got)
	}
	p := newPlans(&Settings{Tiers: []Tier{tier("a", per(Month, 1), per(400*24*hour, 1), per(Day, 1)), tier("b", per(minute, 1), per(Day, 2))}})
	if want := []Unit{minute, 400 * 24 * hour, Day, Month}; !slices.Equal(p.units, want) {
		t.Errorf("%v, want %v", p.units, want)
	}
}

// TestManyTierLimits: more limits than a request has room for at hand.
func TestManyTierLimits(t *testing.T) {
	var limits []TierLimit
	for i := range 20 {
		limits = append(limits, per(Unit(1000*(i+1)), int64(100-i)))
	}
	g := newRig(t).with(tier("free", limits...))
	k := g.create(Draft{RateLimitMax: ptr(int64(90)), RateLimitTimeWindow: ptr(int64(60_000))})
	if n := g.drain(k.Raw); n != 81 {
		t.Errorf("%d pass", n)
	}
	if d := g.want(k.Raw, RateLimited); len(d.Limits) != 21 || d.Wait != 20_000 {
		t.Errorf("wait %d, %d limits", d.Wait, len(d.Limits))
	}
}

// TestQ10_TiersOfOthers: what a tier limits makes early data matter for owners in the tier
// alone, though all are counted.
func TestQ10_TiersOfOthers(t *testing.T) {
	g := newRig(t)
	g.use(&Settings{Rules: DefaultRules(), Tiers: []Tier{tier("gold", per(Day, 5))}})
	early := Request{Cost: 1, EarlyData: true}
	free, gold := g.create(Draft{UserID: "alice"}), g.create(Draft{UserID: "bob"})
	if _, err := g.PutOwner(context.Background(), "bob", OwnerPatch{Tier: to("gold")}); err != nil {
		t.Fatal(err)
	}
	g.want(free.Raw, Allowed, early)
	g.want(gold.Raw, TooEarly, early)
	g.want(g.create(Draft{Remaining: ptr(int64(5))}).Raw, TooEarly, early)
	g.want(g.create(Draft{RateLimitMax: ptr(int64(5)), RateLimitTimeWindow: ptr(int64(1000))}).Raw, TooEarly, early)
}
