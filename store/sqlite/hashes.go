package sqlite

import (
	"context"

	"github.com/caddy-apikey/caddy-apikey/key"
)

// EachHash implements store.Store.
func (s *Store) EachHash(ctx context.Context, f func(key.Hash)) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	stmt, err := s.readers.stmts.get(`SELECT hash FROM {p}keys UNION ALL SELECT hash FROM {p}previous_hashes`)
	if err != nil {
		return failed("reading hashes", err)
	}
	rows, err := stmt.QueryContext(ctx)
	if err != nil {
		return failed("reading hashes", err)
	}
	defer rows.Close()
	var raw []byte
	for rows.Next() {
		if err := rows.Scan(&raw); err != nil {
			return failed("reading hashes", err)
		}
		if len(raw) != len(key.Hash{}) {
			return unavailable("reading hashes: one has %d bytes", len(raw))
		}
		f(key.Hash(raw))
	}
	return failed("reading hashes", rows.Err())
}
