package sqlite

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestUnreleased: tables of before the first release are refused, and it is said
// how to bring the keys over.
func TestUnreleased(t *testing.T) {
	for _, version := range []int{1, 6, 7} {
		path := filepath.Join(t.TempDir(), "keys.db")
		must(t, os.WriteFile(path, nil, fileMode))
		db, err := sql.Open("sqlite", dsn(path))
		must(t, err)
		for _, query := range []string{
			fmt.Sprintf("PRAGMA application_id = %d", ApplicationID),
			"CREATE TABLE keys (id TEXT PRIMARY KEY)",
			"CREATE TABLE apikey_migrations (id INTEGER PRIMARY KEY AUTOINCREMENT, version_id INTEGER NOT NULL, is_applied INTEGER NOT NULL)",
			fmt.Sprintf("INSERT INTO apikey_migrations (version_id, is_applied) VALUES (%d, 1)", version),
		} {
			_, err := db.Exec(query)
			must(t, err)
		}
		must(t, db.Close())
		before, err := os.ReadFile(path)
		must(t, err)

		o, err := New(Options{Path: path})
		must(t, err)
		_, err = o.Open(t.Context())
		if err == nil {
			t.Fatalf("schema %d is opened", version)
		}
		for _, part := range []string{path, "caddy apikey export", "caddy apikey import"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("schema %d: %q does not name %q", version, err, part)
			}
		}
		if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
			t.Errorf("schema %d: the file was changed, %v", version, err)
		}
	}
}

// The sum of a ledger is held by the database itself.
func TestLedgerCheck(t *testing.T) {
	s := openHooked(t, hooks{})
	createTest(t, s, 1, 10)
	for _, change := range []string{
		"remaining = 11", "remaining = 9", "leased = 1", "spent = 1", "forfeited = 1", "granted = 11", "remaining = NULL",
		"held = 1", "debt = 1", "expired = 1", "held = -1, remaining = 11", "debt = -1, remaining = 9", "expired = -1, remaining = 11", "unit = 'eur'",
		"leased = -1, remaining = 11", "spent = -1, remaining = 11", "forfeited = -1, remaining = 11", "granted = -1",
	} {
		err := s.write(t.Context(), func(w *writerConn) error {
			_, err := w.exec("UPDATE {p}accounts SET " + change)
			return err
		})
		if err == nil {
			t.Errorf("%s is stored", change)
		}
	}
}
