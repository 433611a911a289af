package sqlite

import (
	"context"

	"github.com/caddy-apikey/caddy-apikey/store"
)

// What belongs to a key (previous raw keys, credits, counters) and to an owner
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

const (
	// expiring names the configurations of keys that expire, by steps through an
	// index: there are few of them, and may be many keys.
	expiring = `WITH RECURSIVE configs (id) AS (
		SELECT min(config_id) FROM {p}keys WHERE expires_at IS NOT NULL
		UNION ALL
		SELECT (SELECT min(config_id) FROM {p}keys WHERE config_id > configs.id AND expires_at IS NOT NULL)
		FROM configs WHERE configs.id IS NOT NULL)
		SELECT id FROM configs WHERE id IS NOT NULL`

	expiredOf = `SELECT id FROM {p}keys
		WHERE config_id = ? AND expires_at IS NOT NULL AND expires_at < ? ORDER BY expires_at, id LIMIT ?`
)

// DeleteExpired implements store.Store. Of each configuration, the oldest go first.
func (s *Store) DeleteExpired(ctx context.Context, x store.Expired, limit int) ([]string, error) {
	return writeFor(ctx, s, func(w *writerConn) ([]string, error) {
		configs, err := w.ids(expiring)
		if err != nil {
			return nil, failed("reading the configurations of keys", err)
		}
		var all []string
		for _, id := range configs {
			ids, err := w.ids(`DELETE FROM {p}keys WHERE id IN (`+expiredOf+`) RETURNING id`, id, x.Before(id), max(limit-len(all), 0))
			if err != nil {
				return nil, failed("deleting expired keys", err)
			}
			all = append(all, ids...)
		}
		_, err = w.exec(`DELETE FROM {p}former_hashes WHERE until_ms < ?`, x.Previous)
		return all, failed("deleting previous keys", err)
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
