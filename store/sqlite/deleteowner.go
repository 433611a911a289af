package sqlite

import (
	"context"
	"database/sql"
	"errors"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// An owner may have very many keys, and all other writes would wait for one transaction
// that deletes them. So the owner is deleted by taking its user ID away, which hides all
// that belongs to it; the rows are cleared away behind the writes, a few in a transaction.
// Nothing but what a row takes up is left of them: an owner of the same name is another
// one, and a key with the ID or a hash of a hidden one has it cleared at once.

const (
	// clearSize is how many keys one transaction clears, which other writes wait for.
	clearSize = 200

	deletedOwners = `(SELECT num FROM {p}owners WHERE user_id IS NULL)`
	// ownerKept holds for a key k, or a past one, whose owner is not deleted.
	ownerKept = `k.owner NOT IN ` + deletedOwners

	markDeleted       = `UPDATE {p}owners SET user_id = NULL WHERE user_id = ? RETURNING num, key_count`
	deletedOwner      = `SELECT num FROM {p}owners WHERE user_id IS NULL LIMIT 1`
	keysOfDeleted     = `SELECT num FROM {p}keys WHERE owner = ? LIMIT ?`
	pastKeysOfDeleted = `SELECT num FROM {p}past_keys WHERE owner = ? LIMIT ?`
	usageOfOwner      = `DELETE FROM {p}usage WHERE kind = 'owner' AND subject = ?`
	usageOfKeys       = `DELETE FROM {p}usage WHERE kind = 'key' AND subject IN `

	// inTheWay are keys of deleted owners that have an ID or a hash.
	inTheWay = `SELECT k.num FROM {p}keys k WHERE (k.id = ?1 OR k.hash = ?2
		OR k.num = (SELECT key FROM {p}previous_hashes WHERE hash = ?2)) AND k.owner IN ` + deletedOwners

	// keyCounts are how many keys there are, by configuration and state.
	keyCounts = `SELECT config_id, state = 'enabled' AS enabled, n - (SELECT count(*) FROM {p}owners o JOIN {p}keys k ON k.owner = o.num
		WHERE o.user_id IS NULL AND k.config_id = c.config_id AND k.enabled = (c.state = 'enabled')) AS n FROM {p}key_counts c WHERE n > 0`
)

// DeleteOwner implements store.Store.
func (s *Store) DeleteOwner(ctx context.Context, userID string, note store.Note) (store.Change, error) {
	change, err := changeFor(ctx, s, note, func(w *writerConn) (store.Change, error) {
		var num, keys int64
		err := w.row(markDeleted, []any{userID}, &num, &keys)
		if errors.Is(err, sql.ErrNoRows) {
			return store.Change{}, store.ErrNotFound
		}
		if err != nil {
			return store.Change{}, failed("deleting an owner", err)
		}
		revision, err := w.revisions(1)
		if err != nil {
			return store.Change{}, err
		}
		w.clearing, w.owners = true, append(w.owners, num)
		return w.changed(store.Change{Revision: revision, Subject: store.OfOwner(userID), Keys: keys}), nil
	})
	if err == nil {
		wake(s.clearNow)
	}
	return change, err
}

// clearSome clears some of what deleted owners have left, and reports whether more is left.
func (s *Store) clearSome(ctx context.Context) (more bool, err error) {
	err = s.write(ctx, func(w *writerConn) error {
		var owner int64
		err := w.row(deletedOwner, nil, &owner)
		if errors.Is(err, sql.ErrNoRows) {
			w.clearing, more = false, false
			return nil
		}
		if err == nil {
			err = w.clearOwner(owner)
		}
		more = true
		return failed("clearing a deleted owner", err)
	})
	return more, err
}

// clearOwner clears some of what a deleted owner has left: keys, then the usage of keys
// that were deleted before, then the rest.
func (c *writerConn) clearOwner(owner int64) error {
	nums, err := c.numbers(keysOfDeleted, owner, clearSize)
	if err != nil || len(nums) > 0 {
		return errors.Join(err, c.clearKeys(nums))
	}
	if nums, err = c.numbers(pastKeysOfDeleted, owner, clearSize); err != nil {
		return err
	}
	if len(nums) > 0 {
		return c.execFor(nums, usageOfKeys, `DELETE FROM {p}past_keys WHERE num IN `)
	}
	if _, err := c.exec(usageOfOwner, owner); err != nil {
		return err
	}
	_, err = c.exec(`DELETE FROM {p}owners WHERE num = ?`, owner)
	return err
}

// clearKeys deletes keys and all that belongs to them, usage included.
func (c *writerConn) clearKeys(nums []int64) error {
	if len(nums) == 0 {
		return nil
	}
	return c.execFor(nums, usageOfKeys, `DELETE FROM {p}keys WHERE num IN `)
}

// execFor runs statements that end in a list of numbers.
func (c *writerConn) execFor(nums []int64, statements ...string) error {
	list := jsonNumbers(nums)
	for _, query := range statements {
		if _, err := c.exec(query+listed, list); err != nil {
			return err
		}
	}
	return nil
}

// makeWay clears keys of deleted owners that have the ID or a hash of k.
func makeWay(w *writerConn, k *key.Key) error {
	if !w.clearing {
		return nil
	}
	hashes := []key.Hash{k.Hash}
	for i := range k.Previous {
		hashes = append(hashes, k.Previous[i].Hash)
	}
	for _, h := range hashes {
		nums, err := w.numbers(inTheWay, k.ID, h[:])
		if err == nil {
			err = w.clearKeys(nums)
		}
		if err != nil {
			return failed("clearing a key of a deleted owner", err)
		}
	}
	return nil
}
