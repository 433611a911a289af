package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

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
	{"C8 nobody reads a change that subscribers do not know", testUntold},
	{"C8 each key's history is linearizable", testC8},
}

// testUntold holds up the subscriber that is told of a deletion. Whoever reads meanwhile may
// wait for it, or still see the key.
func testUntold(e *env) {
	made := e.create(limited(1), nil)
	told, resume := make(chan struct{}), make(chan struct{})
	var once sync.Once
	defer e.store.Subscribe(func([]store.Change) { once.Do(func() { close(told); <-resume }) })()
	deleted := make(chan error, 1)
	go func() { deleted <- e.storeDelete(made.Key.ID) }()
	<-told
	gone := map[string]func(ctx context.Context) bool{
		"Get": func(ctx context.Context) bool {
			_, err := e.store.Get(ctx, made.Key.ID)
			return errors.Is(err, store.ErrNotFound)
		},
		"Find": func(ctx context.Context) bool {
			_, err := e.store.Find(ctx, made.Key.Hash)
			return errors.Is(err, store.ErrNotFound)
		},
		"List": func(ctx context.Context) bool {
			page, err := e.store.List(ctx, store.List{Limit: 1})
			return err == nil && len(page.Entries) == 0
		},
		"Owner": func(ctx context.Context) bool {
			o, err := e.store.Owner(ctx, made.Key.UserID)
			return err == nil && o.KeyCount == 0
		},
		"Owners": func(ctx context.Context) bool {
			page, err := e.store.Owners(ctx, 1, "")
			return err == nil && page.Owners[0].KeyCount == 0
		},
		"Audit": func(ctx context.Context) bool {
			page, err := e.store.Audit(ctx, store.AuditQuery{Limit: 1})
			return err == nil && page.Head.ID > 1
		},
	}
	for name, seen := range gone {
		// Long enough for a read that does not wait; one that does gets no answer.
		ctx, cancel := context.WithTimeout(e.ctx, 100*time.Millisecond)
		if seen(ctx) {
			e.Errorf("%s shows a deletion that the subscriber does not know", name)
		}
		cancel()
	}
	close(resume)
	e.must(<-deleted)
	for name, seen := range gone {
		if !seen(e.ctx) {
			e.Errorf("%s does not show the deletion", name)
		}
	}
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
