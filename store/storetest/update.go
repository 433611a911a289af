package storetest

import (
	"errors"
	"fmt"
	"sync"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

var updateTests = []test{
	{"unknown", func(e *env) {
		called := false
		_, err := e.storeUpdate("nobody", func(*store.Entry) error { called = true; return nil })
		e.wantErr(err, store.ErrNotFound)
		if called {
			e.Fatal("change was called")
		}
	}},
	{"every field can change, and change back", testUpdateEveryField},
	{"an error stores nothing", func(e *env) {
		made := e.create(limited(5), nil)
		before := e.dump()
		mine := errors.New("mine")
		_, err := e.storeUpdate(made.Key.ID, func(en *store.Entry) error {
			k := fullKey(9)
			k.ID = en.Key.ID
			en.Key, en.Credits = k, limited(99)
			return mine
		})
		if err != mine { //nolint:errorlint // "as it is"
			e.Fatalf("error %v, want it as it was", err)
		}
		e.unchanged(before)
		_, err = e.store.Owner(e.ctx, fullKey(9).UserID)
		e.wantErr(err, store.ErrNotFound)
	}},
	{"revision and version grow only with what changed", testRevisions},
	{"only key and credits may be replaced", func(e *env) {
		made := e.create(limited(5), nil)
		before := e.dump()
		_, err := e.storeUpdate(made.Key.ID, func(en *store.Entry) error {
			en.Owner.Enabled, en.Owner.Tier = false, ptr("gold")
			en.LastRequest, en.Windows = 5, []store.Window{ownerCounter("day", 1)}
			return nil
		})
		e.must(err)
		e.unchanged(before)
	}},
	{"the ID cannot change", func(e *env) {
		made := e.create(limited(5), nil)
		before := e.dump()
		_, err := e.storeUpdate(made.Key.ID, func(en *store.Entry) error {
			en.Key = en.Key.Clone()
			en.Key.ID = "another"
			return nil
		})
		if err == nil {
			e.Fatal("it did")
		}
		_, err = e.storeUpdate(made.Key.ID, func(en *store.Entry) error { en.Key = nil; return nil })
		if err == nil {
			e.Fatal("a key was replaced by nothing")
		}
		e.unchanged(before)
	}},
	{"moving a key makes its owner", func(e *env) {
		made := e.create(limited(5), nil)
		got := e.change(made.Key.ID, func(k *key.Key) { k.UserID = "carol" })
		if got.Owner.UserID != "carol" || !got.Owner.Enabled || got.Owner.Tier != nil || got.Owner.Revision != 2 {
			e.Fatalf("owner %+v", got.Owner)
		}
		e.keyCount("alice", 0)
		e.keyCount("carol", 1)
	}},
	{"a rotation finds old and new", func(e *env) {
		made := e.create(limited(5), nil)
		other := e.create(limited(6), nil)
		got := e.change(made.Key.ID, func(k *key.Key) {
			k.Previous = append([]key.PreviousKey{{Hash: k.Hash, Until: t0 + 5}}, k.Previous...)
			k.Hash = hash("rotated", 1)
		})
		for _, h := range []key.Hash{made.Key.Hash, hash("rotated", 1)} {
			found, err := e.store.Find(e.ctx, h)
			e.must(err)
			e.sameEntry(found, got)
		}
		e.change(made.Key.ID, func(k *key.Key) { k.Previous = nil })
		_, err := e.store.Find(e.ctx, made.Key.Hash)
		e.wantErr(err, store.ErrNotFound)
		e.sameEntry(e.get(other.Key.ID), other)
	}},
	{"refuses a hash that exists", testUpdateConflicts},
	{"no update is lost", func(e *env) {
		made := e.create(limited(0), func(k *key.Key) { k.Name = ptr("") })
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				for j := range 8 {
					_, err := e.storeUpdate(made.Key.ID, func(en *store.Entry) error {
						k := en.Key.Clone()
						k.Name = ptr(*k.Name + fmt.Sprintf("[%d.%d]", i, j))
						en.Key = k
						en.Credits, _ = en.Credits.Add(1, t0)
						return nil
					})
					if err != nil {
						e.Error(err)
					}
				}
			})
		}
		wg.Wait()
		got := e.get(made.Key.ID)
		if got.Credits.Remaining != 128 || got.Key.Revision != 129 || got.Credits.Version != 129 {
			e.Fatalf("remaining %d, revision %d, version %d", got.Credits.Remaining, got.Key.Revision, got.Credits.Version)
		}
	}},
	{"a panic of change is the caller's", func(e *env) {
		made := e.create(limited(5), nil)
		before := e.dump()
		func() {
			defer func() {
				if recover() == nil {
					e.Error("the panic was swallowed")
				}
			}()
			_, _ = e.storeUpdate(made.Key.ID, func(en *store.Entry) error {
				en.Credits = en.Credits.WithRemaining(ptr(int64(100)))
				panic("mine")
			})
		}()
		e.unchanged(before)
		e.change(made.Key.ID, func(k *key.Key) { k.Enabled = false }) // the store lives on
	}},
}

