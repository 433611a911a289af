package sqlite

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// deletedKeys is how many keys the owner has that TestQ39 deletes.
const deletedKeys = 3000

// clearAllOf clears whatever deleted owners have left, and checks that nothing is looked for
// any more.
func clearAllOf(t *testing.T, s *Store) {
	t.Helper()
	for more := true; more; {
		var err error
		more, err = s.clearSome(t.Context())
		must(t, err)
	}
	must(t, s.write(t.Context(), func(w *writerConn) error {
		if w.clearing {
			t.Error("keys of deleted owners are still looked for")
		}
		return nil
	}))
}

func importKeys(t *testing.T, s store.Store, n int, userID string) {
	t.Helper()
	var batch []store.Entry
	for i := range n {
		k := testKey(1000 + i)
		k.UserID = userID
		k.Previous = []key.PreviousKey{{Hash: key.HashOf(fmt.Sprint("former ", i)), Until: now}}
		batch = append(batch, store.Entry{Key: k, Credits: key.Credits{Limited: true, Remaining: 5, Granted: 5, Peak: 5}, LastRequest: now})
	}
	_, err := s.Import(t.Context(), batch, nil)
	must(t, err)
}

// rows returns how many rows the large tables have.
func rows(t *testing.T, s *Store) (n int64) {
	t.Helper()
	must(t, s.write(t.Context(), func(w *writerConn) error {
		return w.row(`SELECT (SELECT count(*) FROM {p}keys) + (SELECT count(*) FROM {p}previous_hashes) + (SELECT count(*) FROM {p}accounts)
			+ (SELECT count(*) FROM {p}last_uses) + (SELECT count(*) FROM {p}usage) + (SELECT count(*) FROM {p}past_keys)`, nil, &n)
	}))
	return n
}

// TestQ39_pieces: no transaction of a large deletion clears many keys, debits are made
// between them, and a restart in the middle changes nothing.
func TestQ39_pieces(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	s := OpenUntidied(t, path)
	clearAllOf(t, s.Store)
	importKeys(t, s, deletedKeys, "alice")
	bobs, credits := testKey(1), int64(1_000_000)
	bobs.UserID = "bob"
	_, err := s.Create(t.Context(), bobs, key.NewCredits(&credits, 0, 0, now), store.KeyLimit{}, nil)
	must(t, err)
	for i := range 10 {
		must(t, s.SaveUsage(t.Context(), store.UsageBatch{Writer: "w", Number: int64(i + 1), Used: []store.Used{{KeyID: testKey(1000 + i).ID, UserID: "alice", Day: 20261120, Uses: store.Uses{Allowed: 1}}}}))
		if i%2 == 0 {
			_, err = s.Delete(t.Context(), testKey(1000+i).ID, nil)
			must(t, err)
		}
	}
	for more := true; more; {
		var err error
		more, err = s.foldSome(t.Context())
		must(t, err)
	}
	used := store.OfKey(testKey(1001).ID)
	must(t, s.SaveCounters(t.Context(), []store.Counters{{Subject: used, Windows: []store.Window{{Unit: "day", State: []byte{1}}}}}))
	if _, err := s.Find(t.Context(), testKey(1001).Hash); err != nil { // now its owner is in memory
		t.Fatal(err)
	}
	before := rows(t, s.Store)
	change, err := s.DeleteOwner(t.Context(), "alice", nil)
	must(t, err)
	if change.Keys != deletedKeys-5 {
		t.Errorf("%d keys are deleted", change.Keys)
	}
	if n := rows(t, s.Store); n != before {
		t.Errorf("the deletion itself changed %d rows", before-n)
	}
	gone := func() {
		t.Helper()
		for _, n := range []int{1001, 1000 + deletedKeys - 1} {
			if _, err := s.Find(t.Context(), testKey(n).Hash); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("a deleted key: %v", err)
			}
		}
		if windows, err := s.Windows(t.Context(), used); err != nil || len(windows) > 0 {
			t.Errorf("%+v, %v", windows, err)
		}
		st, err := s.Health(t.Context())
		must(t, err)
		if st.Keys != 1 {
			t.Errorf("%d keys", st.Keys)
		}
	}
	for pieces, more := 0, true; more; pieces++ {
		gone()
		if pieces == 5 { // a restart in the middle
			must(t, s.Close())
			s = OpenUntidied(t, path)
			gone()
		}
		left := rows(t, s.Store)
		more, err = s.Clear(t.Context())
		must(t, err)
		if n := left - rows(t, s.Store); n > 1000 {
			t.Errorf("%d rows are cleared at once", n)
		}
		took, err := s.MoveCredits(t.Context(), store.OfKey(testKey(1).ID), key.Move{Take: 1}, now)
		must(t, err)
		if !took.OK {
			t.Error("no credit between two pieces")
		}
	}
	clearAllOf(t, s.Store)
	if n := rows(t, s.Store); n != 2 { // bob's key and its account
		t.Errorf("%d rows are left", n)
	}
	must(t, s.Close())
}

// TestQ39_again: keys that are made again while those of a deleted owner are being cleared
// away are as new, and stay.
func TestQ39_again(t *testing.T) {
	s := openHooked(t, hooks{})
	clearAllOf(t, s)
	importKeys(t, s, 2*clearSize+10, "alice")
	_, err := s.DeleteOwner(t.Context(), "alice", nil)
	must(t, err)
	var made sync.Map
	var wg sync.WaitGroup
	wg.Go(func() {
		for more := true; more; {
			var err error
			if more, err = s.clearSome(context.Background()); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for w := range 4 {
		wg.Go(func() {
			for i := w; i < 2*clearSize; i += 4 {
				k := testKey(1000 + i)
				k.UserID = "alice"
				k.Previous = []key.PreviousKey{{Hash: key.HashOf(fmt.Sprint("former ", (i+1)%(2*clearSize))), Until: now}}
				if _, err := s.Create(t.Context(), k, key.Credits{}, store.KeyLimit{}, nil); err != nil {
					t.Errorf("key %d: %v", i, err)
				}
				made.Store(i, k)
			}
		})
	}
	wg.Wait()
	for i := range 2 * clearSize {
		e, err := s.Find(t.Context(), testKey(1000+i).Hash)
		if err != nil || e.LastRequest != 0 || e.Credits.Limited || e.Owner.UserID != "alice" {
			t.Fatalf("key %d: %+v, %v", i, e, err)
		}
	}
	o, err := s.Owner(t.Context(), "alice")
	if err != nil || o.KeyCount != 2*clearSize {
		t.Errorf("%+v, %v", o, err)
	}
	counts, err := s.KeyCounts(t.Context())
	if err != nil || len(counts) != 1 || counts[0].N != 2*clearSize {
		t.Errorf("%+v, %v", counts, err)
	}
}
