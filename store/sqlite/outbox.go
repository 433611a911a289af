package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

const (
	deliveryColumns = `num, id, event, url, body, state, attempts, next_attempt, last_status, created_at`

	dueDeliveries = `SELECT ` + deliveryColumns + ` FROM {p}outbox WHERE url = ? AND state = 'pending' AND next_attempt <= ? ORDER BY next_attempt, num LIMIT ?`
	nextDelivery  = `SELECT coalesce(min(next_attempt), 0) FROM {p}outbox WHERE url = ? AND state = 'pending'`

	anyOld     = `SELECT EXISTS (SELECT 1 FROM {p}outbox WHERE state = 'pending' AND created_at < ?) OR EXISTS (SELECT 1 FROM {p}outbox WHERE state = 'dead' AND created_at < ?)`
	oldPending = `SELECT num FROM {p}outbox WHERE state = 'pending' AND created_at < ? ORDER BY created_at LIMIT ?`
	oldDead    = `SELECT num FROM {p}outbox WHERE state = 'dead' AND created_at < ? ORDER BY created_at LIMIT ?`
)

// appendOutbox adds deliveries.
func (c *writerConn) appendOutbox(list []store.Delivery) error {
	const query = `INSERT INTO {p}outbox (id, event, url, body, state, attempts, next_attempt, last_status, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`
	for i := range list {
		d := &list[i]
		_, err := c.exec(query, d.ID, d.Event, d.URL, string(d.Body), string(d.State), d.Attempts, d.NextAttempt, nonZero(int64(d.LastStatus)), d.CreatedAt)
		if err != nil {
			return failed("writing the outbox", err)
		}
	}
	return nil
}

// readDeliveries reads rows of deliveryColumns, and returns the number of the last one.
func readDeliveries(list *[]store.Delivery, last *int64) func(*sql.Rows) error {
	return func(rows *sql.Rows) error {
		var d store.Delivery
		var body string
		var status nullNumber
		err := rows.Scan(last, &d.ID, &d.Event, &d.URL, &body, &d.State, &d.Attempts, &d.NextAttempt, &status, &d.CreatedAt)
		d.Body, d.LastStatus = []byte(body), int(status.Int64)
		*list = append(*list, d)
		return err
	}
}

// ClaimDeliveries implements store.Store.
func (s *Store) ClaimDeliveries(ctx context.Context, url string, now, until int64, limit int) ([]store.Delivery, int64, error) {
	next, err := s.nextDelivery(ctx, url)
	if err != nil || next == 0 || next > now {
		return nil, next, err
	}
	claimed, err := writeFor(ctx, s, func(w *writerConn) (list []store.Delivery, err error) {
		var last int64
		if err := w.rows(dueDeliveries, []any{url, now, limit}, readDeliveries(&list, &last)); err != nil {
			return nil, failed("reading the outbox", err)
		}
		for i := range list {
			d := &list[i]
			d.Attempts++
			d.NextAttempt = until
			if _, err := w.exec(`UPDATE {p}outbox SET attempts = ?, next_attempt = ? WHERE id = ?`, d.Attempts, d.NextAttempt, d.ID); err != nil {
				return nil, failed("writing the outbox", err)
			}
		}
		return list, nil
	})
	if err != nil {
		return nil, 0, err
	}
	next, err = s.nextDelivery(ctx, url)
	return claimed, next, err
}

// nextDelivery returns when the next delivery to a URL is due; 0: none is there.
func (s *Store) nextDelivery(ctx context.Context, url string) (next int64, err error) {
	err = s.readRow(ctx, "reading the outbox", nextDelivery, []any{url}, &next)
	return next, err
}

