package keyring

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// TestA11_MaxKeys: of 1,000 keys that an owner makes at once exactly as many are made as
// are allowed. Operators are not bound.
func TestA11_MaxKeys(t *testing.T) {
	g := newRig(t, func(r *Rules) { r.MaxKeys = 10 })
	ctx := context.Background()
	person := g.within(&Scope{})
	var made atomic.Int64
	var all sync.WaitGroup
	for range 64 {
		all.Go(func() {
			for range 16 {
				switch _, err := person.Create(ctx, Draft{UserID: "alice"}); {
				case err == nil:
					made.Add(1)
				case !errors.Is(err, store.ErrKeyLimit):
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if made.Load() != 10 {
		t.Errorf("%d keys were made", made.Load())
	}
	g.createBy(person, Draft{UserID: "bob"})
	over := g.create(Draft{})
	list, err := g.List(ctx, store.List{Filter: store.Filter{UserID: "alice"}, Limit: 100})
	if err != nil || len(list.Keys) != 11 {
		t.Fatalf("%d keys, %v", len(list.Keys), err)
	}
	// A key is disabled to make room, and is not enabled again where there is none.
	for _, k := range list.Keys[:2] {
		if _, err := person.Update(ctx, k.Key.ID, Patch{Enabled: to(false)}); err != nil {
			t.Fatal(err)
		}
	}
	g.createBy(person, Draft{})
	if _, err := person.Create(ctx, Draft{UserID: "alice"}); !errors.Is(err, store.ErrKeyLimit) {
		t.Errorf("%v", err)
	}
	if _, err := person.Update(ctx, list.Keys[0].Key.ID, Patch{Enabled: to(true)}); !errors.Is(err, store.ErrKeyLimit) {
		t.Errorf("%v", err)
	}
	if _, err := person.Update(ctx, over.Key.ID, Patch{Name: to("a change that makes none")}); err != nil {
		t.Error(err)
	}
	if _, err := g.Update(ctx, list.Keys[0].Key.ID, Patch{Enabled: to(true)}); err != nil {
		t.Errorf("an operator: %v", err)
	}
}

// TestA11_Records: keys of all states are ten times as many at most, and those that their
// owner has disabled make room after a while, as expired ones do.
func TestA11_Records(t *testing.T) {
	g := newRig(t)
	ctx := context.Background()
	set := &Settings{Rules: DefaultRules()}
	set.Rules.MaxKeys, set.Rules.Expiration.Keep = 1, 2*hourMillis
	g.use(set)
	defer g.engine.Attach(set)()
	person := g.within(&Scope{})
	var first *key.Key
	for range 10 {
		k := g.createBy(person, Draft{}).Key
		if first == nil {
			first = k
		}
		if _, err := person.Update(ctx, k.ID, Patch{Enabled: to(false)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := person.Create(ctx, Draft{UserID: "alice"}); !errors.Is(err, store.ErrKeyLimit) {
		t.Errorf("%v", err)
	}
	operators := g.create(Draft{UserID: "alice", Enabled: ptr(false)})
	wait := func(d time.Duration) {
		for range int(d / (10 * time.Second)) {
			g.clock.advance(10 * time.Second)
			if err := g.engine.deleteKept(ctx, g.engine.store.Load()); err != nil {
				t.Fatal(err)
			}
		}
	}
	wait(119 * time.Minute)
	g.get(first.ID)
	wait(2 * time.Minute)
	if _, err := g.Get(ctx, first.ID); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("%v", err)
	}
	g.get(operators.Key.ID)
	g.createBy(person, Draft{})
}
