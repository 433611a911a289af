package sqlite

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// firstSchema makes a database of the first schema with an owner, which fill fills,
// and opens it.
func firstSchema(t *testing.T, fill func(exec func(query string, args ...any))) store.Store {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys.db")
	must(t, os.WriteFile(path, nil, fileMode))
	db, err := sql.Open("sqlite", dsn(path))
	must(t, err)
	steps, err := migrations("")
	must(t, err)
	must(t, migrateBy(t.Context(), db, "", steps[:1]))
	exec := func(query string, args ...any) {
		t.Helper()
		_, err := db.Exec(query, args...)
		must(t, err)
	}
	exec(fmt.Sprintf("PRAGMA application_id = %d", applicationID))
	exec("INSERT INTO owners VALUES ('alice', NULL, 1, 1, 1, 1)")
	fill(exec)
	must(t, db.Close())

	o, err := New(Options{Path: path})
	must(t, err)
	s, err := o.Open(t.Context())
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

// firstKey is a key of the first schema.
const firstKey = `INSERT INTO keys (id, config_id, user_id, hash, checksummed, enabled, created_at, updated_at,
	rate_limit_enabled, rate_limit_algorithm, generation) VALUES (?, 'default', 'alice', ?, 1, 1, 1, 1, 1, 'fixed_window', 1)`

// TestMigrate_previousKeys: nobody knows whether previous raw keys of an older schema have
// a checksum, so they count as having none.
func TestMigrate_previousKeys(t *testing.T) {
	k, previous := testKey(1), testKey(2).Hash
	s := firstSchema(t, func(exec func(string, ...any)) {
		exec(firstKey, k.ID, k.Hash[:])
		exec("INSERT INTO credits (key_id, peak, version) VALUES (?, 0, 1)", k.ID)
		exec("INSERT INTO counters (key_id) VALUES (?)", k.ID)
		exec("INSERT INTO former_hashes (hash, key_id, until_ms, position) VALUES (?, ?, 5, 0)", previous[:], k.ID)
	})
	plain, err := s.HasPlainKeys(t.Context())
	must(t, err)
	e, err := s.Find(t.Context(), previous)
	must(t, err)
	if want := []key.PreviousKey{{Hash: previous, Until: 5}}; !plain || !slices.Equal(e.Key.Previous, want) {
		t.Errorf("plain %v, previous %+v", plain, e.Key.Previous)
	}
}

// TestMigrate_disabledBy: nobody knows who disabled the keys of an older schema, so
// only an operator enables them again.
func TestMigrate_disabledBy(t *testing.T) {
	s := firstSchema(t, func(exec func(string, ...any)) {
		for n := range 2 {
			k := testKey(n)
			exec(firstKey, k.ID, k.Hash[:])
			exec("UPDATE keys SET enabled = ? WHERE id = ?", n, k.ID)
			exec("INSERT INTO credits (key_id, peak, version) VALUES (?, 0, 1)", k.ID)
			exec("INSERT INTO counters (key_id) VALUES (?)", k.ID)
		}
	})
	for n, want := range []key.DisabledBy{key.DisabledByOperator, ""} {
		if e, err := s.Get(t.Context(), testKey(n).ID); err != nil || e.Key.DisabledBy != want || e.Key.RotatedAt != 0 {
			t.Errorf("key %d: %+v, %v", n, e.Key, err)
		}
	}
}

// TestMigrate_ledger opens a database of the first schema, with keys that have
// credits and one that is unlimited.
func TestMigrate_ledger(t *testing.T) {
	s := firstSchema(t, func(exec func(string, ...any)) {
		for n, remaining := range []any{nil, 0, 7, key.MaxCount} {
			k := testKey(n)
			exec(firstKey, k.ID, k.Hash[:])
			exec("INSERT INTO credits (key_id, remaining, peak, version) VALUES (?, ?, ?, 4)", k.ID, remaining, 7)
			exec("INSERT INTO counters (key_id) VALUES (?)", k.ID)
		}
	})
	for n, want := range []key.Credits{
		{Peak: 7, Version: 4},
		{Limited: true, Peak: 7, Version: 4},
		{Limited: true, Remaining: 7, Granted: 7, Peak: 7, Version: 4},
		{Limited: true, Remaining: key.MaxCount, Granted: key.MaxCount, Peak: 7, Version: 4},
	} {
		e, err := s.Get(t.Context(), testKey(n).ID)
		must(t, err)
		if e.Credits != want {
			t.Errorf("key %d: %+v, want %+v", n, e.Credits, want)
		}
		taken, err := s.MoveCredits(t.Context(), testKey(n).ID, key.Move{Take: 1}, now)
		if err != nil || taken.OK != (n != 1) {
			t.Errorf("key %d: %+v, %v", n, taken, err)
		}
	}
}

// The sum of a ledger is held by the database itself.
func TestLedgerCheck(t *testing.T) {
	s := openHooked(t, hooks{})
	createTest(t, s, 1, 10)
	for _, change := range []string{
		"remaining = 11", "remaining = 9", "leased = 1", "spent = 1", "forfeited = 1", "granted = 11", "remaining = NULL",
		"leased = -1, remaining = 11", "spent = -1, remaining = 11", "forfeited = -1, remaining = 11", "granted = -1",
	} {
		err := s.write(t.Context(), func(w *writerConn) error {
			_, err := w.exec("UPDATE {p}credits SET " + change)
			return err
		})
		if err == nil {
			t.Errorf("%s is stored", change)
		}
	}
}
