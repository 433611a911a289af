package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"github.com/caddy-apikey/caddy-apikey/store"
)

func (l *lister) read(ctx context.Context, tx *sql.Tx, stmts *statements) (page store.Page, err error) {
	if l.nothing {
		return page, nil
	}
	if err := l.choose(&listReader{ctx, tx, stmts}); err != nil {
		return page, err
	}
	page.Total = l.total
	for _, null := range []bool{false, true} { // keys without a value come last in both directions
		part, ok := l.part(null)
		if !ok {
			continue
		}
		query, args := part.page(l.limit + 1 - len(page.Entries))
		var full bool
		if page.Entries, full, err = appendEntries(ctx, tx, page.Entries, stmts, query, args); err != nil {
			return page, err
		}
		if len(page.Entries) > l.limit { // one more than asked for: there is a next page
			page.Entries, full = page.Entries[:l.limit], true
		}
		if full {
			page.Next = l.point(&page.Entries[len(page.Entries)-1]).encode(l.order, l.reverse)
			break
		}
		last, err := part.last(ctx, tx, stmts)
		if err != nil {
			return page, err
		}
		if last != nil { // there may be more behind the keys that were examined
			page.Next = last.encode(l.order, l.reverse)
			break
		}
	}
	return page, nil
}

// listPart is the keys of a list with a value to sort by, or those without, from the
// cursor on.
type listPart struct {
	*lister
	tables string
	where  conditions
	by     string
	null   bool
}

// part returns the part of the keys with a value, or of those without; ok is false where
// there is no such part, or the cursor lies behind it.
func (l *lister) part(null bool) (p listPart, ok bool) {
	if null && l.order == orderCreatedAt {
		return p, false
	}
	p = listPart{lister: l, tables: l.tables, where: l.shown(l.where.with(l.span)), null: null}
	compare, direction := ">", ""
	if l.reverse {
		compare, direction = "<", " DESC"
	}
	if null {
		p.where.add(l.column + " IS NULL")
	} else {
		p.where.add(l.column + " IS NOT NULL")
	}
	switch {
	case l.from == nil:
	case l.from.null == null && null:
		p.where.add("k.id "+compare+" ?", l.from.id)
	case l.from.null == null:
		if l.hour != "" { // what the index can serve of the comparison below
			p.where.add(l.hour+" "+compare+"= ? / 3600000", l.from.sql(l.order))
		}
		p.where.add(fmt.Sprintf("(%s, k.id) %s (?, ?)", l.column, compare), l.from.sql(l.order), l.from.id)
	case !null: // the part that comes first, and the cursor lies in the second
		return p, false
	}
	p.by = l.column + direction + ", k.id" + direction
	if l.hour != "" {
		p.by = l.hour + direction + ", " + p.by
	}
	if null {
		p.by = "k.id" + direction
		if l.order == orderLastRequest {
			p.tables = keysAndUses
		}
	}
	return p, true
}

// page returns the statement for the first keys of the part that pass the tests.
func (p *listPart) page(limit int) (query string, args []any) {
	if len(p.tests.list) == 0 {
		query = "SELECT k.num AS num" + p.tables + p.where.String() + " ORDER BY " + p.by + " LIMIT ?"
		args = append(slices.Clone(p.where.args), limit)
	} else {
		query, args = p.examined()
		limit = min(limit, maxExamined)
	}
	// A subquery with a limit is read in its order, and CROSS JOIN keeps that.
	query = "SELECT " + entryColumns + " FROM (" + query + ") x CROSS JOIN {p}keys k ON k.num = x.num LEFT JOIN {p}last_uses u ON u.key = k.num" +
		entryJoins + p.tests.String() + " LIMIT ?"
	return query, append(append(args, p.tests.args...), limit)
}

// examined returns the statement for the keys that are held against the tests.
func (p *listPart) examined() (query string, args []any) {
	query = "SELECT k.num AS num" + p.tables + p.where.String() + " ORDER BY " + p.by + " LIMIT ?"
	return query, append(slices.Clone(p.where.args), maxExamined)
}

