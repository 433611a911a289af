package keyring

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// waiting counts what waits to be written: keys, owners, and days of keys.
func (g *rig) waiting() (keys, owners, days int) {
	q := &g.engine.queue
	for i := range q.shards {
		sh := &q.shards[i]
		sh.mu.Lock()
		for _, x := range sh.l {
			switch x.(type) {
			case *entry:
				keys++
			case *ownerEntry:
				owners++
			case *dayCounts:
				days++
			}
		}
		sh.mu.Unlock()
	}
	return keys, owners, days
}

// workers is how many requests of a load are on their way at a time.
const workers = 4

// load sends requests with all keys at once, each with each, and fails the test if
// they are not answered.
func (g *rig) load(keys []Issued, rounds int) (passed int64) {
	g.t.Helper()
	var n atomic.Int64
	var work sync.WaitGroup
	for range workers {
		work.Go(func() {
			for range rounds {
				for _, k := range keys {
					d, err := g.Verify(context.Background(), k.Raw, &Request{Cost: 1})
					if err != nil {
						g.t.Error(err)
					}
					if d.Outcome == Allowed {
						n.Add(1)
					}
				}
			}
		})
	}
	answered := make(chan struct{})
	go func() { work.Wait(); close(answered) }()
	select {
	case <-answered:
	case <-time.After(time.Minute): // not how long it takes, but that it ends
		g.t.Fatal("requests wait for the statistics")
	}
	return n.Load()
}

// TestK11_stalled: while the store does not take what is counted, requests go on
// being answered, what waits does not grow with their number, and when the store
// goes on, each has been counted once.
func TestK11_stalled(t *testing.T) {
	const stock, owners, rounds = 100, 5, 50
	tiers := tier("free", per(Month, 1<<40))
	for _, kind := range []string{"counters", "usage"} {
		t.Run(kind, func(t *testing.T) {
			g := newRig(t).with(tiers)
			var keys []Issued
			for i := range stock {
				keys = append(keys, g.create(Draft{UserID: fmt.Sprint("owner ", i%owners), RateLimitMax: ptr(int64(1 << 40)), RateLimitTimeWindow: ptr(int64(1 << 40))}))
			}
			passed := g.load(keys, 1)
			stalled := g.spy.stop(kind)
			release := sync.OnceFunc(func() { close(stalled.release) })
			defer release() // or the engine would not close
			for stalled.waiting.Load() == 0 {
				passed += g.load(keys, 1) // until the background work gets there
			}
			for range 2 {
				passed += g.load(keys, rounds)
				g.clock.advance(24 * time.Hour) // the days of before wait beside the new ones
				passed += g.load(keys, rounds)
			}
			// Each worker may begin a day of a key at the same moment as another.
			if k, o, days := g.waiting(); k > stock || o > owners || days > 3*stock*workers {
				t.Errorf("%d keys, %d owners and %d days of keys wait", k, o, days)
			}
			if n := stalled.waiting.Load(); n != 1 {
				t.Errorf("%d writes wait", n)
			}
			release()
			g.restart()
			g.with(tiers)
			g.wantCounted(keys, passed)
		})
	}
}

// wantCounted checks that keys have been used equally, so often together, in
// everything that counts.
func (g *rig) wantCounted(keys []Issued, together int64) {
	g.t.Helper()
	each := together / int64(len(keys))
	used := map[string]int64{}
	for _, k := range keys {
		days := int64(0)
		for _, d := range g.keyUsage(k.Key.ID, 3).Days {
			days += d.Allowed
		}
		if i := g.get(k.Key.ID); days != each || i.RequestCount != each {
			g.t.Errorf("%d in the days, %d in the window, want %d", days, i.RequestCount, each)
		}
		used[k.Key.UserID] += each
	}
	for _, k := range keys {
		g.wantLeft(k.Raw, map[string]int64{"month": 1<<40 - used[k.Key.UserID]})
	}
}
