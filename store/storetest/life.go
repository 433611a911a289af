package storetest

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

var lifeTests = []test{
	{"health", func(e *env) {
		e.create(limited(1), nil)
		st, err := e.store.Health(e.ctx)
		e.must(err)
		if st.Kind == "" || st.Version == "" || st.Schema < 1 || st.Keys != 1 || st.Backlog != 0 {
			e.Fatalf("%+v", st)
		}
	}},
	{"after Close everything is ErrClosed", testClosed},
	{"calls that race with Close end, and tell the truth", testCloseRace},
	{"what was stored survives", func(e *env) {
		full, err := e.storeCreate(fullKey(1), key.NewCredits(ptr(int64(9)), 10, 1000, t0))
		e.must(err)
		gone := e.create(limited(4), func(k *key.Key) { k.ID = "gone"; k.Hash = hash("gone", 1) })
		e.must(e.storeDelete(gone.Key.ID))
		taken := e.take(full.Key.ID, 3, t0)
		full.Credits = taken.Credits
		counters := keyCounters(full.Key.ID, t0, []byte("state"))
		e.must(e.store.SaveCounters(e.ctx, []store.Counters{counters}))
		full = counted(full, counters)
		o, err := e.storePutOwner(full.Key.UserID, t0+9, func(o *key.Owner) error { o.Enabled = false; return nil })
		e.must(err)
		full.Owner = o.Owner
		for range 3 {
			e.reopen()
			e.unchanged(map[string]store.Entry{full.Key.ID: full})
		}
	}},
	{"the identity stays the same", func(e *env) {
		before := e.opener.Identity()
		e.reopen()
		if after := e.opener.Identity(); after != before || before == "" {
			e.Fatalf("%q, then %q", before, after)
		}
	}},
}

func testClosed(e *env) {
	made := e.create(limited(5), nil)
	e.must(e.store.Close())
	backup := func() error { return store.ErrClosed }
	if s, ok := e.store.(store.Backuper); ok {
		backup = func() error { _, err := s.Backup(e.ctx); return err }
	}
	id, fail := made.Key.ID, func() error { e.Error("called"); return nil }
	for name, call := range map[string]func() error{
		"Find":   func() error { _, err := e.store.Find(e.ctx, made.Key.Hash); return err },
		"Get":    func() error { _, err := e.store.Get(e.ctx, id); return err },
		"List":   func() error { _, err := e.store.List(e.ctx, store.List{}); return err },
		"Create": func() error { _, err := e.storeCreate(plainKey(9), limited(1)); return err },
		"Update": func() error {
			_, err := e.storeUpdate(id, func(*store.Entry) error { return fail() })
			return err
		},
		"Delete":        func() error { return e.storeDelete(id) },
		"DeleteExpired": func() error { _, err := e.storeDeleteExpired(expiredBefore(t0), 5); return err },
		"MoveCredits":   func() error { _, err := e.store.MoveCredits(e.ctx, store.OfKey(id), key.Move{Take: 1}, t0); return err },
		"ForfeitLeases": func() error { _, err := e.store.ForfeitLeases(e.ctx, here.Name, nil); return err },
		"SaveCounters":  func() error { return e.store.SaveCounters(e.ctx, []store.Counters{{Subject: store.OfKey(id)}}) },
		"Owner":         func() error { _, err := e.store.Owner(e.ctx, "alice"); return err },
		"Owners":        func() error { _, err := e.store.Owners(e.ctx, 5, ""); return err },
		"PutOwner": func() error {
			_, err := e.storePutOwner("alice", t0, func(*key.Owner) error { return fail() })
			return err
		},
		"DeleteOwner":  func() error { _, err := e.storeDeleteOwner("alice"); return err },
		"HasPlainKeys": func() error { _, err := e.store.HasPlainKeys(e.ctx); return err },
		"Health":       func() error { _, err := e.store.Health(e.ctx); return err },
		"Backup":       backup,
		"Close":        func() error { return e.store.Close() },
	} {
		if err := call(); !errors.Is(err, store.ErrClosed) {
			e.Errorf("%s: error %v, want %v", name, err, store.ErrClosed)
		}
	}
	e.open()
	e.sameEntry(e.get(id), made)
}

// testCloseRace closes in the middle of everything. Afterwards, what was
// answered with success is there, and nothing that was refused is.
func testCloseRace(e *env) {
	made := e.create(limited(1_000_000), nil)
	var wg sync.WaitGroup
	var taken, started atomic.Int64
	stored := sync.Map{}
	enough := make(chan struct{})
	for w := range 32 {
		wg.Go(func() {
			for i := 0; ; i++ {
				if started.Add(1) == 500 {
					close(enough)
				}
				k := plainKey(1000 + w*100_000 + i)
				_, err := e.storeCreate(k, key.Credits{})
				stored.Store(k.ID, err == nil)
				if err == nil {
					var got store.Taken
					if got, err = e.store.MoveCredits(e.ctx, store.OfKey(made.Key.ID), key.Move{Take: 1}, t0); err == nil && got.OK {
						taken.Add(1)
					}
				}
				if err == nil {
					_, err = e.store.Find(e.ctx, made.Key.Hash)
				}
				if errors.Is(err, store.ErrClosed) {
					return
				}
				if err != nil {
					e.Error(fmt.Errorf("racing with close: %w", err))
					return
				}
			}
		})
	}
	<-enough
	e.must(e.store.Close())
	wg.Wait()
	e.open()
	if left := e.get(made.Key.ID).Credits.Remaining; left != 1_000_000-taken.Load() {
		e.Errorf("%d left after %d were taken", left, taken.Load())
	}
	all := e.dump()
	stored.Range(func(id, ok any) bool {
		if _, there := all[id.(string)]; there != ok.(bool) {
			e.Errorf("key %s: stored is %v, the answer was %v", id, there, ok)
		}
		return true
	})
}
