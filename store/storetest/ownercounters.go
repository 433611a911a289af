package storetest

import (
	"bytes"
	"reflect"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

var ownerCounterTests = []test{
	{"are stored and replaced, by unit", func(e *env) {
		e.create(limited(1), nil)
		e.wantOwnerCounters("alice")
		e.wantOwnerCounters("nobody")
		e.saveOwnerCounters(ownerCounted("alice", "day", 1), ownerCounted("alice", "60000ms", 2))
		e.wantOwnerCounters("alice", ownerCounter("60000ms", 2), ownerCounter("day", 1))
		e.saveOwnerCounters(ownerCounted("alice", "day", 3))
		e.wantOwnerCounters("alice", ownerCounter("60000ms", 2), ownerCounter("day", 3))
		big := store.Window{Unit: "month", State: bytes.Repeat([]byte{0, 0xff}, 5000)}
		e.saveOwnerCounters(store.Counters{Subject: store.OfOwner("alice"), Windows: []store.Window{big}})
		e.saveOwnerCounters()
		e.reopen()
		e.wantOwnerCounters("alice", ownerCounter("60000ms", 2), ownerCounter("day", 3), big)
	}},
	{"belong to one owner", func(e *env) {
		for _, owner := range []string{"alice", "Alice", "alic", "a'; --", "日本"} {
			e.create(limited(1), func(k *key.Key) { k.UserID = owner })
		}
		e.saveOwnerCounters(ownerCounted("alice", "day", 1), ownerCounted("日本", "day", 2), ownerCounted("a'; --", "day", 3))
		e.wantOwnerCounters("alice", ownerCounter("day", 1))
		e.wantOwnerCounters("Alice")
		e.wantOwnerCounters("alic")
		e.wantOwnerCounters("日本", ownerCounter("day", 2))
		e.wantOwnerCounters("a'; --", ownerCounter("day", 3))
	}},
	{"go with the owner, and bring none back", func(e *env) {
		made := e.create(limited(1), nil)
		e.create(limited(1), func(k *key.Key) { k.UserID = "bob" })
		e.saveOwnerCounters(ownerCounted("alice", "day", 1))
		e.must(e.storeDelete(made.Key.ID))
		e.wantOwnerCounters("alice", ownerCounter("day", 1)) // an owner stays without keys
		_, err := e.storeDeleteOwner("alice")
		e.must(err)
		e.saveOwnerCounters(ownerCounted("alice", "day", 2), ownerCounted("bob", "day", 3))
		e.wantOwnerCounters("alice")
		e.wantOwnerCounters("bob", ownerCounter("day", 3))
		_, err = e.store.Owner(e.ctx, "alice")
		e.wantErr(err, store.ErrNotFound)
		e.create(limited(1), nil)
		e.wantOwnerCounters("alice")
	}},
	{"touch no record", func(e *env) {
		e.create(limited(1), nil)
		before := e.dump()
		e.saveOwnerCounters(ownerCounted("alice", "day", 1))
		e.unchanged(before)
	}},
}

func ownerCounter(unit string, state byte) store.Window {
	return store.Window{Unit: unit, State: []byte{state}}
}

func ownerCounted(userID, unit string, state byte) store.Counters {
	return store.Counters{Subject: store.OfOwner(userID), Windows: []store.Window{ownerCounter(unit, state)}}
}

func (e *env) saveOwnerCounters(batch ...store.Counters) {
	e.Helper()
	e.must(e.store.SaveCounters(e.ctx, batch))
}

func (e *env) wantOwnerCounters(userID string, want ...store.Window) {
	e.Helper()
	got, err := e.store.Windows(e.ctx, store.OfOwner(userID))
	e.must(err)
	if len(got) != len(want) || len(want) > 0 && !reflect.DeepEqual(got, want) {
		e.Fatalf("counters of %s: %v, want %v", userID, got, want)
	}
}
