package sqlite

import (
	"context"
	"database/sql"
	"slices"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// What belongs to a key (previous raw keys, last use) goes by ON DELETE CASCADE, and its
// windows and credits by triggers. Usage stays.

// rememberKeys keeps what finds the usage of keys that are deleted.
const rememberKeys = `INSERT INTO {p}past_keys (num, id, owner) SELECT num, id, owner FROM {p}keys WHERE `

// Delete implements store.Store.
func (s *Store) Delete(ctx context.Context, id string, note store.Note) (store.Change, error) {
	return changeFor(ctx, s, note, func(w *writerConn) (store.Change, error) {
		num, err := numberOf(w, store.OfKey(id))
		if err == nil && num == 0 {
			return store.Change{}, store.ErrNotFound
		}
		var gone []store.Change
		if err == nil {
			gone, err = w.deleteKeys(`num = ?`, num)
		}
		if err != nil {
			return store.Change{}, failed("deleting a key", err)
		}
		if err := w.deletedKeys(gone); err != nil {
			return store.Change{}, err
		}
		return gone[0], nil
	})
}

// deleteKeys deletes the keys that a condition names, and returns what they were. They have
// no revisions yet.
func (c *writerConn) deleteKeys(where string, args ...any) (gone []store.Change, err error) {
	if _, err := c.exec(rememberKeys+where, args...); err != nil {
		return nil, err
	}
	const returning = ` RETURNING id, (SELECT user_id FROM {p}owners WHERE num = owner)`
	err = c.rows(`DELETE FROM {p}keys WHERE `+where+returning, args, func(rows *sql.Rows) error {
		g := store.Change{Subject: store.Subject{Kind: store.KindKey}}
		err := rows.Scan(&g.ID, &g.UserID)
		gone = append(gone, g)
		return err
	})
	return gone, err
}

const (
	// expiring names the configurations of keys that expire, by steps through an
	// index: there are few of them, and may be many keys. disabling does so for keys that
	// their owner has disabled.
	expiring = `WITH RECURSIVE configs (id) AS (
		SELECT min(config_id) FROM {p}keys WHERE expires_at IS NOT NULL
		UNION ALL
		SELECT (SELECT min(config_id) FROM {p}keys WHERE config_id > configs.id AND expires_at IS NOT NULL)
		FROM configs WHERE configs.id IS NOT NULL)
		SELECT id FROM configs WHERE id IS NOT NULL`
	disabling = `WITH RECURSIVE configs (id) AS (
		SELECT min(config_id) FROM {p}keys WHERE disabled_at IS NOT NULL
		UNION ALL
		SELECT (SELECT min(config_id) FROM {p}keys WHERE config_id > configs.id AND disabled_at IS NOT NULL)
		FROM configs WHERE configs.id IS NOT NULL)
		SELECT id FROM configs WHERE id IS NOT NULL`

	expiredOf = `SELECT k.num FROM {p}keys k WHERE k.config_id = ? AND k.expires_at IS NOT NULL AND k.expires_at < ?
		AND ` + ownerKept + ` ORDER BY k.expires_at, k.id LIMIT ?`
	disabledOf = `SELECT k.num FROM {p}keys k WHERE k.config_id = ? AND k.disabled_at IS NOT NULL AND k.disabled_at < ?
		AND ` + ownerKept + ` ORDER BY k.disabled_at, k.id LIMIT ?`
)

// DeleteExpired implements store.Store. Of each configuration, the oldest go first.
func (s *Store) DeleteExpired(ctx context.Context, x store.Expired, limit int, note store.Note) ([]store.Change, error) {
	return changeFor(ctx, s, note, func(w *writerConn) ([]store.Change, error) {
		all, err := w.deleteOld(expiring, expiredOf, x.Before, limit)
		if err != nil {
			return nil, err
		}
		for i := range all {
			all[i].Expired = true
		}
		if x.Disabled != nil {
			disabled, err := w.deleteOld(disabling, disabledOf, x.Disabled, limit-len(all))
			if err != nil {
				return nil, err
			}
			all = append(all, disabled...)
		}
		if err := w.deletedKeys(all); err != nil {
			return nil, err
		}
		return dropPrevious(w, x.Previous, all)
	})
}

// deleteOld deletes up to limit keys that are older than their configuration says, and
// returns them. configs names the configurations, and keys the keys of one.
func (w *writerConn) deleteOld(configs, keys string, before func(configID string) int64, limit int) (all []store.Change, err error) {
	list, err := w.ids(configs)
	if err != nil {
		return nil, failed("reading the configurations of keys", err)
	}
	for _, id := range list {
		gone, err := w.deleteKeys(`num IN (`+keys+`)`, id, before(id), max(limit-len(all), 0))
		if err != nil {
			return nil, failed("deleting old keys", err)
		}
		all = append(all, gone...)
	}
	return all, nil
}

// overPrevious names the keys that have a previous raw key whose grace ended before a time.
const overPrevious = `SELECT DISTINCT k.id FROM {p}previous_hashes p JOIN {p}keys k ON k.num = p.key WHERE p.until_ms < ? AND ` + ownerKept

// dropPrevious takes the previous raw keys out of their documents whose grace ended
// before a time.
func dropPrevious(w *writerConn, before int64, changes []store.Change) ([]store.Change, error) {
	ids, err := w.ids(overPrevious, before)
	if err != nil {
		return nil, failed("reading previous keys", err)
	}
	for _, id := range ids {
		c, err := updateKey(w, id, func(e *store.Entry) error {
			k := e.Key.Clone()
			k.Previous = slices.DeleteFunc(slices.Clone(k.Previous), func(p key.PreviousKey) bool { return p.Until < before })
			if len(k.Previous) == 0 {
				k.Previous = nil
			}
			e.Key = k
			return nil
		})
		if err != nil {
			return nil, err
		}
		changes = append(changes, c)
	}
	return changes, nil
}
