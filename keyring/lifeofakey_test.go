package keyring

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// TestQ29: a replaced raw key, in its grace, opens what it did, and changes nothing.
func TestQ29(t *testing.T) {
	g := newRig(t)
	ctx := context.Background()
	k := g.create(Draft{Permissions: key.Permissions{"api": {"admin"}}})
	other := g.create(Draft{ExpiresIn: to(int64(1))})
	next := g.rotate(k.Key.ID, Rotation{Grace: 60_000})
	g.clock.advance(10 * time.Second)
	for _, c := range []struct {
		name string
		call func(b *Scope) error
	}{
		{"create", func(b *Scope) error { _, err := g.within(b).Create(ctx, Draft{UserID: "alice"}); return err }},
		{"update", func(b *Scope) error {
			_, err := g.within(b).Update(ctx, k.Key.ID, Patch{Name: to("new")})
			return err
		}},
		{"disable", func(b *Scope) error {
			_, err := g.within(b).Update(ctx, k.Key.ID, Patch{Enabled: to(true)})
			return err
		}},
		{"rotate", func(b *Scope) error {
			_, err := g.within(b).Rotate(ctx, k.Key.ID, Rotation{Grace: 60_000})
			return err
		}},
		{"end-grace", func(b *Scope) error { _, err := g.within(b).EndGrace(ctx, k.Key.ID); return err }},
		{"delete-expired", func(b *Scope) error { _, err := g.within(b).DeleteExpired(ctx); return err }},
		{"delete", func(b *Scope) error { return g.within(b).Delete(ctx, other.Key.ID) }},
	} {
		old := g.want(k.Raw, Allowed)
		before := g.get(k.Key.ID).Key.Revision
		if !old.Previous() {
			t.Fatal("the decision does not know that the raw key was replaced")
		}
		var refused *ScopeError
		if err := c.call(g.ScopeOf(&old)); !errors.As(err, &refused) {
			t.Errorf("%s with the replaced raw key: %v", c.name, err)
		}
		if list, err := g.List(ctx, store.List{Limit: 10}); err != nil || list.Total != 2 || g.get(k.Key.ID).Key.Revision != before {
			t.Errorf("%s has changed something: %v", c.name, err)
		}
	}
	present := g.want(next.Raw, Allowed)
	if present.Previous() {
		t.Error("the present raw key counts as replaced")
	}
	if _, err := g.within(g.ScopeOf(&present)).EndGrace(ctx, k.Key.ID); err != nil {
		t.Error(err)
	}
	g.want(k.Raw, Invalid)
}

