package storetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// note notes each change in an entry of its own.
func note(changes []store.Change) (noted store.Noted, err error) {
	for _, c := range changes {
		e := store.AuditEntry{Time: t0, Action: "test.changed", Actor: store.AuditActor{Kind: "operator"}}
		if c.Kind == store.KindKey {
			e.KeyID, e.UserID = c.ID, c.UserID
			if c.Entry != nil {
				e.UserID = c.Entry.Key.UserID
			}
		} else {
			e.UserID = c.ID
		}
		noted.Audit = append(noted.Audit, e)
	}
	return noted, nil
}

// readAudit reads what a query finds, and checks that it is in order.
func (e *env) readAudit(q store.AuditQuery) (all []store.AuditEntry) {
	e.Helper()
	for range 1000 {
		page, err := e.store.Audit(e.ctx, q)
		e.must(err)
		for _, entry := range page.Entries {
			if n := len(all); n > 0 && all[n-1].ID <= entry.ID {
				e.Fatalf("entry %d comes after %d", entry.ID, all[n-1].ID)
			}
			all = append(all, entry)
		}
		if page.Next == "" {
			return all
		}
		q.Cursor = page.Next
	}
	e.Fatal("the audit log has no end")
	return nil
}

// checkAudit checks that each entry of the log follows the one before, from the anchor to
// the head, and returns how many there are.
func (e *env) checkAudit() int {
	e.Helper()
	all := e.readAudit(store.AuditQuery{Limit: 500})
	page, err := e.store.Audit(e.ctx, store.AuditQuery{Limit: 1})
	e.must(err)
	head := page.Anchor
	if len(all) > 0 {
		head = all[0].Point()
	}
	status, err := e.store.Health(e.ctx)
	e.must(err)
	if page.Head != head || status.Audit != head {
		e.Errorf("the head is %+v, in health %+v, want %+v", page.Head, status.Audit, head)
	}
	for i := range all {
		before := page.Anchor
		if i+1 < len(all) {
			before = all[i+1].Point()
		}
		text, err := all[i].Canonical()
		e.must(err)
		if all[i].ID != before.ID+1 || all[i].Chain != store.Link(before, text) {
			e.Errorf("entry %+v does not follow %+v", all[i], before)
		}
	}
	return len(all)
}

