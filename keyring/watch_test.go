package keyring

import (
	"context"
	"testing"
	"time"
)

// TestC5_watch: a watched request ends with its key, in memory or not, once, and not with other
// changes or while the store is away.
func TestC5_watch(t *testing.T) {
	for name, row := range map[string]struct {
		change func(g *rig, id string)
		ends   bool
	}{
		"revoked":         {func(g *rig, id string) { g.update(id, Patch{Enabled: to(false)}) }, true},
		"deleted":         {func(g *rig, id string) { noError(g, g.Delete(context.Background(), id)) }, true},
		"owner deleted":   {func(g *rig, _ string) { noError(g, g.DeleteOwner(context.Background(), "alice")) }, true},
		"rotated":         {func(g *rig, id string) { g.rotate(id, Rotation{}) }, true},
		"expired":         {func(g *rig, _ string) { g.clock.advance(2 * time.Minute) }, true},
		"in grace":        {func(g *rig, id string) { g.rotate(id, Rotation{Grace: 60_000}) }, false},
		"renamed":         {func(g *rig, id string) { g.update(id, Patch{Name: to("x")}) }, false},
		"without credits": {func(g *rig, id string) { g.update(id, Patch{Remaining: to(int64(0))}) }, false},
	} {
		for _, gone := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				g := newRig(t)
				ctx, st := context.Background(), g.engine.store.Load()
				k := g.create(Draft{UserID: "alice", ExpiresIn: to(int64(60))})
				d := g.want(k.Raw, Allowed)
				ended, stopped := 0, 0
				g.Watch(&d, func() { ended++ })
				stop := g.Watch(&d, func() { stopped++ })
				if gone {
					g.flush()
					g.evict()
				}
				look := func() {
					t.Helper()
					if err := g.engine.endWatched(ctx, st); err != nil {
						t.Fatal(err)
					}
				}
				look()
				if ended != 0 {
					t.Fatal("ended too early")
				}
				stop()
				row.change(g, k.Key.ID)
				if gone {
					g.evict()
				}
				look()
				look()
				if want := map[bool]int{true: 1}[row.ends]; ended != want || stopped != 0 {
					t.Errorf("ended %d times, want %d; the other one %d times", ended, want, stopped)
				}
				if row.ends && len(g.engine.watches.list()) != 0 {
					t.Error("it is still watched")
				}
			})
		}
	}
}

func noError(g *rig, err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
}