// TestQ30: the maximum binds everybody who chooses, and nobody but an operator leaves
// a key without an end.
func TestQ30(t *testing.T) {
	const second, hour = int64(1000), int64(3_600_000)
	chosen := to(hour / second)
	tooLong := to(2*hour/second + 1)
	null := cleared[int64]()
	max2h := Expiration{Max: 2 * hour, Keep: KeepForever}
	default1h := Expiration{Default: hour, Max: 2 * hour, Keep: KeepForever}
	fixed := Expiration{Default: hour, Max: 2 * hour, Fixed: true, Keep: KeepForever}
	fixedMax := Expiration{Max: 2 * hour, Fixed: true, Keep: KeepForever}
	const never, refused = int64(0), int64(-1)
	for _, c := range []struct {
		name      string
		rules     Expiration
		expiresIn Field[int64]
		// When the key ends from now on.
		owner, operator            int64 // created so in self-service, and by an operator
		changedByOperator, changed int64 // ended in half an hour, and is changed so by an operator, and in self-service
	}{
		{"silence", max2h, Field[int64]{}, 2 * hour, never, hour / 2, hour / 2},
		{"null", max2h, null, 2 * hour, never, never, 2 * hour},
		{"chosen", max2h, chosen, hour, hour, hour, hour},
		{"too long", max2h, tooLong, refused, refused, refused, refused},
		{"silence, with a default", default1h, Field[int64]{}, hour, hour, hour / 2, hour / 2},
		{"null, with a default", default1h, null, 2 * hour, hour, never, 2 * hour},
		{"silence, fixed", fixed, Field[int64]{}, hour, hour, hour / 2, hour / 2},
		{"null, fixed", fixed, null, hour, hour, refused, refused},
		{"chosen, fixed", fixed, chosen, refused, refused, refused, refused},
		{"silence, fixed without a default", fixedMax, Field[int64]{}, 2 * hour, never, hour / 2, hour / 2},
		{"silence, no maximum", Expiration{Keep: KeepForever}, Field[int64]{}, never, never, hour / 2, hour / 2},
		{"null, no maximum", Expiration{Keep: KeepForever}, null, never, never, never, never},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newRig(t, func(r *Rules) { r.Expiration = c.rules })
			ctx := context.Background()
			now := g.clock.ms.Load()
			wants := func(what string, got *key.Key, err error, want int64) {
				t.Helper()
				var bad *FieldError
				switch {
				case want == refused:
					if !errors.As(err, &bad) || bad.Field != "expiresIn" {
						t.Errorf("%s: %v, want it refused", what, err)
					}
				case err != nil:
					t.Errorf("%s: %v", what, err)
				case want == never && got.ExpiresAt != 0, want != never && got.ExpiresAt != now+want:
					t.Errorf("%s: ends after %d, want %d", what, got.ExpiresAt-now, want)
				}
			}
			person := &Scope{}
			made, err := g.within(person).Create(ctx, Draft{UserID: "alice", ExpiresIn: c.expiresIn})
			wants("created in self-service", made.Key, err, c.owner)
			made, err = g.Create(ctx, Draft{UserID: "alice", ExpiresIn: c.expiresIn})
			wants("created by an operator", made.Key, err, c.operator)

			id := g.create(Draft{}).Key.ID
			soon := func() {
				st := g.engine.store.Load()
				if _, err := st.Update(ctx, id, func(e *store.Entry) error {
					e.Key = e.Key.Clone()
					e.Key.ExpiresAt = now + hour/2
					return nil
				}, nil); err != nil {
					t.Fatal(err)
				}
			}
			soon()
			changed, err := g.Update(ctx, id, Patch{ExpiresIn: c.expiresIn, Name: to("new")})
			wants("changed by an operator", changed.Key, err, c.changedByOperator)
			soon()
			changed, err = g.within(person).Update(ctx, id, Patch{ExpiresIn: c.expiresIn, Name: to("new")})
			wants("changed in self-service", changed.Key, err, c.changed)
			if c.expiresIn.Value == nil {
				return
			}
			soon()
			rotated, err := g.Rotate(ctx, id, Rotation{ExpiresIn: c.expiresIn.Value})
			wants("rotated", rotated.Key, err, c.changedByOperator)
		})
	}
}

