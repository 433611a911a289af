package sqlite

import (
	"database/sql"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/key"
)

var (
	benchKeys = flag.Int("keys", 20_000, "how many keys are stored in benchmarks")
	benchDir  = flag.String("dir", "", "keep the database of benchmarks in this folder, for the next run (default: a temporary one)")
)

const benchKeysPerOwner = 10

// benchKey is one of many keys.
func benchKey(i int) *key.Key {
	k := testKey(i)
	name, prefix, start := fmt.Sprint("server ", i), "ak_", fmt.Sprintf("ak_%09d", i)
	k.UserID, k.Name, k.Prefix, k.Start, k.Checksummed = benchOwner(i/benchKeysPerOwner), &name, &prefix, &start, true
	k.Permissions, k.Metadata = key.Permissions{"files": {"read", "write"}}, []byte(`{"plan":"pro","seats":5}`)
	k.RateLimitEnabled, k.RateLimitMax, k.RateLimitTimeWindow = true, 1000, 60_000
	k.Revision = int64(i + 1)
	return k
}

func benchOwner(i int) string { return fmt.Sprint("user_", i) }

// manyKeys returns the path of a database with *benchKeys keys that have all been used
// once. Rows are written without indexes, which are made afterwards.
func manyKeys(b *testing.B) string {
	b.Helper()
	dir := *benchDir
	if dir == "" {
		dir = b.TempDir()
	}
	path := filepath.Join(dir, fmt.Sprintf("keys-%d.db", *benchKeys))
	made := path + ".made"
	if _, err := os.Stat(made); err == nil {
		return path
	}
	check := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	o, err := New(Options{Path: path})
	check(err)
	opened, err := o.Open(b.Context())
	check(err)
	check(opened.Close())
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=synchronous(0)&_pragma=ignore_check_constraints(1)&_pragma=cache_size(-200000)&_pragma=temp_store(2)")
	check(err)
	db.SetMaxOpenConns(1)
	check(fillKeys(db, *benchKeys))
	check(db.Close())
	check(os.WriteFile(made, nil, 0o600))
	return path
}

func fillKeys(db *sql.DB, n int) error {
	tx, err := db.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after Commit there is nothing to roll back
	var again []string
	rows, err := tx.Query(`SELECT type, name, sql FROM sqlite_schema WHERE type IN ('index', 'trigger') AND sql IS NOT NULL`)
	if err != nil {
		return err
	}
	defer rows.Close()
	var drop []string
	for rows.Next() {
		var kind, name, text string
		if err := rows.Scan(&kind, &name, &text); err != nil {
			return err
		}
		drop, again = append(drop, "DROP "+kind+" "+name), append(again, text)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	run := func(queries ...string) error {
		for _, query := range queries {
			if _, err := tx.Exec(query); err != nil {
				return fmt.Errorf("%s: %w", query, err)
			}
		}
		return nil
	}
	if err := run(drop...); err != nil {
		return err
	}
	if err := insertMany(tx, n); err != nil {
		return err
	}
	again = append(again,
		fmt.Sprintf(`INSERT INTO key_counts (config_id, state, n) VALUES ('default', 'enabled', %d)`, n),
		fmt.Sprintf(`UPDATE revision SET last = %d`, n),
	)
	if err := run(again...); err != nil {
		return err
	}
	return tx.Commit()
}

func insertMany(tx *sql.Tx, n int) error {
	keys, err := tx.Prepare(`INSERT INTO keys (owner, config_id, name, prefix, start, hash, checksummed, enabled, expires_at, created_at, doc, revision, id)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`)
	if err != nil {
		return err
	}
	defer keys.Close()
	for i := range n {
		k := benchKey(i)
		if i%benchKeysPerOwner == 0 {
			const query = `INSERT INTO owners (user_id, enabled, key_count, created_at, updated_at, revision) VALUES (?, 1, ?, ?, ?, ?)`
			if _, err := tx.Exec(query, k.UserID, min(benchKeysPerOwner, n-i), now, now, k.Revision); err != nil {
				return err
			}
		}
		values, err := keyValues(k, int64(i/benchKeysPerOwner+1))
		if err != nil {
			return err
		}
		if _, err := keys.Exec(append(values, k.ID)...); err != nil {
			return err
		}
	}
	_, err = tx.Exec(`INSERT INTO last_uses (key, at) SELECT num, ? FROM keys`, now)
	return err
}
