package storetest

import (
	"fmt"
	"reflect"
	"slices"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// statisticsTests are for stores that implement store.Statistics; others skip them.
var statisticsTests = []test{
	{"keys by configuration and state", func(e *env) {
		s := e.statistics()
		e.wantCounts(s)
		a := e.create(key.Credits{}, nil)
		b := e.create(key.Credits{}, func(k *key.Key) { k.ConfigID, k.Enabled = "other", false })
		e.create(key.Credits{}, func(k *key.Key) { k.UserID = "bob" })
		e.wantCounts(s, store.KeyCount{ConfigID: "default", Enabled: true, N: 2}, store.KeyCount{ConfigID: "other", N: 1})
		e.change(a.Key.ID, func(k *key.Key) { k.Enabled = false })
		e.change(b.Key.ID, func(k *key.Key) { k.ConfigID = "third" })
		e.change(b.Key.ID, func(k *key.Key) { k.UserID = "bob" })
		e.keyCount("bob", 2)
		e.keyCount("alice", 1)
		e.wantCounts(s, store.KeyCount{ConfigID: "default", N: 1}, store.KeyCount{ConfigID: "default", Enabled: true, N: 1}, store.KeyCount{ConfigID: "third", N: 1})
		e.must(e.storeDelete(a.Key.ID))
		_, err := e.storeDeleteOwner("bob")
		e.must(err)
		e.wantCounts(s)
		e.keyCount("alice", 0)
	}},
	{"figures of the whole store", func(e *env) {
		const day = 24 * 60 * 60 * 1000
		want := func(active, disabled, expired, exhausted, leased int64, expiring ...int64) {
			e.Helper()
			got, err := e.statistics().Figures(e.ctx, t0, []int64{t0 + day, t0 + 7*day})
			e.must(err)
			if want := (store.Figures{Active: active, Disabled: disabled, Expired: expired, Exhausted: exhausted, Expiring: expiring, Leased: leased}); !reflect.DeepEqual(got, want) {
				e.Fatalf("%+v, want %+v", got, want)
			}
		}
		want(0, 0, 0, 0, 0, 0, 0)
		off := func(k *key.Key) { k.Enabled = false }
		ends := func(at int64) func(*key.Key) { return func(k *key.Key) { k.ExpiresAt = at } }
		a := e.create(key.Credits{}, nil)
		e.create(limited(0), off)
		e.create(limited(0), ends(t0))
		e.create(key.Credits{}, ends(t0+day))
		e.create(key.Credits{}, ends(t0+day+1))
		e.create(key.Credits{}, ends(t0+7*day+1))
		e.create(key.Credits{}, func(k *key.Key) { k.Enabled, k.ExpiresAt = false, t0+1 })
		e.create(key.NewCredits(new(int64(0)), 5, day, t0), nil)     // no refill is due
		e.create(key.NewCredits(new(int64(0)), 5, day, t0-day), nil) // one is
		leased := e.create(limited(100), nil)
		e.move(leased.Key.ID, key.Move{Lease: 10}, t0)
		want(6, 2, 1, 1, 10, 2, 3)
		e.reopen()
		want(6, 2, 1, 1, 10, 2, 3)

		e.create(limited(0), func(k *key.Key) { k.UserID = "bob" })
		e.create(key.Credits{}, func(k *key.Key) { k.UserID, k.ExpiresAt = "bob", t0-1 })
		e.create(key.Credits{}, func(k *key.Key) { k.UserID, k.Enabled = "bob", false })
		want(6, 3, 2, 2, 10, 2, 3)
		_, err := e.storePutOwner("bob", t0, func(o *key.Owner) error { o.Enabled = false; return nil })
		e.must(err)
		want(6, 5, 1, 1, 10, 2, 3)
		_, err = e.storeDeleteOwner("bob")
		e.must(err)
		want(6, 2, 1, 1, 10, 2, 3)
		e.must(e.storeDelete(a.Key.ID))
		e.move(leased.Key.ID, key.Move{Returned: 4, Used: 6}, t0)
		want(5, 2, 1, 1, 0, 2, 3)
		if n := e.statistics().Backlog(); n != 0 {
			e.Fatalf("%d writes wait", n)
		}
	}},
	{"requests by hour, outcome and tier", func(e *env) {
		save := func(number int64, hours ...store.HourUses) {
			e.must(e.store.SaveUsage(e.ctx, store.UsageBatch{Writer: "w", Number: number, Hours: hours}))
		}
		hour := func(hour int64, outcome, tier string, n int64) store.HourUses {
			return store.HourUses{Hour: hour, Outcome: outcome, Tier: tier, N: n}
		}
		save(1, hour(7, "allowed", "", 5), hour(7, "allowed", "gold", 1), hour(8, "rate_limited", "gold", 2))
		save(2, hour(7, "allowed", "", -2), hour(7, "denied", "", 2), hour(9, "allowed", "", 1))
		save(2, hour(7, "allowed", "", 100)) // the same batch again
		want := []store.HourUses{hour(7, "allowed", "", 3), hour(7, "allowed", "gold", 1), hour(7, "denied", "", 2), hour(8, "rate_limited", "gold", 2)}
		for range 2 {
			got, err := e.statistics().Hours(e.ctx, 7, 8)
			e.must(err)
			if !slices.Equal(got, want) {
				e.Fatalf("%+v, want %+v", got, want)
			}
			e.reopen()
		}
	}},
	{"the busiest owners of a day", func(e *env) {
		const owners = store.MaxTopOwners + 20
		var batch []store.Used
		for i := range owners {
			id := fmt.Sprintf("owner%03d", i)
			e.create(key.Credits{}, func(k *key.Key) { k.ID, k.UserID = id, id })
			batch = append(batch, used(id, id, 20261120, int64(i+1), 0, 0))
		}
		e.saveUsage("w", 1, batch...)
		e.saveUsage("w", 2, used("owner000", "owner000", 20261120, 0, 1000, 0), used("owner001", "owner001", 20261121, 5000, 0, 0))
		for range 2 {
			got, err := e.statistics().TopOwners(e.ctx, 20261120)
			e.must(err)
			if len(got) != store.MaxTopOwners || got[0].UserID != "owner000" || got[0].Sum() != 1001 || got[1].UserID != fmt.Sprintf("owner%03d", owners-1) || got[1].Allowed != owners {
				e.Fatalf("%d owners, %+v", len(got), got[:min(2, len(got))])
			}
			e.reopen()
		}
		_, err := e.storeDeleteOwner("owner000")
		e.must(err)
		got, err := e.statistics().TopOwners(e.ctx, 20261120)
		e.must(err)
		if len(got) < 99 || got[0].UserID == "owner000" {
			e.Fatalf("%d owners, %+v", len(got), got[0])
		}
	}},
	{"permissions that were asked for", func(e *env) {
		e.withIDs("a", "b")
		ask := func(number int64, id string, permissions ...string) {
			b := store.UsageBatch{Writer: "w", Number: number}
			for _, p := range permissions {
				b.Asked = append(b.Asked, store.Asked{KeyID: id, Permission: p})
			}
			e.must(e.store.SaveUsage(e.ctx, b))
		}
		ask(1, "a", "files:write", "files:read", "files:read")
		ask(2, "nobody", "files:read")
		ask(3, "a", "files:read")
		for range 2 {
			for id, want := range map[string][]string{"a": {"files:read", "files:write"}, "b": nil, "nobody": nil} {
				got, err := e.statistics().AskedPermissions(e.ctx, id)
				e.must(err)
				if !slices.Equal(got, want) {
					e.Fatalf("%s was asked for %v, want %v", id, got, want)
				}
			}
			e.reopen()
		}
		var many []string
		for i := range 200 {
			many = append(many, fmt.Sprintf("p:%03d", i))
		}
		ask(4, "b", many...)
		for range 2 {
			got, err := e.statistics().AskedPermissions(e.ctx, "b")
			e.must(err)
			if len(got) != store.MaxAskedPermissions {
				e.Fatalf("%d are kept", len(got))
			}
			e.reopen()
		}
	}},
}

func (e *env) statistics() store.Statistics {
	e.Helper()
	s, ok := e.store.(store.Statistics)
	if !ok {
		e.Skip("the store keeps no statistics")
	}
	return s
}

func (e *env) wantCounts(s store.Statistics, want ...store.KeyCount) {
	e.Helper()
	got, err := s.KeyCounts(e.ctx)
	e.must(err)
	if !slices.Equal(got, want) {
		e.Fatalf("%+v, want %+v", got, want)
	}
	sum := int64(0)
	for _, c := range want {
		sum += c.N
	}
	st, err := e.store.Health(e.ctx)
	e.must(err)
	page, err := e.store.List(e.ctx, store.List{})
	e.must(err)
	if st.Keys != sum || page.Total != sum {
		e.Fatalf("health has %d keys, the list %d, want %d", st.Keys, page.Total, sum)
	}
}
