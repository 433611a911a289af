package keyring

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// away uses a key and lets its record leave memory, while its use waits to be written.
func (g *rig) away(k Issued) (last int64) {
	g.t.Helper()
	last = g.clock.now().UnixMilli()
	g.want(k.Raw, Allowed)
	g.evict()
	if e := g.entry(k.Key.ID); e == nil || e.rec.Load() != unloaded {
		g.t.Fatalf("%+v has its record", e)
	}
	g.clock.advance(time.Minute)
	return last
}

// TestQ37_unloaded: of a key whose record has left memory everything is still right, what
// has been counted and not written included.
func TestQ37_unloaded(t *testing.T) {
	ctx := context.Background()
	for name, test := range map[string]func(t *testing.T, g *rig, k Issued){
		"used again": func(t *testing.T, g *rig, k Issued) {
			before := g.entry(k.Key.ID)
			g.want(k.Raw, Allowed)
			if g.entry(k.Key.ID) != before {
				t.Error("it is in memory twice")
			}
		},
		"rotated": func(t *testing.T, g *rig, k Issued) {
			last := g.clock.now().Add(-time.Minute).UnixMilli()
			next := g.rotate(k.Key.ID, Rotation{Grace: 3_600_000})
			if p := next.Previous; len(p) != 1 || p[0].LastRequest != last {
				t.Errorf("%+v, want a use at %d", p, last)
			}
			g.want(k.Raw, Allowed)
			g.want(next.Raw, Allowed)
		},
		"changed": func(_ *testing.T, g *rig, k Issued) {
			g.update(k.Key.ID, Patch{Permissions: to(key.Permissions{"files": {"read"}})})
			g.want(k.Raw, Allowed, Request{Cost: 1, Require: []key.Permission{{Resource: "files", Action: "read"}}})
		},
		"gets credits": func(_ *testing.T, g *rig, k Issued) {
			g.update(k.Key.ID, Patch{Remaining: to(int64(1))})
			g.want(k.Raw, Allowed)
			g.want(k.Raw, UsageExceeded)
		},
		"disabled": func(_ *testing.T, g *rig, k Issued) {
			g.update(k.Key.ID, Patch{Enabled: to(false)})
			g.want(k.Raw, Disabled)
		},
		"owner disabled": func(t *testing.T, g *rig, k Issued) {
			if _, err := g.PutOwner(ctx, "alice", OwnerPatch{Enabled: to(false)}); err != nil {
				t.Fatal(err)
			}
			g.want(k.Raw, Disabled)
		},
		"owner deleted, and its key imported again": func(t *testing.T, g *rig, k Issued) {
			e, err := g.spy.Get(ctx, k.Key.ID)
			if err != nil {
				t.Fatal(err)
			}
			if err := g.DeleteOwner(ctx, "alice"); err != nil {
				t.Fatal(err)
			}
			g.want(k.Raw, Invalid)
			g.imports(false, []store.Entry{e}, "created")
			if used := g.get(k.Key.ID).LastRequest; used != 0 {
				t.Errorf("used at %d, before it was imported", used)
			}
			g.want(k.Raw, Allowed)
		},
		"deleted": func(t *testing.T, g *rig, k Issued) {
			if err := g.Delete(ctx, k.Key.ID); err != nil {
				t.Fatal(err)
			}
			g.want(k.Raw, Invalid)
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			k := g.create(Draft{})
			last := g.away(k)
			if got := g.get(k.Key.ID).LastRequest; got != last {
				t.Errorf("last used at %d, want %d", got, last)
			}
			test(t, g, k)
			g.flush()
			g.evict()
			if keys, owners := g.inMemory(); keys != 0 || owners != 0 {
				t.Errorf("%d keys and %d owners stay in memory", keys, owners)
			}
		})
	}
	t.Run("written", func(t *testing.T) {
		g := newRig(t)
		k := g.create(Draft{})
		last := g.away(k)
		g.flush()
		if e, err := g.spy.Get(ctx, k.Key.ID); err != nil || e.LastRequest != last {
			t.Errorf("%d, %v, want %d", e.LastRequest, err, last)
		}
	})
	t.Run("previous raw keys stay", func(t *testing.T) {
		g := newRig(t)
		old := g.create(Draft{})
		next := g.rotate(old.Key.ID, Rotation{Grace: 3_600_000})
		g.want(old.Raw, Allowed)
		g.want(next.Raw, Allowed)
		g.evict()
		g.flush()
		e, err := g.spy.Get(ctx, old.Key.ID)
		if err != nil || len(e.Key.Previous) != 1 || e.Key.Previous[0].LastRequest == 0 {
			t.Errorf("%+v, %v", e.Key.Previous, err)
		}
	})
}

