package sqlite

import (
	"context"

	"github.com/caddy-apikey/caddy-apikey/store"
)

// What belongs to a key (former hashes, credits, counters) and to an owner
// (keys) goes by ON DELETE CASCADE.

// Delete implements store.Store.
func (s *Store) Delete(ctx context.Context, id string) error {
	return s.write(ctx, func(w *writerConn) error {
		n, err := w.exec(`DELETE FROM {p}keys WHERE id = ?`, id)
		if err == nil && n == 0 {
			return store.ErrNotFound
		}
		return failed("deleting a key", err)
	})
}

// DeleteExpired implements store.Store. The oldest go first.
func (s *Store) DeleteExpired(ctx context.Context, before int64, limit int) ([]string, error) {
	return writeFor(ctx, s, func(w *writerConn) ([]string, error) {
		ids, err := w.ids(`DELETE FROM {p}keys WHERE id IN (
			SELECT id FROM {p}keys WHERE expires_at IS NOT NULL AND expires_at < ? ORDER BY expires_at, id LIMIT ?)
			RETURNING id`, before, max(limit, 0))
		if err != nil {
			return nil, failed("deleting expired keys", err)
		}
		_, err = w.exec(`DELETE FROM {p}former_hashes WHERE until_ms < ?`, before)
		return ids, failed("deleting former hashes", err)
	})
}

// DeleteOwner implements store.Store.
func (s *Store) DeleteOwner(ctx context.Context, userID string) ([]string, error) {
	return writeFor(ctx, s, func(w *writerConn) ([]string, error) {
		ids, err := w.ids(`SELECT id FROM {p}keys WHERE user_id = ? ORDER BY id`, userID)
		if err != nil {
			return nil, failed("reading an owner's keys", err)
		}
		n, err := w.exec(`DELETE FROM {p}owners WHERE user_id = ?`, userID)
		if err == nil && n == 0 {
			return nil, store.ErrNotFound
		}
		return ids, failed("deleting an owner", err)
	})
}
