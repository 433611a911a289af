package storetest

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

var ownerTests = []test{
	{"unknown", func(e *env) {
		_, err := e.store.Owner(e.ctx, "nobody")
		e.wantErr(err, store.ErrNotFound)
		_, err = e.storeDeleteOwner("nobody")
		e.wantErr(err, store.ErrNotFound)
	}},
	{"a key makes its owner", func(e *env) {
		e.create(limited(1), func(k *key.Key) { k.CreatedAt = t0 + 77 })
		e.wantOwner("alice", store.OwnerInfo{Owner: key.Owner{UserID: "alice", Enabled: true, CreatedAt: t0 + 77, UpdatedAt: t0 + 77, Revision: 1}, KeyCount: 1})
		e.create(limited(1), func(k *key.Key) { k.CreatedAt = t0 + 99 })
		e.wantOwner("alice", store.OwnerInfo{Owner: key.Owner{UserID: "alice", Enabled: true, CreatedAt: t0 + 77, UpdatedAt: t0 + 77, Revision: 1}, KeyCount: 2})
	}},
	{"a key leaves an owner who exists as it is", func(e *env) {
		_, err := e.storePutOwner("alice", t0, func(o *key.Owner) error { o.Enabled, o.Tier = false, ptr("pro"); return nil })
		e.must(err)
		made := e.create(limited(1), nil)
		want := key.Owner{UserID: "alice", Tier: ptr("pro"), CreatedAt: t0, UpdatedAt: t0, Revision: 1}
		if d := diffStruct("owner", made.Owner, want); d != "" {
			e.Fatal(d)
		}
	}},
	{"put", testPutOwner},
	{"deleting takes the keys along", func(e *env) {
		var alices []string
		for i := range 20 {
			made := e.create(limited(1), func(k *key.Key) {
				k.UserID = []string{"alice", "bob"}[i%2]
				k.Previous = []key.PreviousKey{{Hash: hash("former", i), Until: t0}}
			})
			if i%2 == 0 {
				alices = append(alices, made.Key.ID)
			}
		}
		before := e.dump()
		n, err := e.storeDeleteOwner("alice")
		e.must(err)
		if n != int64(len(alices)) {
			e.Fatalf("%d keys deleted, want %d", n, len(alices))
		}
		e.unchanged(before, alices...)
		_, err = e.store.Find(e.ctx, hash("former", 0))
		e.wantErr(err, store.ErrNotFound)
		_, err = e.store.Owner(e.ctx, "alice")
		e.wantErr(err, store.ErrNotFound)
		e.keyCount("bob", 10)
	}},
	{"stays without keys", func(e *env) {
		made := e.create(limited(1), nil)
		e.must(e.storeDelete(made.Key.ID))
		e.keyCount("alice", 0)
		n, err := e.storeDeleteOwner("alice")
		e.must(err)
		if n != 0 {
			e.Fatalf("%d keys deleted", n)
		}
	}},
	{"pages", testOwnerPages},
}

func (e *env) wantOwner(userID string, want store.OwnerInfo) {
	e.Helper()
	got, err := e.store.Owner(e.ctx, userID)
	e.must(err)
	e.sameOwner(got, want)
}

func (e *env) sameOwner(got, want store.OwnerInfo) {
	e.Helper()
	if d := diffStruct("owner", got.Owner, want.Owner); d != "" {
		e.Fatal(d)
	}
	if got.KeyCount != want.KeyCount {
		e.Fatalf("%d keys, want %d", got.KeyCount, want.KeyCount)
	}
}

func testPutOwner(e *env) {
	put := func(now int64, change func(*key.Owner) error, want store.OwnerInfo) {
		e.Helper()
		got, err := e.storePutOwner("alice", now, change)
		e.must(err)
		e.sameOwner(got, want)
		e.wantOwner("alice", want)
	}
	want := store.OwnerInfo{Owner: key.Owner{UserID: "alice", Enabled: true, CreatedAt: t0, UpdatedAt: t0, Revision: 1}}
	put(t0, func(o *key.Owner) error {
		if o.UserID != "alice" || !o.Enabled || o.Tier != nil || o.CreatedAt != t0 || o.UpdatedAt != t0 {
			e.Errorf("a new owner begins as %+v", o)
		}
		return nil
	}, want)
	put(t0+1, func(*key.Owner) error { return nil }, want) // nothing changed: nothing is written

	want.Tier, want.Enabled, want.UpdatedAt, want.Revision = ptr("pro"), false, t0+2, 2
	set := func(o *key.Owner) error {
		o.Tier, o.Enabled = ptr("pro"), false
		o.UserID, o.Revision = "mallory", 99 // not the caller's to choose
		return nil
	}
	put(t0+2, set, want)
	put(t0+3, set, want)

	want.Tier, want.UpdatedAt, want.Revision = nil, t0+4, 3
	put(t0+4, func(o *key.Owner) error { o.Tier = nil; return nil }, want)

	mine := errors.New("mine")
	for _, id := range []string{"alice", "bob"} {
		_, err := e.storePutOwner(id, t0+5, func(o *key.Owner) error { o.Enabled = true; return mine })
		if err != mine { //nolint:errorlint // "as it is"
			e.Fatalf("error %v, want it as it was", err)
		}
	}
	e.wantOwner("alice", want)
	for _, id := range []string{"bob", "mallory"} {
		_, err := e.store.Owner(e.ctx, id)
		e.wantErr(err, store.ErrNotFound)
	}
}

func testOwnerPages(e *env) {
	var want []string
	for i := range 37 {
		id := fmt.Sprintf("owner%%_%02d ✓", i)
		want = append(want, id)
		for range i % 3 {
			e.create(limited(1), func(k *key.Key) { k.UserID = id })
		}
		_, err := e.storePutOwner(id, t0, func(*key.Owner) error { return nil })
		e.must(err)
	}
	for _, limit := range []int{1, 5, 36, 37, 38} {
		var got []string
		cursor := ""
		for {
			page, err := e.store.Owners(e.ctx, limit, cursor)
			e.must(err)
			if len(page.Owners) > limit || len(page.Owners) == 0 {
				e.Fatalf("a page of %d", len(page.Owners))
			}
			for _, o := range page.Owners {
				if int(o.KeyCount) != len(got)%3 {
					e.Fatalf("%s has %d keys", o.UserID, o.KeyCount)
				}
				got = append(got, o.UserID)
			}
			if cursor = page.Next; cursor == "" {
				break
			}
		}
		if !slices.Equal(got, want) {
			e.Fatalf("limit %d: got %v", limit, got)
		}
	}
	keys, err := e.store.List(e.ctx, store.List{Limit: 1})
	e.must(err)
	for _, cursor := range []string{"x", "!", strings.Repeat("A", 1<<20), keys.Next} {
		_, err := e.store.Owners(e.ctx, 5, cursor)
		e.wantErr(err, store.ErrCursor)
	}
}
