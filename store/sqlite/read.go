package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"slices"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

const (
	byID = `SELECT ` + entryColumns + entryTables + ` WHERE k.id = ?`

	// byHash is one statement, so that a key that is being rotated is found
	// under the old hash or the new one at any moment.
	byHash = `SELECT ` + entryColumns + entryTables + ` WHERE k.id = (
		SELECT id FROM {p}keys WHERE hash = ?1 UNION ALL SELECT key_id FROM {p}former_hashes WHERE hash = ?1 LIMIT 1)`

	plainKeys = `SELECT EXISTS (SELECT 1 FROM {p}keys WHERE checksummed = 0)
		OR EXISTS (SELECT 1 FROM {p}former_hashes WHERE checksummed = 0)`
)

// Find implements store.Store.
func (s *Store) Find(ctx context.Context, hash key.Hash) (store.Entry, error) {
	e, err := s.readEntry(ctx, byHash, hash[:])
	if err != nil {
		return store.Entry{}, err
	}
	previous := func(p key.PreviousKey) bool { return p.Hash.Equal(hash) }
	if !e.Key.Hash.Equal(hash) && !slices.ContainsFunc(e.Key.Previous, previous) {
		// Only a damaged index leads from a hash to another key.
		return store.Entry{}, unavailable("finding a key: the index of hashes is damaged")
	}
	return e, nil
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, id string) (store.Entry, error) {
	return s.readEntry(ctx, byID, id)
}

func (s *Store) readEntry(ctx context.Context, query string, arg any) (store.Entry, error) {
	var row entryRow
	if err := s.readRow(ctx, "reading a key", query, []any{arg}, row.dest()...); err != nil {
		return store.Entry{}, err
	}
	return row.entry()
}

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

// getEntry is Get inside a write.
func getEntry(c *writerConn, id string) (store.Entry, error) {
	var row entryRow
	err := c.row(byID, []any{id}, row.dest()...)
	if errors.Is(err, sql.ErrNoRows) {
		return store.Entry{}, store.ErrNotFound
	}
	if err != nil {
		return store.Entry{}, failed("reading a key", err)
	}
	return row.entry()
}

// HasPlainKeys implements store.Store.
func (s *Store) HasPlainKeys(ctx context.Context) (has bool, err error) {
	err = s.readRow(ctx, "looking for keys without a checksum", plainKeys, nil, &has)
	return has, err
}
