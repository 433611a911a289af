package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/caddy-apikey/caddy-apikey/key"
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
}

var sortings = map[store.Sort]sorting{
	store.SortCreatedAt: {orderCreatedAt, "k.created_at", "k.id", entryTables},
	store.SortName:      {orderName, "k.name", "k.id", entryTables},
	// Led by the counters: their index has the order, but for ties. CROSS JOIN pins that.
	store.SortLastRequest: {
		orderLastRequest, "n.last_request", "k.id",
		` FROM {p}counters n CROSS JOIN {p}keys k ON k.num = n.key` + entryJoins,
	},
}

// lastRequestOfFew serves a filter that an index narrows: then it is cheaper to
// find the keys first and to sort what was found.
var lastRequestOfFew = sorting{orderLastRequest, "n.last_request", "k.id", entryTables}

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
	if err := tx.QueryRowContext(ctx, stmts.sql(l.count()), l.args...).Scan(&page.Total); err != nil {
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

func (l *lister) count() string {
	return "SELECT count(*) FROM {p}keys k" + l.conditions(l.where)
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
		if l.order == orderLastRequest { // what the index can serve of the comparison below
			where, args = append(where, l.column+" "+compare+"= ?"), append(args, l.from.sql(l.order))
		}
		where = append(where, fmt.Sprintf("(%s, %s) %s (?, ?)", l.column, l.id, compare))
		args = append(args, l.from.sql(l.order), l.from.id)
	case !null: // the part that comes first, and the cursor lies in the second
		return "", nil, false
	}
	by := l.column + direction + ", " + l.id + direction
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
	case l.order == orderLastRequest && e.Counters.LastRequest != 0:
		c.value = numberValue(e.Counters.LastRequest)
	default:
		c.null = true
	}
	return c
}

func appendEntries(ctx context.Context, tx *sql.Tx, list []store.Entry, stmts *statements, query string, args []any) ([]store.Entry, error) {
	rows, err := tx.QueryContext(ctx, stmts.sql(query), args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	rotated := map[int64]*key.Key{}
	for rows.Next() {
		var row entryRow
		if err := rows.Scan(row.dest()...); err != nil {
			return nil, err
		}
		e, err := row.entry()
		if err != nil {
			return nil, err
		}
		if len(e.Key.Previous) > 0 {
			rotated[row.num] = e.Key
		}
		list = append(list, e)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil || len(rotated) == 0 {
		return list, err
	}
	stmt, err := stmts.get(previousUses)
	if err != nil {
		return nil, err
	}
	for num, k := range rotated {
		if err := readUses(ctx, tx.StmtContext(ctx, stmt), num, k); err != nil {
			return nil, err
		}
	}
	return list, nil
}