// last returns the place of the last key that was examined, where there may be more
// behind it.
func (p *listPart) last(ctx context.Context, tx *sql.Tx, stmts *statements) (*cursorPoint, error) {
	if len(p.tests.list) == 0 {
		return nil, nil
	}
	query := "SELECT " + p.column + ", k.id" + p.tables + p.where.String() + " ORDER BY " + p.by + " LIMIT 1 OFFSET ?"
	c := &cursorPoint{null: p.null}
	var number nullNumber
	var text nullText
	value := any(&number)
	if p.order == orderName {
		value = &text
	}
	err := tx.QueryRowContext(ctx, stmts.sql(query), append(slices.Clone(p.where.args), maxExamined-1)...).Scan(value, &c.id)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, nil
	case err != nil:
		return nil, err
	case p.null:
	case p.order == orderName:
		c.value = []byte(text.String)
	default:
		c.value = numberValue(number.Int64)
	}
	return c, nil
}

// point returns the place of an entry in the order.
func (l *lister) point(e *store.Entry) cursorPoint {
	c := cursorPoint{id: e.Key.ID}
	switch {
	case l.order == orderCreatedAt:
		c.value = numberValue(e.Key.CreatedAt)
	case l.order == orderName && e.Key.Name != nil:
		c.value = []byte(*e.Key.Name)
	case l.order == orderLastRequest && e.LastRequest != 0:
		c.value = numberValue(e.LastRequest)
	case l.order == orderExpiresAt && e.Key.ExpiresAt != 0:
		c.value = numberValue(e.Key.ExpiresAt)
	default:
		c.null = true
	}
	return c
}

const (
	// These read what lies beside the entries of a page, whose numbers are a JSON array.
	windowsOfPage  = `SELECT w.subject, w.unit, w.state FROM json_each(?) j CROSS JOIN {p}windows w ON w.subject = j.value AND w.kind = 'key'`
	previousOfPage = `SELECT p.key, p.hash, p.last_request FROM json_each(?) j CROSS JOIN {p}previous_hashes p ON p.key = j.value AND p.last_request IS NOT NULL`
)

// errFull ends the reading of a page.
var errFull = errors.New("the page is full")

// appendEntries reads entries, and what lies beside them. full: there may be more, but the
// page is large enough.
func appendEntries(ctx context.Context, tx *sql.Tx, list []store.Entry, stmts *statements, query string, args []any) (_ []store.Entry, full bool, err error) {
	at := map[int64]int{} // of a number, the place in the list
	var nums []int64
	size, rotated := 0, false
	err = eachRowOf(ctx, tx, stmts, query, args, func(rows *sql.Rows) error {
		if size >= maxPageSize {
			return errFull
		}
		var row entryRow
		if err := rows.Scan(row.dest()...); err != nil {
			return err
		}
		size += len(row.doc)
		e, err := row.entry()
		rotated = rotated || err == nil && len(e.Key.Previous) > 0
		at[row.num] = len(list)
		nums = append(nums, row.num)
		list = append(list, e)
		return err
	})
	if full = errors.Is(err, errFull); full {
		err = nil
	}
	if err != nil || len(nums) == 0 {
		return list, full, err
	}
	page := []any{jsonNumbers(nums)}
	err = eachRowOf(ctx, tx, stmts, windowsOfPage, page, func(rows *sql.Rows) error {
		var num int64
		var w store.Window
		err := rows.Scan(&num, &w.Unit, &w.State)
		e := &list[at[num]]
		e.Windows = append(e.Windows, w)
		return err
	})
	if err != nil || !rotated {
		return list, full, err
	}
	err = eachRowOf(ctx, tx, stmts, previousOfPage, page, func(rows *sql.Rows) error {
		var num, last int64
		var hash []byte
		err := rows.Scan(&num, &hash, &last)
		used(list[at[num]].Key, hash, last)
		return err
	})
	return list, full, err
}

func eachRowOf(ctx context.Context, tx *sql.Tx, stmts *statements, query string, args []any, read func(*sql.Rows) error) error {
	stmt, err := tx.PrepareContext(ctx, stmts.sql(query))
	if err != nil {
		return err
	}
	return errors.Join(eachRow(ctx, stmt, args, read), stmt.Close())
}