// TestQ37_unloadedMeanwhile: a request that has found a key whose record leaves memory then
// finds it again.
func TestQ37_unloadedMeanwhile(t *testing.T) {
	g := newRig(t)
	k := g.create(Draft{})
	g.want(k.Raw, Allowed)
	found := g.entry(k.Key.ID)
	g.evict()
	var d Decision
	err := g.admit(context.Background(), g.engine.store.Load(), found, credential{hash: key.HashOf(k.Raw)}, nil, &Request{Cost: 1}, &d)
	if !errors.Is(err, errEvicted) {
		t.Errorf("%q, %v", d.Outcome.Code(), err)
	}
}

// TestMetadata: metadata is kept in memory once somebody reads it, and every request gets
// that of its key.
func TestMetadata(t *testing.T) {
	g := newRig(t)
	ctx := context.Background()
	k := g.create(Draft{Attributes: Attributes{Metadata: to(json.RawMessage(`{"plan":"gold","seats":5}`))}})
	bare := g.create(Draft{UserID: "bob"})
	inMemory := func() bool { return g.entry(k.Key.ID).rec.Load().key.Metadata != nil }
	g.want(bare.Raw, Allowed)
	d := g.want(k.Raw, Allowed)
	if inMemory() {
		t.Error("it is kept, and nobody reads it")
	}
	_, done := g.pin(k.Key.ID)
	defer done()
	reads := func(d *Decision, field, want string) {
		t.Helper()
		if got := g.Metadata(ctx, d, field); got != want {
			t.Errorf("%s is %q, want %q", field, got, want)
		}
	}
	reads(&d, "plan", "gold")
	reads(&d, "seats", "5")
	reads(&d, "none", "")
	d = g.want(k.Raw, Allowed)
	if !inMemory() {
		t.Error("it is read, and not kept")
	}
	finds := g.spy.finds.Load()
	d = g.want(k.Raw, Allowed)
	reads(&d, "plan", "gold")
	bob := g.want(bare.Raw, Allowed)
	reads(&bob, "plan", "")
	if n := g.spy.finds.Load() - finds; n != 0 {
		t.Errorf("%d look-ups of what is in memory", n)
	}
	g.update(k.Key.ID, Patch{Attributes: Attributes{Metadata: to(json.RawMessage(`{"plan":"none"}`))}})
	d = g.want(k.Raw, Allowed)
	reads(&d, "plan", "none")
	reads(&d, "seats", "")
}

// TestMetadata_storeAway: the requests that are under way when metadata is first read are
// told of a store that is away; those that come then are refused.
func TestMetadata_storeAway(t *testing.T) {
	g := newRig(t)
	k := g.create(Draft{Attributes: Attributes{Metadata: to(json.RawMessage(`{"plan":"gold"}`))}})
	d := g.want(k.Raw, Allowed)
	var told []error
	g.engine.report = func(err error) { told = append(told, err) }
	g.spy.failReads.Store(true)
	if got := g.Metadata(context.Background(), &d, "plan"); got != "" || len(told) != 1 || !errors.Is(told[0], store.ErrUnavailable) {
		t.Errorf("%q, told %v", got, told)
	}
	if d, err := g.Verify(context.Background(), k.Raw, &Request{Cost: 1}); d.Outcome != Unavailable || !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("%q, %v: it lacks its metadata", d.Outcome.Code(), err)
	}
	g.spy.failReads.Store(false)
	d = g.want(k.Raw, Allowed)
	if got := g.Metadata(context.Background(), &d, "plan"); got != "gold" {
		t.Errorf("%q", got)
	}
}