// EndDeliveries implements store.Store.
func (s *Store) EndDeliveries(ctx context.Context, delivered []string, undelivered []store.Delivery) error {
	return s.write(ctx, func(w *writerConn) error {
		for _, id := range delivered {
			if _, err := w.exec(`DELETE FROM {p}outbox WHERE id = ?`, id); err != nil {
				return failed("writing the outbox", err)
			}
		}
		const query = `UPDATE {p}outbox SET state = ?, attempts = ?, next_attempt = ?, last_status = ? WHERE id = ?`
		for i := range undelivered {
			d := &undelivered[i]
			if _, err := w.exec(query, string(d.State), d.Attempts, d.NextAttempt, nonZero(int64(d.LastStatus)), d.ID); err != nil {
				return failed("writing the outbox", err)
			}
		}
		return nil
	})
}

// RetryDelivery implements store.Store.
func (s *Store) RetryDelivery(ctx context.Context, id string, now int64) (store.Delivery, error) {
	return writeFor(ctx, s, func(w *writerConn) (store.Delivery, error) {
		var list []store.Delivery
		var last int64
		const query = `UPDATE {p}outbox SET state = 'pending', attempts = 0, next_attempt = ?, created_at = ? WHERE id = ? RETURNING ` + deliveryColumns
		switch err := w.rows(query, []any{now, now, id}, readDeliveries(&list, &last)); {
		case err != nil:
			return store.Delivery{}, failed("writing the outbox", err)
		case len(list) == 0:
			return store.Delivery{}, store.ErrNotFound
		}
		return list[0], nil
	})
}

// Deliveries implements store.Store.
func (s *Store) Deliveries(ctx context.Context, q store.DeliveryQuery) (page store.DeliveryPage, err error) {
	where, args := `num < ?`, []any{key.MaxCount}
	if q.Cursor != "" {
		c, err := parseCursor(q.Cursor, orderOutbox, true)
		if err != nil {
			return page, err
		}
		args[0] = c.sql(orderOutbox)
	}
	if q.State != "" {
		where, args = where+` AND state = ?`, append(args, string(q.State))
	}
	limit := pageSize(q.Limit)
	var last int64
	read := readDeliveries(&page.Deliveries, &last)
	more := false
	err = s.readRows(ctx, "reading the outbox", `SELECT `+deliveryColumns+` FROM {p}outbox WHERE `+where+` ORDER BY num DESC LIMIT `+strconv.Itoa(limit+1), args, func(rows *sql.Rows) error {
		if more = len(page.Deliveries) == limit; more {
			return nil
		}
		return read(rows)
	})
	if more {
		page.Next = cursorPoint{id: "outbox", value: numberValue(last)}.encode(orderOutbox, true)
	}
	return page, err
}

// ExpireDeliveries implements store.Store.
func (s *Store) ExpireDeliveries(ctx context.Context, pending, dead int64, limit int) (int, error) {
	var there bool
	if err := s.readRow(ctx, "reading the outbox", anyOld, []any{pending, dead}, &there); err != nil || !there {
		return 0, err // as nearly always
	}
	return writeFor(ctx, s, func(w *writerConn) (int, error) {
		n, err := w.exec(`DELETE FROM {p}outbox WHERE num IN (`+oldDead+`)`, dead, limit)
		if err != nil {
			return 0, failed("removing old deliveries", err)
		}
		m, err := w.exec(`UPDATE {p}outbox SET state = 'dead' WHERE num IN (`+oldPending+`)`, pending, limit)
		return int(n + m), failed("giving up old deliveries", err)
	})
}

// ReportSpending implements store.Store.
func (s *Store) ReportSpending(sp store.Spending) { s.writer.conn.spending.Store(&sp) }

