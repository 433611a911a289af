package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"slices"

	"github.com/caddy-apikey/caddy-apikey/store"
)

const (
	// addUsage leaves out an owner that is gone, which would fail the whole batch.
	addUsage = `INSERT INTO {p}usage (key_id, owner, day, allowed, limited, denied)
		SELECT ?1, num, ?3, ?4, ?5, ?6 FROM {p}owners WHERE user_id = ?2
		ON CONFLICT (owner, day, key_id) DO UPDATE SET
			allowed = allowed + excluded.allowed, limited = limited + excluded.limited, denied = denied + excluded.denied`

	// takeUsage takes back what turned out to be something else. SQLite holds a
	// new row against its CHECKs before it looks for a conflict, so addUsage could not.
	takeUsage = `UPDATE {p}usage SET allowed = max(allowed - ?4, 0), limited = max(limited - ?5, 0), denied = max(denied - ?6, 0)
		WHERE key_id = ?1 AND owner = (SELECT num FROM {p}owners WHERE user_id = ?2) AND day = ?3`

	noteBatch = `INSERT INTO {p}usage_writers (writer, number) VALUES (?, ?)
		ON CONFLICT (writer) DO UPDATE SET number = excluded.number`

	usageOfKey = `SELECT day, sum(allowed), sum(limited), sum(denied) FROM {p}usage
		WHERE key_id = ? AND day BETWEEN ? AND ? GROUP BY day ORDER BY day`
	usageOfOwner = `SELECT day, sum(allowed), sum(limited), sum(denied) FROM {p}usage
		WHERE owner = (SELECT num FROM {p}owners WHERE user_id = ?) AND day BETWEEN ? AND ? GROUP BY day ORDER BY day`
)

// SaveUsage implements store.Store.
func (s *Store) SaveUsage(ctx context.Context, b store.UsageBatch) error {
	b.Used = slices.Clone(b.Used) // the caller may go on using its own
	return s.write(ctx, func(w *writerConn) error {
		var last int64
		err := w.row(`SELECT number FROM {p}usage_writers WHERE writer = ?`, []any{b.Writer}, &last)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			// One process has the database at a time: the others will not come back.
			_, err = w.exec(`DELETE FROM {p}usage_writers`)
		case err == nil && b.Number <= last:
			return nil
		}
		if err != nil {
			return failed("saving usage", err)
		}
		return failed("saving usage", writeUsage(w, b))
	})
}

func writeUsage(w *writerConn, b store.UsageBatch) error {
	for _, u := range b.Used {
		if _, err := w.exec(addUsage, u.KeyID, u.UserID, u.Day, max(u.Allowed, 0), max(u.Limited, 0), max(u.Denied, 0)); err != nil {
			return err
		}
		if u.Allowed >= 0 && u.Limited >= 0 && u.Denied >= 0 {
			continue
		}
		if _, err := w.exec(takeUsage, u.KeyID, u.UserID, u.Day, max(-u.Allowed, 0), max(-u.Limited, 0), max(-u.Denied, 0)); err != nil {
			return err
		}
	}
	_, err := w.exec(noteBatch, b.Writer, b.Number)
	return err
}

// UsageOfKey implements store.Store.
func (s *Store) UsageOfKey(ctx context.Context, id string, first, last int32) ([]store.DayUses, error) {
	return s.usage(ctx, usageOfKey, id, first, last)
}

// UsageOfOwner implements store.Store.
func (s *Store) UsageOfOwner(ctx context.Context, userID string, first, last int32) ([]store.DayUses, error) {
	return s.usage(ctx, usageOfOwner, userID, first, last)
}

func (s *Store) usage(ctx context.Context, query, of string, first, last int32) (days []store.DayUses, err error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.leave()
	defer func() { err = failed("reading usage", err) }()
	stmt, err := s.readers.stmts.get(query)
	if err != nil {
		return nil, err
	}
	rows, err := stmt.QueryContext(ctx, of, first, last)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var d store.DayUses
		if err := rows.Scan(&d.Day, &d.Allowed, &d.Limited, &d.Denied); err != nil {
			return nil, err
		}
		days = append(days, d)
	}
	return days, rows.Err()
}
