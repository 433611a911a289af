package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// movement is a key.Move on its way through the queue.
type movement struct {
	key.Move
	account store.Subject
	now     int64

	result store.Taken
}

// MoveCredits implements store.Store.
func (s *Store) MoveCredits(ctx context.Context, account store.Subject, m key.Move, now int64) (store.Taken, error) {
	if err := m.Check(); err != nil {
		return store.Taken{}, err
	}
	j := &job{credit: movement{Move: m, account: account, now: now}}
	if err := s.submit(ctx, j); err != nil {
		return store.Taken{}, err
	}
	return j.credit.result, nil
}

const (
	// leasesOf finds the accounts of a holder by an index.
	leasesOf = `SELECT subject, kind, sum(amount) FROM {p}leases WHERE holder = ? GROUP BY subject, kind`

	keyID   = `SELECT k.id FROM {p}keys k WHERE k.num = ? AND ` + ownerKept
	ownerID = `SELECT user_id FROM {p}owners WHERE num = ?`

	accountLeases = `SELECT holder, epoch, until_ms, amount FROM {p}leases WHERE subject = ? AND kind = ? ORDER BY holder, epoch`
)

// ForfeitLeases implements store.Store.
func (s *Store) ForfeitLeases(ctx context.Context, holder string, note store.ForfeitNote) (int64, error) {
	return writeFor(ctx, s, func(w *writerConn) (int64, error) {
		lost, sum, err := forfeitLeases(w, holder)
		if err != nil || len(lost) == 0 || note == nil {
			return sum, failed("forfeiting leases", err)
		}
		entries, err := note(lost)
		if err != nil {
			return 0, fmt.Errorf("noting forfeited leases in the audit log: %w", err)
		}
		return sum, w.appendAudit(entries)
	})
}

