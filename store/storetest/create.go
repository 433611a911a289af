package storetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/ratelimit"
	"github.com/caddy-apikey/caddy-apikey/store"
)

var createTests = []test{
	{"a limit holds exactly, whatever races", testKeyLimit},
	{"a limit counts by owner, configuration and state", testKeyLimitCounts},
	{"every field comes back, empty", func(e *env) { e.roundTrip(plainKey(1), key.Credits{}) }},
	{"every field comes back, full", func(e *env) {
		c := key.NewCredits(ptr(int64(7)), 100, 60_000, t0)
		c.Peak, c.LastRefillAt = 70, t0+60_000
		e.roundTrip(fullKey(1), c)
	}},
	{"every field comes back, extreme", func(e *env) {
		k := fullKey(1)
		k.ID, k.ConfigID, k.UserID = strings.Repeat("i", 255), strings.Repeat("c", 255), strings.Repeat("ü", 255)
		k.Name, k.Prefix, k.Start = ptr(strings.Repeat("𝒏", 4096)), ptr(strings.Repeat("p", key.MaxPrefixLen)), ptr("")
		k.Metadata = json.RawMessage(`{"m":"` + strings.Repeat("x", 16<<10) + `"}`)
		k.ExpiresAt, k.CreatedAt, k.UpdatedAt = key.MaxTime, key.MaxTime, key.MaxTime
		k.RateLimitMax, k.RateLimitTimeWindow = key.MaxCount, key.MaxCount
		k.Previous[0].Until = key.MaxCount
		c := key.NewCredits(ptr(key.MaxCount), key.MaxCount, key.MaxCount, key.MaxTime)
		c.LastRefillAt = key.MaxTime
		e.roundTrip(k, c)
	}},
	{"nothing and empty are kept apart", func(e *env) {
		k := plainKey(1)
		k.Name, k.Prefix, k.Start = ptr(""), ptr(""), ptr("")
		k.Permissions, k.AllowedIPs = key.Permissions{}, []netip.Prefix{}
		k.Metadata = json.RawMessage(`{}`)
		e.roundTrip(k, limited(0))
	}},
	{"every algorithm comes back", func(e *env) {
		for i, a := range []ratelimit.Algorithm{ratelimit.FixedWindow, ratelimit.SlidingWindow, ratelimit.TokenBucket} {
			k := plainKey(i)
			k.RateLimitAlgorithm = a
			e.roundTrip(k, key.Credits{})
		}
	}},
	{"starts revision and version at 1", func(e *env) {
		k, c := plainKey(1), limited(5)
		k.Revision, c.Version = 77, 77
		got, err := e.storeCreate(k, c)
		e.must(err)
		if got.Key.Revision != 1 || got.Credits.Version != 1 {
			e.Fatalf("revision %d, version %d, want 1 and 1", got.Key.Revision, got.Credits.Version)
		}
		if k.Revision != 77 {
			e.Fatal("the caller's key was changed")
		}
	}},
	{"refuses what exists", testCreateConflicts},
	{"one of many wins", testCreateRace},
	{"refuses a value out of range", testOutOfRange},
}

// roundTrip creates a key and reads it in every way there is.
func (e *env) roundTrip(k *key.Key, c key.Credits) {
	e.Helper()
	created, err := e.storeCreate(k, c)
	e.must(err)
	want := store.Entry{
		Key: k.Clone(), Credits: c,
		Owner: key.Owner{UserID: k.UserID, Enabled: true, CreatedAt: created.Owner.CreatedAt, UpdatedAt: created.Owner.UpdatedAt, Revision: created.Owner.Revision},
	}
	want.Key.Revision, want.Credits.Version = created.Key.Revision, 1
	e.sameEntry(created, want)
	e.sameEntry(e.get(k.ID), want)
	found, err := e.store.Find(e.ctx, k.Hash)
	e.must(err)
	e.sameEntry(found, want)
	for _, f := range k.Previous {
		found, err := e.store.Find(e.ctx, f.Hash)
		e.must(err)
		e.sameEntry(found, want)
	}
	e.sameEntry(e.dump()[k.ID], want)
	e.reopen()
	e.sameEntry(e.get(k.ID), want)
}

func testCreateConflicts(e *env) {
	k := fullKey(1)
	_, err := e.storeCreate(k, limited(3))
	e.must(err)
	before := e.dump()
	conflicts := map[string]func(*key.Key){
		"the same ID":                      func(n *key.Key) { n.ID = k.ID },
		"the same hash":                    func(n *key.Key) { n.Hash = k.Hash },
		"a hash that is another's former":  func(n *key.Key) { n.Hash = k.Previous[0].Hash },
		"a former that is another's hash":  func(n *key.Key) { n.Previous = []key.PreviousKey{{Hash: k.Hash, Until: t0}} },
		"a former that is another's":       func(n *key.Key) { n.Previous = []key.PreviousKey{{Hash: k.Previous[1].Hash, Until: t0}} },
		"a former that is its own hash":    func(n *key.Key) { n.Previous = []key.PreviousKey{{Hash: n.Hash, Until: t0}} },
		"the same former twice":            func(n *key.Key) { n.Previous = []key.PreviousKey{{Hash: hash("x", 0)}, {Hash: hash("x", 0)}} },
		"everything the same, other owner": func(n *key.Key) { *n = *k; n.UserID = "mallory" },
	}
	for name, change := range conflicts {
		n := plainKey(2)
		n.UserID = "bob"
		change(n)
		_, err := e.storeCreate(n, limited(9))
		if !errors.Is(err, store.ErrExists) || errors.Is(err, store.ErrUnavailable) {
			e.Errorf("%s: error %v, want %v", name, err, store.ErrExists)
		}
	}
	e.unchanged(before)
	for _, owner := range []string{"bob", "mallory"} {
		_, err = e.store.Owner(e.ctx, owner)
		e.wantErr(err, store.ErrNotFound) // the owner of a key that was refused
	}
}

