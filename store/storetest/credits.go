package storetest

import (
	"errors"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

var creditTests = []test{
	{"unknown", func(e *env) {
		_, err := e.store.MoveCredits(e.ctx, store.OfKey("nobody"), key.Move{Take: 1}, t0)
		e.wantErr(err, store.ErrNotFound)
		_, err = e.store.MoveCredits(e.ctx, store.OfKey("nobody"), key.Move{Give: 1}, t0)
		e.wantErr(err, store.ErrNotFound)
	}},
	{"taking, to the last and not further", func(e *env) {
		made := e.create(limited(10), nil)
		for i, c := range []struct {
			n    int64
			ok   bool
			left int64
		}{{1, true, 9}, {7, true, 2}, {3, false, 2}, {0, true, 2}, {key.MaxCount, false, 2}, {2, true, 0}, {1, false, 0}, {0, true, 0}} {
			got := e.take(made.Key.ID, c.n, t0)
			if got.OK != c.ok || got.Credits.Remaining != c.left {
				e.Fatalf("step %d: %+v, want %v with %d left", i, got, c.ok, c.left)
			}
			if stored := e.get(made.Key.ID).Credits; stored != got.Credits {
				e.Fatalf("step %d: stored %+v, answered %+v", i, stored, got.Credits)
			}
		}
		if v := e.get(made.Key.ID).Credits.Version; v != 4 {
			e.Fatalf("version %d after three changes", v)
		}
	}},
	{"an amount that is none is refused", func(e *env) {
		made := e.create(limited(10), nil)
		for _, n := range []int64{-1, key.MaxCount + 1, math.MinInt64, math.MaxInt64} {
			if got, err := e.store.MoveCredits(e.ctx, store.OfKey(made.Key.ID), key.Move{Take: n}, t0); err == nil {
				e.Errorf("took %d: %+v", n, got)
			}
			if got, err := e.store.MoveCredits(e.ctx, store.OfKey(made.Key.ID), key.Move{Give: n}, t0); err == nil {
				e.Errorf("gave %d: %+v", n, got)
			}
		}
		e.sameEntry(e.get(made.Key.ID), made)
	}},
	{"an unlimited key is left alone", func(e *env) {
		made := e.create(key.NewCredits(nil, 10, 1000, t0), nil)
		if got := e.take(made.Key.ID, 5, t0+5000); !got.OK || got.Credits != made.Credits {
			e.Fatalf("%+v", got)
		}
		got, err := e.store.MoveCredits(e.ctx, store.OfKey(made.Key.ID), key.Move{Give: 5}, t0+5000)
		e.must(err)
		if !got.OK || got.Credits != made.Credits {
			e.Fatalf("%+v", got)
		}
		e.sameEntry(e.get(made.Key.ID), made)
	}},
	{"giving back stops at what was spent, and at the maximum", func(e *env) {
		made := e.create(limited(key.MaxCount), nil)
		for i, c := range []struct{ take, give, topUp, want, forfeited int64 }{
			{5, 3, 0, key.MaxCount - 2, 0},
			{0, 9, 0, key.MaxCount, 0}, // only 2 are spent
			{0, key.MaxCount, 0, key.MaxCount, 0},
			{7, 0, 4, key.MaxCount - 3, 0},
			{0, 7, 0, key.MaxCount, 4},
		} {
			e.take(made.Key.ID, c.take, t0)
			if c.topUp > 0 {
				e.topUp(made.Key.ID, c.topUp)
			}
			got := e.move(made.Key.ID, key.Move{Give: c.give}, t0).Credits
			if got.Remaining != c.want || got.Forfeited != c.forfeited || got.Peak != key.MaxCount {
				e.Fatalf("step %d: %+v, want %d and %d forfeited", i, got, c.want, c.forfeited)
			}
			if stored := e.get(made.Key.ID).Credits; stored != got {
				e.Fatalf("step %d: stored %+v, answered %+v", i, stored, got)
			}
		}
	}},
	{"a refill that is due comes first, once", func(e *env) {
		made := e.create(key.NewCredits(ptr(int64(1)), 10, 1000, t0), nil)
		want := key.Credits{Limited: true, Remaining: 8, Spent: 2, Granted: 10, Peak: 10, RefillAmount: 10, RefillInterval: 1000, RefillFrom: t0, LastRefillAt: t0 + 3000, Version: 2}
		if got := e.take(made.Key.ID, 2, t0+3999); !got.OK || got.Credits != want {
			e.Fatalf("got %+v, want %+v", got, want)
		}
		want.Remaining, want.Spent, want.Version = 7, 3, 3
		if got := e.take(made.Key.ID, 1, t0+3999); !got.OK || got.Credits != want {
			e.Fatalf("got %+v, want %+v", got, want)
		}
		want.Remaining, want.Spent, want.Version = 6, 4, 4
		if got := e.take(made.Key.ID, 1, t0-99999); !got.OK || got.Credits != want { // a clock that steps back
			e.Fatalf("got %+v, want %+v", got, want)
		}
		if got := e.get(made.Key.ID).Credits; got != want {
			e.Fatalf("stored %+v, want %+v", got, want)
		}
	}},
	{"a refusal writes nothing, not even a refill", func(e *env) {
		made := e.create(key.NewCredits(ptr(int64(1)), 10, 1000, t0), nil)
		got := e.take(made.Key.ID, 11, t0+3999)
		if got.OK || got.Credits.Remaining != 10 || got.Credits.LastRefillAt != t0+3000 {
			e.Fatalf("%+v, want a refusal that shows the refill", got)
		}
		e.sameEntry(e.get(made.Key.ID), made)
	}},
	{"touches one key's credits and nothing else", func(e *env) {
		made := e.create(limited(10), nil)
		e.create(limited(10), nil)
		before := e.dump()
		e.take(made.Key.ID, 3, t0)
		after := e.get(made.Key.ID)
		want := made
		want.Credits.Remaining, want.Credits.Spent, want.Credits.Version = 7, 3, 2
		e.sameEntry(after, want)
		e.unchanged(before, made.Key.ID)
	}},
	{"K1 the last credits", testK1},
	{"K1 many keys at once", testK1ManyKeys},
	{"K7 one refill for all who race for it", testK7},
	{"taking and giving back add up", func(e *env) {
		made := e.create(limited(100), nil)
		var taken, given atomic.Int64
		e.parallel(2000, func(i int) error {
			if i%3 == 0 {
				if taken.Load()-given.Add(1) < 64 { // never more than was taken, by whichever of 64 callers
					given.Add(-1)
					return nil
				}
				_, err := e.store.MoveCredits(e.ctx, store.OfKey(made.Key.ID), key.Move{Give: 1}, t0)
				return err
			}
			got, err := e.store.MoveCredits(e.ctx, store.OfKey(made.Key.ID), key.Move{Take: 1}, t0)
			if got.OK {
				taken.Add(1)
			}
			return err
		})
		c := e.get(made.Key.ID).Credits
		if c.Remaining != 100+given.Load()-taken.Load() || c.Spent != taken.Load()-given.Load() || c.Granted != 100 {
			e.Fatalf("%+v of 100 + %d - %d", c, given.Load(), taken.Load())
		}
	}},
	{"taking races with administration", testTakeAgainstUpdate},
	{"leasing and settling", func(e *env) {
		id := e.create(limited(100), nil).Key.ID
		for i, c := range []struct {
			m                              key.Move
			ok                             bool
			leased                         int64
			remaining, out, spent, version int64
		}{
			{key.Move{Lease: 50}, true, 10, 90, 10, 0, 2},                                 // a tenth
			{key.Move{Lease: 50}, true, 0, 90, 10, 0, 2},                                  // which it is already
			{key.Move{Used: 4, Take: 1, Lease: 2}, true, 2, 87, 8, 5, 3},                  // settled, taken, leased
			{key.Move{Used: 1, Returned: 2, Take: 1000, Lease: 5}, false, 0, 89, 5, 6, 4}, // settled, though it is refused
			{key.Move{Take: 1000, Lease: 5}, false, 0, 89, 5, 6, 4},
			{key.Move{Used: 2, Give: 8}, true, 0, 97, 3, 0, 5}, // what was used can be given back
			{key.Move{Returned: 3, Take: 100}, true, 0, 0, 0, 100, 6},
		} {
			got := e.move(id, c.m, t0)
			have := got.Credits
			if got.OK != c.ok || got.Leased != c.leased || have.Remaining != c.remaining || have.Leased != c.out || have.Spent != c.spent || have.Version != c.version {
				e.Fatalf("step %d: %+v, want %+v", i, got, c)
			}
			if stored := e.get(id).Credits; stored != have {
				e.Fatalf("step %d: stored %+v, answered %+v", i, stored, have)
			}
		}
	}},
	{"no more is settled than is leased", func(e *env) {
		id := e.create(limited(100), nil).Key.ID
		made := e.move(id, key.Move{Lease: 10}, t0)
		for _, m := range []key.Move{{Used: 11}, {Returned: 11}, {Used: 5, Returned: 6, Take: 1}, {Used: key.MaxCount, Returned: key.MaxCount}} {
			m.Holder = here
			_, err := e.store.MoveCredits(e.ctx, store.OfKey(id), m, t0)
			e.wantErr(err, key.ErrNotLeased)
		}
		if got := e.get(id).Credits; got != made.Credits {
			e.Fatalf("%+v, want %+v", got, made.Credits)
		}
	}},
	{"a refill makes up for what was used before it", func(e *env) {
		id := e.create(key.NewCredits(ptr(int64(100)), 100, 1000, t0), nil).Key.ID
		e.move(id, key.Move{Lease: 10}, t0)
		got := e.move(id, key.Move{Used: 10, Take: 3}, t0+1000).Credits
		if got.Remaining != 97 || got.Leased != 0 || got.Granted != 110 {
			e.Fatalf("%+v", got)
		}
		e.move(id, key.Move{Lease: 9}, t0+1000)
		got = e.move(id, key.Move{Take: 1}, t0+2000).Credits // what is out counts as being there
		if got.Remaining != 90 || got.Leased != 9 || got.Granted != 113 {
			e.Fatalf("%+v", got)
		}
	}},
	{"each holder has its own leases", func(e *env) {
		id := e.create(limited(1000), nil).Key.ID
		before := here // of the same node, before it started again
		before.Epoch--
		there := key.Holder{Name: "there", Epoch: 7}
		for _, h := range []key.Holder{here, before, there} {
			e.move(id, key.Move{Lease: 10, Holder: h}, t0)
		}
		lease := func(h key.Holder, n int64) store.Lease { return store.Lease{Holder: h, Amount: n} }
		account := store.OfKey(id)
		e.wantLeases(account, lease(before, 10), lease(here, 10), lease(there, 10))
		for _, m := range []key.Move{{Used: 11, Holder: here}, {Returned: 1, Holder: key.Holder{Name: "here", Epoch: 2}}, {Used: 1, Holder: key.Holder{Name: "nobody"}}} {
			_, err := e.store.MoveCredits(e.ctx, account, m, t0)
			e.wantErr(err, key.ErrNotLeased)
		}
		later := here
		later.Until += 1000
		e.move(id, key.Move{Used: 4, Holder: later}, t0)
		e.wantLeases(account, lease(before, 10), lease(later, 6), lease(there, 10))
		e.move(id, key.Move{Used: 3, Returned: 7, Holder: there}, t0)
		e.wantLeases(account, lease(before, 10), lease(later, 6))
		e.reopen()
		e.wantLeases(account, lease(before, 10), lease(later, 6))
		e.forfeit("there", 0)
		e.wantLeases(account, lease(before, 10), lease(later, 6))
		e.forfeit(here.Name, 16)
		e.wantLeases(account)
		if c := e.get(id).Credits; c.Forfeited != 16 || c.Spent != 7 || c.Remaining != 977 {
			e.Fatalf("%+v", c)
		}
		e.move(id, key.Move{Lease: 5}, t0)
		e.change(id, func(k *key.Key) { k.Enabled = false }) // leaves credits alone
		e.wantLeases(account, lease(here, 5))
		_, err := e.storeUpdate(id, func(en *store.Entry) error { en.Credits = en.Credits.ForfeitLeased(2); return nil })
		if err == nil {
			e.Fatal("a part of what is leased was settled by a change")
		}
		_, err = e.storeUpdate(id, func(en *store.Entry) error { en.Credits = en.Credits.Forfeit(); return nil })
		e.must(err)
		e.wantLeases(account)
		e.move(id, key.Move{Lease: 5}, t0)
		e.must(e.storeDelete(id))
		_, err = e.store.Account(e.ctx, account)
		e.wantErr(err, store.ErrNotFound)
		e.forfeit(here.Name, 0)
	}},
	{"holds and debts", func(e *env) {
		id := e.create(limited(100), nil).Key.ID
		for i, c := range []struct {
			m                            key.Move
			ok                           bool
			remaining, held, spent, debt int64
		}{
			{key.Move{Hold: 60}, true, 40, 60, 0, 0},
			{key.Move{Hold: 41}, false, 40, 60, 0, 0},
			{key.Move{Held: 50, Cost: 30}, true, 60, 10, 30, 0}, // the rest comes back
			{key.Move{Held: 10, Cost: 75}, true, 0, 0, 105, 5},  // what is there, and a debt
			{key.Move{Take: 1}, false, 0, 0, 105, 5},
		} {
			got := e.move(id, c.m, t0)
			have := got.Credits
			if got.OK != c.ok || have.Remaining != c.remaining || have.Held != c.held || have.Spent != c.spent || have.Debt != c.debt {
				e.Fatalf("step %d: %+v, want %+v", i, got, c)
			}
			if stored := e.get(id).Credits; stored != have {
				e.Fatalf("step %d: stored %+v, answered %+v", i, stored, have)
			}
		}
		_, err := e.store.MoveCredits(e.ctx, store.OfKey(id), key.Move{Held: 1}, t0)
		e.wantErr(err, key.ErrNotHeld)
		e.topUp(id, 7)
		if c := e.get(id).Credits; c.Debt != 0 || c.Remaining != 2 {
			e.Fatalf("%+v", c)
		}
	}},
	{"owners have accounts too", func(e *env) {
		e.create(limited(1), nil)
		owner := store.OfOwner("alice")
		a, err := e.store.Account(e.ctx, owner)
		e.must(err)
		if a.Credits != (key.Credits{Version: 1}) || a.Leases != nil {
			e.Fatalf("%+v", a)
		}
		for _, missing := range []store.Subject{store.OfOwner("nobody"), store.OfKey("nobody")} {
			_, err = e.store.Account(e.ctx, missing)
			e.wantErr(err, store.ErrNotFound)
			_, err = e.store.UpdateAccount(e.ctx, missing, func(*key.Credits) error { return nil })
			e.wantErr(err, store.ErrNotFound)
		}
		want := key.NewCredits(ptr(int64(500)), 500, 1000, t0)
		want.Unit = key.UnitUSD
		a, err = e.store.UpdateAccount(e.ctx, owner, func(c *key.Credits) error { *c = want; return nil })
		e.must(err)
		if want.Version = 2; a.Credits != want {
			e.Fatalf("%+v, want %+v", a.Credits, want)
		}
		before := e.dump()
		got, err := e.store.MoveCredits(e.ctx, owner, key.Move{Take: 3, Hold: 7, Lease: 20, Holder: here}, t0)
		e.must(err)
		want.Remaining, want.Spent, want.Held, want.Leased, want.Version = 470, 3, 7, 20, 3
		if got.Credits != want {
			e.Fatalf("%+v, want %+v", got.Credits, want)
		}
		e.reopen()
		e.wantLeases(owner, store.Lease{Holder: here, Amount: 20})
		e.unchanged(before)
		mine := errors.New("mine")
		_, err = e.store.UpdateAccount(e.ctx, owner, func(c *key.Credits) error { c.Remaining++; return mine })
		e.wantErr(err, mine)
		if _, err = e.store.UpdateAccount(e.ctx, owner, func(c *key.Credits) error { *c = c.Forfeit(); return nil }); err == nil {
			e.Fatal("a change took what is leased")
		}
		e.forfeit(here.Name, 20)
		_, err = e.storeDeleteOwner("alice")
		e.must(err)
		e.create(limited(1), nil)
		if a, err = e.store.Account(e.ctx, owner); err != nil || a.Credits.Limited {
			e.Fatalf("%+v, %v", a, err)
		}
	}},
	{"leases are forfeited once", func(e *env) {
		var ids []string
		for range 3 {
			ids = append(ids, e.create(limited(100), nil).Key.ID)
		}
		e.move(ids[0], key.Move{Lease: 10}, t0)
		e.move(ids[1], key.Move{Lease: 10}, t0)
		e.move(ids[1], key.Move{Used: 2, Returned: 8}, t0)
		before := e.dump()
		e.reopen()
		for _, n := range []int64{10, 0} {
			e.forfeit(here.Name, n)
			want := before[ids[0]].Credits
			want.Leased, want.Forfeited, want.Version = 0, 10, want.Version+1
			if got := e.get(ids[0]).Credits; got != want {
				e.Fatalf("%+v, want %+v", got, want)
			}
		}
		e.unchanged(before, ids[0])
	}},
}

func (e *env) move(id string, m key.Move, now int64) store.Taken {
	e.Helper()
	if m.Holder.Name == "" {
		m.Holder = here
	}
	got, err := e.store.MoveCredits(e.ctx, store.OfKey(id), m, now)
	e.must(err)
	return got
}

// here is who leases in the tests.
var here = key.Holder{Name: "here", Epoch: 1, Until: t0 + 60_000}

func (e *env) wantLeases(account store.Subject, want ...store.Lease) {
	e.Helper()
	a, err := e.store.Account(e.ctx, account)
	e.must(err)
	sum := int64(0)
	for _, l := range a.Leases {
		sum += l.Amount
	}
	if !slices.Equal(a.Leases, want) || a.Credits.Leased != sum {
		e.Fatalf("%+v, leased %d, want %+v", a.Leases, a.Credits.Leased, want)
	}
}

// forfeit gives up what a holder has leased, which must be n credits.
func (e *env) forfeit(holder string, n int64) {
	e.Helper()
	got, err := e.store.ForfeitLeases(e.ctx, holder, nil)
	e.must(err)
	if got != n {
		e.Fatalf("%d credits were forfeited, want %d", got, n)
	}
}

func (e *env) take(id string, n, now int64) store.Taken {
	e.Helper()
	return e.move(id, key.Move{Take: n}, now)
}

func (e *env) topUp(id string, n int64) {
	e.Helper()
	_, err := e.storeUpdate(id, func(en *store.Entry) error {
		en.Credits, _ = en.Credits.Add(n, t0)
		return nil
	})
	e.must(err)
}

// parallel calls f(0) to f(n-1) from 64 goroutines.
func (e *env) parallel(n int, f func(i int) error) {
	e.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := f(i); err != nil {
					e.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if e.Failed() {
		e.FailNow()
	}
}

func testK1(e *env) {
	for _, k := range []int64{1, 2, 999, 1000} {
		for _, cost := range []int64{1, 7} {
			made := e.create(limited(k), nil)
			var passed atomic.Int64
			versions := sync.Map{}
			e.parallel(int(k/cost)+500, func(int) error {
				got, err := e.store.MoveCredits(e.ctx, store.OfKey(made.Key.ID), key.Move{Take: cost}, t0)
				if got.OK {
					passed.Add(1)
					if _, twice := versions.LoadOrStore(got.Credits.Version, true); twice {
						e.Errorf("version %d was answered twice", got.Credits.Version)
					}
				}
				return err
			})
			left := e.get(made.Key.ID).Credits.Remaining
			if passed.Load() != k/cost || left != k%cost {
				e.Errorf("%d credits, cost %d: %d passed, want %d; %d left, want %d", k, cost, passed.Load(), k/cost, left, k%cost)
			}
		}
	}
}

func testK1ManyKeys(e *env) {
	const keys, each = 20, 30
	costs := []int64{1, 2, 3, 7}
	var ids []string
	for range keys {
		ids = append(ids, e.create(limited(each), nil).Key.ID)
	}
	var spent [keys]atomic.Int64
	e.parallel(keys*60, func(i int) error {
		k := i % keys
		n := costs[(i/keys)%len(costs)]
		got, err := e.store.MoveCredits(e.ctx, store.OfKey(ids[k]), key.Move{Take: n}, t0)
		if got.OK {
			spent[k].Add(n)
		}
		return err
	})
	for k, id := range ids {
		// A cost of 1 was asked for often enough to use up what the others left.
		if left := e.get(id).Credits.Remaining; left != each-spent[k].Load() || left < 0 {
			e.Errorf("key %d: %d spent, %d left of %d", k, spent[k].Load(), left, each)
		}
	}
}

func testK7(e *env) {
	made := e.create(key.NewCredits(ptr(int64(0)), 100, 1000, t0), nil)
	var passed atomic.Int64
	e.parallel(1000, func(int) error {
		got, err := e.store.MoveCredits(e.ctx, store.OfKey(made.Key.ID), key.Move{Take: 1}, t0+1000)
		if got.OK {
			passed.Add(1)
		}
		return err
	})
	c := e.get(made.Key.ID).Credits
	if passed.Load() != 100 || c.Remaining != 0 || c.LastRefillAt != t0+1000 {
		e.Fatalf("%d passed, want 100; then %+v", passed.Load(), c)
	}
}

// testTakeAgainstUpdate lets an administrator top up while requests spend.
func testTakeAgainstUpdate(e *env) {
	const topUps, by = 40, 10
	made := e.create(limited(0), nil)
	var passed atomic.Int64
	e.parallel(1000+topUps, func(i int) error {
		if i%26 == 0 && i/26 < topUps {
			_, err := e.storeUpdate(made.Key.ID, func(en *store.Entry) error {
				k := en.Key.Clone()
				k.UpdatedAt++
				en.Key = k
				en.Credits, _ = en.Credits.Add(by, t0)
				return nil
			})
			return err
		}
		got, err := e.store.MoveCredits(e.ctx, store.OfKey(made.Key.ID), key.Move{Take: 1}, t0)
		if got.OK {
			passed.Add(1)
		}
		return err
	})
	got := e.get(made.Key.ID)
	if got.Credits.Remaining != topUps*by-passed.Load() || got.Key.Revision != topUps+1 {
		e.Fatalf("%d left of %d after %d passed, revision %d", got.Credits.Remaining, topUps*by, passed.Load(), got.Key.Revision)
	}
}
