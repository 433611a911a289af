// Package manykeys fills a database with keys for measurements, far faster than a store
// would create them: rows first, indexes afterwards.
package manykeys

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"

	_ "modernc.org/sqlite" // the driver

	"github.com/caddy-apikey/caddy-apikey/key"
)

// Key is a key, and when it was used last; 0: never.
type Key struct {
	*key.Key
	LastUse int64
}

// Fill writes keys into the empty database of a store without a table prefix, which must
// not be open. The keys of an owner follow each other, and none of them has previous raw
// keys or was disabled by its owner. They get revisions as if one had been created after
// the other. After an error the database is of no use.
func Fill(ctx context.Context, path string, keys iter.Seq[Key]) (err error) {
	// The constraints of the schema stay in force: they tell where the columns that are
	// written here are not those of the record.
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(off)&_pragma=synchronous(0)&_pragma=foreign_keys(0)&_pragma=cache_size(-1000000)&_pragma=temp_store(2)")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(1)
	f := filler{ctx: ctx}
	if f.tx, err = db.BeginTx(ctx, nil); err != nil {
		return err
	}
	defer f.tx.Rollback() //nolint:errcheck // after Commit there is nothing to roll back
	again, err := f.dropIndexes()
	if err != nil {
		return err
	}
	if err := f.insert(keys); err != nil {
		return err
	}
	again = append(again,
		`INSERT INTO key_search (rowid, name, start, owner) SELECT k.num, k.name, k.start, o.user_id FROM keys k JOIN owners o ON o.num = k.owner`,
		`INSERT INTO key_counts SELECT config_id, iif(enabled, 'enabled', 'disabled'), count(*) FROM keys GROUP BY 1, 2`,
		`UPDATE owners SET key_count = (SELECT count(*) FROM keys WHERE owner = num)`,
		`UPDATE revision SET last = (SELECT count(*) FROM keys)`,
	)
	if err := f.run(again...); err != nil {
		return err
	}
	if err := f.tx.Commit(); err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, `PRAGMA journal_mode(wal)`) // as the store left it
	return err
}

type filler struct {
	ctx context.Context
	tx  *sql.Tx
}

func (f *filler) run(queries ...string) error {
	for _, query := range queries {
		if _, err := f.tx.ExecContext(f.ctx, query); err != nil {
			return fmt.Errorf("%s: %w", query, err)
		}
	}
	return nil
}

// dropIndexes drops the indexes and triggers that the schema names, and returns the
// statements that make them again.
func (f *filler) dropIndexes() (again []string, err error) {
	rows, err := f.tx.QueryContext(f.ctx, `SELECT 'DROP ' || type || ' ' || name, sql FROM sqlite_schema
		WHERE type IN ('index', 'trigger') AND sql IS NOT NULL`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var drop []string
	for rows.Next() {
		var one, other string
		if err := rows.Scan(&one, &other); err != nil {
			return nil, err
		}
		drop, again = append(drop, one), append(again, other)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	return again, f.run(drop...)
}

func (f *filler) insert(keys iter.Seq[Key]) error {
	owners, err := f.tx.PrepareContext(f.ctx, `INSERT INTO owners (num, user_id, enabled, created_at, updated_at, revision) VALUES (?1, ?2, 1, ?3, ?3, ?4)`)
	if err != nil {
		return err
	}
	defer owners.Close()
	rows, err := f.tx.PrepareContext(f.ctx, `INSERT INTO keys (num, id, hash, owner, config_id, name, prefix, start, checksummed, enabled, expires_at, created_at, revision, doc)
		VALUES (?1, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?1, ?2)`)
	if err != nil {
		return err
	}
	defer rows.Close()
	uses, err := f.tx.PrepareContext(f.ctx, `INSERT INTO last_uses (key, at) VALUES (?, ?)`)
	if err != nil {
		return err
	}
	defer uses.Close()
	var num, owner int64
	var userID string
	var doc []byte
	for k := range keys {
		num++
		if k.UserID != userID {
			owner, userID = owner+1, k.UserID
			if _, err := owners.ExecContext(f.ctx, owner, userID, k.CreatedAt, num); err != nil {
				return fmt.Errorf("owner %s: %w", userID, err)
			}
		}
		k.Revision = num
		if doc, err = key.AppendDocument(doc[:0], k.Key); err != nil {
			return err
		}
		if _, err := rows.ExecContext(f.ctx, num, string(doc), k.ID, k.Hash[:], owner, k.ConfigID, k.Name, k.Prefix, k.Start, k.Checksummed, k.Enabled, orNull(k.ExpiresAt), k.CreatedAt); err != nil {
			return fmt.Errorf("key %s: %w", k.ID, err)
		}
		if k.LastUse == 0 {
			continue
		}
		if _, err := uses.ExecContext(f.ctx, num, k.LastUse); err != nil {
			return fmt.Errorf("last use of key %s: %w", k.ID, err)
		}
	}
	return nil
}

func orNull(n int64) any {
	if n == 0 {
		return nil
	}
	return n
}
