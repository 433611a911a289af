package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"slices"

	"github.com/caddy-apikey/caddy-apikey/store"
)

const (
	// windowsOf and its kin read the windows of one subject, sorted by unit.
	windowsOfKey   = `SELECT w.unit, w.state FROM {p}keys s JOIN {p}windows w ON w.subject = s.num AND w.kind = 'key' WHERE s.id = ? AND s.owner NOT IN ` + deletedOwners + ` ORDER BY w.unit`
	windowsOfOwner = `SELECT w.unit, w.state FROM {p}owners s JOIN {p}windows w ON w.subject = s.num AND w.kind = 'owner' WHERE s.user_id = ? ORDER BY w.unit`

	saveWindow = `INSERT INTO {p}windows (subject, kind, unit, state) VALUES (?, ?, ?, ?)
		ON CONFLICT (subject, kind, unit) DO UPDATE SET state = excluded.state`
)

// SaveCounters implements store.Store. A subject that was deleted meanwhile stays
// deleted: it has no number any more.
func (s *Store) SaveCounters(ctx context.Context, batch []store.Counters) error {
	if len(batch) == 0 {
		return nil
	}
	batch = slices.Clone(batch) // the caller may go on using its own
	return s.write(ctx, func(w *writerConn) error {
		for i := range batch {
			if err := saveCounters(w, &batch[i]); err != nil {
				return failed("saving counters", err)
			}
		}
		return nil
	})
}

func saveCounters(w *writerConn, c *store.Counters) error {
	num, err := numberOf(w, c.Subject)
	if err != nil || num == 0 {
		return err
	}
	if err := saveWindows(w, num, c.Kind, c.Windows); err != nil || c.Kind != store.KindKey {
		return err
	}
	if err := saveLastUse(w, num, c.LastRequest); err != nil {
		return err
	}
	for i := range c.Previous {
		const query = `UPDATE {p}previous_hashes SET last_request = ? WHERE hash = ? AND key = ?`
		p := &c.Previous[i]
		if _, err := w.exec(query, nonZero(p.LastRequest), p.Hash[:], num); err != nil {
			return err
		}
	}
	return nil
}

// numberOf returns the number of a subject, or 0 where there is none.
func numberOf(w *writerConn, s store.Subject) (num int64, err error) {
	query := `SELECT num FROM {p}keys WHERE id = ?`
	switch {
	case s.Kind == store.KindOwner:
		query = `SELECT num FROM {p}owners WHERE user_id = ?`
	case w.clearing:
		query = `SELECT num FROM {p}keys k WHERE k.id = ? AND ` + ownerKept
	}
	err = w.row(query, []any{s.ID}, &num)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return num, err
}

func saveWindows(w *writerConn, num int64, kind store.Kind, windows []store.Window) (err error) {
	for i := range windows {
		if state := windows[i].State; len(state) > 0 {
			_, err = w.exec(saveWindow, num, string(kind), windows[i].Unit, state)
		} else {
			_, err = w.exec(`DELETE FROM {p}windows WHERE subject = ? AND kind = ? AND unit = ?`, num, string(kind), windows[i].Unit)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func saveLastUse(w *writerConn, num, at int64) error {
	query, args := `DELETE FROM {p}last_uses WHERE key = ?`, []any{num}
	if at != 0 {
		query, args = `INSERT INTO {p}last_uses (key, at) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET at = excluded.at`, []any{num, at}
	}
	_, err := w.exec(query, args...)
	return err
}

// Windows implements store.Store.
func (s *Store) Windows(ctx context.Context, of store.Subject) (all []store.Window, err error) {
	query := windowsOfKey
	if of.Kind == store.KindOwner {
		query = windowsOfOwner
	}
	err = s.readRows(ctx, "reading windows", query, []any{of.ID}, func(rows *sql.Rows) error {
		var w store.Window
		if err := rows.Scan(&w.Unit, &w.State); err != nil {
			return err
		}
		all = append(all, w)
		return nil
	})
	return all, err
}
