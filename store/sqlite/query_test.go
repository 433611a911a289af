package sqlite_test

import (
	"database/sql"
	"fmt"
	"net/url"
	"testing"
)

func readOnly(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: "mode=rw&_busy_timeout=5000&_query_only=1"}).String())
	must(t, err)
	return db
}

// query returns the first value of a query, through a connection of its own.
func query(t *testing.T, path, q string) (s string) {
	t.Helper()
	db := readOnly(t, path)
	defer db.Close()
	must(t, db.QueryRow(q).Scan(&s))
	return s
}

// dump reads every row of every table as text, through SQLite only.
func dump(t *testing.T, db *sql.DB) map[string]string {
	t.Helper()
	all := map[string]string{}
	for table, identity := range tables {
		rows, err := db.Query("SELECT " + identity + ", * FROM " + table)
		must(t, err)
		columns, err := rows.Columns()
		must(t, err)
		for rows.Next() {
			values := make([]any, len(columns))
			for i := range values {
				values[i] = new(any)
			}
			must(t, rows.Scan(values...))
			id := fmt.Sprint(*values[0].(*any))
			for i, c := range columns[1:] {
				all[table+"/"+id+"/"+c] = fmt.Sprintf("%#v", *values[i+1].(*any))
			}
		}
		must(t, rows.Err())
		must(t, rows.Close())
	}
	return all
}

const (
	keyID     = "(SELECT id FROM keys WHERE num = key)"
	subjectID = "iif(kind = 'key', (SELECT id FROM keys WHERE num = subject), (SELECT user_id FROM owners WHERE num = subject))"
)

// tables are all tables, with what names a row in a test.
var tables = map[string]string{
	"keys": "id", "owners": "user_id", "previous_hashes": "hash", "last_uses": keyID, "accounts": subjectID, "leases": subjectID, "grants": subjectID,
	"windows":   "kind || ' ' || " + subjectID,
	"past_keys": "id", "revision": "one", "key_counts": "config_id || ' ' || state", "asked_permissions": keyID,
	"usage": "subject", "usage_writers": "writer", "usage_journal": "num", "usage_fold": "one", "usage_hours": "hour", "usage_top_owners": "day", "apikey_schema": "id",
}

// cells returns the cells that differ.
func cells(before, after map[string]string) map[string]bool {
	diff := map[string]bool{}
	for k, v := range before {
		if w, ok := after[k]; !ok || v != w {
			diff[k] = true
		}
	}
	for k := range after {
		if _, ok := before[k]; !ok {
			diff[k] = true
		}
	}
	return diff
}
