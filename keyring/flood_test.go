package keyring

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/store"
)

// beside verifies keys while a flood goes on, and each of them at least so many times.
// Every answer must be that the request is allowed.
func (g *rig) beside(flood func(), raws []string, least int) {
	g.t.Helper()
	var over atomic.Bool
	var others sync.WaitGroup
	for _, raw := range raws {
		others.Go(func() {
			for n := 0; n < least || !over.Load(); n++ {
				if d, err := g.Verify(context.Background(), raw, &Request{Cost: 1}); err != nil || d.Outcome != Allowed {
					g.t.Errorf("beside the flood: %q, %v", d.Outcome.Code(), err)
					return
				}
			}
		})
	}
	flood()
	over.Store(true)
	others.Wait()
}

// flooded makes requests from several goroutines, all of which must have one outcome.
func (g *rig) flooded(n int, raw func(i int) string, want Outcome) {
	g.t.Helper()
	const at = 4
	var work sync.WaitGroup
	for w := range at {
		work.Go(func() {
			for i := w; i < n && !g.t.Failed(); i += at {
				if d, err := g.Verify(context.Background(), raw(i), &Request{Cost: 1}); err != nil || d.Outcome != want {
					g.t.Errorf("in the flood: %q, %v, want %q", d.Outcome.Code(), err, want.Code())
					return
				}
			}
		})
	}
	work.Wait()
}

// TestD1_WrongChecksum: keys with a wrong checksum never reach the store, not even before the
// filter over all keys is there, and valid keys are answered meanwhile.
func TestD1_WrongChecksum(t *testing.T) {
	g := newRig(t)
	var raws []string
	for range 4 {
		raws = append(raws, g.create(Draft{}).Raw)
	}
	for _, raw := range raws {
		g.want(raw, Allowed)
	}
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	garbage := func(i int) string {
		valid := raws[i%len(raws)]
		b := []byte(valid)
		for at := 10; at < 13; at++ { // a CRC-32 finds every change of so few characters
			b[at] = digits[i%62]
			i /= 62
		}
		if string(b) == valid {
			b[10] = '_'
		}
		return string(b)
	}
	g.engine.cache.members.current.Store(nil) // else it would hide that the checksum is not looked at
	before := g.spy.finds.Load() + g.spy.gets.Load()
	g.spy.onFind(func() { t.Error("the store is asked") }) // ends the flood
	g.beside(func() { g.flooded(200_000, garbage, Invalid) }, raws, 1000)
	if n := g.spy.finds.Load() + g.spy.gets.Load() - before; n != 0 {
		t.Errorf("%d queries of the store", n)
	}
	if n := g.engine.cache.unknown.EstimatedSize(); n != 0 {
		t.Errorf("%d keys are remembered as unknown", n)
	}
}

// TestD3_OneKeyFloods: refusals of a key whose limit is reached write nothing but their number,
// read nothing and move no window, and other keys are let in meanwhile.
func TestD3_OneKeyFloods(t *testing.T) {
	const admitted, refused = 5, 100_000
	g := newRig(t)
	limited := Draft{UserID: "flooder", RateLimitMax: ptr(int64(admitted)), RateLimitTimeWindow: ptr(int64(86_400_000))}
	flooder := g.create(limited)
	var raws []string
	for range 9 {
		raws = append(raws, g.create(Draft{UserID: "alice", RateLimitMax: ptr(int64(1 << 40)), RateLimitTimeWindow: ptr(int64(60_000))}).Raw)
	}
	for range admitted {
		g.want(flooder.Raw, Allowed)
	}
	for _, raw := range raws {
		g.want(raw, Allowed)
	}
	g.flush()

	var counters, rows atomic.Int64
	g.spy.onSave(func(batch []store.Counters, usage store.UsageBatch) {
		for _, c := range batch {
			if c.ID == flooder.Key.ID || c.ID == "flooder" {
				counters.Add(1)
			}
		}
		for _, u := range usage.Used {
			if u.KeyID == flooder.Key.ID {
				rows.Add(1)
			}
		}
	})
	reads, takes := g.spy.finds.Load()+g.spy.gets.Load(), g.spy.takes.Load()
	hold := g.spy.stop("usage") // so that all that is counted meanwhile waits for one write
	g.beside(func() {
		g.flooded(refused, func(int) string { return flooder.Raw }, RateLimited)
	}, raws, 1000)
	if n := g.spy.finds.Load() + g.spy.gets.Load() - reads; n != 0 {
		t.Errorf("%d reads for refusals", n)
	}
	g.spy.stall.Store(nil)
	close(hold.release)
	g.flush()
	if n := counters.Load(); n != 0 {
		t.Errorf("the windows of the key were written %d times", n)
	}
	if n := rows.Load(); n > 2 { // one may have been on its way when the flood began
		t.Errorf("%d rows for %d refusals", n, refused)
	}
	if n := g.spy.takes.Load() - takes; n != 0 {
		t.Errorf("%d movements of credits", n)
	}
	if n := g.get(flooder.Key.ID).RequestCount; n != admitted {
		t.Errorf("the window has counted %d requests, want %d", n, admitted)
	}
	g.restart()
	g.want(flooder.Raw, RateLimited)
}
