package keyring

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/ratelimit"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// TestC4_LateRead: what was read from the store before a key was used, written and left
// memory does not bring back what was counted and left before that.
func TestC4_LateRead(t *testing.T) {
	g := newRig(t)
	k := g.create(Draft{Remaining: ptr(int64(2)), RateLimitMax: ptr(int64(9)), RateLimitTimeWindow: ptr(int64(60_000))})
	next := g.rotate(k.Key.ID, Rotation{Grace: 60_000})
	read, resume := make(chan struct{}), make(chan struct{})
	var first atomic.Bool
	g.spy.onFind(func() {
		if first.CompareAndSwap(false, true) {
			close(read)
			<-resume
		}
	})
	late := make(chan Decision)
	go func() {
		d, _ := g.Verify(context.Background(), k.Raw, &Request{Cost: 1})
		late <- d
	}()
	<-read
	for range 2 { // with the other raw key, so that this is another look-up
		g.want(next.Raw, Allowed)
	}
	g.forget(k.Key.ID)
	close(resume)
	if d := <-late; d.Outcome != UsageExceeded || d.Limits[0].Remaining != 7 {
		t.Errorf("%q, %+v", d.Outcome.Code(), d.Limits)
	}
}

// TestC3_JoinedLookUp: a look-up that found nothing before a key was made is no answer to a
// request that joins it afterwards.
func TestC3_JoinedLookUp(t *testing.T) {
	g := newRig(t)
	e, raw := g.foreign(1)
	hash := e.Key.Hash
	g.engine.cache.members.current.Load().add(hash) // the filter may be wrong
	read, resume := make(chan struct{}), make(chan struct{})
	g.engine.cache.loads.DoChan(string(hash[:]), func() (any, error) {
		l, err := g.engine.cache.load(context.Background(), g.spy, hash)
		close(read)
		<-resume
		return l, err
	})
	<-read
	g.imports(false, []store.Entry{e}, "created")
	joined := &waitedFor{Context: context.Background(), waits: make(chan struct{})}
	answer := make(chan Decision)
	go func() {
		d, _ := g.Verify(joined, raw, &Request{Cost: 1})
		answer <- d
	}()
	<-joined.waits
	close(resume)
	if d := <-answer; d.Outcome != Allowed {
		t.Errorf("%q", d.Outcome.Code())
	}
}

// waitedFor is a context that tells when somebody begins to wait for its end or for
// something else.
type waitedFor struct {
	context.Context
	once  sync.Once
	waits chan struct{}
}

func (c *waitedFor) Done() <-chan struct{} {
	c.once.Do(func() { close(c.waits) })
	return c.Context.Done()
}

// TestK5_RefusedChange: a change that is refused, be it that whoever asks may not know of
// the key, leaves its lease as it was.
func TestK5_RefusedChange(t *testing.T) {
	nobody := func(*key.Key) bool { return false }
	for name, change := range map[string]func(g *rig, id string) error{
		"update": func(g *rig, id string) error {
			_, err := g.only(nil, nobody).Update(context.Background(), id, Patch{Name: to("x")})
			return err
		},
		"rotate": func(g *rig, id string) error {
			_, err := g.only(nil, nobody).Rotate(context.Background(), id, Rotation{})
			return err
		},
		"end grace": func(g *rig, id string) error {
			_, err := g.only(nil, nobody).EndGrace(context.Background(), id)
			return err
		},
		"delete": func(g *rig, id string) error { return g.only(nil, nobody).Delete(context.Background(), id) },
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t).leasing(1000)
			k := g.create(Draft{Remaining: ptr(int64(1000))})
			passed := g.warm(k.Raw, k.Key.ID)
			leased := g.out(k.Key.ID)
			if err := change(g, k.Key.ID); !errors.Is(err, store.ErrNotFound) {
				t.Fatalf("%v", err)
			}
			if out := g.out(k.Key.ID); leased == 0 || out != leased {
				t.Errorf("%d of %d are leased afterwards", out, leased)
			}
			g.restart()
			if row := g.stored(k.Key.ID); row.Remaining != 1000-passed || row.Spent != passed || row.Forfeited != 0 {
				t.Errorf("%d passed: %+v", passed, row)
			}
		})
	}
}

// TestDeletedAndImported: a key that is deleted and imported again under its ID has
// nothing of what was counted before.
func TestDeletedAndImported(t *testing.T) {
	g := newRig(t).leasing(1000)
	limited := func(e *store.Entry) {
		e.Key.RateLimitEnabled, e.Key.RateLimitMax, e.Key.RateLimitTimeWindow = true, 5, 60_000
		e.Key.RateLimitAlgorithm = ratelimit.FixedWindow
		e.Credits = key.NewCredits(ptr(int64(5)), 0, 0, 0)
	}
	e, raw := g.foreign(1)
	limited(&e)
	for range 3 {
		g.imports(false, []store.Entry{e}, "created")
		if n := g.drain(raw); n != 5 {
			t.Fatalf("%d passed", n)
		}
		if err := g.Delete(context.Background(), e.Key.ID); err != nil {
			t.Fatal(err)
		}
		g.want(raw, Invalid)
	}
}

// TestCacheSize: keys in memory take about as much of it as the cache thinks, and no more
// of them stay than fit.
func TestCacheSize(t *testing.T) {
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	const keys = 20_000
	for name, change := range map[string]func(*key.Key){
		"plain":    func(*key.Key) {},
		"limited":  func(k *key.Key) { k.RateLimitEnabled, k.RateLimitMax, k.RateLimitTimeWindow = true, 5, 60_000 },
		"metadata": func(k *key.Key) { k.Metadata = json.RawMessage(`{"plan":"` + strings.Repeat("x", 2000) + `"}`) },
	} {
		t.Run(name, func(t *testing.T) {
			var c cache
			c.init()
			c.metadata.Store(true)
			c.keys.SetMaximum(1 << 40)
			before := heap()
			for i := range keys {
				k := &key.Key{ID: fmt.Sprintf("%024x", i), UserID: fmt.Sprintf("user-%06d", i), ConfigID: "default", Name: ptr("production key"), Start: ptr("ak_abc"), Revision: 1, Enabled: true}
				k.Hash = key.HashOf(k.ID)
				k.Permissions = key.Permissions{"documents": {"read", "write"}}
				change(k)
				stored := &store.Entry{Key: k, Owner: key.Owner{UserID: strings.Clone(k.UserID), Revision: 1, Enabled: true}}
				c.mu.Lock()
				c.hold(k.Hash, c.take(stored, c.recent.next))
				c.mu.Unlock()
			}
			c.keys.CleanUp()
			took, thought := heap()-before, int64(c.keys.WeightedSize())
			if ratio := float64(took) / float64(thought); ratio < 0.6 || ratio > 1.2 {
				t.Errorf("%d bytes a key, the cache thinks %d", took/keys, thought/keys)
			}
			c.keys.SetMaximum(uint64(thought / 10))
			c.keys.CleanUp()
			left := func() int {
				c.mu.Lock()
				defer c.mu.Unlock()
				return len(c.byID)
			}
			for left() > keys/10 { // they leave in the background
				runtime.Gosched()
			}
			if n := len(c.owners); n > keys/10 {
				t.Errorf("%d owners stay", n)
			}
		})
	}
}