// change updates a key by a changed clone.
func (e *env) change(id string, f func(*key.Key)) store.Entry {
	e.Helper()
	got, err := e.storeUpdate(id, func(en *store.Entry) error {
		k := en.Key.Clone()
		f(k)
		en.Key = k
		return nil
	})
	e.must(err)
	return got
}

func (e *env) keyCount(userID string, want int64) {
	e.Helper()
	o, err := e.store.Owner(e.ctx, userID)
	e.must(err)
	if o.KeyCount != want {
		e.Fatalf("%s has %d keys, want %d", userID, o.KeyCount, want)
	}
}

func testUpdateEveryField(e *env) {
	made := e.create(limited(5), nil)
	e.create(limited(6), nil)
	full := fullKey(9)
	full.ID = made.Key.ID
	before := e.dump()
	got := e.change(made.Key.ID, func(k *key.Key) { *k = *full })
	want := full.Clone()
	want.Revision = 3
	e.sameEntry(got, store.Entry{Key: want, Credits: made.Credits, Owner: got.Owner})
	e.sameEntry(e.get(made.Key.ID), got)
	e.unchanged(before, made.Key.ID)

	back := e.change(made.Key.ID, func(k *key.Key) { *k = *made.Key })
	want = made.Key.Clone()
	want.Revision = 4
	e.sameEntry(back, store.Entry{Key: want, Credits: made.Credits, Owner: made.Owner})
	e.reopen()
	e.sameEntry(e.get(made.Key.ID), back)
}

func testRevisions(e *env) {
	made := e.create(key.NewCredits(ptr(int64(5)), 10, 1000, t0), nil)
	check := func(got store.Entry, revision, version int64) {
		e.Helper()
		if got.Key.Revision != revision || got.Credits.Version != version {
			e.Fatalf("revision %d, version %d, want %d and %d", got.Key.Revision, got.Credits.Version, revision, version)
		}
		e.sameEntry(e.get(made.Key.ID), got)
	}
	update := func(f func(*store.Entry)) store.Entry {
		e.Helper()
		got, err := e.storeUpdate(made.Key.ID, func(en *store.Entry) error { f(en); return nil })
		e.must(err)
		return got
	}
	check(update(func(*store.Entry) {}), 1, 1)
	check(update(func(en *store.Entry) { en.Key = en.Key.Clone() }), 1, 1)
	check(update(func(en *store.Entry) {
		en.Key = en.Key.Clone()
		en.Key.Revision, en.Credits.Version = 50, 60 // not the caller's to choose
	}), 1, 1)
	check(e.change(made.Key.ID, func(k *key.Key) { k.Enabled = false }), 2, 1)
	check(update(func(en *store.Entry) { en.Credits = en.Credits.WithRemaining(ptr(int64(4))) }), 3, 2)
	check(update(func(en *store.Entry) { en.Credits = en.Credits.At(t0 + 2000) }), 4, 3)
	check(update(func(en *store.Entry) {
		en.Key, en.Credits = en.Key.Clone(), en.Credits.WithRemaining(nil)
		en.Key.UpdatedAt++
	}), 5, 4)
	check(e.change(made.Key.ID, func(k *key.Key) { k.Previous = []key.PreviousKey{{Hash: hash("f", 1), Until: 5}} }), 6, 4)
	check(e.change(made.Key.ID, func(k *key.Key) { k.Previous = []key.PreviousKey{{Hash: hash("f", 1), Until: 6}} }), 7, 4)
}

func testUpdateConflicts(e *env) {
	a := e.create(limited(1), func(k *key.Key) { k.Previous = []key.PreviousKey{{Hash: hash("a's former", 1), Until: t0}} })
	b := e.create(limited(1), nil)
	before := e.dump()
	for name, f := range map[string]func(*key.Key){
		"another's hash":           func(k *key.Key) { k.Hash = a.Key.Hash },
		"another's former":         func(k *key.Key) { k.Hash = a.Key.Previous[0].Hash },
		"former: another's hash":   func(k *key.Key) { k.Previous = []key.PreviousKey{{Hash: a.Key.Hash}} },
		"former: another's former": func(k *key.Key) { k.Previous = []key.PreviousKey{{Hash: a.Key.Previous[0].Hash}} },
		"former: its own hash":     func(k *key.Key) { k.Previous = []key.PreviousKey{{Hash: k.Hash}} },
	} {
		_, err := e.storeUpdate(b.Key.ID, func(en *store.Entry) error {
			k := en.Key.Clone()
			f(k)
			en.Key = k
			return nil
		})
		if !errors.Is(err, store.ErrExists) {
			e.Errorf("%s: error %v, want %v", name, err, store.ErrExists)
		}
	}
	e.unchanged(before)
}
