package sqlite

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// TestQ36_lookupsDoNotWait holds the connection that reads lists: nothing but lists waits
// for it.
func TestQ36_lookupsDoNotWait(t *testing.T) {
	s := openHooked(t, hooks{})
	k := testKey(1)
	_, err := s.Create(t.Context(), k, key.Credits{}, store.KeyLimit{}, nil)
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tx, err := s.lists.db.BeginTx(ctx, nil)
	must(t, err)
	defer tx.Rollback() //nolint:errcheck // nothing was written
	for name, call := range map[string]func() error{
		"Find":    func() error { _, err := s.Find(ctx, k.Hash); return err },
		"Get":     func() error { _, err := s.Get(ctx, k.ID); return err },
		"Owner":   func() error { _, err := s.Owner(ctx, k.UserID); return err },
		"Windows": func() error { _, err := s.Windows(ctx, store.OfOwner(k.UserID)); return err },
		"Health":  func() error { _, err := s.Health(ctx); return err },
		"Update": func() error {
			_, err := s.Update(ctx, k.ID, func(*store.Entry) error { return nil }, nil)
			return err
		},
	} {
		if err := call(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	waits, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := s.List(waits, store.List{}); err == nil {
		t.Error("the list is read over another connection")
	}
}

// TestQ36_largePages: a page ends where its records are large enough, and all pages have
// each key once.
func TestQ36_largePages(t *testing.T) {
	s := openHooked(t, hooks{})
	const keys, size = 100, 16 << 10
	metadata := json.RawMessage(`{"m":"` + strings.Repeat("x", size-20) + `"}`)
	var batch []store.Entry
	for i := range keys {
		k := testKey(i)
		k.Metadata = metadata
		if i%3 > 0 {
			k.Name = new(strings.Repeat("n", i%3))
		}
		batch = append(batch, store.Entry{Key: k, LastRequest: int64(i % 2)})
	}
	_, err := s.Import(t.Context(), batch, nil)
	must(t, err)
	for _, sort := range []store.Sort{store.SortCreatedAt, store.SortName, store.SortLastRequest, store.SortExpiresAt} {
		for _, f := range []store.Filter{{}, {RotatedBefore: 1 << 60}} {
			seen, pages := map[string]bool{}, 0
			for q := (store.List{Sort: sort, Reverse: pages%2 > 0, Filter: f, Limit: keys}); ; pages++ {
				page, err := s.List(t.Context(), q)
				must(t, err)
				if n := len(page.Entries) * size; n > 2*maxPageSize {
					t.Fatalf("by %s: a page of %d bytes", sort, n)
				}
				for _, e := range page.Entries {
					if seen[e.Key.ID] {
						t.Errorf("by %s: %s comes twice", sort, e.Key.ID)
					}
					seen[e.Key.ID] = true
				}
				if q.Cursor = page.Next; q.Cursor == "" {
					break
				}
			}
			if len(seen) != keys {
				t.Errorf("by %s: %d keys, want %d", sort, len(seen), keys)
			}
		}
	}
}
