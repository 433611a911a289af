package sqlite

import (
	"context"
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
	err = addKey(w, e.Key.Clone(), e.Credits, e.Counters)
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
