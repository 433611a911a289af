package storetest

import (
	"cmp"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

var sorts = []store.Sort{store.SortCreatedAt, store.SortName, store.SortLastRequest, store.SortExpiresAt}

var listTests = []test{
	{"empty", func(e *env) {
		page, err := e.store.List(e.ctx, store.List{})
		e.must(err)
		if len(page.Entries) != 0 || page.Total != 0 || page.Next != "" {
			e.Fatalf("%+v", page)
		}
	}},
	{"every order, both directions, all page sizes", testListOrders},
	{"the default order is by creation", func(e *env) {
		a := e.create(limited(1), func(k *key.Key) { k.CreatedAt = t0 + 5 })
		b := e.create(limited(1), func(k *key.Key) { k.CreatedAt = t0 })
		page, err := e.store.List(e.ctx, store.List{})
		e.must(err)
		if len(page.Entries) != 2 || page.Entries[0].Key.ID != b.Key.ID || page.Entries[1].Key.ID != a.Key.ID {
			e.Fatalf("%+v", page.Entries)
		}
	}},
	{"an unknown order is refused", func(e *env) {
		if _, err := e.store.List(e.ctx, store.List{Sort: "id; DROP TABLE keys"}); err == nil {
			e.Fatal("it was taken")
		}
	}},
	{"filters", testListFilters},
	{"filters that no index serves", testListTests},
	{"queries are text, not patterns", testListQuery},
	{"cursors of another list are refused", testListCursors},
	{"while keys come and go", testListMoving},
}

// mixed makes keys with ties and without values in every order.
func (e *env) mixed(n int) (all []store.Entry) {
	e.Helper()
	names := []*string{nil, ptr("b"), ptr("a"), nil, ptr("b"), ptr(""), ptr("ä"), ptr("B")}
	var batch []store.Counters
	for i := range n {
		made := e.create(limited(1), func(k *key.Key) {
			k.ID = fmt.Sprintf("%02d-%d", (i*37)%100, i) // in no order that matters
			k.CreatedAt, k.Name = t0+int64(i%5), names[i%len(names)]
			k.UserID = []string{"alice", "bob"}[i%2]
			k.ExpiresAt = []int64{0, t0 + 7, t0 + 3}[i%3]
		})
		if i%3 != 0 {
			made.LastRequest = t0 + int64(i%4)*1_234_567 // within an hour and beyond
			batch = append(batch, store.Counters{Subject: store.OfKey(made.Key.ID), LastRequest: made.LastRequest})
		}
		all = append(all, made)
	}
	e.must(e.store.SaveCounters(e.ctx, batch))
	return all
}

// compareBy is the order that List promises: keys without a value come last in both
// directions.
func compareBy(s store.Sort, reverse bool) func(a, b store.Entry) int {
	value := func(e store.Entry) (none int, text string, n int64) {
		switch {
		case s == store.SortCreatedAt:
			return 0, "", e.Key.CreatedAt
		case s == store.SortName && e.Key.Name != nil:
			return 0, *e.Key.Name, 0
		case s == store.SortLastRequest && e.LastRequest != 0:
			return 0, "", e.LastRequest
		case s == store.SortExpiresAt && e.Key.ExpiresAt != 0:
			return 0, "", e.Key.ExpiresAt
		}
		return 1, "", 0
	}
	return func(a, b store.Entry) int {
		an, at, ai := value(a)
		bn, bt, bi := value(b)
		c := cmp.Or(cmp.Compare(at, bt), cmp.Compare(ai, bi), cmp.Compare(a.Key.ID, b.Key.ID))
		if reverse {
			c = -c
		}
		return cmp.Or(cmp.Compare(an, bn), c)
	}
}

func testListOrders(e *env) {
	all := e.mixed(41)
	for _, s := range sorts {
		for _, reverse := range []bool{false, true} {
			for _, owner := range []string{"", "alice"} {
				want := slices.DeleteFunc(slices.Clone(all), func(en store.Entry) bool { return owner != "" && en.Key.UserID != owner })
				slices.SortFunc(want, compareBy(s, reverse))
				for _, limit := range []int{1, 2, 7, 20, 21, 40, 41, 42, 500} {
					q := store.List{Filter: store.Filter{UserID: owner}, Sort: s, Reverse: reverse, Limit: limit}
					e.wantList(q, want)
				}
			}
		}
	}
}

func (e *env) wantList(q store.List, want []store.Entry) {
	e.Helper()
	var got []store.Entry
	for {
		page, err := e.store.List(e.ctx, q)
		e.must(err)
		if page.Total != int64(len(want)) || len(page.Entries) > q.Limit {
			e.Fatalf("%+v: total %d, want %d; a page of %d", q, page.Total, len(want), len(page.Entries))
		}
		if url.QueryEscape(page.Next) != page.Next {
			e.Fatalf("cursor %q is not URL-safe", page.Next)
		}
		if got = append(got, page.Entries...); len(got) > len(want) {
			e.Fatalf("%+v: %d keys and no end, want %d", q, len(got), len(want))
		}
		if q.Cursor = page.Next; q.Cursor == "" {
			break
		}
	}
	if len(got) != len(want) {
		e.Fatalf("%+v: %d keys, want %d", q, len(got), len(want))
	}
	for i := range got {
		if d := diffEntry(got[i], want[i]); d != "" {
			e.Fatalf("%+v: key %d: %s", q, i, d)
		}
	}
}

func testListFilters(e *env) {
	for i := range 24 {
		e.create(limited(1), func(k *key.Key) {
			k.UserID = []string{"alice", "bob", "Alice"}[i%3]
			k.ConfigID = []string{"default", "other"}[i%2]
			k.Enabled = i%4 != 0
			k.Prefix = []*string{nil, ptr("ak_"), ptr("ak")}[i/8]
		})
	}
	all := e.pages(store.List{})
	for name, c := range map[string]struct {
		f    store.Filter
		pass func(*key.Key) bool
	}{
		"owner":    {store.Filter{UserID: "alice"}, func(k *key.Key) bool { return k.UserID == "alice" }},
		"config":   {store.Filter{ConfigID: "other"}, func(k *key.Key) bool { return k.ConfigID == "other" }},
		"enabled":  {store.Filter{Enabled: ptr(true)}, func(k *key.Key) bool { return k.Enabled }},
		"disabled": {store.Filter{Enabled: ptr(false)}, func(k *key.Key) bool { return !k.Enabled }},
		"prefix":   {store.Filter{Prefix: "ak_"}, func(k *key.Key) bool { return k.Prefix != nil && *k.Prefix == "ak_" }},
		"nobody":   {store.Filter{UserID: "nobody"}, func(*key.Key) bool { return false }},
		"several": {
			store.Filter{UserID: "bob", ConfigID: "other", Enabled: ptr(true), Prefix: "ak"},
			func(k *key.Key) bool {
				return k.UserID == "bob" && k.ConfigID == "other" && k.Enabled && k.Prefix != nil && *k.Prefix == "ak"
			},
		},
	} {
		for _, s := range sorts {
			for _, reverse := range []bool{false, true} {
				want := slices.DeleteFunc(slices.Clone(all), func(en store.Entry) bool { return !c.pass(en.Key) })
				slices.SortFunc(want, compareBy(s, reverse))
				e.Run(fmt.Sprintf("%s by %s %v", name, s, reverse), func(t *testing.T) {
					sub := *e
					sub.T = t
					sub.wantList(store.List{Filter: c.f, Sort: s, Reverse: reverse, Limit: 3}, want)
				})
			}
		}
	}
}

// testListTests compares each filter with what it says, alone and with others.
func testListTests(e *env) {
	const now = t0 + 1000
	var counters []store.Counters
	for i := range 60 {
		credits := key.Credits{}
		switch i % 5 {
		case 1:
			credits = limited(int64(i % 2))
		case 2:
			credits = key.NewCredits(ptr(int64(0)), 3, int64(500+i*20), t0) // some are due
		}
		made := e.create(credits, func(k *key.Key) {
			k.UserID = []string{"gold", "none", "off", "gone", "silver"}[i%5]
			k.ExpiresAt = []int64{0, 0, now, now + 1, now - 1, 0, now + 500}[i%7]
			k.Enabled = i%6 != 0
			k.CreatedAt = t0 + int64(i)
			if i%3 == 0 {
				k.RotatedAt = t0 + 500 + int64(i)
			}
			k.Permissions = []key.Permissions{
				nil, {"files": {"read", "write"}}, {"files": {"*"}}, {"*": {"*"}}, {"*": {"read"}}, {"notes": {"read"}}, {"files": {"write"}},
			}[i%7]
		})
		if i%4 != 0 {
			counters = append(counters, store.Counters{Subject: store.OfKey(made.Key.ID), LastRequest: t0 + int64(i*10)})
		}
	}
	e.must(e.store.SaveCounters(e.ctx, counters))
	for name, tier := range map[string]*string{"gold": ptr("gold"), "silver": ptr("silver"), "gone": ptr("unknown")} {
		_, err := e.storePutOwner(name, t0, func(o *key.Owner) error { o.Tier = tier; return nil })
		e.must(err)
	}
	_, err := e.storePutOwner("off", t0, func(o *key.Owner) error { o.Enabled = false; return nil })
	e.must(err)

	state := func(en *store.Entry) store.State {
		switch c := en.Credits.At(now); {
		case !en.Key.Enabled || !en.Owner.Enabled:
			return store.StateDisabled
		case en.Key.Expired(now):
			return store.StateExpired
		case c.Limited && c.Balance() < 1:
			return store.StateExhausted
		}
		return store.StateActive
	}
	tierOf := func(en *store.Entry) string {
		if t := en.Owner.Tier; t != nil && (*t == "gold" || *t == "silver") {
			return *t
		}
		return "silver" // the default
	}
	type filter struct {
		set   func(*store.Filter)
		pass  func(*store.Entry) bool
		field string // of several filters for one
	}
	filters := map[string]filter{
		"expires before": {
			func(f *store.Filter) { f.ExpiresBefore = now + 1 },
			func(en *store.Entry) bool { return en.Key.ExpiresAt != 0 && en.Key.ExpiresAt < now+1 }, "",
		},
		"unused since": {
			func(f *store.Filter) { f.UnusedSince = t0 + 300 }, func(en *store.Entry) bool { return en.LastRequest < t0+300 && en.Key.CreatedAt < t0+300 }, "",
		},
		"created before": {
			func(f *store.Filter) { f.CreatedBefore = t0 + 30 }, func(en *store.Entry) bool { return en.Key.CreatedAt < t0+30 }, "",
		},
		"rotated before": {
			func(f *store.Filter) { f.RotatedBefore = t0 + 520 },
			func(en *store.Entry) bool { return max(en.Key.CreatedAt, en.Key.RotatedAt) < t0+520 }, "",
		},
		"tier": {
			func(f *store.Filter) { f.Tier = &store.TierFilter{Name: "gold", Known: []string{"gold", "silver"}} },
			func(en *store.Entry) bool { return tierOf(en) == "gold" }, "tier",
		},
		"default tier": {
			func(f *store.Filter) {
				f.Tier = &store.TierFilter{Name: "silver", Default: true, Known: []string{"gold", "silver"}}
			},
			func(en *store.Entry) bool { return tierOf(en) == "silver" }, "tier",
		},
		"a part of the owner": {
			func(f *store.Filter) { f.Query = "ILVE" }, func(en *store.Entry) bool { return en.Key.UserID == "silver" }, "",
		},
		"enabled": {func(f *store.Filter) { f.Enabled = ptr(true) }, func(en *store.Entry) bool { return en.Key.Enabled }, ""},
	}
	for _, want := range []store.State{store.StateActive, store.StateDisabled, store.StateExpired, store.StateExhausted} {
		filters[string(want)] = filter{
			func(f *store.Filter) { f.State, f.Now = want, now }, func(en *store.Entry) bool { return state(en) == want }, "state",
		}
	}
	for _, p := range []key.Permission{{Resource: "files", Action: "read"}, {Resource: "files", Action: "*"}, {Resource: "x", Action: "read"}} {
		filters[p.String()] = filter{
			func(f *store.Filter) { f.Permission = &p }, func(en *store.Entry) bool { return en.Key.Permissions.Allows(p) }, "permission",
		}
	}
	all := e.pages(store.List{})
	names := slices.Sorted(maps.Keys(filters))
	for i, name := range names {
		for _, other := range names[i:] {
			f := store.Filter{}
			filters[name].set(&f)
			filters[other].set(&f)
			pass := func(en *store.Entry) bool { return filters[name].pass(en) && filters[other].pass(en) }
			if name != other && filters[name].field != "" && filters[name].field == filters[other].field {
				continue // the second replaces the first
			}
			for _, s := range sorts {
				want := slices.DeleteFunc(slices.Clone(all), func(en store.Entry) bool { return !pass(&en) })
				slices.SortFunc(want, compareBy(s, i%2 == 0))
				e.Run(fmt.Sprintf("%s and %s by %s", name, other, s), func(t *testing.T) {
					sub := *e
					sub.T = t
					sub.wantList(store.List{Filter: f, Sort: s, Reverse: i%2 == 0, Limit: 7}, want)
				})
			}
		}
	}
}

func testListQuery(e *env) {
	names := []string{"plain", "50% off", "under_score", `back\slash`, "PLAIN", "Ünï", "ünï", "a'b\"c", "%", "_"}
	for i, name := range names {
		e.create(limited(1), func(k *key.Key) {
			k.Name, k.Start = ptr(name), ptr(fmt.Sprintf("ak_%dXyZ", i))
		})
	}
	e.create(limited(1), nil)       // neither a name nor a start
	fold := func(s string) string { // as promised: ASCII letters only
		return strings.Map(func(r rune) rune {
			if r >= 'A' && r <= 'Z' {
				return r + 'a' - 'A'
			}
			return r
		}, s)
	}
	for _, q := range []string{
		"plain", "PlAiN", "%", "_", `\`, "0%", "r_s", "%_%", "_%", "Ünï", "ün", "'", `"`, "xyz", "ak_3x", "ak%", "nothing",
		"' OR 1=1 --", "\x00", strings.Repeat("x", 100_000), strings.Repeat("%", 60_000),
	} {
		want := 0
		for i, name := range names {
			if strings.Contains(fold(name), fold(q)) || strings.Contains(fold(fmt.Sprintf("ak_%dXyZ", i)), fold(q)) {
				want++
			}
		}
		page, err := e.store.List(e.ctx, store.List{Filter: store.Filter{Query: q}})
		if err != nil {
			e.Fatalf("query %.20q: %v", q, err)
		}
		if len(page.Entries) != want || page.Total != int64(want) {
			e.Errorf("query %.20q: %d keys, total %d, want %d", q, len(page.Entries), page.Total, want)
		}
	}
}

func testListCursors(e *env) {
	e.mixed(9)
	cursors := map[string]string{}
	label := func(s store.Sort, reverse bool) string { return fmt.Sprintf("%s %v", s, reverse) }
	for _, s := range sorts {
		for _, reverse := range []bool{false, true} {
			page, err := e.store.List(e.ctx, store.List{Sort: s, Reverse: reverse, Limit: 4})
			e.must(err)
			cursors[label(s, reverse)] = page.Next
		}
	}
	owners, err := e.store.Owners(e.ctx, 1, "")
	e.must(err)
	cursors["owners"] = owners.Next
	for _, garbage := range []string{"x", "AAAA", "!!", "null", "e30", strings.Repeat("A", 1<<20), cursors[label(store.SortName, false)] + "=", "\x00"} {
		cursors["garbage "+garbage[:min(len(garbage), 9)]] = garbage
	}
	for _, s := range sorts {
		for _, reverse := range []bool{false, true} {
			for from, cursor := range cursors {
				_, err := e.store.List(e.ctx, store.List{Sort: s, Reverse: reverse, Limit: 4, Cursor: cursor})
				if from == label(s, reverse) {
					e.must(err)
				} else {
					e.wantErr(err, store.ErrCursor)
				}
			}
		}
	}
}

// testListMoving pages while keys are made and deleted: what is there all the
// time is seen exactly once.
func testListMoving(e *env) {
	stable := e.mixed(60)
	for _, s := range sorts {
		for _, reverse := range []bool{false, true} {
			stop := make(chan struct{})
			var wg sync.WaitGroup
			wg.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					k := plainKey(100_000 + i)
					k.CreatedAt, k.UserID = t0+int64(i%6), "mallory"
					if i%2 == 0 {
						k.Name = ptr("b")
					}
					if _, err := e.storeCreate(k, key.Credits{}); err != nil {
						e.Error(err)
						return
					}
					if err := e.storeDelete(k.ID); err != nil {
						e.Error(err)
						return
					}
				}
			})
			seen := map[string]int{}
			for _, en := range e.pages(store.List{Sort: s, Reverse: reverse, Limit: 4}) {
				seen[en.Key.ID]++
			}
			close(stop)
			wg.Wait()
			for _, en := range stable {
				if seen[en.Key.ID] != 1 {
					e.Fatalf("%s, reverse %v: key %s was seen %d times", s, reverse, en.Key.ID, seen[en.Key.ID])
				}
			}
		}
	}
}
