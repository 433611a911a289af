package sqlite

import (
	"context"
	"database/sql"
	"errors"

	"github.com/caddy-apikey/caddy-apikey/store"
)

const plainKeys = `SELECT EXISTS (SELECT 1 FROM {p}keys k WHERE k.checksummed = 0 AND ` + ownerKept + `)
		OR EXISTS (SELECT 1 FROM {p}previous_hashes p JOIN {p}keys k ON k.num = p.key WHERE p.checksummed = 0 AND ` + ownerKept + `)`

// readRow reads one row through a reader. No row is store.ErrNotFound.
func (s *Store) readRow(ctx context.Context, doing, query string, args []any, dest ...any) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	stmt, err := s.readers.stmts.get(query)
	if err == nil {
		err = stmt.QueryRowContext(ctx, args...).Scan(dest...)
	}
	if errors.Is(err, sql.ErrNoRows) {
		return store.ErrNotFound
	}
	return failed(doing, err)
}

// readRows hands each row of a query to read, through a reader.
func (s *Store) readRows(ctx context.Context, doing, query string, args []any, read func(*sql.Rows) error) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	stmt, err := s.readers.stmts.get(query)
	if err == nil {
		err = eachRow(ctx, stmt, args, read)
	}
	return failed(doing, err)
}

const byID = `SELECT ` + entryColumns + windowColumns + entryTables + windowJoin + ` WHERE k.id = ?1`

// getEntry is Get inside a write. It also returns the number of the key.
func getEntry(w *writerConn, id string) (num int64, e store.Entry, err error) {
	var row entryRow
	found := false
	err = w.rows(byID, []any{id}, func(rows *sql.Rows) error {
		found = true
		var unit nullText
		var state []byte
		err := rows.Scan(append(row.dest(), &unit, &state)...)
		row.addWindow(unit, state)
		return err
	})
	switch {
	case err != nil:
		return 0, e, failed("reading a key", err)
	case !found, row.owner.deleted():
		return 0, e, store.ErrNotFound
	}
	if e, err = row.entry(); err != nil || len(e.Key.Previous) == 0 {
		return row.num, e, err
	}
	err = w.rows(previousUses, []any{row.num}, func(rows *sql.Rows) error {
		var hash []byte
		var last int64
		err := rows.Scan(&hash, &last)
		used(e.Key, hash, last)
		return err
	})
	return row.num, e, failed("reading the uses of previous keys", err)
}

// HasPlainKeys implements store.Store.
func (s *Store) HasPlainKeys(ctx context.Context) (has bool, err error) {
	err = s.readRow(ctx, "looking for keys without a checksum", plainKeys, nil, &has)
	return has, err
}
