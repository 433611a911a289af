package sqlite

import (
	"context"
	"errors"
	"slices"

	"github.com/caddy-apikey/caddy-apikey/store"
)

// Import implements store.Store.
func (s *Store) Import(ctx context.Context, batch []store.Entry, note store.Note) ([]store.Change, error) {
	batch = slices.Clone(batch) // the caller may be gone before this runs
	return changeFor(ctx, s, note, func(w *writerConn) ([]store.Change, error) {
		changes := make([]store.Change, len(batch))
		for i := range batch {
			e := batch[i]
			e.Key = e.Key.Clone()
			added, err := importKey(w, &e)
			if err != nil {
				return nil, err
			}
			if added {
				changes[i] = w.changedKey(e)
			}
		}
		return changes, nil
	})
}

// importKey adds a key inside a savepoint of its own, so that one that exists
// takes nothing with it but itself.
func importKey(w *writerConn, e *store.Entry) (added bool, err error) {
	if _, err := w.exec("SAVEPOINT entry"); err != nil {
		return false, failed("savepoint", err)
	}
	err = addKey(w, e)
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
func (s *Store) ImportOwners(ctx context.Context, batch []store.OwnerEntry, note store.Note) ([]store.Change, error) {
	batch = slices.Clone(batch) // the caller may be gone before this runs
	return changeFor(ctx, s, note, func(w *writerConn) ([]store.Change, error) {
		changes := make([]store.Change, len(batch))
		for i := range batch {
			added, err := importOwner(w, &batch[i])
			if err != nil {
				return nil, err
			}
			if added {
				changes[i] = w.changedOwner(store.OwnerInfo{Owner: batch[i].Owner})
			}
		}
		return changes, nil
	})
}

func importOwner(w *writerConn, o *store.OwnerEntry) (added bool, err error) {
	num, err := numberOf(w, store.OfOwner(o.UserID))
	if err != nil || num != 0 {
		return false, failed("importing an owner", err)
	}
	if o.Revision, err = w.revisions(1); err != nil {
		return false, err
	}
	const query = `INSERT INTO {p}owners (user_id, tier, enabled, created_at, updated_at, revision) VALUES (?, ?, ?, ?, ?, ?) RETURNING num`
	err = w.row(query, []any{o.UserID, optional(o.Tier), bit(o.Enabled), o.CreatedAt, o.UpdatedAt, o.Revision}, &num)
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
