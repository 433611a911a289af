package storetest

import (
	"fmt"
	"slices"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

const allDays = 99991231

var usageTests = []test{
	{"adds up by key, by owner and by day", func(e *env) {
		e.withIDs("a", "b", "c")
		e.create(key.Credits{}, func(k *key.Key) { k.UserID = "bob" })
		e.saveUsage("w", 1,
			used("a", "alice", 20261120, 1, 2, 3), used("a", "alice", 20261121, 4, 0, 0),
			used("b", "alice", 20261120, 10, 0, 0), used("c", "bob", 20261120, 100, 0, 0))
		e.saveUsage("w", 2, used("a", "alice", 20261121, 0, 5, 6), used("a", "bob", 20261121, 7, 0, 0))
		e.wantUsage("key a", store.OfKey("a"), 0, allDays, day(20261120, 1, 2, 3), day(20261121, 11, 5, 6))
		e.wantUsage("alice", store.OfOwner("alice"), 0, allDays, day(20261120, 11, 2, 3), day(20261121, 4, 5, 6))
		e.wantUsage("bob", store.OfOwner("bob"), 0, allDays, day(20261120, 100, 0, 0), day(20261121, 7, 0, 0))
		e.wantUsage("one day", store.OfOwner("alice"), 20261121, 20261121, day(20261121, 4, 5, 6))
		e.wantUsage("no day", store.OfOwner("alice"), 20261122, allDays)
		e.wantUsage("nobody", store.OfOwner("nobody"), 0, allDays)
		e.reopen()
		e.wantUsage("key a, reopened", store.OfKey("a"), 0, allDays, day(20261120, 1, 2, 3), day(20261121, 11, 5, 6))
	}},
	{"K11 writes a batch once, however often it comes", func(e *env) {
		e.withIDs("a")
		one := used("a", "alice", 20261120, 1, 0, 0)
		for _, number := range []int64{1, 1, 2, 1, 2, 2, 3} {
			e.saveUsage("w", number, one)
		}
		e.wantUsage("after repetitions", store.OfKey("a"), 0, allDays, day(20261120, 3, 0, 0))
		e.reopen()
		e.saveUsage("w", 3, one) // its answer was lost with the connection
		e.wantUsage("after a lost answer", store.OfKey("a"), 0, allDays, day(20261120, 3, 0, 0))
		e.saveUsage("another process", 1, one)
		e.wantUsage("after a restart", store.OfKey("a"), 0, allDays, day(20261120, 4, 0, 0))
	}},
	{"takes back what was counted as something else", func(e *env) {
		e.withIDs("a", "b")
		e.saveUsage("w", 1, used("a", "alice", 20261120, 5, 0, 0))
		e.saveUsage("w", 2, used("a", "alice", 20261120, -2, 1, 1))
		e.wantUsage("moved", store.OfKey("a"), 0, allDays, day(20261120, 3, 1, 1))
		e.saveUsage("w", 3, used("a", "alice", 20261120, -9, 0, 2), used("b", "alice", 20261120, -1, 1, 0))
		e.wantUsage("not below zero", store.OfKey("a"), 0, allDays, day(20261120, 0, 1, 3))
		e.wantUsage("without a row", store.OfKey("b"), 0, allDays, day(20261120, 0, 1, 0))
	}},
	{"T2 outlives the key, not the owner", func(e *env) {
		a := e.create(key.Credits{}, func(k *key.Key) { k.ExpiresAt = t0 })
		b := e.create(key.Credits{}, nil)
		other := e.create(key.Credits{}, func(k *key.Key) { k.UserID = "bob" })
		save := func(number int64) {
			e.saveUsage("w", number, used(a.Key.ID, "alice", 20261120, 1, 0, 0), used(b.Key.ID, "alice", 20261120, 2, 0, 0), used(other.Key.ID, "bob", 20261120, 4, 0, 0))
		}
		save(1)
		e.must(e.storeDelete(b.Key.ID))
		if _, err := e.storeDeleteExpired(expiredBefore(t0+1), 10); err != nil {
			e.Fatal(err)
		}
		save(2) // counted before the deletion, written after it
		e.wantUsage("deleted keys", store.OfOwner("alice"), 0, allDays, day(20261120, 6, 0, 0))
		e.wantUsage("a deleted key", store.OfKey(b.Key.ID), 0, allDays, day(20261120, 4, 0, 0))
		if _, err := e.storeDeleteOwner("alice"); err != nil {
			e.Fatal(err)
		}
		e.wantUsage("a deleted owner", store.OfOwner("alice"), 0, allDays)
		save(3) // the owner is gone: only bob's is written
		e.wantUsage("after the deletion", store.OfKey(a.Key.ID), 0, allDays)
		e.wantUsage("the other owner", store.OfOwner("bob"), 0, allDays, day(20261120, 12, 0, 0))
	}},
	{"A6 touches nothing else", func(e *env) {
		made := e.create(limited(5), nil)
		before := e.dump()
		e.saveUsage("w", 1, used(made.Key.ID, "alice", 20261120, 1, 1, 1), used("nobody", "nobody", 20261120, 1, 1, 1))
		e.unchanged(before)
		page, err := e.store.Owners(e.ctx, 10, "")
		e.must(err)
		if len(page.Owners) != 1 {
			e.Errorf("%d owners", len(page.Owners))
		}
	}},
	{"takes any name", func(e *env) {
		full, err := e.storeCreate(fullKey(100), key.Credits{})
		e.must(err)
		e.saveUsage("w", 1, used(full.Key.ID, full.Key.UserID, 20261120, 1, 0, 0))
		e.wantUsage("by owner", store.OfOwner(full.Key.UserID), 0, allDays, day(20261120, 1, 0, 0))
		for _, name := range []string{"007", "1e3", "null", `"`, "true", "<&>", "\u2028"} {
			e.create(key.Credits{}, func(k *key.Key) { k.ID, k.UserID = name, name })
		}
		for i, name := range []string{"007", "1e3", "null", `"`, "true", "<&>", "\u2028"} {
			e.saveUsage("w", int64(i+2), used(name, name, 20261120, 1, 0, 0))
			e.wantUsage(name, store.OfOwner(name), 0, allDays, day(20261120, 1, 0, 0))
			e.wantUsage(name, store.OfKey(name), 0, allDays, day(20261120, 1, 0, 0))
		}
	}},
	{"takes batches from many at once", func(e *env) {
		e.withIDs("a")
		e.parallel(40, func(i int) error {
			b := store.UsageBatch{Writer: fmt.Sprint(i % 4), Number: int64(i/4 + 1), Used: []store.Used{used("a", "alice", 20261120, 0, 1, 0)}}
			// Numbers come out of order here, so that some are dropped: none may count twice.
			return e.store.SaveUsage(e.ctx, b)
		})
		days, err := e.store.Usage(e.ctx, store.OfKey("a"), 0, allDays)
		e.must(err)
		if len(days) != 1 || days[0].Limited < 4 || days[0].Limited > 40 {
			e.Errorf("%+v", days)
		}
	}},
}

// withIDs makes keys of alice.
func (e *env) withIDs(ids ...string) {
	e.Helper()
	for _, id := range ids {
		e.create(key.Credits{}, func(k *key.Key) { k.ID = id })
	}
}

func used(keyID, userID string, day int32, allowed, limited, denied int64) store.Used {
	return store.Used{KeyID: keyID, UserID: userID, Day: day, Uses: store.Uses{Allowed: allowed, Limited: limited, Denied: denied}}
}

func day(day int32, allowed, limited, denied int64) store.DayUses {
	return store.DayUses{Day: day, Uses: store.Uses{Allowed: allowed, Limited: limited, Denied: denied}}
}

func (e *env) saveUsage(writer string, number int64, list ...store.Used) {
	e.Helper()
	e.must(e.store.SaveUsage(e.ctx, store.UsageBatch{Writer: writer, Number: number, Used: list}))
}

func (e *env) wantUsage(name string, of store.Subject, first, last int32, want ...store.DayUses) {
	e.Helper()
	got, err := e.store.Usage(e.ctx, of, first, last)
	e.must(err)
	if !slices.Equal(got, want) {
		e.Errorf("%s: got %+v, want %+v", name, got, want)
	}
}
