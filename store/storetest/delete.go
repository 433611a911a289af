package storetest

import (
	"fmt"
	"slices"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

var deleteTests = []test{
	{"what owners have disabled goes after a while", func(e *env) {
		for i, by := range []key.DisabledBy{key.DisabledByOwner, key.DisabledByOwner, key.DisabledByOperator, "", key.DisabledByOwner} {
			e.create(key.Credits{}, func(k *key.Key) {
				k.ID, k.Hash = fmt.Sprint("k", i), hash("k", i)
				k.Enabled, k.DisabledBy, k.UpdatedAt = by == "", by, t0+int64(i)
				if i == 4 {
					k.ConfigID = "other"
				}
			})
		}
		e.change("k0", func(k *key.Key) { k.UpdatedAt = t0 + 50 }) // changed since
		x := expiredBefore(t0 + 100)
		ids, err := e.storeDeleteExpired(x, 10)
		e.must(err)
		if len(ids) != 0 {
			e.Errorf("%v are deleted without being asked for", ids)
		}
		x.Disabled = func(configID string) int64 {
			if configID == "other" {
				return 0
			}
			return t0 + 50
		}
		ids, err = e.storeDeleteExpired(x, 10)
		e.must(err)
		if !slices.Equal(ids, []string{"k1"}) {
			e.Errorf("%v are deleted, want k1", ids)
		}
		e.change("k0", func(k *key.Key) { k.Enabled, k.DisabledBy = true, "" })
		x.Disabled = func(string) int64 { return t0 + 1000 }
		ids, err = e.storeDeleteExpired(x, 10)
		e.must(err)
		if !slices.Equal(ids, []string{"k4"}) {
			e.Errorf("%v are deleted, want k4", ids)
		}
	}},
	{"unknown", func(e *env) {
		e.wantErr(e.storeDelete("nobody"), store.ErrNotFound)
	}},
	{"takes along all that belongs to the key", func(e *env) {
		full := fullKey(1)
		_, err := e.storeCreate(full, limited(5))
		e.must(err)
		other := e.create(limited(7), func(k *key.Key) { k.ID = "other"; k.Hash = hash("other", 1) })
		e.must(e.store.SaveCounters(e.ctx, []store.Counters{keyCounters(full.ID, t0, []byte("x"))}))
		before := e.dump()

		e.must(e.storeDelete(full.ID))
		e.unchanged(before, full.ID)
		e.wantErr(e.storeDelete(full.ID), store.ErrNotFound)
		_, err = e.store.Get(e.ctx, full.ID)
		e.wantErr(err, store.ErrNotFound)
		for _, h := range []key.Hash{full.Hash, full.Previous[0].Hash, full.Previous[1].Hash} {
			_, err = e.store.Find(e.ctx, h)
			e.wantErr(err, store.ErrNotFound)
		}
		_, err = e.store.MoveCredits(e.ctx, store.OfKey(full.ID), key.Move{Take: 1}, t0)
		e.wantErr(err, store.ErrNotFound)
		_, err = e.store.MoveCredits(e.ctx, store.OfKey(full.ID), key.Move{Give: 1}, t0)
		e.wantErr(err, store.ErrNotFound)
		e.keyCount(full.UserID, 0)
		e.sameEntry(e.get(other.Key.ID), other)

		again, err := e.storeCreate(full, limited(2)) // the same ID and hashes are free again
		e.must(err)
		if again.LastRequest != 0 || len(again.Windows) != 0 || again.Credits.Remaining != 2 {
			e.Fatalf("the old key's counters came back: %+v %+v", again, again.Credits)
		}
	}},
	{"T2 expired keys, and only those", testT2},
	{"T2 each configuration has its own time", func(e *env) {
		for i, config := range []string{"a", "b", "c", "default"} {
			for n := range 3 {
				e.create(key.Credits{}, func(k *key.Key) {
					k.ID, k.ConfigID, k.ExpiresAt = fmt.Sprintf("%s%d", config, n), config, t0+int64(n-1)
					k.Hash = hash(config, n)
				})
			}
			e.create(key.Credits{}, func(k *key.Key) { k.ID, k.ConfigID, k.Hash = config+"-", config, hash("never "+config, i) })
		}
		before := map[string]int64{"a": t0 + 1, "b": 0, "c": t0}
		x := store.Expired{Before: func(configID string) int64 {
			if t, ok := before[configID]; ok {
				return t
			}
			return t0 + 2
		}}
		var gone []string
		for _, want := range []int{4, 2, 0} {
			ids, err := e.storeDeleteExpired(x, 4)
			e.must(err)
			if len(ids) != want {
				e.Fatalf("%d deleted, want %d", len(ids), want)
			}
			gone = append(gone, ids...)
		}
		slices.Sort(gone)
		if want := []string{"a0", "a1", "c0", "default0", "default1", "default2"}; !slices.Equal(gone, want) {
			e.Fatalf("%v deleted, want %v", gone, want)
		}
		if rest := e.dump(); len(rest) != 10 {
			e.Fatalf("%d keys stay, want 10", len(rest))
		}
	}},
	{"T2 at most the limit, the rest later", func(e *env) {
		for i := range 25 {
			e.create(key.Credits{}, func(k *key.Key) { k.ExpiresAt = t0 + int64(i) })
		}
		total := 0
		for _, want := range []int{0, 10, 10, 5, 0} {
			limit := 10
			if want == 0 && total == 0 {
				limit = 0
			}
			ids, err := e.storeDeleteExpired(expiredBefore(t0+100), limit)
			e.must(err)
			if len(ids) != want {
				e.Fatalf("%d deleted, want %d", len(ids), want)
			}
			total += len(ids)
		}
	}},
}

// expiredBefore is the same time for keys of all configurations.
func expiredBefore(t int64) store.Expired {
	return store.Expired{Before: func(string) int64 { return t }, Previous: t}
}

// testT2 mixes 10,000 keys of which a known half has expired; with -short, 1,000.
func testT2(e *env) {
	const before = t0
	expiries := []int64{0, 1, before - 1, before, before + 1, key.MaxTime, before - 86_400_000, 0, before + 86_400_000, before - 2}
	n := 10_000
	if testing.Short() {
		n = 1_000
	}
	page := n/10 - 1
	var gone, stay []string
	formers := map[key.Hash]bool{} // whether it stays
	e.parallel(n, func(i int) error {
		k := plainKey(i + 1)
		k.ExpiresAt = expiries[i%len(expiries)]
		k.UserID = fmt.Sprintf("owner %d", i%7)
		if i%50 == 9 { // an expired one
			k.Previous = []key.PreviousKey{{Hash: hash("dead's", i), Until: before + 5}}
		}
		if i%50 == 3 { // one that stays
			k.Previous = []key.PreviousKey{{Hash: hash("over", i), Until: before - 1}, {Hash: hash("edge", i), Until: before}}
		}
		_, err := e.storeCreate(k, limited(int64(i)))
		return err
	})
	for i := range n {
		id, x := plainKey(i+1).ID, expiries[i%len(expiries)]
		if x != 0 && x < before {
			gone = append(gone, id)
		} else {
			stay = append(stay, id)
		}
		if i%50 == 3 {
			formers[hash("over", i)], formers[hash("edge", i)] = false, true
		}
		if i%50 == 9 {
			formers[hash("dead's", i)] = false
		}
	}
	was := e.dump()
	var deleted []string
	for {
		ids, err := e.storeDeleteExpired(expiredBefore(before), page)
		e.must(err)
		if len(ids) == 0 {
			break
		}
		if len(ids) > page {
			e.Fatalf("%d deleted at once", len(ids))
		}
		deleted = append(deleted, ids...)
	}
	slices.Sort(deleted)
	if !slices.Equal(deleted, gone) { // ids sort as they were made
		e.Fatalf("%d keys deleted, want %d", len(deleted), len(gone))
	}
	now := e.dump()
	if len(now) != len(stay) {
		e.Fatalf("%d keys stay, want %d", len(now), len(stay))
	}
	for _, id := range stay {
		want := was[id]
		if want.Key.Previous != nil {
			want.Key = want.Key.Clone()
			want.Key.Previous = want.Key.Previous[1:] // the one whose grace ended goes too
			want.Key.Revision = now[id].Key.Revision
		}
		if d := diffEntry(now[id], want); d != "" {
			e.Fatalf("key %s: %s", id, d)
		}
	}
	for h, stays := range formers {
		_, err := e.store.Find(e.ctx, h)
		if stays {
			e.must(err)
		} else {
			e.wantErr(err, store.ErrNotFound)
		}
	}
}
