package storetest

import (
	"errors"
	"fmt"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

var concurrencyTests = []test{
	{"everybody reads their own writes", func(e *env) {
		e.parallel(300, func(i int) error {
			k := plainKey(i + 1)
			made, err := e.storeCreate(k, limited(10))
			if err != nil {
				return err
			}
			if err := e.reads(made); err != nil {
				return fmt.Errorf("after create: %w", err)
			}
			changed, err := e.storeUpdate(k.ID, func(en *store.Entry) error {
				k := en.Key.Clone()
				k.Hash, k.Previous = hash("new", i), []key.PreviousKey{{Hash: k.Hash, Until: t0}}
				en.Key = k
				return nil
			})
			if err != nil {
				return err
			}
			if err := e.reads(changed); err != nil {
				return fmt.Errorf("after update: %w", err)
			}
			got, err := e.store.MoveCredits(e.ctx, store.OfKey(k.ID), key.Move{Take: 4}, t0)
			if err != nil {
				return err
			}
			changed.Credits = got.Credits
			if err := e.reads(changed); err != nil {
				return fmt.Errorf("after taking: %w", err)
			}
			if err := e.storeDelete(k.ID); err != nil {
				return err
			}
			for _, h := range []key.Hash{k.Hash, hash("new", i)} {
				if _, err := e.store.Find(e.ctx, h); !errors.Is(err, store.ErrNotFound) {
					return fmt.Errorf("after delete: %w", err)
				}
			}
			return nil
		})
	}},
	{"C8 each key's history is linearizable", testC8},
}

func (e *env) reads(want store.Entry) error {
	hashes := []key.Hash{want.Key.Hash}
	for _, f := range want.Key.Previous {
		hashes = append(hashes, f.Hash)
	}
	for _, h := range hashes {
		got, err := e.store.Find(e.ctx, h)
		if err != nil {
			return err
		}
		if d := diffEntry(got, want); d != "" {
			return errors.New(d)
		}
	}
	return nil
}