// forfeitLeases returns what was lost, and the sum of that. Keys of deleted owners are only
// in the sum.
func forfeitLeases(w *writerConn, holder string) (lost []store.Forfeit, sum int64, err error) {
	leased := map[subject]int64{}
	err = w.rows(leasesOf, []any{holder}, func(rows *sql.Rows) error {
		var of subject
		var amount int64
		err := rows.Scan(&of.num, &of.kind, &amount)
		leased[of] = amount
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	for of, amount := range leased {
		c, err := readCredits(w, of)
		if err != nil {
			return nil, 0, err
		}
		after := c.ForfeitLeased(amount)
		after.Version++
		if err := writeCredits(w, of, after, c.Version); err != nil {
			return nil, 0, err
		}
		name := map[store.Kind]string{store.KindKey: keyID, store.KindOwner: ownerID}[of.kind]
		var id nullText
		if err := w.row(name, []any{of.num}, &id); err != nil && !errors.Is(err, sql.ErrNoRows) {
			return nil, 0, err
		}
		if id.Valid {
			lost = append(lost, store.Forfeit{Subject: store.Subject{Kind: of.kind, ID: id.String}, Amount: amount})
		}
		sum += amount
	}
	_, err = w.exec(`DELETE FROM {p}leases WHERE holder = ?`, holder)
	return lost, sum, err
}

// Account implements store.Store.
func (s *Store) Account(ctx context.Context, account store.Subject) (store.Account, error) {
	return writeFor(ctx, s, func(w *writerConn) (store.Account, error) {
		of, err := findAccount(w, account)
		if err != nil {
			return store.Account{}, err
		}
		return readAccount(w, of)
	})
}

// UpdateAccount implements store.Store.
func (s *Store) UpdateAccount(ctx context.Context, account store.Subject, change func(*key.Credits) error) (store.Account, error) {
	return writeFor(ctx, s, func(w *writerConn) (store.Account, error) {
		of, err := findAccount(w, account)
		if err != nil {
			return store.Account{}, err
		}
		before, err := readCredits(w, of)
		if err != nil {
			return store.Account{}, err
		}
		after := before
		if err := change(&after); err != nil {
			return store.Account{}, err
		}
		after.Version = before.Version
		if after.Leased != before.Leased {
			return store.Account{}, errors.New("a change of an account must leave what is leased")
		}
		if after != before {
			after.Version++
			if err := writeCredits(w, of, after, before.Version); err != nil {
				return store.Account{}, err
			}
		}
		return readAccount(w, of)
	})
}

func readAccount(w *writerConn, of subject) (a store.Account, err error) {
	if a.Credits, err = readCredits(w, of); err != nil {
		return a, err
	}
	err = w.rows(accountLeases, []any{of.num, string(of.kind)}, func(rows *sql.Rows) error {
		var l store.Lease
		err := rows.Scan(&l.Name, &l.Epoch, &l.Until, &l.Amount)
		a.Leases = append(a.Leases, l)
		return err
	})
	return a, failed("reading leases", err)
}

// findAccount returns the number of a subject.
func findAccount(w *writerConn, account store.Subject) (subject, error) {
	num, err := numberOf(w, account)
	if err != nil {
		return subject{}, failed("reading credits", err)
	}
	if num == 0 {
		return subject{}, store.ErrNotFound
	}
	return subject{num, account.Kind}, nil
}

// ledger holds the accounts that one batch touches. Each row is read once, moved
// in memory in the order of arrival, and written once. That is safe because
// the transaction holds the write lock from before the read until the commit;
// the guard on the version would catch it if that ever were not so.
type ledger struct {
	conn   *writerConn
	rows   map[store.Subject]*ledgerRow
	debits map[store.Subject]*debits // of accounts without a row here
}

type ledgerRow struct {
	subject subject
	credits key.Credits
	stored  int64 // the version in the database
	leases  map[leaseID]*ledgerLease
	err     error // why the row cannot be moved
	jobs    []*job
}

// leaseID tells the leases of an account apart.
type leaseID struct {
	holder string
	epoch  int64
}

type ledgerLease struct {
	amount, until int64
	stored        bool // there is a row
	changed       bool
}

func newLedger(c *writerConn) *ledger {
	return &ledger{conn: c, rows: map[store.Subject]*ledgerRow{}, debits: map[store.Subject]*debits{}}
}

// row returns the row of an account.
func (l *ledger) row(account store.Subject) (*ledgerRow, error) {
	r, ok := l.rows[account]
	if ok {
		return r, nil
	}
	r = &ledgerRow{}
	if r.subject, r.err = findAccount(l.conn, account); r.err == nil {
		r.credits, r.err = readCredits(l.conn, r.subject)
	}
	if !harmless(r.err) {
		return nil, r.err
	}
	r.stored = r.credits.Version
	l.rows[account] = r
	return r, nil
}

// lease returns what a holder has of the account.
func (l *ledger) lease(r *ledgerRow, h *key.Holder) (*ledgerLease, error) {
	id := leaseID{h.Name, h.Epoch}
	if le := r.leases[id]; le != nil {
		return le, nil
	}
	le := &ledgerLease{}
	const query = `SELECT amount, until_ms FROM {p}leases WHERE subject = ? AND kind = ? AND holder = ? AND epoch = ?`
	err := l.conn.row(query, []any{r.subject.num, string(r.subject.kind), h.Name, h.Epoch}, &le.amount, &le.until)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, failed("reading a lease", err)
	}
	le.stored = err == nil
	if r.leases == nil {
		r.leases = map[leaseID]*ledgerLease{}
	}
	r.leases[id] = le
	return le, nil
}

// move applies one movement, or leaves it for later. An error returned means that the
// transaction cannot go on.
func (l *ledger) move(j *job) error {
	account := j.credit.account
	d := l.debits[account]
	if l.rows[account] == nil && j.credit.takesOnly() {
		if d == nil {
			d = &debits{}
			l.debits[account] = d
		}
		d.add(j)
		return nil
	}
	if d != nil { // they came first
		if err := l.debit(account, d); err != nil {
			return err
		}
	}
	return l.moveOne(j)
}

// debit makes the debits that an account waits for.
func (l *ledger) debit(account store.Subject, d *debits) error {
	delete(l.debits, account)
	if done, err := d.take(l.conn, account); done || err != nil {
		return err
	}
	for _, j := range d.jobs {
		if err := l.moveOne(j); err != nil {
			return err
		}
	}
	return nil
}

func (l *ledger) moveOne(j *job) error {
	m := &j.credit
	r, err := l.row(m.account)
	if err != nil {
		return err
	}
	if r.err != nil {
		j.err = r.err
		return nil //nolint:nilerr // the error of one job, not of all
	}
	var le *ledgerLease
	if m.Used != 0 || m.Returned != 0 || m.Lease != 0 {
		if le, err = l.lease(r, &m.Holder); err != nil {
			return err
		}
		if m.Used+m.Returned > le.amount {
			j.err = key.ErrNotLeased
			return nil
		}
	}
	after, did, keep, err := r.credits.Move(m.Move, m.now)
	if err != nil {
		j.err = err
		return nil //nolint:nilerr // the error of one job, not of all
	}
	r.jobs = append(r.jobs, j)
	if keep {
		after.Version++
		r.credits = after
		if le != nil {
			le.amount += did.Leased - m.Used - m.Returned
			le.until, le.changed = m.Holder.Until, true
		}
	}
	m.result = store.Taken{Moved: did, Credits: after}
	return nil
}

// flush writes what was moved, and forgets it.
func (l *ledger) flush() error {
	for account, d := range l.debits {
		if err := l.debit(account, d); err != nil {
			return err
		}
	}
	for account, r := range l.rows {
		if r.err == nil && r.credits.Version != r.stored {
			err := l.write(account, r)
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

// write writes an account, and reports how much of it is used.
func (l *ledger) write(account store.Subject, r *ledgerRow) error {
	spent, err := l.conn.report(account, &r.credits)
	if err != nil {
		return err
	}
	r.jobs[len(r.jobs)-1].credit.result.Spent = spent
	return r.write(l.conn)
}

func (r *ledgerRow) write(w *writerConn) error {
	if err := writeCredits(w, r.subject, r.credits, r.stored); err != nil {
		return err
	}
	for id, le := range r.leases {
		args := []any{r.subject.num, string(r.subject.kind), id.holder, id.epoch}
		var err error
		switch {
		case !le.changed:
		case le.amount == 0 && le.stored:
			_, err = w.exec(`DELETE FROM {p}leases WHERE subject = ? AND kind = ? AND holder = ? AND epoch = ?`, args...)
		case le.amount > 0:
			const query = `INSERT INTO {p}leases (subject, kind, holder, epoch, amount, until_ms) VALUES (?, ?, ?, ?, ?, ?)
				ON CONFLICT (subject, kind, holder, epoch) DO UPDATE SET amount = excluded.amount, until_ms = excluded.until_ms`
			_, err = w.exec(query, append(args, le.amount, le.until)...)
		}
		if err != nil {
			return failed("writing a lease", err)
		}
	}
	return nil
}

// endLeases deletes the leases of an account where a change has settled all of them.
func endLeases(w *writerConn, of subject, before, after key.Credits) error {
	if before.Leased == after.Leased {
		return nil
	}
	if after.Leased != 0 {
		return errors.New("a change must settle all that is leased, or nothing")
	}
	_, err := w.exec(`DELETE FROM {p}leases WHERE subject = ? AND kind = ?`, of.num, string(of.kind))
	return failed("deleting leases", err)
}

// readCredits reads the credits of an account. One that never had any has no row.
func readCredits(w *writerConn, of subject) (key.Credits, error) {
	const query = `SELECT ` + creditsColumns + ` FROM {p}accounts c WHERE c.subject = ? AND c.kind = ?`
	var row creditsRow
	err := w.row(query, []any{of.num, string(of.kind)}, row.dest()...)
	if errors.Is(err, sql.ErrNoRows) {
		return key.Credits{Version: 1}, nil
	}
	if err != nil {
		return key.Credits{}, failed("reading credits", err)
	}
	return row.credits()
}

func insertCredits(w *writerConn, of subject, c key.Credits) error {
	const query = `INSERT INTO {p}accounts
		(unit, remaining, leased, held, debt, spent, forfeited, expired, granted, peak, reported, refill_amount, refill_interval, refill_from, last_refill_at, version, subject, kind)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`
	_, err := w.exec(query, append(creditsValues(c), of.num, string(of.kind))...)
	return failed("creating an account", err)
}

// errLostUpdate cannot happen while only one connection writes.
var errLostUpdate = errors.New("the row changed between reading and writing it")

// writeCredits stores c where the row still has the version that was read. The first
// credits of an account make the row.
func writeCredits(w *writerConn, of subject, c key.Credits, version int64) error {
	const query = `UPDATE {p}accounts SET unit = ?, remaining = ?, leased = ?, held = ?, debt = ?, spent = ?, forfeited = ?, expired = ?, granted = ?, peak = ?, reported = ?,
		refill_amount = ?, refill_interval = ?, refill_from = ?, last_refill_at = ?, version = ? WHERE subject = ? AND kind = ? AND version = ?`
	n, err := w.exec(query, append(creditsValues(c), of.num, string(of.kind), version)...)
	switch {
	case err == nil && n == 0 && version == 1:
		if err = insertCredits(w, of, c); !errors.Is(err, store.ErrExists) {
			return err
		}
		err = errLostUpdate
	case err == nil && n != 1:
		err = errLostUpdate
	}
	return failed("writing credits", err)
}
