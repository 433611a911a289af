package sqlite

import (
	"bytes"
	"context"
	"slices"

	"github.com/caddy-apikey/caddy-apikey/store"
)

const (
	ownerCounters = `SELECT n.unit, n.state FROM {p}owners o JOIN {p}owner_counters n ON n.owner = o.num WHERE o.user_id = ? ORDER BY n.unit`

	// saveOwnerCounter leaves out an owner that is gone, which would fail the whole batch.
	saveOwnerCounter = `INSERT INTO {p}owner_counters (owner, unit, state)
		SELECT num, ?2, ?3 FROM {p}owners WHERE user_id = ?1
		ON CONFLICT (owner, unit) DO UPDATE SET state = excluded.state`
)

// OwnerCounters implements store.Store.
func (s *Store) OwnerCounters(ctx context.Context, userID string) ([]store.OwnerCounter, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.leave()
	const doing = "reading an owner's counters"
	stmt, err := s.readers.stmts.get(ownerCounters)
	if err != nil {
		return nil, failed(doing, err)
	}
	rows, err := stmt.QueryContext(ctx, userID)
	if err != nil {
		return nil, failed(doing, err)
	}
	defer rows.Close()
	var all []store.OwnerCounter
	for rows.Next() {
		var c store.OwnerCounter
		if err := rows.Scan(&c.Unit, &c.State); err != nil {
			return nil, failed(doing, err)
		}
		c.State = bytes.Clone(c.State)
		all = append(all, c)
	}
	return all, failed(doing, rows.Err())
}

// SaveOwnerCounters implements store.Store.
func (s *Store) SaveOwnerCounters(ctx context.Context, batch []store.OwnerCounted) error {
	if len(batch) == 0 {
		return nil
	}
	batch = slices.Clone(batch) // the caller may go on using its own
	return s.write(ctx, func(w *writerConn) error {
		for i := range batch {
			c := &batch[i]
			if _, err := w.exec(saveOwnerCounter, c.UserID, c.Unit, c.State); err != nil {
				return failed("saving an owner's counters", err)
			}
		}
		return nil
	})
}
