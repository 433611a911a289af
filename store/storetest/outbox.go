package storetest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

const hook = "https://example.com/hook"

// delivery makes one that is due at t0 + n.
func delivery(n int) store.Delivery {
	return store.Delivery{
		ID: fmt.Sprintf("msg_%d", n), Event: "test_event", URL: hook, Body: fmt.Appendf(nil, `{"n":%d}`, n),
		State: store.DeliveryPending, NextAttempt: t0 + int64(n), CreatedAt: t0 + int64(n),
	}
}

func (e *env) send(list ...store.Delivery) {
	e.Helper()
	e.must(e.store.SetMark(e.ctx, "test", store.Mark{At: t0}, list))
}

func (e *env) claim(url string, now int64, limit int) (ids []string, next int64) {
	e.Helper()
	list, next, err := e.store.ClaimDeliveries(e.ctx, url, now, now+60_000, limit)
	e.must(err)
	for i := range list {
		ids = append(ids, list[i].ID)
	}
	return ids, next
}

// outbox returns the IDs in the outbox, the newest first, over pages of two.
func (e *env) outbox(state store.DeliveryState) (ids []string) {
	e.Helper()
	q := store.DeliveryQuery{State: state, Limit: 2}
	for range 1000 {
		page, err := e.store.Deliveries(e.ctx, q)
		e.must(err)
		for i := range page.Deliveries {
			ids = append(ids, page.Deliveries[i].ID)
		}
		if page.Next == "" {
			return ids
		}
		q.Cursor = page.Next
	}
	e.Fatal("the outbox has no end")
	return nil
}

func (e *env) same(what string, got, want any) {
	e.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		e.Errorf("%s: %v, want %v", what, got, want)
	}
}

// made counts the deliveries of spending, so that each has an ID of its own.
var made atomic.Int64

// spending reports thresholds.
type spending struct {
	mu   sync.Mutex
	seen []store.Spent
}

func (*spending) Thresholds() []int64 { return []int64{50, 80, 100} }

func (s *spending) Report(spent store.Spent) (list []store.Delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, spent)
	for _, t := range spent.Reached {
		d := delivery(int(made.Add(1))*1000 + int(t))
		list = append(list, d)
	}
	return list
}

// reached returns what was reported, and forgets it.
func (s *spending) reached() (all []int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.seen {
		all = append(all, one.Reached...)
	}
	s.seen = nil
	return all
}

func (e *env) report() *spending {
	s := &spending{}
	e.store.ReportSpending(s)
	return s
}