var auditTests = []test{
	{"each change has its note", func(e *env) {
		k := e.create(limited(5), nil)
		id, by := k.Key.ID, k.Key.UserID
		_, err := e.storeUpdate(id, func(s *store.Entry) error { s.Key = s.Key.Clone(); s.Key.Name = ptr("other"); return nil })
		e.must(err)
		_, err = e.storePutOwner(by, t0, func(o *key.Owner) error { o.Enabled = false; return nil })
		e.must(err)
		_, err = e.storeImport([]store.Entry{{Key: plainKey(7)}, {Key: plainKey(7)}})
		e.must(err)
		_, err = e.storeImportOwners([]store.OwnerEntry{{Owner: key.Owner{UserID: "carol", Enabled: true, CreatedAt: t0, UpdatedAt: t0}}})
		e.must(err)
		e.must(e.storeDelete(id))
		_, err = e.storeDeleteOwner("carol")
		e.must(err)
		var got []string
		for _, entry := range e.readAudit(store.AuditQuery{}) {
			got = append(got, fmt.Sprint(entry.ID, " ", entry.KeyID, " ", entry.UserID))
		}
		want := []string{"7  carol", "6 " + id + " " + by, "5  carol", "4 " + plainKey(7).ID + " alice", "3  " + by, "2 " + id + " " + by, "1 " + id + " " + by}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			e.Errorf("%q, want %q", got, want)
		}
	}},
	{"expired keys are told apart", func(e *env) {
		e.create(limited(1), func(k *key.Key) { k.ExpiresAt = t0 })
		other := func(k *key.Key) {
			k.ID, k.Hash, k.Enabled, k.DisabledBy = "disabled", hash("disabled", 1), false, key.DisabledByOwner
		}
		e.create(limited(1), other)
		all := func(string) int64 { return t0 + 9 }
		seen := map[string]string{}
		_, err := e.store.DeleteExpired(e.ctx, store.Expired{Before: all, Disabled: all}, 10, func(changes []store.Change) (store.Noted, error) {
			for _, c := range changes {
				seen[c.ID] = fmt.Sprint(c.Expired, " ", c.UserID)
			}
			return note(changes)
		})
		e.must(err)
		if len(seen) != 2 || seen["disabled"] != "false alice" || seen[plainKey(1).ID] != "true alice" {
			e.Errorf("%v", seen)
		}
	}},
	{"what was not changed is not noted", func(e *env) {
		k := e.create(limited(5), nil)
		n := e.checkAudit()
		never := func([]store.Change) (store.Noted, error) { e.Error("called"); return store.Noted{}, nil }
		_, err := e.store.Update(e.ctx, k.Key.ID, func(*store.Entry) error { return nil }, never)
		e.must(err)
		bad := errors.New("bad")
		_, err = e.store.Update(e.ctx, k.Key.ID, func(s *store.Entry) error { s.Credits.Remaining--; return bad }, never)
		e.wantErr(err, bad)
		_, err = e.store.Create(e.ctx, plainKey(8), key.Credits{}, store.KeyLimit{Enabled: 1, Now: t0}, func(changes []store.Change) (store.Noted, error) { return note(changes) })
		e.wantErr(err, store.ErrKeyLimit)
		_, err = e.store.Delete(e.ctx, "nobody", never)
		e.wantErr(err, store.ErrNotFound)
		_, err = e.store.DeleteExpired(e.ctx, store.Expired{Before: func(string) int64 { return 0 }}, 10, never)
		e.must(err)
		_, err = e.store.ForfeitLeases(e.ctx, "nobody", func([]store.Forfeit) ([]store.AuditEntry, error) { e.Error("called"); return nil, nil })
		e.must(err)
		if now := e.checkAudit(); now != n {
			e.Errorf("%d entries, before that %d", now, n)
		}
	}},
	{"a note that fails undoes the change", func(e *env) {
		k := e.create(limited(5), nil)
		bad := errors.New("bad")
		_, err := e.store.Update(e.ctx, k.Key.ID, func(s *store.Entry) error { s.Credits = s.Credits.WithRemaining(ptr(int64(1))); return nil },
			func([]store.Change) (store.Noted, error) { return store.Noted{}, bad })
		e.wantErr(err, bad)
		_, err = e.store.Create(e.ctx, plainKey(8), key.Credits{}, store.KeyLimit{}, func(changes []store.Change) (store.Noted, error) {
			return store.Noted{Audit: []store.AuditEntry{{Time: t0, Action: "test.bad", Actor: store.AuditActor{Kind: "operator"}, Changes: json.RawMessage(`{`)}}}, nil
		})
		if err == nil {
			e.Error("an entry that is no JSON was taken")
		}
		e.unchanged(map[string]store.Entry{k.Key.ID: k})
		e.checkAudit()
	}},
	{"leases that are forfeited", func(e *env) {
		k := e.create(limited(100), nil)
		_, err := e.store.MoveCredits(e.ctx, store.OfKey(k.Key.ID), key.Move{Lease: 10, Holder: here}, t0)
		e.must(err)
		var lost []store.Forfeit
		_, err = e.store.ForfeitLeases(e.ctx, here.Name, func(all []store.Forfeit) ([]store.AuditEntry, error) {
			lost = all
			return []store.AuditEntry{{Time: t0, Action: "test.forfeited", Actor: store.AuditActor{Kind: "system"}, KeyID: all[0].ID}}, nil
		})
		e.must(err)
		if len(lost) != 1 || lost[0] != (store.Forfeit{Subject: store.OfKey(k.Key.ID), Amount: 10}) {
			e.Errorf("%+v", lost)
		}
		if all := e.readAudit(store.AuditQuery{Action: "test.forfeited"}); len(all) != 1 || all[0].KeyID != k.Key.ID {
			e.Errorf("%+v", all)
		}
	}},
	{"entries come back as they were", func(e *env) {
		want := []store.AuditEntry{
			{Time: t0, Action: "test.full", Actor: store.AuditActor{Kind: "operator", ID: "k", Name: "<bob> \"&", Address: "2001:db8::1"}, KeyID: "a", UserID: "Ünï👩‍👩‍👧\u2028", Changes: json.RawMessage(`{"a":{"from":null,"to":9007199254740991},"é":{"from":["<"],"to":true}}`), Count: 9007199254740991, IDsHash: "ab"},
			{Time: 0, Action: "test.plain", Actor: store.AuditActor{Kind: "system"}},
		}
		e.must(e.store.AppendAudit(e.ctx, store.Noted{Audit: want}))
		e.must(e.store.AppendAudit(e.ctx, store.Noted{}))
		e.reopen()
		got := e.readAudit(store.AuditQuery{})
		if len(got) != 2 {
			e.Fatalf("%d entries", len(got))
		}
		for i := range want {
			g := got[1-i]
			want[i].ID, want[i].Chain = int64(i+1), g.Chain
			if a, b := fmt.Sprintf("%+v", g), fmt.Sprintf("%+v", want[i]); a != b {
				e.Errorf("%s\nwant %s", a, b)
			}
		}
		e.checkAudit()
	}},
	{"the head is never newer than the page", func(e *env) {
		stop := make(chan struct{})
		var group sync.WaitGroup
		group.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := e.store.AppendAudit(e.ctx, store.Noted{Audit: []store.AuditEntry{{Time: t0, Action: "test.beside", Actor: store.AuditActor{Kind: "system"}}}}); err != nil {
					e.Error(err)
					return
				}
			}
		})
		for range 300 { // or who verifies the log would miss the head
			page, err := e.store.Audit(e.ctx, store.AuditQuery{Limit: 1})
			e.must(err)
			if page.Head.ID > 0 && (len(page.Entries) == 0 || page.Entries[0].ID < page.Head.ID) {
				e.Errorf("the head is %d, the page %+v", page.Head.ID, page.Entries)
				break
			}
		}
		close(stop)
		group.Wait()
	}},
	{"filters and pages", testAuditFilters},
	{"removing old entries leaves the anchor", testTrimAudit},
	{"changes side by side are chained", func(e *env) {
		var group sync.WaitGroup
		for i := range 40 {
			group.Go(func() {
				if _, err := e.storeCreate(plainKey(i), limited(1)); err != nil {
					e.Error(err)
				}
				if err := e.store.AppendAudit(e.ctx, store.Noted{Audit: []store.AuditEntry{{Time: t0, Action: "test.beside", Actor: store.AuditActor{Kind: "system"}}}}); err != nil {
					e.Error(err)
				}
			})
		}
		group.Wait()
		if n := e.checkAudit(); n != 80 {
			e.Errorf("%d entries, want 80", n)
		}
	}},
}

