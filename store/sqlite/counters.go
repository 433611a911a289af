package sqlite

import (
	"context"
	"slices"

	"github.com/caddy-apikey/caddy-apikey/store"
)

// SaveCounters implements store.Store. It only ever changes rows that are
// there: a key that was deleted meanwhile stays deleted.
func (s *Store) SaveCounters(ctx context.Context, batch []store.Counted) error {
	if len(batch) == 0 {
		return nil
	}
	batch = slices.Clone(batch) // the caller may go on using its own
	return s.write(ctx, func(w *writerConn) error {
		const previous = `UPDATE {p}previous_hashes SET last_request = ? WHERE hash = ? AND key = (SELECT num FROM {p}keys WHERE id = ?)`
		const query = `UPDATE {p}counters SET last_request = ?, rate_state = ? WHERE key = (SELECT num FROM {p}keys WHERE id = ?)`
		for i := range batch {
			c := &batch[i].Counters
			if _, err := w.exec(query, nonZero(c.LastRequest), orNull(c.Rate), batch[i].ID); err != nil {
				return failed("saving counters", err)
			}
			for _, p := range batch[i].Previous {
				if _, err := w.exec(previous, nonZero(p.LastRequest), p.Hash[:], batch[i].ID); err != nil {
					return failed("saving the uses of previous keys", err)
				}
			}
		}
		return nil
	})
}
