package storetest

import (
	"bytes"
	"context"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

var findTests = []test{
	{"unknown", func(e *env) {
		e.create(key.Credits{}, nil)
		_, err := e.store.Find(e.ctx, hash("nobody", 1))
		e.wantErr(err, store.ErrNotFound)
		_, err = e.store.Find(e.ctx, key.Hash{})
		e.wantErr(err, store.ErrNotFound)
		_, err = e.store.Get(e.ctx, "nobody")
		e.wantErr(err, store.ErrNotFound)
		_, err = e.store.Get(e.ctx, "")
		e.wantErr(err, store.ErrNotFound)
	}},
	{"by a former hash, ended or not", func(e *env) {
		made := e.create(key.Credits{}, func(k *key.Key) {
			k.Previous = []key.PreviousKey{{Hash: hash("old", 1), Until: 1}, {Hash: hash("old", 2), Until: key.MaxTime}}
		})
		for _, f := range made.Key.Previous {
			got, err := e.store.Find(e.ctx, f.Hash)
			e.must(err)
			e.sameEntry(got, made)
		}
	}},
	{"each hash once", func(e *env) {
		want := map[key.Hash]int{}
		for range 3 {
			made := e.create(key.Credits{}, func(k *key.Key) {
				k.Previous = []key.PreviousKey{{Hash: hash("each", e.n), Until: 1}}
			})
			want[made.Key.Hash]++
			want[made.Key.Previous[0].Hash]++
		}
		got := map[key.Hash]int{}
		var last key.Hash
		e.must(e.store.EachHash(e.ctx, func(h key.Hash) {
			if bytes.Compare(h[:], last[:]) <= 0 {
				e.Errorf("%x comes after %x", h, last)
			}
			last = h
			got[h]++
		}))
		for h := range want {
			if got[h] != 1 {
				e.Errorf("%x comes %d times", h, got[h])
			}
		}
	}},
	{"the owner comes along", func(e *env) {
		made := e.create(key.Credits{}, nil)
		_, err := e.storePutOwner("alice", t0+5, func(o *key.Owner) error {
			o.Tier, o.Enabled = ptr("gold"), false
			return nil
		})
		e.must(err)
		got, err := e.store.Find(e.ctx, made.Key.Hash)
		e.must(err)
		if got.Owner.Enabled || got.Owner.Tier == nil || *got.Owner.Tier != "gold" || got.Owner.Revision != 2 {
			e.Fatalf("owner %+v", got.Owner)
		}
	}},
	{"keys without a checksum are noticed", func(e *env) {
		plain := func(want bool) {
			e.Helper()
			has, err := e.store.HasPlainKeys(e.ctx)
			e.must(err)
			if has != want {
				e.Fatalf("plain keys: %v, want %v", has, want)
			}
		}
		plain(false)
		e.create(key.Credits{}, nil)
		plain(false)
		made := e.create(key.Credits{}, func(k *key.Key) { k.Checksummed = false })
		plain(true)
		e.must(e.storeDelete(made.Key.ID))
		plain(false)
		e.create(key.Credits{}, func(k *key.Key) { k.Previous = []key.PreviousKey{{Hash: hash("old", 3), Until: t0, Checksummed: true}} })
		plain(false)
		made = e.create(key.Credits{}, func(k *key.Key) { k.Previous = []key.PreviousKey{{Hash: hash("old", 4), Until: t0}} })
		plain(true)
		e.change(made.Key.ID, func(k *key.Key) { k.Previous = nil })
		plain(false)
	}},
	{"a cancelled context is an unavailable store", func(e *env) {
		made := e.create(limited(3), nil)
		ctx, cancel := context.WithCancel(e.ctx)
		cancel()
		_, err := e.store.Find(ctx, made.Key.Hash)
		e.wantErr(err, store.ErrUnavailable)
		e.wantErr(err, context.Canceled)
		_, err = e.store.List(ctx, store.List{})
		e.wantErr(err, store.ErrUnavailable)
		_, err = e.store.MoveCredits(ctx, store.OfKey(made.Key.ID), key.Move{Take: 1}, t0)
		e.wantErr(err, store.ErrUnavailable)
		e.sameEntry(e.get(made.Key.ID), made) // a write that never began
	}},
}