func testCreateRace(e *env) {
	var won atomic.Int32
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			k := plainKey(i + 1)
			k.Hash = hash("the same", 0)
			switch _, err := e.storeCreate(k, key.Credits{}); {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, store.ErrExists):
				e.Error(err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 || len(e.dump()) != 1 {
		e.Fatalf("%d keys with one hash were created, %d are stored", won.Load(), len(e.dump()))
	}
}

func testOutOfRange(e *env) {
	e.create(limited(1), nil)
	before := e.dump()
	bad := map[string]func(*key.Key, *key.Credits){
		"remaining below zero":   func(_ *key.Key, c *key.Credits) { c.Remaining = -1 },
		"remaining over maximum": func(_ *key.Key, c *key.Credits) { c.Remaining = key.MaxCount + 1 },
		"negative limit":         func(k *key.Key, _ *key.Credits) { k.RateLimitMax = -1 },
		"negative expiry":        func(k *key.Key, _ *key.Credits) { k.ExpiresAt = -1 },
		"no ID":                  func(k *key.Key, _ *key.Credits) { k.ID = "" },
		"no owner":               func(k *key.Key, _ *key.Credits) { k.UserID = "" },
	}
	for name, change := range bad {
		k, c := plainKey(50), limited(5)
		change(k, &c)
		if _, err := e.storeCreate(k, c); err == nil {
			e.Errorf("%s was stored", name)
		}
	}
	if after := e.dump(); !reflect.DeepEqual(before, after) {
		e.Errorf("something was stored: %v", after)
	}
}

// testKeyLimit has 200 keys made at once, and disabled ones enabled, within a limit of 10.
func testKeyLimit(e *env) {
	limit := store.KeyLimit{Enabled: 10, Now: t0}
	var made atomic.Int64
	e.parallel(200, func(i int) error {
		_, err := e.store.Create(e.ctx, plainKey(i+1), key.Credits{}, limit, nil)
		if err == nil {
			made.Add(1)
			return nil
		}
		if !errors.Is(err, store.ErrKeyLimit) {
			return err
		}
		return nil
	})
	if n := made.Load(); n != 10 {
		e.Fatalf("%d keys were made", n)
	}
	for _, en := range e.pages(store.List{})[:5] {
		e.change(en.Key.ID, func(k *key.Key) { k.Enabled = false })
	}
	for i := range 20 {
		e.create(key.Credits{}, func(k *key.Key) { // an operator's
			k.ID, k.Hash, k.Enabled = fmt.Sprintf("off-%02d", i), hash("off", i), false
		})
	}
	made.Store(0)
	e.parallel(20, func(i int) error {
		_, err := e.store.Update(e.ctx, fmt.Sprintf("off-%02d", i), func(en *store.Entry) error {
			en.Key, en.Limit = en.Key.Clone(), limit
			en.Key.Enabled = true
			return nil
		}, nil)
		if err == nil {
			made.Add(1)
			return nil
		}
		if !errors.Is(err, store.ErrKeyLimit) {
			return err
		}
		return nil
	})
	if n := made.Load(); n != 5 {
		e.Errorf("%d keys were enabled, want 5", n)
	}
}

func testKeyLimitCounts(e *env) {
	make := func(n int, limit store.KeyLimit, change func(*key.Key)) error {
		k := plainKey(n)
		if change != nil {
			change(k)
		}
		_, err := e.store.Create(e.ctx, k, key.Credits{}, limit, nil)
		return err
	}
	two := store.KeyLimit{Enabled: 2, Now: t0}
	e.must(make(1, two, func(k *key.Key) { k.Enabled = false }))
	e.must(make(2, two, func(k *key.Key) { k.ExpiresAt = t0 }))
	e.must(make(3, two, func(k *key.Key) { k.ExpiresAt = t0 + 1 }))
	e.must(make(4, two, nil))
	e.wantErr(make(5, two, nil), store.ErrKeyLimit)
	e.must(make(5, two, func(k *key.Key) { k.Enabled = false }))
	e.must(make(6, two, func(k *key.Key) { k.UserID = "bob" }))
	e.must(make(7, two, func(k *key.Key) { k.ConfigID = "other" }))
	e.must(make(8, store.KeyLimit{}, nil))
	e.wantErr(make(9, store.KeyLimit{All: 6, Now: t0}, nil), store.ErrKeyLimit)
	e.must(make(9, store.KeyLimit{All: 7, Now: t0}, nil))
	if n := len(e.pages(store.List{})); n != 9 {
		e.Errorf("%d keys are stored", n)
	}
}
