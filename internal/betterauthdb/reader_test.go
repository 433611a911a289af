package betterauthdb

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestColumns: tables and columns of other names.
func TestColumns(t *testing.T) {
	theirs, ours := hashes(raw)
	for name, test := range map[string]struct {
		create, values string
		options        Options
		extra          string
	}{
		"snake case":         {`CREATE TABLE "apiKey" (id TEXT, reference_id TEXT, key TEXT, rate_limit_max INT, rate_limit_time_window INT, tenant TEXT)`, `'i', 'u', ?, 5, 1000, 't'`, Options{Table: "apikey"}, "tenant"},
		"before version 1.5": {`CREATE TABLE apikey (id TEXT, userId TEXT, key TEXT, rateLimitMax INT, rateLimitTimeWindow INT)`, `'i', 'u', ?, 5, 1000`, Options{}, ""},
		"renamed":            {`CREATE TABLE "my ""keys""" (nr INT, "the owner" TEXT, hash TEXT, "max" INT, rateLimitTimeWindow INT)`, `'i', 'u', ?, 5, 1000`, Options{Table: `my "keys"`, Columns: map[string]string{"id": "nr", "referenceId": "the owner", "key": "hash", "rateLimitMax": "max"}}, ""},
		"without rowid":      {`CREATE TABLE apikey (id TEXT PRIMARY KEY, referenceId TEXT, key TEXT, rateLimitMax INT, rateLimitTimeWindow INT) WITHOUT ROWID`, `'i', 'u', ?, 5, 1000`, Options{}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a # b.db")
			other, err := sql.Open("sqlite", "file:"+strings.NewReplacer(" ", "%20", "#", "%23").Replace(path))
			if err != nil {
				t.Fatal(err)
			}
			table, _, _ := strings.Cut(strings.TrimPrefix(test.create, "CREATE TABLE "), " (")
			for _, q := range []string{"PRAGMA journal_mode = WAL", test.create, "INSERT INTO " + table + " VALUES (" + test.values + ")"} {
				if _, err := other.Exec(strings.Replace(q, "?", "'"+theirs+"'", 1)); err != nil {
					t.Fatal(err)
				}
			}
			defer other.Close() // it is open all the time, as that of a server that runs
			d, err := Open(context.Background(), path, test.options)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			var keys []Key
			if err := d.Each(context.Background(), func(k Key) error { keys = append(keys, k); return nil }); err != nil {
				t.Fatal(err)
			}
			if d.Count() != 1 || len(keys) != 1 || strings.Join(d.Extra(), " ") != test.extra {
				t.Fatalf("%d rows, %d keys, extra %v", d.Count(), len(keys), d.Extra())
			}
			r := keys[0].Record
			if r.ID != "i" || r.UserID != "u" || r.Hash != ours || *r.RateLimitMax != 5 || *r.RateLimitTimeWindow != 1000 || *r.ConfigID != "default" {
				t.Errorf("%+v", r)
			}
			if _, err := d.conn.ExecContext(t.Context(), "DELETE FROM "+table); err == nil {
				t.Error("the database can be written")
			}
		})
	}
}

// TestPages: tables of every kind are read whole, and the application may write
// while a key is on its way.
func TestPages(t *testing.T) {
	const rows = 2*pageSize + 1
	for name, create := range map[string]string{
		"with rowid":            `CREATE TABLE apikey (id TEXT PRIMARY KEY, referenceId TEXT, key TEXT)`,
		"with a number":         `CREATE TABLE apikey (id INTEGER PRIMARY KEY, referenceId TEXT, key TEXT)`,
		"with a column rowid":   `CREATE TABLE apikey (id TEXT, referenceId TEXT, key TEXT, rowid TEXT)`,
		"without rowid":         `CREATE TABLE apikey (id TEXT PRIMARY KEY, referenceId TEXT, key TEXT) WITHOUT ROWID`,
		"with two primary keys": `CREATE TABLE apikey (id TEXT, referenceId TEXT, key TEXT, PRIMARY KEY (referenceId, id)) WITHOUT ROWID`,
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a.db")
			other, err := sql.Open("sqlite", "file:"+path)
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			const table = "apikey"
			fill := fmt.Sprintf(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)
				INSERT INTO %s (id, referenceId, key) SELECT i, 'u' || (i %% 3), 'k' || i FROM n`, rows, table)
			for _, q := range []string{create, fill} {
				if _, err := other.Exec(q); err != nil {
					t.Fatal(err)
				}
			}
			d, err := Open(context.Background(), path, Options{Table: "APIkey"})
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			var ids []string
			err = d.Each(context.Background(), func(k Key) error {
				if ids = append(ids, k.Record.ID); len(ids) != pageSize {
					return nil
				}
				_, err := other.Exec("UPDATE " + table + " SET key = key || 'x' WHERE id = '1'")
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			slices.Sort(ids)
			if n := len(slices.Compact(slices.Clone(ids))); n != rows || len(ids) != rows {
				t.Errorf("%d keys, %d of them different, want %d", len(ids), n, rows)
			}
		})
	}
}
