package sqlite

import (
	"database/sql"
	"errors"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// Most movements take credits and do nothing else. Those of a batch that take from the
// same account are summed, and one statement takes the sum where it is there and no
// refill is due, without reading the account before. Otherwise they are made one by one.

// debits are those of a batch that take from one account, in the order of arrival.
type debits struct {
	jobs []*job
	sum  int64 // cannot overflow: a batch is small, and so is each (see key.Move.Check)
	now  int64 // the latest
}

// takesOnly reports whether a movement is a debit.
func (m *movement) takesOnly() bool {
	return m.Take > 0 && m.Move == key.Move{Take: m.Take, Holder: m.Holder}
}

func (d *debits) add(j *job) {
	d.jobs = append(d.jobs, j)
	d.sum += j.credit.Take
	if len(d.jobs) == 1 || j.credit.now > d.now {
		d.now = j.credit.now
	}
}

const (
	takeFrom = `UPDATE {p}accounts AS c SET remaining = c.remaining - ?1, spent = c.spent + ?1, version = c.version + ?2
		WHERE c.kind = `
	takeWhere = ` AND c.remaining >= ?1 AND c.refill_calendar IS NULL
		AND (c.refill_amount IS NULL OR ?4 - max(coalesce(c.last_refill_at, 0), coalesce(c.refill_from, 0)) < c.refill_interval)
		RETURNING unit, remaining, leased, held, debt, spent, forfeited, expired, granted, peak, reported,
			refill_amount, refill_interval, refill_from, last_refill_at, version`

	takeFromKey   = takeFrom + `'key' AND c.subject = (SELECT num FROM {p}keys WHERE id = ?3)` + takeWhere
	takeFromOwner = takeFrom + `'owner' AND c.subject = (SELECT num FROM {p}owners WHERE user_id = ?3)` + takeWhere
)

// take takes the sum. It reports false, and nothing is changed, where the debits
// have to be made one by one.
func (d *debits) take(w *writerConn, account store.Subject) (done bool, err error) {
	query := takeFromKey
	switch {
	case account.Kind == store.KindOwner:
		query = takeFromOwner
	case w.clearing:
		return false, nil
	}
	var row creditsRow
	err = w.row(query, []any{d.sum, len(d.jobs), account.ID, d.now}, row.dest()...)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, failed("taking credits", err)
	}
	after, err := row.credits()
	if err != nil {
		return false, err
	}
	c := after
	c.Remaining += d.sum
	c.Spent -= d.sum
	c.Version -= int64(len(d.jobs))
	for _, j := range d.jobs {
		m := &j.credit
		moved, did, keep, err := c.Move(m.Move, m.now)
		if err != nil || !keep {
			return false, errLostUpdate // the statement and key.Credits do not agree
		}
		moved.Version++
		c = moved
		m.result = store.Taken{Moved: did, Credits: c}
	}
	if c != after {
		return false, errLostUpdate
	}
	return true, d.report(w, account, after)
}

// report reports how much of the account is used, and stores that it did.
func (d *debits) report(w *writerConn, account store.Subject, after key.Credits) error {
	spent, err := w.report(account, &after)
	if err != nil || spent == nil {
		return err
	}
	d.jobs[len(d.jobs)-1].credit.result.Spent = spent
	of, err := findAccount(w, account)
	if err != nil {
		return err
	}
	_, err = w.exec(`UPDATE {p}accounts SET reported = ? WHERE subject = ? AND kind = ?`, after.Reported, of.num, string(of.kind))
	return failed("writing credits", err)
}
