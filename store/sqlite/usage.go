package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"slices"

	"github.com/caddy-apikey/caddy-apikey/store"
)

const (
	noteBatch = `INSERT INTO {p}usage_writers (writer, number) VALUES (?, ?)
		ON CONFLICT (writer) DO UPDATE SET number = excluded.number`

	usageDays = `SELECT day, what, n FROM {p}usage WHERE subject = ? AND kind = ? AND day BETWEEN ? AND ? ORDER BY day`

	// keyNumbers are those of all keys that have or had an ID: one may be made again.
	keyNumbers = `SELECT num FROM {p}keys WHERE id = ?1 UNION ALL SELECT num FROM {p}past_keys WHERE id = ?1`
	// keptNumbers are keyNumbers without those of deleted owners.
	keptNumbers = `SELECT num FROM {p}keys k WHERE k.id = ?1 AND ` + ownerKept + `
		UNION ALL SELECT num FROM {p}past_keys k WHERE k.id = ?1 AND ` + ownerKept

	usageHours = `SELECT hour, outcome, tier, n FROM {p}usage_hours WHERE hour BETWEEN ? AND ?`
	topOwners  = `SELECT t.owner FROM {p}usage_top_owners t WHERE t.day = ?`
	askedOf    = `SELECT permission FROM {p}asked_permissions WHERE key = ? ORDER BY permission`
)

// SaveUsage implements store.Store. The batch goes into the journal.
func (s *Store) SaveUsage(ctx context.Context, b store.UsageBatch) error {
	s.makeRoom(ctx)
	b.Used, b.Hours, b.Asked = slices.Clone(b.Used), slices.Clone(b.Hours), slices.Clone(b.Asked) // the caller may go on using its own
	var saved *journalBatch
	var num int64
	return s.submit(ctx, &job{
		run: func(w *writerConn) (err error) {
			num, saved, err = appendUsage(w, &b)
			return failed("saving usage", err)
		},
		ended: func(err error) {
			if err == nil && saved != nil {
				s.usage.next.add(num, saved)
				s.unfolded.Store(s.usage.size())
			}
		},
	})
}

// appendUsage writes a batch into the journal, unless it is there already.
func appendUsage(w *writerConn, b *store.UsageBatch) (num int64, saved *journalBatch, err error) {
	var last int64
	err = w.row(`SELECT number FROM {p}usage_writers WHERE writer = ?`, []any{b.Writer}, &last)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		// One process has the database at a time: the others will not come back.
		_, err = w.exec(`DELETE FROM {p}usage_writers`)
	case err == nil && b.Number <= last:
		return 0, nil, nil
	}
	if err != nil {
		return 0, nil, err
	}
	if _, err := w.exec(noteBatch, b.Writer, b.Number); err != nil {
		return 0, nil, err
	}
	if saved, err = toNumbers(w, b); err != nil {
		return 0, nil, err
	}
	err = w.row(`INSERT INTO {p}usage_journal (batch) VALUES (?) RETURNING num`, []any{saved.encode()}, &num)
	return num, saved, err
}

// toNumbers replaces the IDs in a batch by numbers, and leaves out what is gone.
func toNumbers(w *writerConn, b *store.UsageBatch) (*journalBatch, error) {
	saved := &journalBatch{hours: b.Hours}
	for _, u := range b.Used {
		owner, err := numberOf(w, store.OfOwner(u.UserID))
		if err != nil {
			return nil, err
		}
		if owner == 0 {
			continue
		}
		var num int64
		if err := w.row(numbersOfKey(w)+` ORDER BY num DESC LIMIT 1`, []any{u.KeyID}, &num); err != nil && !errors.Is(err, sql.ErrNoRows) {
			return nil, err
		}
		saved.used = append(saved.used, journalUse{num, owner, u.Day, u.Uses})
	}
	for _, a := range b.Asked {
		num, err := numberOf(w, store.OfKey(a.KeyID))
		if err != nil {
			return nil, err
		}
		if num != 0 && a.Permission != "" {
			saved.asked = append(saved.asked, journalAsked{num, a.Permission})
		}
	}
	return saved, nil
}

// Usage implements store.Store. It runs where the journal is kept, so that it finds
// each increment either in the tables or in memory.
func (s *Store) Usage(ctx context.Context, of store.Subject, first, last int32) ([]store.DayUses, error) {
	return writeFor(ctx, s, func(w *writerConn) ([]store.DayUses, error) {
		nums, err := numbersOf(w, of)
		if err != nil {
			return nil, failed("reading usage", err)
		}
		var days []store.DayUses
		for _, num := range nums {
			some, err := s.usage.days(w, subject{num, of.Kind}, first, last)
			if err != nil {
				return nil, failed("reading usage", err)
			}
			days = addDays(days, some...)
		}
		return days, nil
	})
}

// numbersOfKey is the query for the numbers of an ID.
func numbersOfKey(w *writerConn) string {
	if w.clearing {
		return keptNumbers
	}
	return keyNumbers
}

func numbersOf(w *writerConn, of store.Subject) (nums []int64, err error) {
	if of.Kind == store.KindOwner {
		num, err := numberOf(w, of)
		return []int64{num}, err
	}
	return w.numbers(numbersOfKey(w), of.ID)
}

// KeyCounts implements store.Statistics.
func (s *Store) KeyCounts(ctx context.Context) (all []store.KeyCount, err error) {
	err = s.readRows(ctx, "reading the numbers of keys", keyCounts, nil, func(rows *sql.Rows) error {
		var c store.KeyCount
		err := rows.Scan(&c.ConfigID, &c.Enabled, &c.N)
		if c.N > 0 {
			all = append(all, c)
		}
		return err
	})
	return all, err
}

// Hours implements store.Statistics.
func (s *Store) Hours(ctx context.Context, first, last int64) ([]store.HourUses, error) {
	return writeFor(ctx, s, func(w *writerConn) ([]store.HourUses, error) {
		all, err := s.usage.hours(w, first, last)
		return all, failed("reading requests by hour", err)
	})
}

// TopOwners implements store.Statistics.
func (s *Store) TopOwners(ctx context.Context, day int32) ([]store.OwnerUses, error) {
	return writeFor(ctx, s, func(w *writerConn) ([]store.OwnerUses, error) {
		all, err := s.usage.topOwners(w, day)
		return all, failed("reading the busiest owners", err)
	})
}

// AskedPermissions implements store.Statistics.
func (s *Store) AskedPermissions(ctx context.Context, id string) ([]string, error) {
	return writeFor(ctx, s, func(w *writerConn) ([]string, error) {
		all, err := s.usage.askedPermissions(w, id)
		return all, failed("reading permissions that were asked for", err)
	})
}

var _ store.Statistics = (*Store)(nil)
