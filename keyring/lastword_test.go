package keyring

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/store"
)

// word is the last change of a key that was answered.
type word struct {
	name    string
	enabled bool
	gone    bool
}

// TestC4_LastWordStands: keys are changed at random while they are used and their
// counters are written all the time. What the store has of each is the last change
// that was answered, also after all that was in memory has been written.
func TestC4_LastWordStands(t *testing.T) {
	g := newRig(t).with(tier("free", per(Day, 1<<40)))
	b := startBustle(g)
	words := map[string]word{} // by ID
	for i := range times(50, 500) {
		name := fmt.Sprint("key ", i)
		k := g.create(Draft{Name: &name, Remaining: ptr(int64(1 << 40)), RateLimitMax: ptr(int64(1 << 40)), RateLimitTimeWindow: ptr(int64(60_000))})
		id, w := k.Key.ID, word{name: name, enabled: true}
		b.raws.Store(k.Raw, nil)
		await(&b.used, 1+rand.Int64N(10))
		for n := 0; n < 3 && !w.gone; n++ {
			w = g.reword(id, w)
			g.wantWord(id, w)
			await(&b.flushed, rand.Int64N(3))
			g.wantWord(id, w)
		}
		words[id] = w
		b.raws.Delete(k.Raw)
	}
	b.end()
	g.restart()
	for id, w := range words {
		g.wantWord(id, w)
	}
	t.Logf("%d keys, %d requests, %d flushes", len(words), b.used.Load(), b.flushed.Load())
}

// reword changes a key at random.
func (g *rig) reword(id string, w word) word {
	g.t.Helper()
	switch rand.IntN(3) {
	case 0:
		w.enabled = !w.enabled
		g.update(id, Patch{Enabled: to(w.enabled)})
	case 1:
		w.name += "+"
		g.update(id, Patch{Name: to(w.name), RemainingDelta: to(int64(3))})
	default:
		w.gone = true
		if err := g.Delete(context.Background(), id); err != nil {
			g.t.Fatal(err)
		}
	}
	return w
}

func (g *rig) wantWord(id string, w word) {
	g.t.Helper()
	e, err := g.engine.store.Load().Get(context.Background(), id)
	switch {
	case w.gone:
		if !errors.Is(err, store.ErrNotFound) {
			g.t.Errorf("a deleted key is there: %v", err)
		}
	case err != nil:
		g.t.Error(err)
	case *e.Key.Name != w.name || e.Key.Enabled != w.enabled:
		g.t.Errorf("the store has %q, enabled %v, want %+v", *e.Key.Name, e.Key.Enabled, w)
	}
}

// bustle uses keys and writes their counters, without a pause.
type bustle struct {
	raws          sync.Map // the raw keys
	used, flushed atomic.Int64
	stop          atomic.Bool
	work          sync.WaitGroup
}

func startBustle(g *rig) *bustle {
	b := new(bustle)
	ctx := context.Background()
	b.work.Go(func() {
		for !b.stop.Load() {
			if err := g.engine.flush(ctx, g.spy); err != nil {
				g.t.Error(err)
			}
			b.flushed.Add(1)
		}
	})
	for range 2 {
		b.work.Go(func() {
			for !b.stop.Load() {
				g.clock.advance(time.Millisecond)
				b.raws.Range(func(raw, _ any) bool {
					if _, err := g.Verify(ctx, raw.(string), &Request{Cost: 1}); err != nil {
						g.t.Error(err)
					}
					b.used.Add(1)
					return true
				})
				runtime.Gosched()
			}
		})
	}
	g.t.Cleanup(b.end)
	return b
}

func (b *bustle) end() {
	b.stop.Store(true)
	b.work.Wait()
}

// await waits until a number has grown by more.
func await(n *atomic.Int64, more int64) {
	for at := n.Load() + more; n.Load() < at; {
		runtime.Gosched()
	}
}