func testAuditFilters(e *env) {
	var all []store.AuditEntry
	for i := range 60 {
		all = append(all, store.AuditEntry{
			Time: t0 + int64(i), Action: fmt.Sprint("test.", i%3), Actor: []store.AuditActor{{Kind: "operator", Name: "bob"}, {Kind: "key", ID: "key-1"}, {Kind: "system"}}[i%3],
			KeyID: fmt.Sprint("key-", i%4), UserID: fmt.Sprint("user-", i%5),
		})
	}
	e.must(e.store.AppendAudit(e.ctx, store.Noted{Audit: all}))
	for name, q := range map[string]struct {
		store.AuditQuery
		has func(i int) bool
	}{
		"all":           {store.AuditQuery{}, func(int) bool { return true }},
		"key":           {store.AuditQuery{KeyID: "key-1"}, func(i int) bool { return i%4 == 1 }},
		"owner":         {store.AuditQuery{UserID: "user-2"}, func(i int) bool { return i%5 == 2 }},
		"key and owner": {store.AuditQuery{KeyID: "key-1", UserID: "user-2"}, func(i int) bool { return i%4 == 1 && i%5 == 2 }},
		"action":        {store.AuditQuery{Action: "test.1"}, func(i int) bool { return i%3 == 1 }},
		"kind of actor": {store.AuditQuery{Actor: "system"}, func(i int) bool { return i%3 == 2 }},
		"actor by ID":   {store.AuditQuery{Actor: "key-1"}, func(i int) bool { return i%3 == 1 }},
		"actor by name": {store.AuditQuery{Actor: "bob"}, func(i int) bool { return i%3 == 0 }},
		"since":         {store.AuditQuery{Since: t0 + 30}, func(i int) bool { return i >= 30 }},
		"until":         {store.AuditQuery{Until: t0 + 30}, func(i int) bool { return i < 30 }},
		"everything": {
			store.AuditQuery{KeyID: "key-1", UserID: "user-2", Actor: "key-1", Action: "test.1", Since: t0 + 30, Until: t0 + 50},
			func(i int) bool { return i%4 == 1 && i%5 == 2 && i%3 == 1 && i >= 30 && i < 50 },
		},
		"nothing": {store.AuditQuery{KeyID: "nobody"}, func(int) bool { return false }},
	} {
		var want []int64
		for i := 59; i >= 0; i-- {
			if q.has(i) {
				want = append(want, int64(i+1))
			}
		}
		for _, limit := range []int{1, 7, 500} {
			q.Limit = limit
			var got []int64
			for _, entry := range e.readAudit(q.AuditQuery) {
				got = append(got, entry.ID)
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				e.Errorf("%s, %d a page: %v, want %v", name, limit, got, want)
			}
		}
	}
	for _, cursor := range []string{"x", "AAAA"} {
		_, err := e.store.Audit(e.ctx, store.AuditQuery{Cursor: cursor})
		e.wantErr(err, store.ErrCursor)
	}
}

func testTrimAudit(e *env) {
	var all []store.AuditEntry
	for i := range 10 {
		all = append(all, store.AuditEntry{Time: t0 + int64(i), Action: "test", Actor: store.AuditActor{Kind: "system"}})
	}
	all[6].Time = t0 - 1 // the clock was set: younger entries before it keep it
	e.must(e.store.AppendAudit(e.ctx, store.Noted{Audit: all}))
	for _, step := range []struct {
		before       int64
		limit, wants int
		left         int
	}{{t0, 100, 0, 10}, {t0 + 3, 2, 2, 8}, {t0 + 3, 2, 1, 7}, {t0 + 3, 2, 0, 7}, {t0 + 100, 3, 3, 4}, {t0 + 100, 100, 4, 0}, {t0 + 100, 100, 0, 0}} {
		n, err := e.store.TrimAudit(e.ctx, step.before, step.limit)
		e.must(err)
		if left := e.checkAudit(); n != step.wants || left != step.left {
			e.Errorf("%d entries removed, %d left, want %+v", n, left, step)
		}
	}
	e.reopen()
	e.must(e.store.AppendAudit(e.ctx, store.Noted{Audit: all[:1]}))
	if got := e.readAudit(store.AuditQuery{}); len(got) != 1 || got[0].ID != 11 {
		e.Errorf("%+v after all were removed", got)
	}
	e.checkAudit()
}
