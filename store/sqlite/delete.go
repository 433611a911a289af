package sqlite

import (
	"context"
	"slices"

	"github.com/caddy-apikey/caddy-apikey/key"
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

	expiredOf = `SELECT num FROM {p}keys
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
			ids, err := w.ids(`DELETE FROM {p}keys WHERE num IN (`+expiredOf+`) RETURNING id`, id, x.Before(id), max(limit-len(all), 0))
			if err != nil {
				return nil, failed("deleting expired keys", err)
			}
			all = append(all, ids...)
		}
		return all, dropPrevious(w, x.Previous)
	})
}

// overPrevious names the keys that have a previous raw key whose grace ended before a time.
const overPrevious = `SELECT DISTINCT k.id FROM {p}previous_hashes p JOIN {p}keys k ON k.num = p.key WHERE p.until_ms < ?`

// dropPrevious takes the previous raw keys out of their documents whose grace ended
// before a time.
func dropPrevious(w *writerConn, before int64) error {
	ids, err := w.ids(overPrevious, before)
	if err != nil {
		return failed("reading previous keys", err)
	}
	for _, id := range ids {
		num, e, err := getEntry(w, id)
		if err != nil {
			return err
		}
		e.Key.Previous = slices.DeleteFunc(e.Key.Previous, func(p key.PreviousKey) bool { return p.Until < before })
		doc, err := key.AppendDocument(nil, e.Key)
		if err != nil {
			return unavailable("storing a key: %w", err)
		}
		if _, err := w.exec(`UPDATE {p}keys SET doc = ? WHERE num = ?`, string(doc), num); err != nil {
			return failed("deleting previous keys", err)
		}
	}
	_, err = w.exec(`DELETE FROM {p}previous_hashes WHERE until_ms < ?`, before)
	return failed("deleting previous keys", err)
}

// DeleteOwner implements store.Store.
func (s *Store) DeleteOwner(ctx context.Context, userID string) ([]string, error) {
	return writeFor(ctx, s, func(w *writerConn) ([]string, error) {
		ids, err := w.ids(`SELECT id FROM {p}keys WHERE owner = (SELECT num FROM {p}owners WHERE user_id = ?) ORDER BY id`, userID)
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