// TestQ33: what the wall clock shows for a while is not believed. A key is deleted in
// the background only after this process has seen it expired for an hour.
func TestQ33(t *testing.T) {
	const day = 24 * time.Hour
	monotonic := func(wall time.Duration, tick time.Duration) instant {
		return instant{wall.Milliseconds(), tick.Milliseconds()}
	}
	// What a key that ends at one hour meets, with keep 0.
	expires := time.Hour.Milliseconds()
	for _, c := range []struct {
		name  string
		looks []instant
		want  bool // deleted at the last of them
	}{
		{"just started", []instant{monotonic(60*day, 0)}, false},
		{"seen for less than an hour", []instant{monotonic(2*time.Hour, 0), monotonic(3*time.Hour-time.Second, time.Hour-time.Second)}, false},
		{"seen for an hour", []instant{monotonic(2*time.Hour, 0), monotonic(3*time.Hour, time.Hour)}, true},
		{"not yet expired an hour ago", []instant{monotonic(0, 0), monotonic(2*time.Hour-time.Second, 2*time.Hour-time.Second)}, false},
		{"ahead for ten seconds", []instant{monotonic(0, 0), monotonic(60*day, 5*time.Second), monotonic(60*day, 15*time.Second)}, false},
		{"ahead now and an hour ago", []instant{
			monotonic(60*day, 0), monotonic(0, time.Minute), monotonic(60*day, time.Hour), monotonic(60*day, time.Hour+time.Minute/2),
		}, false},
		{"back for a moment", []instant{monotonic(60*day, 0), monotonic(60*day, 30*time.Minute), monotonic(0, 31*time.Minute), monotonic(60*day, 90*time.Minute)}, false},
		{"ahead for longer than an hour", []instant{monotonic(0, 0), monotonic(60*day, time.Minute), monotonic(60*day, 62*time.Minute)}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := keeping{attached: []*Settings{{Rules: Rules{ConfigID: "default"}}}}
			deleted := false
			for i, now := range c.looks {
				x, ok := k.cutoffs(now)
				if deleted = ok && expires < x.Before("default"); deleted && i < len(c.looks)-1 {
					t.Errorf("deleted at look %d", i)
				}
				if deleted != (ok && expires < x.Previous) {
					t.Errorf("look %d: replaced raw keys end otherwise", i)
				}
			}
			if deleted != c.want {
				t.Errorf("deleted is %v", deleted)
			}
		})
	}

	// The same with a store, and a clock whose two times agree: an hour must pass
	// after the step ahead.
	g := newRig(t)
	defer g.engine.Attach(&Settings{Rules: DefaultRules()})()
	k := g.create(Draft{ExpiresIn: to(int64(60))})
	look := func(after time.Duration) {
		t.Helper()
		g.clock.advance(after)
		if err := g.engine.deleteKept(t.Context(), g.spy); err != nil {
			t.Fatal(err)
		}
	}
	look(0)
	for range 3 {
		look(60 * day)
		look(10 * time.Second)
		look(-60*day - 10*time.Second)
	}
	g.want(k.Raw, Allowed)
	look(60 * day)
	g.want(k.Raw, Expired)
	for range 2 {
		look(30 * time.Minute)
	}
	g.want(k.Raw, Invalid)
	if n := len(g.engine.keeping.looks); n > 4 {
		t.Errorf("%d looks are kept", n)
	}
}

// TestQ34_grants: the permissions of the owner's tier are a ceiling for what is
// granted in self-service, when it is granted.
func TestQ34_grants(t *testing.T) {
	read, write := key.Permissions{"api": {"read"}}, key.Permissions{"api": {"write"}}
	both := key.Permissions{"api": {"read", "write"}}
	free, pro := tier("free"), tier("pro")
	free.Permissions, pro.Permissions = read, key.Permissions{"api": {"*"}}
	chief := tier("chief")
	chief.Permissions = key.Permissions{"api": {"admin"}} // which may grant the others
	g := newRig(t).with(free, pro, tier("open"), chief)
	ctx := context.Background()
	person := &Scope{Permissions: both}
	for _, c := range []struct {
		tier     *string
		granted  key.Permissions // of read and write
		standard key.Permissions // where nobody says
	}{
		{nil, read, read},
		{ptr("pro"), both, both},
		{ptr("open"), both, nil},
		{ptr("chief"), both, key.Permissions{}},
	} {
		g.setTier("alice", c.tier)
		for _, wanted := range []key.Permissions{read, write, both, {"api": {"*"}}, {"*": {"*"}}, {"files": {"read"}}} {
			_, err := g.within(person).Create(ctx, Draft{UserID: "alice", Permissions: wanted})
			if ok := c.granted.Covers(wanted); ok != (err == nil) || !ok && beyond(err) != "permissions" {
				t.Errorf("%v: %v is created: %v", c.tier, wanted, err)
			}
		}
		made := g.createBy(g.within(person), Draft{DefaultPermissions: both})
		if got := made.Key.Permissions; !got.Covers(c.granted) || !c.granted.Covers(got) {
			t.Errorf("%v: the default is %v", c.tier, got)
		}
		if got := g.createBy(g.within(person), Draft{}).Key.Permissions; !slices.Equal(got.List(), c.standard.List()) {
			t.Errorf("%v: without a wish, the permissions are %v", c.tier, got)
		}
		g.create(Draft{Permissions: both}) // operators are not bound
	}

	k := g.createBy(g.within(person), Draft{Permissions: both})
	g.setTier("alice", nil)
	g.want(k.Raw, Allowed, Request{Require: []key.Permission{{Resource: "api", Action: "write"}}})
	if _, err := g.within(person).Update(ctx, k.Key.ID, Patch{Permissions: to(write)}); beyond(err) != "permissions" {
		t.Errorf("granted after all: %v", err)
	}
	for _, enabled := range []bool{false, true} { // what it has had before, it keeps
		if _, err := g.within(person).Update(ctx, k.Key.ID, Patch{Enabled: to(enabled)}); err != nil {
			t.Error(err)
		}
	}
	g.update(k.Key.ID, Patch{Permissions: to(both)})
}

