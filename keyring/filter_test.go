package keyring

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/key"
)

func TestFilter(t *testing.T) {
	const stored, tried = 200_000, 1_000_000
	f := newFilter(stored)
	for i := range stored {
		f.add(key.HashOf(fmt.Sprint("stored ", i)))
	}
	for i := range stored {
		if !f.has(key.HashOf(fmt.Sprint("stored ", i))) {
			t.Fatalf("%d was added and is not there", i)
		}
	}
	hits := 0
	for i := range tried {
		if f.has(key.HashOf(fmt.Sprint("unknown ", i))) {
			hits++
		}
	}
	if hits > tried/1000 {
		t.Errorf("%d of %d unknown hashes look known", hits, tried)
	}
	if bits := 512 * len(f.blocks); bits > 16*2*stored {
		t.Errorf("%d bits for %d hashes", bits, stored)
	}
}

// C3: no key that was stored is ever taken for unknown, while filters are built
// and replaced.
func TestC3_FilterWhileBuilding(t *testing.T) {
	g := newRig(t)
	ctx := context.Background()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if err := g.ring.members.build(ctx, g.spy); err != nil {
					t.Error(err)
				}
			}
		}
	})
	for i := range 300 {
		k := g.create(Draft{})
		g.want(k.Raw, Allowed)
		if i%3 == 0 {
			next, err := g.Rotate(ctx, k.Key.ID, Rotation{Grace: 60_000})
			if err != nil {
				t.Fatal(err)
			}
			g.want(next.Raw, Allowed)
			g.ring.cache.Invalidate(k.Key.Hash)
			g.want(k.Raw, Allowed)
		}
	}
	close(stop)
	wg.Wait()
}

// A filter that has grown full is replaced by a larger one.
func TestFilterGrows(t *testing.T) {
	g := newRig(t)
	old := g.ring.members.current.Load()
	old.added.Store(old.room)
	k := g.create(Draft{})
	g.want(k.Raw, Allowed)
	for g.ring.members.current.Load() == old {
		g.clock.advance(1)
	}
	g.want(k.Raw, Allowed)
}

// D2: made-up keys with a right checksum do not reach the store.
func TestD2_UnknownKeysStayOut(t *testing.T) {
	g := newRig(t)
	g.create(Draft{})
	const made = 50_000
	for range made {
		raw, err := key.Random{}.Generate("ak_", 64, true)
		if err != nil {
			t.Fatal(err)
		}
		g.want(raw, Invalid)
	}
	if n := g.spy.finds.Load(); n > made/1000 {
		t.Errorf("%d look-ups for %d unknown keys", n, made)
	}
}
