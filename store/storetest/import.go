package storetest

import (
	"bytes"
	"slices"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

var importTests = []test{
	{"every field comes back, the counters too", testImportRoundTrip},
	{"leaves out what exists and nothing else", testImportExists},
	{"stores nothing where one is out of range", func(e *env) {
		e.create(limited(1), nil)
		before := e.dump()
		bad := store.Entry{Key: plainKey(51), Credits: limited(5)}
		bad.Credits.Remaining = -1
		if _, err := e.storeImport([]store.Entry{{Key: plainKey(50)}, bad, {Key: plainKey(52)}}); err == nil {
			e.Error("credits below zero were stored")
		}
		e.unchanged(before)
	}},
	{"owners come with their counters", testImportOwners},
	{"no owner is stored where one is out of range", func(e *env) {
		e.create(limited(1), nil)
		before := e.dump()
		_, err := e.storeImportOwners([]store.OwnerEntry{
			ownerEntry("one", ownerCounter("day", 1)), ownerEntry("two", store.Window{Unit: "day"}), ownerEntry("three"),
		})
		if err == nil {
			e.Error("a counter without a state was stored")
		}
		for _, id := range []string{"one", "two", "three"} {
			_, err := e.store.Owner(e.ctx, id)
			e.wantErr(err, store.ErrNotFound)
			e.wantOwnerCounters(id)
		}
		e.unchanged(before)
	}},
	{"nothing is no error", func(e *env) {
		added, err := e.storeImport(nil)
		e.must(err)
		owners, err := e.storeImportOwners(nil)
		e.must(err)
		if len(added)+len(owners) != 0 {
			e.Errorf("added %v, %v", added, owners)
		}
	}},
}

func testImportRoundTrip(e *env) {
	c := key.Credits{Limited: true, Remaining: 7, Spent: 90, Forfeited: 3, Granted: 100, Peak: 70, RefillAmount: 50, RefillInterval: 1000, RefillFrom: t0, LastRefillAt: t0 + 3000}
	full := store.Entry{Key: fullKey(1), Credits: c, LastRequest: t0 + 9, Windows: []store.Window{ownerCounter("60000ms", 1), {Unit: store.UnitRate, State: bytes.Repeat([]byte{7, 0xff}, 500)}}}
	plain := store.Entry{Key: plainKey(2)}
	plain.Key.UserID = "bob"
	full.Key.Revision, full.Credits.Version = 77, 77
	added, err := e.storeImport([]store.Entry{full, plain})
	e.must(err)
	if !slices.Equal(added, []bool{true, true}) {
		e.Fatalf("added %v", added)
	}
	if full.Key.Revision != 77 {
		e.Error("the caller's key was changed")
	}
	for range 2 {
		for i, want := range []store.Entry{full, plain} {
			k := want.Key.Clone()
			k.Revision, want.Credits.Version = int64(i+1), 1
			want.Key, want.Owner = k, key.Owner{UserID: k.UserID, Enabled: true, CreatedAt: k.CreatedAt, UpdatedAt: k.CreatedAt, Revision: k.Revision}
			e.sameEntry(e.get(k.ID), want)
			found, err := e.store.Find(e.ctx, k.Hash)
			e.must(err)
			e.sameEntry(found, want)
		}
		e.reopen()
	}
}

func testImportExists(e *env) {
	there, err := e.storeCreate(fullKey(1), limited(3))
	e.must(err)
	k := there.Key
	change := func(n int, f func(*key.Key)) store.Entry {
		one := store.Entry{Key: plainKey(n), Credits: limited(9), LastRequest: t0}
		one.Key.UserID = "mallory"
		f(one.Key)
		return one
	}
	same := store.Entry{Key: k.Clone(), Credits: limited(9), LastRequest: t0 + 5}
	same.Key.UserID = "mallory"
	added, err := e.storeImport([]store.Entry{
		same,
		change(2, func(n *key.Key) { n.ID = k.ID }),
		change(3, func(n *key.Key) { n.Hash = k.Hash }),
		change(4, func(n *key.Key) { n.Hash = k.Previous[0].Hash }),
		change(5, func(n *key.Key) { n.Previous = []key.PreviousKey{{Hash: k.Hash, Until: t0}} }),
		change(6, func(n *key.Key) { n.UserID = "bob" }),
		change(7, func(n *key.Key) { n.ID = plainKey(6).ID }), // of the same batch
		change(8, func(n *key.Key) { n.UserID = "bob" }),
	})
	e.must(err)
	if want := []bool{false, false, false, false, false, true, false, true}; !slices.Equal(added, want) {
		e.Fatalf("added %v, want %v", added, want)
	}
	all := e.dump()
	if len(all) != 3 {
		e.Errorf("%d keys are stored, want 3", len(all))
	}
	e.sameEntry(all[k.ID], there)
	_, err = e.store.Owner(e.ctx, "mallory") // the owner of keys that were left out
	e.wantErr(err, store.ErrNotFound)
}

// ownerEntry is a disabled owner of a tier.
func ownerEntry(id string, windows ...store.Window) store.OwnerEntry {
	o := key.Owner{UserID: id, Tier: ptr("gold"), CreatedAt: t0 - 5, UpdatedAt: t0 + 5, Revision: 77}
	return store.OwnerEntry{Owner: o, Windows: windows}
}

func testImportOwners(e *env) {
	there := e.create(limited(1), nil)
	e.saveOwnerCounters(ownerCounted("alice", "day", 1))
	first := ownerEntry("Ünïcode", ownerCounter("60000ms", 3), ownerCounter("day", 2))
	again := ownerEntry("Ünïcode", ownerCounter("day", 9))
	again.Enabled = true
	plain := store.OwnerEntry{Owner: key.Owner{UserID: "plain", Enabled: true, CreatedAt: t0, UpdatedAt: t0}}
	added, err := e.storeImportOwners([]store.OwnerEntry{ownerEntry("alice", ownerCounter("day", 7), ownerCounter("month", 7)), first, again, plain})
	e.must(err)
	if want := []bool{false, true, false, true}; !slices.Equal(added, want) {
		e.Fatalf("added %v, want %v", added, want)
	}
	for range 2 {
		first.Revision, plain.Revision = 2, 3
		e.wantOwner("Ünïcode", store.OwnerInfo{Owner: first.Owner})
		e.wantOwner("plain", store.OwnerInfo{Owner: plain.Owner})
		e.wantOwner("alice", store.OwnerInfo{Owner: there.Owner, KeyCount: 1})
		e.wantOwnerCounters("Ünïcode", first.Windows...)
		e.wantOwnerCounters("plain")
		e.wantOwnerCounters("alice", ownerCounter("day", 1))
		e.reopen()
	}
}