// TestDisabledBy: nobody but an operator enables what an operator, or a leak, has
// disabled.
func TestDisabledBy(t *testing.T) {
	person := &Scope{}
	const owner, operator = key.DisabledByOwner, key.DisabledByOperator
	type step struct {
		within *Scope
		enable bool
		field  string // of the refusal
		want   key.DisabledBy
	}
	for name, steps := range map[string][]step{
		"by the owner":                   {{person, false, "", owner}, {person, true, "", ""}},
		"by an operator":                 {{nil, false, "", operator}, {person, true, "enabled", operator}, {nil, true, "", ""}},
		"by both, the owner first":       {{person, false, "", owner}, {nil, false, "", operator}, {person, true, "enabled", operator}},
		"by both, the operator first":    {{nil, false, "", operator}, {person, false, "", operator}, {person, true, "enabled", operator}},
		"by the owner, then by operator": {{person, false, "", owner}, {nil, true, "", ""}, {nil, false, "", operator}},
		"of an enabled one":              {{person, true, "", ""}, {nil, true, "", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			id := g.create(Draft{}).Key.ID
			for i, s := range steps {
				_, err := g.within(s.within).Update(context.Background(), id, Patch{Enabled: to(s.enable)})
				if s.field == "" && err != nil || s.field != "" && beyond(err) != s.field {
					t.Errorf("step %d: %v", i, err)
				}
				k := g.get(id).Key
				if k.DisabledBy != s.want || k.Enabled != (s.want == "") {
					t.Errorf("step %d: disabled by %q", i, k.DisabledBy)
				}
			}
		})
	}
	g := newRig(t)
	if k := g.create(Draft{Enabled: ptr(false)}).Key; k.DisabledBy != operator {
		t.Errorf("created disabled by %q", k.DisabledBy)
	}
	leaked, _ := g.foreign(1)
	leaked.Key.Enabled, leaked.Key.DisabledBy = false, key.DisabledByLeak
	unknown, _ := g.foreign(2)
	unknown.Key.Enabled = false
	g.imports(false, []store.Entry{leaked, unknown}, "created", "created")
	for _, e := range []store.Entry{leaked, unknown} {
		if _, err := g.within(person).Update(context.Background(), e.Key.ID, Patch{Enabled: to(true)}); beyond(err) != "enabled" {
			t.Errorf("%s is enabled: %v", e.Key.ID, err)
		}
	}
	if k := g.get(unknown.Key.ID).Key; k.DisabledBy != operator {
		t.Errorf("imported as disabled by %q", k.DisabledBy)
	}
}

