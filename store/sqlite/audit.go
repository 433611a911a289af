package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

const (
	// auditExamined is how many entries a page looks at, at most.
	auditExamined = 20_000

	// auditHead is the newest entry, also where it was removed for its age.
	auditHead   = `SELECT id, chain FROM {p}audit UNION ALL SELECT id, chain FROM {p}audit_anchor ORDER BY id DESC LIMIT 1`
	auditAnchor = `SELECT id, chain FROM {p}audit_anchor`
)

// note stores what a note makes for changes of a job.
func (c *writerConn) note(note store.Note, changes []store.Change) error {
	if note == nil || len(changes) == 0 {
		return nil
	}
	noted, err := note(changes)
	if err != nil {
		return fmt.Errorf("noting a change in the audit log: %w", err)
	}
	return c.appendNoted(noted)
}

func (c *writerConn) appendNoted(noted store.Noted) error {
	if err := c.appendAudit(noted.Audit); err != nil {
		return err
	}
	return c.appendOutbox(noted.Outbox)
}

// appendAudit adds entries, each chained to the one before.
func (c *writerConn) appendAudit(entries []store.AuditEntry) error {
	if len(entries) == 0 {
		return nil
	}
	var last store.AuditPoint
	if err := c.row(auditHead, nil, &last.ID, &last.Chain); err != nil && !errors.Is(err, sql.ErrNoRows) {
		return failed("reading the end of the audit log", err)
	}
	const query = `INSERT INTO {p}audit (id, at, action, actor_kind, actor, key_id, user_id, doc, chain) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`
	for i := range entries {
		e := entries[i]
		e.ID = last.ID + 1
		doc, err := e.Canonical()
		if err != nil {
			return err
		}
		e.Chain = store.Link(last, doc)
		_, err = c.exec(query, e.ID, e.Time, e.Action, e.Actor.Kind, nonEmpty(cmp.Or(e.Actor.ID, e.Actor.Name)), nonEmpty(e.KeyID), nonEmpty(e.UserID), string(doc), e.Chain)
		if err != nil {
			return failed("writing the audit log", err)
		}
		last = e.Point()
	}
	return nil
}

