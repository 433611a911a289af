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
		r.credits, r.err = readCredits(l.conn, m.id)
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
	for id, r := range l.rows {
		if r.err == nil && r.credits.Version != r.stored {
			err := writeCredits(l.conn, id, r.credits, r.stored)
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

func readCredits(c *writerConn, id string) (key.Credits, error) {
	var row creditsRow
	err := c.row(`SELECT `+creditsColumns+` FROM {p}credits c WHERE c.key_id = ?`, []any{id}, row.dest()...)
	if errors.Is(err, sql.ErrNoRows) {
		return key.Credits{}, store.ErrNotFound
	}
	if err != nil {
		return key.Credits{}, failed("reading credits", err)
	}
	return row.credits(), nil
}

// errLostUpdate cannot happen while only one connection writes.
var errLostUpdate = errors.New("the row changed between reading and writing it")

// writeCredits stores c where the row still has the version that was read.
func writeCredits(conn *writerConn, id string, c key.Credits, version int64) error {
	const query = `UPDATE {p}credits SET remaining = ?, leased = ?, spent = ?, forfeited = ?, granted = ?, peak = ?,
		refill_amount = ?, refill_interval = ?, refill_from = ?, last_refill_at = ?, version = ? WHERE key_id = ? AND version = ?`
	n, err := conn.exec(query, append(creditsValues(c), id, version)...)
	if err == nil && n != 1 {
		err = errLostUpdate
	}
	return failed("writing credits", err)
}