// TestA4_rotation: a rotation gives the caller a raw key, so the key must lie within
// the bounds as a new one would.
func TestA4_rotation(t *testing.T) {
	read, write := key.Permissions{"api": {"read"}}, key.Permissions{"api": {"read", "write"}}
	for _, c := range []struct {
		name           string
		caller, target Draft
		field          string
	}{
		{"the same", Draft{Permissions: write}, Draft{Permissions: write}, ""},
		{"less", Draft{Permissions: write}, Draft{Permissions: read}, ""},
		{"permissions", Draft{Permissions: read}, Draft{Permissions: write}, "permissions"},
		{"an end", Draft{ExpiresIn: to(int64(60))}, Draft{}, "expiresIn"},
		{"networks", Draft{AllowedIPs: networks(t, "10.0.0.0/8")}, Draft{}, "allowedIps"},
		{"credits", Draft{Remaining: ptr(int64(9))}, Draft{}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newRig(t)
			within := g.parent(c.caller, nil)
			k := g.create(c.target)
			_, err := g.within(within).Rotate(context.Background(), k.Key.ID, Rotation{})
			refused := c.field != "" || c.name == "credits"
			if !refused && err != nil || refused && beyond(err) != c.field {
				t.Errorf("%v", err)
			}
			if refused {
				g.want(k.Raw, Allowed)
			}
			if _, err := g.within(within).Rotate(context.Background(), within.KeyID, Rotation{Grace: 1000}); err != nil {
				t.Errorf("the caller's own key: %v", err)
			}
		})
	}
	g := newRig(t)
	k := g.create(Draft{})
	only := func(*key.Key) bool { return false }
	if _, err := g.only(&Scope{}, only).Rotate(context.Background(), k.Key.ID, Rotation{}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("%v", err)
	}
	if _, err := g.only(&Scope{}, only).EndGrace(context.Background(), k.Key.ID); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("%v", err)
	}
	g.want(k.Raw, Allowed)
}

// TestQ28_lastUse: the last use of each raw key is known apart, also after it was
// replaced, forgotten by the cache, or the process has ended.
func TestQ28_lastUse(t *testing.T) {
	g := newRig(t)
	ctx := context.Background()
	start := g.clock.ms.Load()
	k := g.create(Draft{})
	id := k.Key.ID
	wants := func(what string, whole int64, previous ...int64) {
		t.Helper()
		i := g.get(id)
		var got []int64
		for _, p := range i.Previous {
			got = append(got, p.LastRequest)
		}
		for n := range previous {
			if previous[n] != 0 {
				previous[n] += start
			}
		}
		if i.LastRequest != start+whole || !slices.Equal(got, previous) {
			t.Errorf("%s: last used at %d, replaced raw keys %v, want %d and %v", what, i.LastRequest-start, got, whole, previous)
		}
	}
	use := func(raw string) {
		g.clock.advance(time.Second)
		g.want(raw, Allowed)
	}
	use(k.Raw)
	second := g.rotate(id, Rotation{Grace: 3_600_000})
	wants("replaced", 1000, 1000)
	use(k.Raw)
	wants("used after that", 2000, 2000)
	third := g.rotate(id, Rotation{Grace: 3_600_000})
	wants("the second was never used", 2000, 2000, 0)
	use(second.Raw)
	use(third.Raw)
	wants("all were used", 4000, 2000, 3000)

	// A use that a later gate refuses was none.
	g.clock.advance(time.Second)
	d := g.want(second.Raw, Allowed)
	wants("used", 5000, 2000, 5000)
	if err := g.Cancel(ctx, &d); err != nil {
		t.Fatal(err)
	}
	wants("canceled", 4000, 2000, 3000)

	g.restart()
	wants("after a restart", 4000, 2000, 3000)
	if e, err := g.engine.store.Load().Get(ctx, id); err != nil || e.Key.Previous[1].LastRequest != start+3000 {
		t.Errorf("stored: %+v, %v", e.Key.Previous, err)
	}
	g.rotate(id, Rotation{Grace: 3_600_000})
	wants("rotated after a restart", 4000, 2000, 3000, 4000)
	use(k.Raw)
	g.restart()
	fourth := g.rotate(id, Rotation{Grace: 3_600_000})
	wants("the fourth was never used", 6000, 6000, 3000, 4000, 0)
	use(fourth.Raw)
	if _, err := g.EndGrace(ctx, id); err != nil {
		t.Fatal(err)
	}
	wants("all others ended", 7000)
	use(fourth.Raw)
	g.rotate(id, Rotation{})
	wants("replaced without a grace", 8000)
	g.restart()
	wants("at the end", 8000)
}
