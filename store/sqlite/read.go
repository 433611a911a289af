package sqlite

import (
	"context"
	"database/sql"
	"errors"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

const plainKeys = `SELECT EXISTS (SELECT 1 FROM {p}keys WHERE checksummed = 0)
		OR EXISTS (SELECT 1 FROM {p}previous_hashes WHERE checksummed = 0)`

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

// getEntry is Get inside a write. It also returns the number of the key.
func getEntry(w *writerConn, id string) (num int64, e store.Entry, err error) {
	var row entryRow
	err = w.row(byID, []any{id}, row.dest()...)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, e, store.ErrNotFound
	}
	if err != nil {
		return 0, e, failed("reading a key", err)
	}
	if e, err = row.entry(); err != nil || len(e.Key.Previous) == 0 {
		return row.num, e, err
	}
	stmt, err := w.stmts.get(previousUses)
	if err == nil {
		err = readUses(context.Background(), stmt, row.num, e.Key)
	}
	return row.num, e, failed("reading the uses of previous keys", err)
}

// readUses adds the last uses of previous raw keys.
func readUses(ctx context.Context, stmt *sql.Stmt, num int64, k *key.Key) error {
	rows, err := stmt.QueryContext(ctx, num)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var hash []byte
		var last int64
		if err := rows.Scan(&hash, &last); err != nil {
			return err
		}
		used(k, hash, last)
	}
	return rows.Err()
}

// HasPlainKeys implements store.Store.
func (s *Store) HasPlainKeys(ctx context.Context) (has bool, err error) {
	err = s.readRow(ctx, "looking for keys without a checksum", plainKeys, nil, &has)
	return has, err
}
