package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"slices"

	"github.com/caddy-apikey/caddy-apikey/store"
)

// Import implements store.Store.
func (s *Store) Import(ctx context.Context, batch []store.Entry) ([]bool, error) {
	batch = slices.Clone(batch) // the caller may be gone before this runs
	return writeFor(ctx, s, func(w *writerConn) ([]bool, error) {
		added := make([]bool, len(batch))
		for i := range batch {
			var err error
			if added[i], err = importKey(w, &batch[i]); err != nil {
				return nil, err
			}
		}
		return added, nil
	})
}

// importKey adds a key inside a savepoint of its own, so that one that exists
// takes nothing with it but itself.
func importKey(w *writerConn, e *store.Entry) (added bool, err error) {
	if _, err := w.exec("SAVEPOINT entry"); err != nil {
		return false, failed("savepoint", err)
	}
	err = addKey(w, e.Key.Clone(), e.Credits, e.LastRequest, e.Windows)
	if err != nil && !errors.Is(err, store.ErrExists) {
		return false, err
	}
	added = err == nil
	if !added {
		if _, err := w.exec("ROLLBACK TO entry"); err != nil {
			return false, failed("leaving a key out", err)
		}
	}
	_, err = w.exec("RELEASE entry")
	return added, failed("release", err)
}

// ImportOwners implements store.Store.
func (s *Store) ImportOwners(ctx context.Context, batch []store.OwnerEntry) ([]bool, error) {
	batch = slices.Clone(batch) // the caller may be gone before this runs
	return writeFor(ctx, s, func(w *writerConn) ([]bool, error) {
		added := make([]bool, len(batch))
		for i := range batch {
			var err error
			if added[i], err = importOwner(w, &batch[i]); err != nil {
				return nil, err
			}
		}
		return added, nil
	})
}

func importOwner(w *writerConn, o *store.OwnerEntry) (added bool, err error) {
	const query = `INSERT INTO {p}owners (user_id, tier, enabled, created_at, updated_at, generation) VALUES (?, ?, ?, ?, ?, 1)
		ON CONFLICT (user_id) DO NOTHING RETURNING num`
	var num int64
	err = w.row(query, []any{o.UserID, optional(o.Tier), bit(o.Enabled), o.CreatedAt, o.UpdatedAt}, &num)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, failed("importing an owner", err)
	}
	for _, win := range o.Windows {
		if len(win.State) == 0 {
			return false, unavailable("importing an owner's windows: one has no state")
		}
	}
	return true, failed("importing an owner's windows", saveWindows(w, num, store.KindOwner, o.Windows))
}