var outboxTests = []test{
	{"what is sent is stored with its change, or not at all", func(e *env) {
		k := e.create(key.Credits{}, nil)
		rename := func(s *store.Entry) error { s.Key = s.Key.Clone(); s.Key.Name = ptr("other"); return nil }
		bad := errors.New("bad")
		_, err := e.store.Update(e.ctx, k.Key.ID, rename, func([]store.Change) (store.Noted, error) {
			return store.Noted{Outbox: []store.Delivery{delivery(1)}}, bad
		})
		e.wantErr(err, bad)
		if _, err = e.store.Update(e.ctx, k.Key.ID, rename, func([]store.Change) (store.Noted, error) {
			return store.Noted{Outbox: []store.Delivery{delivery(1), delivery(1)}}, nil // the same ID twice
		}); err == nil {
			e.Error("an ID was taken twice")
		}
		e.unchanged(map[string]store.Entry{k.Key.ID: k})
		e.same("after failures", e.outbox(""), []string{})
		_, err = e.store.Update(e.ctx, k.Key.ID, rename, func([]store.Change) (store.Noted, error) {
			return store.Noted{Outbox: []store.Delivery{delivery(1)}}, nil
		})
		e.must(err)
		e.reopen()
		page, err := e.store.Deliveries(e.ctx, store.DeliveryQuery{})
		e.must(err)
		e.same("deliveries", page.Deliveries, []store.Delivery{delivery(1)})
	}},
	{"a delivery is given to one caller until its time is over", func(e *env) {
		other := delivery(9)
		other.URL = "https://example.com/other"
		e.send(delivery(3), delivery(1), delivery(2), delivery(200), other)
		ids, next := e.claim(hook, t0, 10)
		e.same("too early", fmt.Sprint(ids, next), fmt.Sprint([]string(nil), t0+1))
		ids, next = e.claim(hook, t0+100, 2)
		e.same("claimed", fmt.Sprint(ids, next), fmt.Sprint([]string{"msg_1", "msg_2"}, t0+3))
		ids, next = e.claim(hook, t0+100, 2)
		e.same("claimed next", fmt.Sprint(ids, next), fmt.Sprint([]string{"msg_3"}, t0+200))
		ids, _ = e.claim(hook, t0+100, 2)
		e.same("nothing is left", ids, []string(nil))
		e.reopen()
		ids, _ = e.claim(hook, t0+100+60_000, 9)
		e.same("taken for lost", ids, []string{"msg_200", "msg_3", "msg_1", "msg_2"})
		ids, next = e.claim("https://example.com/unknown", t0+100, 2)
		e.same("of another URL", fmt.Sprint(ids, next), "[] 0")
	}},
	{"callers at the same time share no delivery", func(e *env) {
		var list []store.Delivery
		for i := range 100 {
			list = append(list, delivery(i))
		}
		e.send(list...)
		var mu sync.Mutex
		var all []string
		e.parallel(20, func(int) error {
			claimed, _, err := e.store.ClaimDeliveries(e.ctx, hook, t0+1000, t0+9000, 7)
			mu.Lock()
			defer mu.Unlock()
			for i := range claimed {
				all = append(all, claimed[i].ID)
			}
			return err
		})
		slices.Sort(all)
		if len(all) != 100 || len(slices.Compact(all)) != 100 {
			e.Errorf("%d deliveries of 100 were claimed: %v", len(all), all)
		}
	}},
	{"the end of deliveries", func(e *env) {
		e.send(delivery(1), delivery(2), delivery(3))
		list, _, err := e.store.ClaimDeliveries(e.ctx, hook, t0+10, t0+20, 10)
		e.must(err)
		later, dead := list[1], list[2]
		later.NextAttempt, later.LastStatus = t0+500, 503
		dead.State, dead.LastStatus = store.DeliveryDead, 0
		gone := delivery(77)
		e.must(e.store.EndDeliveries(e.ctx, []string{"msg_1", "msg_88"}, []store.Delivery{later, dead, gone}))
		page, err := e.store.Deliveries(e.ctx, store.DeliveryQuery{})
		e.must(err)
		e.same("deliveries", page.Deliveries, []store.Delivery{dead, later})
		if later.Attempts != 1 {
			e.Errorf("%d attempts", later.Attempts)
		}
		ids, next := e.claim(hook, t0+499, 10)
		e.same("before its time", fmt.Sprint(ids, next), fmt.Sprint([]string(nil), t0+500))
		again, err := e.store.RetryDelivery(e.ctx, "msg_3", t0+100)
		e.must(err)
		if again.State != store.DeliveryPending || again.Attempts != 0 || again.NextAttempt != t0+100 || again.CreatedAt != t0+100 {
			e.Errorf("%+v", again)
		}
		_, err = e.store.RetryDelivery(e.ctx, "msg_1", t0)
		e.wantErr(err, store.ErrNotFound)
		ids, _ = e.claim(hook, t0+600, 10)
		e.same("tried again", ids, []string{"msg_3", "msg_2"})
	}},
	{"old deliveries die, and the dead go", func(e *env) {
		for i := range 5 {
			e.send(delivery(i))
		}
		n, err := e.store.ExpireDeliveries(e.ctx, t0+3, t0, 2)
		e.must(err)
		e.same("in pieces", n, 2)
		n, err = e.store.ExpireDeliveries(e.ctx, t0+3, t0, 2)
		e.must(err)
		e.same("the rest", n, 1)
		e.same("dead", e.outbox(store.DeliveryDead), []string{"msg_2", "msg_1", "msg_0"})
		e.same("pending", e.outbox(store.DeliveryPending), []string{"msg_4", "msg_3"})
		_, err = e.store.ExpireDeliveries(e.ctx, t0+3, t0+2, 10)
		e.must(err)
		e.same("left", e.outbox(""), []string{"msg_4", "msg_3", "msg_2"})
		_, err = e.store.Deliveries(e.ctx, store.DeliveryQuery{Cursor: "AAAA"})
		e.wantErr(err, store.ErrCursor)
	}},
	{"each threshold is reported once, however requests come", func(e *env) {
		s := e.report()
		k := e.create(limited(200), nil)
		e.parallel(199, func(int) error {
			_, err := e.store.MoveCredits(e.ctx, store.OfKey(k.Key.ID), key.Move{Take: 1}, t0)
			return err
		})
		if all := s.reached(); !slices.Equal(all, []int64{50, 80}) {
			e.Errorf("reported %v", all)
		}
		got := e.take(k.Key.ID, 1, t0)
		if got.Spent == nil || !slices.Equal(got.Spent.Reached, []int64{100}) || got.Spent.UserID != k.Key.UserID || got.Spent.ID != k.Key.ID {
			e.Errorf("%+v", got.Spent)
		}
		e.same("reported", s.reached(), []int64{100})
		if n := len(e.outbox("")); n != 3 {
			e.Errorf("%d deliveries", n)
		}
		e.move(k.Key.ID, key.Move{Give: 150}, t0)
		e.take(k.Key.ID, 150, t0)
		e.same("after a refund", s.reached(), []int64(nil))
	}},
	{"one movement reaches several thresholds", func(e *env) {
		s := e.report()
		k := e.create(limited(10), nil)
		e.take(k.Key.ID, 4, t0)
		e.take(k.Key.ID, 6, t0)
		e.same("reported", s.reached(), []int64{50, 80, 100})
		if got := e.take(k.Key.ID, 1, t0); got.OK || got.Spent != nil {
			e.Errorf("%+v", got)
		}
	}},
	{"a refill or a grant begins anew", func(e *env) {
		s := e.report()
		k := e.create(key.NewCredits(ptr(int64(10)), 10, 1000, t0), nil)
		e.take(k.Key.ID, 9, t0)
		e.same("before", s.reached(), []int64{50, 80})
		e.reopen()
		s = e.report()
		e.take(k.Key.ID, 1, t0)
		e.same("after a restart", s.reached(), []int64{100})
		e.take(k.Key.ID, 5, t0+1000)
		e.same("after a refill", s.reached(), []int64{50})
		e.topUp(k.Key.ID, 5)
		e.take(k.Key.ID, 5, t0+1000)
		e.same("after a grant", s.reached(), []int64{50})
		_, err := e.storeUpdate(k.Key.ID, func(s *store.Entry) error { s.Credits = s.Credits.WithRemaining(nil); return nil })
		e.must(err)
		e.take(k.Key.ID, 5, t0+1000)
		e.same("unlimited", s.reached(), []int64(nil))
	}},
	{"what is leased is not used yet", func(e *env) {
		s := e.report()
		k := e.create(limited(100), nil)
		e.take(k.Key.ID, 45, t0)
		e.move(k.Key.ID, key.Move{Lease: 5}, t0)
		e.same("leased", s.reached(), []int64(nil))
		e.move(k.Key.ID, key.Move{Used: 5}, t0)
		e.same("used", s.reached(), []int64{50})
		e.move(k.Key.ID, key.Move{Hold: 40}, t0)
		e.same("held", s.reached(), []int64(nil))
		e.move(k.Key.ID, key.Move{Held: 40, Cost: 30}, t0)
		e.same("charged", s.reached(), []int64{80})
	}},
	{"where nobody reports", func(e *env) {
		k := e.create(limited(10), nil)
		e.take(k.Key.ID, 9, t0)
		e.store.ReportSpending(nil)
		e.take(k.Key.ID, 1, t0)
		e.same("outbox", e.outbox(""), []string{})
	}},
	{"marks", func(e *env) {
		_, ok, err := e.store.Mark(e.ctx, "a")
		e.must(err)
		if ok {
			e.Error("a mark is there that was never set")
		}
		e.must(e.store.SetMark(e.ctx, "a", store.Mark{At: 1, ID: "x"}, nil))
		e.must(e.store.SetMark(e.ctx, "b", store.Mark{At: 2}, nil))
		e.must(e.store.SetMark(e.ctx, "a", store.Mark{At: 3, ID: "y"}, []store.Delivery{delivery(1)}))
		if err := e.store.SetMark(e.ctx, "a", store.Mark{At: 4}, []store.Delivery{delivery(1)}); err == nil {
			e.Error("an ID was taken twice")
		}
		e.reopen()
		m, ok, err := e.store.Mark(e.ctx, "a")
		e.must(err)
		e.same("mark", fmt.Sprint(m, ok), fmt.Sprint(store.Mark{At: 3, ID: "y"}, true))
	}},
	{"keys whose time has come", func(e *env) {
		expiring := func(name string, change func(*key.Key)) {
			e.create(key.Credits{}, func(k *key.Key) {
				k.ID, k.CreatedAt, k.ExpiresAt = name, t0, t0+10
				if change != nil {
					change(k)
				}
			})
		}
		for _, name := range []string{"b", "a", "c", "d"} { // all at the same time
			expiring(name, nil)
		}
		expiring("later", func(k *key.Key) { k.ExpiresAt, k.CreatedAt = t0+11, t0+1 })
		expiring("never", func(k *key.Key) { k.ExpiresAt, k.CreatedAt = 0, t0+2 })
		expiring("disabled", func(k *key.Key) { k.Enabled = false })
		expiring("shut", func(k *key.Key) { k.UserID = "mallory" })
		expiring("gone", func(k *key.Key) { k.UserID = "carol" })
		_, err := e.storePutOwner("mallory", t0, func(o *key.Owner) error { o.Enabled = false; return nil })
		e.must(err)
		_, err = e.storeDeleteOwner("carol")
		e.must(err)
		all := func(m store.Moment, after store.Mark, until int64) (ids []string) {
			for range 100 {
				list, err := e.store.Passed(e.ctx, m, after, until, 2)
				e.must(err)
				if len(list) == 0 {
					return ids
				}
				for _, p := range list {
					ids = append(ids, p.KeyID+" of "+p.UserID)
					after = p.Mark
				}
			}
			e.Fatal("no end")
			return nil
		}
		four := []string{"a of alice", "b of alice", "c of alice", "d of alice"}
		e.same("expired", all(store.MomentExpiry, store.Mark{}, t0+10), four)
		e.same("not yet", all(store.MomentExpiry, store.Mark{}, t0+9), []string(nil))
		e.same("the later one", all(store.MomentExpiry, store.Mark{At: t0 + 10, ID: "d"}, t0+99), []string{"later of alice"})
		e.same("the later one by time", all(store.MomentExpiry, store.Mark{At: t0 + 11}, t0+99), []string{"later of alice"})
		e.same("unused", all(store.MomentUnused, store.Mark{At: t0 - 1}, t0+1), append(slices.Clone(four), "later of alice"))

		const hour = 3_600_000
		at := (t0/hour + 1) * hour
		for i, name := range []string{"a", "b", "c", "later"} {
			e.must(e.store.SaveCounters(e.ctx, []store.Counters{{Subject: store.OfKey(name), LastRequest: at + int64(i)*hour/2}}))
		}
		e.same("unused, less those that were used", all(store.MomentUnused, store.Mark{}, t0+99), []string{"d of alice", "never of alice"})
		e.same("the hour is not over", all(store.MomentLastUse, store.Mark{}, at+hour-2), []string(nil))
		e.same("the hour is over", all(store.MomentLastUse, store.Mark{}, at+hour-1), []string{"b of alice", "a of alice"})
		e.same("two hours are over", all(store.MomentLastUse, store.Mark{At: at + hour}, at+9*hour), []string{"c of alice", "later of alice"})
		if _, err := e.store.Passed(e.ctx, "birthday", store.Mark{}, t0, 2); err == nil {
			e.Error("a moment that there is not was found")
		}
	}},
}