// report reports how much of an account is used, where thresholds were reached since the last
// report: it sets Reported of the credits, which the caller writes. It returns nil where there is
// nothing to report.
func (c *writerConn) report(account store.Subject, credits *key.Credits) (*store.Spent, error) {
	sp := c.spending.Load()
	if sp == nil || *sp == nil {
		return nil, nil
	}
	reached := credits.Reached((*sp).Thresholds())
	if len(reached) == 0 {
		return nil, nil
	}
	spent := store.Spent{Subject: account, UserID: account.ID, Reached: reached}
	if account.Kind == store.KindKey {
		const query = `SELECT o.user_id FROM {p}keys k JOIN {p}owners o ON o.num = k.owner WHERE k.id = ?`
		if err := c.row(query, []any{account.ID}, &spent.UserID); err != nil {
			return nil, failed("reading the owner of a key", err)
		}
	}
	credits.Reported = reached[len(reached)-1]
	return &spent, c.appendOutbox((*sp).Report(spent))
}

// Mark implements store.Store.
func (s *Store) Mark(ctx context.Context, name string) (m store.Mark, ok bool, err error) {
	err = s.readRow(ctx, "reading a mark", `SELECT at, id FROM {p}marks WHERE name = ?`, []any{name}, &m.At, &m.ID)
	if errors.Is(err, store.ErrNotFound) {
		return store.Mark{}, false, nil
	}
	return m, err == nil, err
}

// SetMark implements store.Store.
func (s *Store) SetMark(ctx context.Context, name string, m store.Mark, outbox []store.Delivery) error {
	return s.write(ctx, func(w *writerConn) error {
		const query = `INSERT INTO {p}marks (name, at, id) VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET at = excluded.at, id = excluded.id`
		if _, err := w.exec(query, name, m.At, m.ID); err != nil {
			return failed("writing a mark", err)
		}
		return w.appendOutbox(outbox)
	})
}

// passed are the queries of Passed: the time and the rest of the place, the ID and the owner
// of each key. Each follows an index.
var passed = map[store.Moment]string{
	store.MomentExpiry: `SELECT k.expires_at, k.id, k.id, o.user_id FROM {p}keys k JOIN {p}owners o ON o.num = k.owner
		WHERE (k.expires_at, k.id) > (?1, ?2) AND k.expires_at <= ?3 AND k.enabled AND o.enabled AND o.user_id IS NOT NULL
		ORDER BY k.expires_at, k.id LIMIT ?4`,
	// An hour has passed when its last moment has.
	store.MomentLastUse: `SELECT u.hour * 3600000, printf('%019d', u.key), k.id, o.user_id FROM {p}last_uses u JOIN {p}keys k ON k.num = u.key JOIN {p}owners o ON o.num = k.owner
		WHERE u.hour >= ?1 / 3600000 AND (u.hour > ?1 / 3600000 OR u.key > CAST(?2 AS INTEGER)) AND u.hour < (?3 + 1) / 3600000
		AND k.enabled AND o.enabled AND o.user_id IS NOT NULL
		ORDER BY u.hour, u.key LIMIT ?4`,
	store.MomentUnused: `SELECT k.created_at, k.id, k.id, o.user_id FROM {p}keys k JOIN {p}owners o ON o.num = k.owner
		WHERE (k.created_at, k.id) > (?1, ?2) AND k.created_at <= ?3 AND k.enabled AND o.enabled AND o.user_id IS NOT NULL
		AND NOT EXISTS (SELECT 1 FROM {p}last_uses u WHERE u.key = k.num)
		ORDER BY k.created_at, k.id LIMIT ?4`,
}

// Passed implements store.Store.
func (s *Store) Passed(ctx context.Context, m store.Moment, after store.Mark, until int64, limit int) (list []store.Passed, err error) {
	query, ok := passed[m]
	if !ok {
		return nil, fmt.Errorf("unknown moment %q", m)
	}
	err = s.readRows(ctx, "looking for keys whose time has come", query, []any{after.At, after.ID, until, limit}, func(rows *sql.Rows) error {
		var p store.Passed
		err := rows.Scan(&p.Mark.At, &p.Mark.ID, &p.KeyID, &p.UserID)
		list = append(list, p)
		return err
	})
	return list, err
}
