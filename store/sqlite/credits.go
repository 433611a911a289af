package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// movement takes credits from a key, or gives them back.
type movement struct {
	id     string
	n, now int64
	give   bool

	result store.Taken
}

// TakeCredits implements store.Store.
func (s *Store) TakeCredits(ctx context.Context, id string, n, now int64) (store.Taken, error) {
	return s.move(ctx, movement{id: id, n: n, now: now})
}

// GiveCredits implements store.Store.
func (s *Store) GiveCredits(ctx context.Context, id string, n, now int64) (key.Credits, error) {
	t, err := s.move(ctx, movement{id: id, n: n, now: now, give: true})
	return t.Credits, err
}

func (s *Store) move(ctx context.Context, m movement) (store.Taken, error) {
	if m.n < 0 || m.n > key.MaxCount {
		// A negative amount would turn taking into giving.
		return store.Taken{}, fmt.Errorf("credits: %d is not an amount from 0 to 2^53-1", m.n)
	}
	j := &job{credit: m}
	if err := s.submit(ctx, j); err != nil {
		return store.Taken{}, err
	}
	return j.credit.result, nil
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
	r.jobs = append(r.jobs, j)
	next, ok := m.apply(r.credits)
	if ok && next != r.credits {
		next.Version++
		r.credits = next
	}
	m.result = store.Taken{Credits: next, OK: ok}
	return nil
}

func (m *movement) apply(c key.Credits) (key.Credits, bool) {
	switch {
	case !m.give:
		return c.Take(m.n, m.now)
	case !c.Limited:
		return c, true
	}
	return c.Add(m.n, m.now)
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
	const query = `UPDATE {p}credits SET remaining = ?, peak = ?, refill_amount = ?, refill_interval = ?,
		refill_from = ?, last_refill_at = ?, version = ? WHERE key_id = ? AND version = ?`
	n, err := conn.exec(query, append(creditsValues(c), id, version)...)
	if err == nil && n != 1 {
		err = errLostUpdate
	}
	return failed("writing credits", err)
}
