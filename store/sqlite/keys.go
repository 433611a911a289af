package sqlite

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// Create implements store.Store.
func (s *Store) Create(ctx context.Context, k *key.Key, c key.Credits) (store.Entry, error) {
	k = k.Clone() // it is the caller's, who may be gone before this runs
	return writeFor(ctx, s, func(w *writerConn) (store.Entry, error) { return createKey(w, k, c) })
}

func createKey(w *writerConn, k *key.Key, c key.Credits) (store.Entry, error) {
	if err := addKey(w, k, c, key.Counters{}); err != nil {
		return store.Entry{}, err
	}
	return getEntry(w, k.ID)
}

// addKey stores a key with all that belongs to it.
func addKey(w *writerConn, k *key.Key, c key.Credits, n key.Counters) error {
	k.Generation, c.Version = 1, 1
	if err := ensureOwner(w, k.UserID, k.CreatedAt); err != nil {
		return err
	}
	if err := insertKey(w, k); err != nil {
		return err
	}
	const credits = `INSERT INTO {p}credits
		(remaining, leased, spent, forfeited, granted, peak, refill_amount, refill_interval, refill_from, last_refill_at, version, key_id)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`
	if _, err := w.exec(credits, append(creditsValues(c), k.ID)...); err != nil {
		return failed("creating a key's credits", err)
	}
	const counters = `INSERT INTO {p}counters (key_id, last_request, rate_state) VALUES (?, ?, ?)`
	_, err := w.exec(counters, k.ID, nonZero(n.LastRequest), orNull(n.Rate))
	return failed("creating a key's counters", err)
}

func insertKey(w *writerConn, k *key.Key) error {
	const query = `INSERT INTO {p}keys (config_id, user_id, name, prefix, start, hash, secret_hash,
		checksummed, enabled, disabled_by, permissions, metadata, allowed_ips, expires_at, created_at, updated_at, rotated_at,
		rate_limit_enabled, rate_limit_max, rate_limit_time_window, rate_limit_algorithm, generation, id)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`
	values, err := keyValues(k)
	if err != nil {
		return err
	}
	if _, err := w.exec(query, append(values, k.Generation, k.ID)...); err != nil {
		return failed("creating a key", err)
	}
	if err := insertPrevious(w, k); err != nil {
		return err
	}
	return checkHashes(w, k)
}

func insertPrevious(w *writerConn, k *key.Key) error {
	const query = `INSERT INTO {p}former_hashes (hash, start, key_id, until_ms, checksummed, last_request, position) VALUES (?, ?, ?, ?, ?, ?, ?)`
	for i, p := range k.Previous {
		if _, err := w.exec(query, p.Hash[:], nonEmpty(p.Start), k.ID, p.Until, flag(p.Checksummed), nonZero(p.LastRequest), i); err != nil {
			return failed("storing a previous key", err)
		}
	}
	return nil
}

// checkHashes keeps a raw key from opening two records: no hash may be current
// and previous at once. The unique indexes of the two tables see to the rest.
func checkHashes(w *writerConn, k *key.Key) error {
	const query = `SELECT EXISTS (SELECT 1 FROM {p}former_hashes WHERE hash = ?1)
		OR EXISTS (SELECT 1 FROM {p}former_hashes f JOIN {p}keys k ON k.hash = f.hash WHERE f.key_id = ?2)`
	var taken bool
	if err := w.row(query, []any{k.Hash[:], k.ID}, &taken); err != nil {
		return failed("comparing hashes", err)
	}
	if taken {
		return store.ErrExists
	}
	return nil
}

// Update implements store.Store.
func (s *Store) Update(ctx context.Context, id string, change func(*store.Entry) error) (store.Entry, error) {
	return writeFor(ctx, s, func(w *writerConn) (store.Entry, error) { return updateKey(w, id, change) })
}