func nonEmpty(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// AppendAudit implements store.Store.
func (s *Store) AppendAudit(ctx context.Context, noted store.Noted) error {
	noted.Audit, noted.Outbox = slices.Clone(noted.Audit), slices.Clone(noted.Outbox) // the caller may be gone before this runs
	return s.write(ctx, func(w *writerConn) error { return w.appendNoted(noted) })
}

// TrimAudit implements store.Store.
func (s *Store) TrimAudit(ctx context.Context, before int64, limit int) (int, error) {
	return writeFor(ctx, s, func(w *writerConn) (int, error) {
		var oldest int64
		err := w.row(`SELECT at FROM {p}audit ORDER BY id LIMIT 1`, nil, &oldest)
		if errors.Is(err, sql.ErrNoRows) || err == nil && oldest >= before {
			return 0, nil // as nearly always
		}
		if err != nil {
			return 0, failed("reading the audit log", err)
		}
		// Entries are in the order of their IDs: one that is young keeps those after it.
		const old = `SELECT id, chain, at FROM {p}audit ORDER BY id LIMIT ?`
		var last store.AuditPoint
		n, young := 0, false
		err = w.rows(old, []any{limit}, func(rows *sql.Rows) error {
			var p store.AuditPoint
			var at int64
			if err := rows.Scan(&p.ID, &p.Chain, &at); err != nil {
				return err
			}
			if young = young || at >= before; !young {
				last, n = p, n+1
			}
			return nil
		})
		if err != nil || n == 0 {
			return 0, failed("reading the audit log", err)
		}
		if _, err = w.exec(`DELETE FROM {p}audit WHERE id <= ?`, last.ID); err == nil {
			_, err = w.exec(`INSERT INTO {p}audit_anchor (one, id, chain) VALUES (1, ?, ?)
				ON CONFLICT (one) DO UPDATE SET id = excluded.id, chain = excluded.chain`, last.ID, last.Chain)
		}
		return n, failed("removing old entries of the audit log", err)
	})
}

// Audit implements store.Store.
func (s *Store) Audit(ctx context.Context, q store.AuditQuery) (page store.AuditPage, err error) {
	a := auditRead{q: q, limit: pageSize(q.Limit), below: key.MaxCount}
	if q.Cursor != "" {
		c, err := parseCursor(q.Cursor, orderAudit, true)
		if err != nil {
			return page, err
		}
		a.below = c.sql(orderAudit).(int64)
	}
	// The head comes first: entries that are added meanwhile are newer than it.
	if page.Head, err = s.auditPoint(ctx, auditHead); err != nil {
		return page, err
	}
	if page.Anchor, err = s.auditPoint(ctx, auditAnchor); err != nil {
		return page, err
	}
	if page.Entries, err = a.entries(ctx, s); err != nil {
		return page, err
	}
	if page.Next, err = a.next(ctx, s, page.Entries); err != nil {
		return page, err
	}
	page.Entries = page.Entries[:min(len(page.Entries), a.limit)]
	return published(ctx, s, page, nil)
}

// auditPoint reads the head or the anchor, if there is one.
func (s *Store) auditPoint(ctx context.Context, query string) (p store.AuditPoint, err error) {
	err = s.readRow(ctx, "reading the audit log", query, nil, &p.ID, &p.Chain)
	if errors.Is(err, store.ErrNotFound) {
		err = nil
	}
	return p, err
}

// auditRead reads a page: the newest entries below an ID, in the order of an index, of
// which those are kept that pass the rest of the filter.
type auditRead struct {
	q     store.AuditQuery
	limit int
	below int64
}

// examined names the entries that are looked at.
func (a *auditRead) examined() (query string, args []any) {
	where := ""
	for _, index := range []struct{ column, value string }{{"key_id", a.q.KeyID}, {"user_id", a.q.UserID}} {
		if index.value != "" {
			where, args = ` AND `+index.column+` = ?`, []any{index.value}
			break
		}
	}
	return `SELECT id, at, action, actor_kind, actor, key_id, user_id, doc, chain FROM {p}audit WHERE id < ?` + where +
		` ORDER BY id DESC LIMIT ` + strconv.Itoa(auditExamined), append([]any{a.below}, args...)
}

// entries returns those of a page, and one more where there is one.
func (a *auditRead) entries(ctx context.Context, s *Store) (list []store.AuditEntry, err error) {
	query, args := a.examined()
	where := ` WHERE true`
	for _, c := range []struct {
		condition string
		value     any
	}{
		{`key_id = ?`, nonEmpty(a.q.KeyID)},
		{`user_id = ?`, nonEmpty(a.q.UserID)},
		{`? IN (actor, actor_kind)`, nonEmpty(a.q.Actor)},
		{`action = ?`, nonEmpty(a.q.Action)},
		{`at >= ?`, nonZero(a.q.Since)},
		{`at < ?`, nonZero(a.q.Until)},
	} {
		if c.value != nil {
			where, args = where+` AND `+c.condition, append(args, c.value)
		}
	}
	err = s.readRows(ctx, "reading the audit log", `SELECT doc, chain FROM (`+query+`)`+where+` LIMIT ?`, append(args, a.limit+1), func(rows *sql.Rows) error {
		var doc, chain string
		if err := rows.Scan(&doc, &chain); err != nil {
			return err
		}
		e, err := store.ParseAuditEntry([]byte(doc), chain)
		list = append(list, e)
		return err
	})
	return list, err
}

// next returns the cursor of the next page.
func (a *auditRead) next(ctx context.Context, s *Store, found []store.AuditEntry) (string, error) {
	if len(found) > a.limit {
		return auditCursor(found[a.limit-1].ID), nil
	}
	query, args := a.examined()
	var n, least int64
	err := s.readRow(ctx, "reading the audit log", `SELECT count(*), coalesce(min(id), 0) FROM (`+query+`)`, args, &n, &least)
	if err != nil || n < auditExamined {
		return "", err
	}
	return auditCursor(least), nil
}

func auditCursor(id int64) string {
	return cursorPoint{id: "audit", value: numberValue(id)}.encode(orderAudit, true)
}
