package keyring

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"slices"
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

// While a filter is built it knows the hashes that have been read, and no others.
func TestFilter_whileReading(t *testing.T) {
	const stored = 20_000
	hashes := make([]key.Hash, stored)
	for i := range hashes {
		hashes[i] = key.HashOf(fmt.Sprint("stored ", i))
	}
	slices.SortFunc(hashes, func(a, b key.Hash) int { return bytes.Compare(a[:], b[:]) })
	var m membership
	m.init()
	next := &building{filter: newFilter(stored)}
	m.next.Store(next)
	read := next.read()
	for i, h := range hashes[:stored/2] {
		read(h)
		for _, near := range hashes[max(0, i-2*hashesApart) : i+3] {
			if m.excludes(near) {
				t.Fatalf("after %d hashes, one that is stored looks unknown", i+1)
			}
		}
	}
	unknown, low := 0, 0
	for i := range 1000 {
		h := key.HashOf(fmt.Sprint("unknown ", i))
		switch excluded := m.excludes(h); {
		case positionOf(&h) >= positionOf(&hashes[stored/2]):
			if excluded {
				t.Fatal("a hash that has not been reached looks unknown")
			}
		case excluded:
			unknown++
			fallthrough
		default:
			low++
		}
		if m.add(h); m.excludes(h) {
			t.Fatal("a hash that was added meanwhile looks unknown")
		}
	}
	if unknown < low*9/10 {
		t.Errorf("%d of %d unknown hashes are known to be unknown", unknown, low)
	}
}

// A store that tells hashes in no order makes the filter wait for the last.
func TestFilter_noOrder(t *testing.T) {
	next := &building{filter: newFilter(1)}
	read := next.read()
	for i := range 3 * hashesApart {
		read(key.Hash{byte(i % 256), byte(i)})
	}
	if next.excludes(key.Hash{}) || next.excludes(key.Hash{100, 5}) {
		t.Error("hashes look unknown")
	}
}

func BenchmarkFilter_read(b *testing.B) {
	const stored = 1_000_000
	hashes := make([]key.Hash, stored)
	for i := range hashes {
		hashes[i] = key.HashOf(fmt.Sprint("stored ", i))
	}
	slices.SortFunc(hashes, func(a, b key.Hash) int { return bytes.Compare(a[:], b[:]) })
	for b.Loop() {
		read := (&building{filter: newFilter(2 * stored)}).read()
		for _, h := range hashes {
			read(h)
		}
	}
}

// C3: no key that was stored is ever taken for unknown, while filters are built
// and replaced.
func TestC3_FilterWhileBuilding(t *testing.T) {
	g := newRig(t)
	store := func() (raws [2]string) {
		k := g.create(Draft{})
		next, err := g.Rotate(context.Background(), k.Key.ID, Rotation{Grace: 60_000})
		if err != nil {
			t.Fatal(err)
		}
		return [2]string{k.Raw, next.Raw}
	}
	look := func(raws [2]string) {
		g.flush()
		g.evict()
		for _, raw := range raws {
			g.want(raw, Allowed)
		}
	}
	// The engine builds filters, because two must not be built at the same time.
	members := &g.engine.cache.members
	for range 20 { // stored when all hashes have been read
		old, hold := members.current.Load(), g.spy.stop("hashes")
		release := sync.OnceFunc(func() { close(hold.release) })
		t.Cleanup(release)
		members.rebuild()
		for hold.waiting.Load() == 0 {
			runtime.Gosched()
		}
		raws := store()
		look(raws)
		release()
		for members.current.Load() == old {
			runtime.Gosched()
		}
		look(raws)
	}
	g.repeat(func() { members.wake <- struct{}{} }) // as rebuild does, but waits for its turn
	for range 100 {                                 // stored at any moment
		look(store())
	}
}

// A filter that has grown full is replaced by a larger one.
func TestFilterGrows(t *testing.T) {
	g := newRig(t)
	old := g.engine.cache.members.current.Load()
	old.added.Store(old.room)
	k := g.create(Draft{})
	g.want(k.Raw, Allowed)
	for g.engine.cache.members.current.Load() == old {
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
