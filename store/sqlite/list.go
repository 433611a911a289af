package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/caddy-apikey/caddy-apikey/store"
)

const (
	defaultPage = 50
	maxPage     = 1000
	// maxQuery is longer than any name or start.
	maxQuery = 1 << 14
)

func pageSize(limit int) int {
	if limit < 1 {
		return defaultPage
	}
	return min(limit, maxPage)
}

// sorting is how an order is read from an index: the keys that have a value by
// value and ID, and the others by ID. The two parts are read by a query each,
// because no index of SQLite holds them in the order that is promised.
type sorting struct {
	order  order
	column string // NULL where a key has no value, which createdAt never is
	id     string
	tables string
	// hour is, of the last request, the column that leads its index.
	hour string
}

var sortings = map[store.Sort]sorting{
	store.SortCreatedAt: {orderCreatedAt, "k.created_at", "k.id", entryTables, ""},
	store.SortName:      {orderName, "k.name", "k.id", entryTables, ""},
	// Led by the last uses: their index has the hours in order, and what was used in
	// the same hour is sorted. CROSS JOIN pins that.
	store.SortLastRequest: {
		orderLastRequest, "u.at", "k.id",
		` FROM {p}last_uses u CROSS JOIN {p}keys k ON k.num = u.key` + entryJoins, "u.hour",
	},
}

// lastRequestOfFew serves a filter that an index narrows: then it is cheaper to
// find the keys first and to sort what was found.
var lastRequestOfFew = sorting{orderLastRequest, "u.at", "k.id", entryTables, ""}

// List implements store.Store. A limit below 1 means 50, one over 1000 means 1000.
func (s *Store) List(ctx context.Context, q store.List) (store.Page, error) {
	l, err := newLister(q)
	if err != nil {
		return store.Page{}, err
	}
	if err := s.enter(); err != nil {
		return store.Page{}, err
	}
	defer s.leave()
	// A transaction, so that the page and the total are of the same moment.
	tx, err := s.readers.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return store.Page{}, failed("listing keys", err)
	}
	page, err := l.read(ctx, tx, s.readers.stmts)
	if err = errors.Join(err, tx.Rollback()); err != nil {
		return store.Page{}, failed("listing keys", err)
	}
	return page, nil
}

// lister builds the statements of one List.
type lister struct {
	sorting
	reverse bool
	limit   int
	from    *cursorPoint
	where   []string
	args    []any
	asked   store.Filter
	nothing bool // no key can pass the filter
}

func newLister(q store.List) (*lister, error) {
	if q.Sort == "" {
		q.Sort = store.SortCreatedAt
	}
	by, ok := sortings[q.Sort]
	if !ok {
		return nil, fmt.Errorf("unknown sort %q", q.Sort)
	}
	l := &lister{sorting: by, reverse: q.Reverse, limit: pageSize(q.Limit)}
	if q.Sort == store.SortLastRequest && (q.Filter.UserID != "" || q.Filter.Prefix != "") {
		l.sorting = lastRequestOfFew
	}
	if q.Cursor != "" {
		c, err := parseCursor(q.Cursor, by.order, q.Reverse)
		if err != nil {
			return nil, err
		}
		l.from = &c
	}
	l.filter(q.Filter)
	return l, nil
}

func (l *lister) filter(f store.Filter) {
	l.asked = f
	add := func(condition string, args ...any) {
		l.where = append(l.where, condition)
		l.args = append(l.args, args...)
	}
	if f.UserID != "" {
		add("k.owner = (SELECT num FROM {p}owners WHERE user_id = ?)", f.UserID)
	}
	if f.ConfigID != "" {
		add("k.config_id = ?", f.ConfigID)
	}
	if f.Enabled != nil {
		add("k.enabled = ?", bit(*f.Enabled))
	}
	if f.Prefix != "" {
		add("k.prefix = ?", f.Prefix)
	}
	if f.Query != "" {
		// LIKE would end at a NUL, and refuses very long patterns.
		l.nothing = len(f.Query) > maxQuery || strings.ContainsRune(f.Query, 0)
		pattern := "%" + likeEscaper.Replace(f.Query) + "%" // LIKE folds the case of ASCII letters
		add(`(k.name LIKE ? ESCAPE '\' OR k.start LIKE ? ESCAPE '\')`, pattern, pattern)
	}
}

var likeEscaper = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)

func (l *lister) read(ctx context.Context, tx *sql.Tx, stmts *statements) (page store.Page, err error) {
	if l.nothing {
		return page, nil
	}
	count, args := l.count()
	if err := tx.QueryRowContext(ctx, stmts.sql(count), args...).Scan(&page.Total); err != nil {
		return page, err
	}
	for _, null := range []bool{false, true} { // keys without a value come last in both directions
		query, args, ok := l.part(null, l.limit+1-len(page.Entries))
		if !ok {
			continue
		}
		if page.Entries, err = appendEntries(ctx, tx, page.Entries, stmts, query, args); err != nil {
			return page, err
		}
		if len(page.Entries) > l.limit { // one more than asked for: there is a next page
			page.Entries = page.Entries[:l.limit]
			page.Next = l.point(&page.Entries[l.limit-1]).encode(l.order, l.reverse)
			break
		}
	}
	return page, nil
}

