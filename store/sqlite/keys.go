package sqlite

import (
	"context"
	"errors"
	"reflect"
	"slices"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// Create implements store.Store.
func (s *Store) Create(ctx context.Context, k *key.Key, c key.Credits, limit store.KeyLimit, note store.Note) (store.Change, error) {
	e := store.Entry{Key: k.Clone(), Credits: c} // it is the caller's, who may be gone before this runs
	return changeFor(ctx, s, note, func(w *writerConn) (store.Change, error) {
		if err := addKey(w, &e); err != nil {
			return store.Change{}, err
		}
		if err := checkLimit(w, e.Key, limit); err != nil {
			return store.Change{}, err
		}
		return w.changedKey(e), nil
	})
}

// checkLimit counts the keys of an owner, after a change of k.
func checkLimit(w *writerConn, k *key.Key, limit store.KeyLimit) error {
	of := `FROM {p}keys WHERE owner = (SELECT num FROM {p}owners WHERE user_id = ?) AND config_id = ?`
	for _, rule := range []struct {
		most  int64
		query string
		args  []any
	}{
		{limit.Enabled, of + ` AND enabled AND (expires_at IS NULL OR expires_at > ?)`, []any{k.UserID, k.ConfigID, limit.Now}},
		{limit.All, of, []any{k.UserID, k.ConfigID}},
	} {
		if rule.most == 0 {
			continue
		}
		var n int64
		err := w.row(`SELECT count(*) FROM (SELECT 1 `+rule.query+` LIMIT ?)`, append(rule.args, rule.most+1), &n)
		if err != nil {
			return failed("counting the keys of an owner", err)
		}
		if n > rule.most {
			return store.ErrKeyLimit
		}
	}
	return nil
}

// addKey stores a key with all that belongs to it, and completes the entry.
func addKey(w *writerConn, e *store.Entry) (err error) {
	k := e.Key
	e.Credits.Version = 1
	if k.Revision, err = w.revisions(1); err != nil {
		return err
	}
	owner, num, err := ensureOwner(w, k.UserID, k.CreatedAt, k.Revision)
	if err != nil {
		return err
	}
	e.Owner = owner
	if num, err = insertKey(w, k, num); err != nil {
		return err
	}
	if e.Credits != (key.Credits{Version: 1}) {
		if err := insertCredits(w, subject{num, store.KindKey}, e.Credits); err != nil {
			return err
		}
	}
	if e.LastRequest != 0 {
		if err := saveLastUse(w, num, e.LastRequest); err != nil {
			return failed("creating a key's last use", err)
		}
	}
	return failed("creating a key's windows", saveWindows(w, num, store.KindKey, e.Windows))
}

func insertKey(w *writerConn, k *key.Key, owner int64) (num int64, err error) {
	const query = `INSERT INTO {p}keys (owner, config_id, name, prefix, start, hash, checksummed, enabled, disabled_at, expires_at, created_at, doc, revision, id)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING num`
	values, err := keyValues(k, owner)
	if err == nil {
		err = makeWay(w, k)
	}
	if err != nil {
		return 0, err
	}
	if err := w.row(query, append(values, k.ID), &num); err != nil {
		return 0, failed("creating a key", err)
	}
	if err := insertPrevious(w, num, k); err != nil {
		return 0, err
	}
	return num, checkHashes(w, num, k)
}

func insertPrevious(w *writerConn, num int64, k *key.Key) error {
	const query = `INSERT INTO {p}previous_hashes (hash, key, until_ms, checksummed, last_request) VALUES (?, ?, ?, ?, ?)`
	for i := range k.Previous {
		p := &k.Previous[i]
		if _, err := w.exec(query, p.Hash[:], num, p.Until, bit(p.Checksummed), nonZero(p.LastRequest)); err != nil {
			return failed("storing a previous key", err)
		}
	}
	return nil
}

// checkHashes keeps a raw key from opening two records: no hash may be current
// and previous at once. The unique indexes of the two tables see to the rest.
func checkHashes(w *writerConn, num int64, k *key.Key) error {
	const query = `SELECT EXISTS (SELECT 1 FROM {p}previous_hashes WHERE hash = ?1)
		OR EXISTS (SELECT 1 FROM {p}previous_hashes p JOIN {p}keys k ON k.hash = p.hash WHERE p.key = ?2)`
	var taken bool
	if err := w.row(query, []any{k.Hash[:], num}, &taken); err != nil {
		return failed("comparing hashes", err)
	}
	if taken {
		return store.ErrExists
	}
	return nil
}

// Update implements store.Store.
func (s *Store) Update(ctx context.Context, id string, change func(*store.Entry) error, note store.Note) (store.Change, error) {
	return changeFor(ctx, s, note, func(w *writerConn) (store.Change, error) { return updateKey(w, id, change) })
}

func updateKey(w *writerConn, id string, change func(*store.Entry) error) (store.Change, error) {
	num, e, err := getEntry(w, id)
	if err != nil {
		return store.Change{}, err
	}
	before := e
	kept := *e.Key // should change write into it
	if err := change(&e); err != nil {
		return store.Change{}, err
	}
	if e.Key == nil || e.Key.ID != id {
		return store.Change{}, errors.New("a change must keep the key and its ID")
	}
	after := e.Key.Clone()
	after.Revision, e.Credits.Version = kept.Revision, before.Credits.Version
	record, credits := !reflect.DeepEqual(&kept, after), e.Credits != before.Credits
	if !record && !credits {
		before.Key = &kept
		return store.Change{Revision: kept.Revision, Subject: store.OfKey(id), Entry: &before}, nil
	}
	if after.Revision, err = w.revisions(1); err != nil {
		return store.Change{}, err
	}
	if record {
		err = replaceKey(w, num, &kept, after)
	} else {
		err = touchKey(w, num, kept.Revision, after.Revision)
	}
	if err != nil {
		return store.Change{}, err
	}
	if credits {
		e.Credits.Version++
		of := subject{num, store.KindKey}
		if err := endLeases(w, of, before.Credits, e.Credits); err != nil {
			return store.Change{}, err
		}
		if err := writeCredits(w, of, e.Credits, before.Credits.Version); err != nil {
			return store.Change{}, err
		}
	}
	if err := checkLimit(w, after, e.Limit); err != nil {
		return store.Change{}, err
	}
	if _, e, err = getEntry(w, id); err != nil {
		return store.Change{}, err
	}
	return w.changedKey(e), nil
}

// touchKey gives a key whose record stays a new revision.
func touchKey(w *writerConn, num, before, after int64) error {
	n, err := w.exec(`UPDATE {p}keys SET revision = ? WHERE num = ? AND revision = ?`, after, num, before)
	if err == nil && n != 1 {
		err = errLostUpdate
	}
	return failed("changing a key", err)
}

// replaceKey stores a record with a new revision.
func replaceKey(w *writerConn, num int64, before, after *key.Key) error {
	_, owner, err := ensureOwner(w, after.UserID, after.UpdatedAt, after.Revision)
	if err != nil {
		return err
	}
	const query = `UPDATE {p}keys SET owner = ?, config_id = ?, name = ?, prefix = ?, start = ?, hash = ?,
		checksummed = ?, enabled = ?, disabled_at = ?, expires_at = ?, created_at = ?, doc = ?, revision = ?
		WHERE num = ? AND revision = ?`
	values, err := keyValues(after, owner)
	if err == nil {
		err = makeWay(w, after)
	}
	if err != nil {
		return err
	}
	n, err := w.exec(query, append(values, num, before.Revision)...)
	if err == nil && n != 1 {
		err = errLostUpdate
	}
	if err != nil {
		return failed("changing a key", err)
	}
	if !slices.Equal(before.Previous, after.Previous) {
		if _, err := w.exec(`DELETE FROM {p}previous_hashes WHERE key = ?`, num); err != nil {
			return failed("replacing previous keys", err)
		}
		if err := insertPrevious(w, num, after); err != nil {
			return err
		}
	}
	return checkHashes(w, num, after)
}

func samePointer[T comparable](a, b *T) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}
