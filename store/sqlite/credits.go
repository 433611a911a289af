package sqlite

import (
	"context"
	"database/sql"
	"errors"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// movement is a key.Move on its way through the queue.
type movement struct {
	key.Move
	id  string
	now int64

	result store.Taken
}

// MoveCredits implements store.Store.
func (s *Store) MoveCredits(ctx context.Context, id string, m key.Move, now int64) (store.Taken, error) {
	if err := m.Check(); err != nil {
		return store.Taken{}, err
	}
	j := &job{credit: movement{Move: m, id: id, now: now}}
	if err := s.submit(ctx, j); err != nil {
		return store.Taken{}, err
	}
	return j.credit.result, nil
}

// forfeitLeases finds its rows by the index credits_leased.
const forfeitLeases = `UPDATE {p}credits SET forfeited = forfeited + leased, leased = 0, version = version + 1 WHERE leased > 0`

// ForfeitLeases implements store.Store.
func (s *Store) ForfeitLeases(ctx context.Context) error {
	return s.write(ctx, func(w *writerConn) error {
		_, err := w.exec(forfeitLeases)
		return failed("forfeiting leases", err)
	})
}

// ledger holds the credits that one batch touches. Each row is read once, moved
// in memory in the order of arrival, and written once. That is safe because
// the transaction holds the write lock from before the read until the commit;
// the guard on the version would catch it if that ever were not so.
type ledger struct {
	conn *writerConn
	rows map[string]*ledgerRow
}

type ledgerRow struct {
	num     int64 // of the key
	credits key.Credits
	stored  int64 // the version in the database
	err     error // why the row cannot be moved
	jobs    []*job
}

func newLedger(c *writerConn) *ledger { return &ledger{conn: c, rows: map[string]*ledgerRow{}} }

// move applies one movement. An error returned means that the transaction cannot go on.
func (l *ledger) move(j *job) error {
	m := &j.credit
	r, ok := l.rows[m.id]
	if !ok {
		r = &ledgerRow{}
		r.num, r.credits, r.err = readCredits(l.conn, m.id)
		if !harmless(r.err) {
			return r.err
		}
		r.stored = r.credits.Version
		l.rows[m.id] = r
	}
	if r.err != nil {
		j.err = r.err
		return nil
	}
	after, did, keep, err := r.credits.Move(m.Move, m.now)
	if err != nil {
		j.err = err
		return nil
	}
	r.jobs = append(r.jobs, j)
	if keep {
		after.Version++
		r.credits = after
	}
	m.result = store.Taken{Moved: did, Credits: after}
	return nil
}

// flush writes what was moved, and forgets it.
func (l *ledger) flush() error {
	for _, r := range l.rows {
		if r.err == nil && r.credits.Version != r.stored {
			err := writeCredits(l.conn, r.num, r.credits, r.stored)
			if !harmless(err) {
				return err
			}
			for _, j := range r.jobs {
				j.err = err
			}
		}
	}
	clear(l.rows)
	return nil
}

// readCredits reads the credits of a key. One that never had any has no row.
func readCredits(w *writerConn, id string) (num int64, c key.Credits, err error) {
	const query = `SELECT k.num, c.key, ` + creditsColumns + ` FROM {p}keys k LEFT JOIN {p}credits c ON c.key = k.num WHERE k.id = ?`
	var of sql.NullInt64
	var row creditsRow
	err = w.row(query, []any{id}, append([]any{&num, &of}, row.dest()...)...)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return 0, c, store.ErrNotFound
	case err != nil:
		return 0, c, failed("reading credits", err)
	case !of.Valid:
		return num, key.Credits{Version: 1}, nil
	}
	return num, row.credits(), nil
}

func insertCredits(w *writerConn, num int64, c key.Credits) error {
	const query = `INSERT INTO {p}credits
		(remaining, leased, spent, forfeited, granted, peak, refill_amount, refill_interval, refill_from, last_refill_at, version, key)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`
	_, err := w.exec(query, append(creditsValues(c), num)...)
	return failed("creating a key's credits", err)
}

// errLostUpdate cannot happen while only one connection writes.
var errLostUpdate = errors.New("the row changed between reading and writing it")

// writeCredits stores c where the row still has the version that was read. The first
// credits of a key make the row.
func writeCredits(w *writerConn, num int64, c key.Credits, version int64) error {
	const query = `UPDATE {p}credits SET remaining = ?, leased = ?, spent = ?, forfeited = ?, granted = ?, peak = ?,
		refill_amount = ?, refill_interval = ?, refill_from = ?, last_refill_at = ?, version = ? WHERE key = ? AND version = ?`
	n, err := w.exec(query, append(creditsValues(c), num, version)...)
	switch {
	case err == nil && n == 0 && version == 1:
		if err = insertCredits(w, num, c); !errors.Is(err, store.ErrExists) {
			return err
		}
		err = errLostUpdate
	case err == nil && n != 1:
		err = errLostUpdate
	}
	return failed("writing credits", err)
}