// count returns the query for the number of all keys that pass the filter. The numbers
// by owner, and by configuration and state, are kept.
func (l *lister) count() (query string, args []any) {
	f := l.asked
	switch {
	case f.Prefix != "" || f.Query != "" || f.UserID != "" && (f.ConfigID != "" || f.Enabled != nil):
		return "SELECT count(*) FROM {p}keys k" + l.conditions(l.where), l.args
	case f.UserID != "":
		return "SELECT coalesce(sum(key_count), 0) FROM {p}owners WHERE user_id = ?", []any{f.UserID}
	}
	var where []string
	if f.ConfigID != "" {
		where, args = append(where, "config_id = ?"), append(args, f.ConfigID)
	}
	if f.Enabled != nil {
		where, args = append(where, "state = iif(?, 'enabled', 'disabled')"), append(args, bit(*f.Enabled))
	}
	return "SELECT coalesce(sum(n), 0) FROM {p}key_counts" + l.conditions(where), args
}

func (l *lister) conditions(where []string) string {
	if len(where) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(where, " AND ")
}

// part returns the statement for the keys with a value, or for those without;
// ok is false where there is no such part, or the cursor lies behind it.
func (l *lister) part(null bool, limit int) (query string, args []any, ok bool) {
	if null && l.order == orderCreatedAt {
		return "", nil, false
	}
	where := append([]string{}, l.where...)
	args = append([]any{}, l.args...)
	compare, direction := ">", ""
	if l.reverse {
		compare, direction = "<", " DESC"
	}
	if null {
		where = append(where, l.column+" IS NULL")
	} else {
		where = append(where, l.column+" IS NOT NULL")
	}
	switch {
	case l.from == nil:
	case l.from.null == null && null:
		where, args = append(where, l.id+" "+compare+" ?"), append(args, l.from.id)
	case l.from.null == null:
		if l.hour != "" { // what the index can serve of the comparison below
			where, args = append(where, l.hour+" "+compare+"= ? / 3600000"), append(args, l.from.sql(l.order))
		}
		where = append(where, fmt.Sprintf("(%s, %s) %s (?, ?)", l.column, l.id, compare))
		args = append(args, l.from.sql(l.order), l.from.id)
	case !null: // the part that comes first, and the cursor lies in the second
		return "", nil, false
	}
	by := l.column + direction + ", " + l.id + direction
	if l.hour != "" {
		by = l.hour + direction + ", " + by
	}
	tables := l.tables
	if null {
		by, tables = l.id+direction, entryTables
	}
	query = "SELECT " + entryColumns + tables + l.conditions(where) + " ORDER BY " + by + " LIMIT ?"
	return query, append(args, limit), true
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

func appendEntries(ctx context.Context, tx *sql.Tx, list []store.Entry, stmts *statements, query string, args []any) ([]store.Entry, error) {
	at := map[int64]int{} // of a number, the place in the list
	var nums []byte
	rotated := false
	err := eachRowOf(ctx, tx, stmts, query, args, func(rows *sql.Rows) error {
		var row entryRow
		if err := rows.Scan(row.dest()...); err != nil {
			return err
		}
		e, err := row.entry()
		rotated = rotated || err == nil && len(e.Key.Previous) > 0
		at[row.num] = len(list)
		nums = strconv.AppendInt(append(nums, ','), row.num, 10)
		list = append(list, e)
		return err
	})
	if err != nil || len(nums) == 0 {
		return list, err
	}
	nums[0] = '['
	page := []any{string(append(nums, ']'))}
	err = eachRowOf(ctx, tx, stmts, windowsOfPage, page, func(rows *sql.Rows) error {
		var num int64
		var w store.Window
		err := rows.Scan(&num, &w.Unit, &w.State)
		e := &list[at[num]]
		e.Windows = append(e.Windows, w)
		return err
	})
	if err != nil || !rotated {
		return list, err
	}
	err = eachRowOf(ctx, tx, stmts, previousOfPage, page, func(rows *sql.Rows) error {
		var num, last int64
		var hash []byte
		err := rows.Scan(&num, &hash, &last)
		used(list[at[num]].Key, hash, last)
		return err
	})
	return list, err
}

func eachRowOf(ctx context.Context, tx *sql.Tx, stmts *statements, query string, args []any, read func(*sql.Rows) error) error {
	stmt, err := tx.PrepareContext(ctx, stmts.sql(query))
	if err != nil {
		return err
	}
	return errors.Join(eachRow(ctx, stmt, args, read), stmt.Close())
}