func updateKey(w *writerConn, id string, change func(*store.Entry) error) (store.Entry, error) {
	e, err := getEntry(w, id)
	if err != nil {
		return store.Entry{}, err
	}
	before, credits := *e.Key, e.Credits
	if err := change(&e); err != nil {
		return store.Entry{}, err
	}
	if e.Key == nil || e.Key.ID != id {
		return store.Entry{}, errors.New("a change must keep the key and its ID")
	}
	after := e.Key.Clone()
	after.Generation = before.Generation
	if !sameKey(&before, after) {
		if err := replaceKey(w, &before, after); err != nil {
			return store.Entry{}, err
		}
	}
	e.Credits.Version = credits.Version
	if e.Credits != credits {
		e.Credits.Version++
		if err := writeCredits(w, id, e.Credits, credits.Version); err != nil {
			return store.Entry{}, err
		}
	}
	return getEntry(w, id)
}

func replaceKey(w *writerConn, before, after *key.Key) error {
	if after.UserID != before.UserID {
		if err := ensureOwner(w, after.UserID, after.UpdatedAt); err != nil {
			return err
		}
	}
	const query = `UPDATE {p}keys SET config_id = ?, user_id = ?, name = ?, prefix = ?, start = ?, hash = ?, secret_hash = ?,
		checksummed = ?, enabled = ?, disabled_by = ?, permissions = ?, metadata = ?, allowed_ips = ?, expires_at = ?, created_at = ?, updated_at = ?, rotated_at = ?,
		rate_limit_enabled = ?, rate_limit_max = ?, rate_limit_time_window = ?, rate_limit_algorithm = ?, generation = ?
		WHERE id = ? AND generation = ?`
	values, err := keyValues(after)
	if err != nil {
		return err
	}
	n, err := w.exec(query, append(values, before.Generation+1, after.ID, before.Generation)...)
	if err == nil && n != 1 {
		err = errLostUpdate
	}
	if err != nil {
		return failed("changing a key", err)
	}
	if !slices.Equal(before.Previous, after.Previous) {
		if _, err := w.exec(`DELETE FROM {p}former_hashes WHERE key_id = ?`, after.ID); err != nil {
			return failed("replacing previous keys", err)
		}
		if err := insertPrevious(w, after); err != nil {
			return err
		}
	}
	return checkHashes(w, after)
}

// sameKey compares everything that is stored of a key.
func sameKey(a, b *key.Key) bool {
	return a.ID == b.ID && a.ConfigID == b.ConfigID && a.UserID == b.UserID &&
		samePointer(a.Name, b.Name) && samePointer(a.Prefix, b.Prefix) && samePointer(a.Start, b.Start) &&
		a.Hash == b.Hash && samePointer(a.SecretHash, b.SecretHash) && slices.Equal(a.Previous, b.Previous) &&
		a.Checksummed == b.Checksummed && a.Enabled == b.Enabled && a.DisabledBy == b.DisabledBy && samePermissions(a.Permissions, b.Permissions) &&
		(a.Metadata == nil) == (b.Metadata == nil) && bytes.Equal(a.Metadata, b.Metadata) &&
		(a.AllowedIPs == nil) == (b.AllowedIPs == nil) && slices.Equal(a.AllowedIPs, b.AllowedIPs) &&
		a.ExpiresAt == b.ExpiresAt && a.CreatedAt == b.CreatedAt && a.UpdatedAt == b.UpdatedAt && a.RotatedAt == b.RotatedAt &&
		a.RateLimitEnabled == b.RateLimitEnabled && a.RateLimitMax == b.RateLimitMax &&
		a.RateLimitTimeWindow == b.RateLimitTimeWindow && a.RateLimitAlgorithm == b.RateLimitAlgorithm &&
		a.Generation == b.Generation
}

func samePermissions(a, b key.Permissions) bool {
	return (a == nil) == (b == nil) && maps.EqualFunc(a, b, slices.Equal[[]string])
}

func samePointer[T comparable](a, b *T) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}
