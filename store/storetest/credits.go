package storetest

import (
	"math"
	"sync"
	"sync/atomic"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

var creditTests = []test{
	{"unknown", func(e *env) {
		_, err := e.store.TakeCredits(e.ctx, "nobody", 1, t0)
		e.wantErr(err, store.ErrNotFound)
		_, err = e.store.GiveCredits(e.ctx, "nobody", 1, t0)
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
			if got, err := e.store.TakeCredits(e.ctx, made.Key.ID, n, t0); err == nil {
				e.Errorf("took %d: %+v", n, got)
			}
			if got, err := e.store.GiveCredits(e.ctx, made.Key.ID, n, t0); err == nil {
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
		got, err := e.store.GiveCredits(e.ctx, made.Key.ID, 5, t0+5000)
		e.must(err)
		if got != made.Credits {
			e.Fatalf("%+v", got)
		}
		e.sameEntry(e.get(made.Key.ID), made)
	}},
	{"giving back stops at the maximum", func(e *env) {
		made := e.create(limited(key.MaxCount-5), nil)
		for _, c := range []struct{ n, want int64 }{{3, key.MaxCount - 2}, {2, key.MaxCount}, {1, key.MaxCount}, {key.MaxCount, key.MaxCount}} {
			got, err := e.store.GiveCredits(e.ctx, made.Key.ID, c.n, t0)
			e.must(err)
			if got.Remaining != c.want || got.Peak != c.want {
				e.Fatalf("after giving %d: %+v, want %d", c.n, got, c.want)
			}
			if stored := e.get(made.Key.ID).Credits; stored != got {
				e.Fatalf("stored %+v, answered %+v", stored, got)
			}
		}
	}},
	{"a refill that is due comes first, once", func(e *env) {
		made := e.create(key.NewCredits(ptr(int64(1)), 10, 1000, t0), nil)
		want := key.Credits{Limited: true, Remaining: 8, Peak: 10, RefillAmount: 10, RefillInterval: 1000, RefillFrom: t0, LastRefillAt: t0 + 3000, Version: 2}
		if got := e.take(made.Key.ID, 2, t0+3999); !got.OK || got.Credits != want {
			e.Fatalf("got %+v, want %+v", got, want)
		}
		want.Remaining, want.Version = 7, 3
		if got := e.take(made.Key.ID, 1, t0+3999); !got.OK || got.Credits != want {
			e.Fatalf("got %+v, want %+v", got, want)
		}
		want.Remaining, want.Version = 6, 4
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
		want.Credits.Remaining, want.Credits.Version = 7, 2
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
				given.Add(2)
				_, err := e.store.GiveCredits(e.ctx, made.Key.ID, 2, t0)
				return err
			}
			got, err := e.store.TakeCredits(e.ctx, made.Key.ID, 1, t0)
			if got.OK {
				taken.Add(1)
			}
			return err
		})
		if left := e.get(made.Key.ID).Credits.Remaining; left != 100+given.Load()-taken.Load() {
			e.Fatalf("%d left of 100 + %d - %d", left, given.Load(), taken.Load())
		}
	}},
	{"taking races with administration", testTakeAgainstUpdate},
}

func (e *env) take(id string, n, now int64) store.Taken {
	e.Helper()
	got, err := e.store.TakeCredits(e.ctx, id, n, now)
	e.must(err)
	return got
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
				got, err := e.store.TakeCredits(e.ctx, made.Key.ID, cost, t0)
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
		got, err := e.store.TakeCredits(e.ctx, ids[k], n, t0)
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
		got, err := e.store.TakeCredits(e.ctx, made.Key.ID, 1, t0+1000)
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
			_, err := e.store.Update(e.ctx, made.Key.ID, func(en *store.Entry) error {
				k := en.Key.Clone()
				k.UpdatedAt++
				en.Key = k
				en.Credits, _ = en.Credits.Add(by, t0)
				return nil
			})
			return err
		}
		got, err := e.store.TakeCredits(e.ctx, made.Key.ID, 1, t0)
		if got.OK {
			passed.Add(1)
		}
		return err
	})
	got := e.get(made.Key.ID)
	if got.Credits.Remaining != topUps*by-passed.Load() || got.Key.Generation != topUps+1 {
		e.Fatalf("%d left of %d after %d passed, generation %d", got.Credits.Remaining, topUps*by, passed.Load(), got.Key.Generation)
	}
}
