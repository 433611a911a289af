package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/caddy-apikey/caddy-apikey/store"
)

const (
	defaultPage = 50
	maxPage     = 1000
	// maxPageSize is at how many bytes of records a page ends, so that who reads slowly does
	// not hold much of them.
	maxPageSize = 256 << 10
	// maxQuery is longer than any name or start.
	maxQuery = 1 << 14
)

func pageSize(limit int) int {
	if limit < 1 {
		return defaultPage
	}
	return min(limit, maxPage)
}

// maxCounted is up to how many keys are sorted, and counted for the total of a list.
const maxCounted = 10_000

// maxExamined is how many keys a page looks at where no index serves its filter; less in
// tests.
var maxExamined = 20_000

// sorting is how an order is read from an index: the keys that have a value by
// value and ID, and the others by ID. The two parts are read by a query each,
// because no index of SQLite holds them in the order that is promised.
type sorting struct {
	order  order
	column string // NULL where a key has no value, which createdAt never is
	tables string // what the order is read from
	// hour is, of the last request, the column that leads its index.
	hour string
}

var sortings = map[store.Sort]sorting{
	store.SortCreatedAt: {orderCreatedAt, "k.created_at", ` FROM {p}keys k`, ""},
	store.SortName:      {orderName, "k.name", ` FROM {p}keys k`, ""},
	store.SortExpiresAt: {orderExpiresAt, "k.expires_at", ` FROM {p}keys k`, ""},
	// Led by the last uses: their index has the hours in order, and what was used in
	// the same hour is sorted. CROSS JOIN pins that.
	store.SortLastRequest: {orderLastRequest, "u.at", ` FROM {p}last_uses u CROSS JOIN {p}keys k ON k.num = u.key`, "u.hour"},
}

const keysAndUses = ` FROM {p}keys k LEFT JOIN {p}last_uses u ON u.key = k.num`

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
	tx, err := s.lists.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return store.Page{}, failed("listing keys", err)
	}
	page, err := l.read(ctx, tx, s.lists.stmts)
	if err = errors.Join(err, tx.Rollback()); err != nil {
		return store.Page{}, failed("listing keys", err)
	}
	return published(ctx, s, page, nil)
}

// lister builds the statements of one List.
type lister struct {
	sorting
	reverse bool
	limit   int
	from    *cursorPoint
	text    string // to search for
	nothing bool   // no key can pass the filter

	clearing bool // there are keys of deleted owners, which no list shows

	// Of the choices, the one that leaves the fewest keys is served by its index, and
	// becomes where. The others join the tests, which each key that is read is held
	// against. The span is served by the index of the order.
	choices            []choice
	where, span, tests conditions
	// bound is how many keys may pass, at most; the more is above maxCounted the less it
	// need be exact.
	bound int64
	total int64 // or store.UnknownTotal
}

// choice is a condition that an index serves.
type choice struct {
	conditions
	count  string // the query for how many keys pass it, at least up to maxCounted
	args   []any  // of the query
	capped bool   // the number is not exact beyond maxCounted
	found  int64  // the number, where there is no query
	tested bool   // the tests say the same, and more exactly
}

// conditions are conditions of SQL, all of which must hold.
type conditions struct {
	list []string
	args []any
}

func (c *conditions) add(condition string, args ...any) {
	c.list, c.args = append(c.list, condition), append(c.args, args...)
}

// with returns both.
func (c conditions) with(more conditions) conditions {
	return conditions{slices.Concat(c.list, more.list), slices.Concat(c.args, more.args)}
}

func (c conditions) String() string {
	if len(c.list) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(c.list, " AND ")
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
	if q.Cursor != "" {
		c, err := parseCursor(q.Cursor, by.order, q.Reverse)
		if err != nil {
			return nil, err
		}
		l.from = &c
	}
	l.filter(q.Filter)
	return l, l.filterByTests(q.Filter)
}

// filter adds the conditions that an index serves.
func (l *lister) filter(f store.Filter) {
	add := func(condition string, arg any, count string, capped bool) {
		c := choice{count: count, args: []any{arg}, capped: capped}
		c.conditions.add(condition, arg)
		if capped {
			c.args = append(c.args, maxCounted+1)
		}
		l.choices = append(l.choices, c)
	}
	if f.UserID != "" {
		add("k.owner = (SELECT num FROM {p}owners WHERE user_id = ?)", f.UserID, "SELECT coalesce(sum(key_count), 0) FROM {p}owners WHERE user_id = ?", false)
	}
	if f.Prefix != "" {
		add("k.prefix = ?", f.Prefix, "SELECT count(*) FROM (SELECT 1 FROM {p}keys WHERE prefix = ? LIMIT ?)", true)
	}
	if f.ConfigID != "" {
		add("k.config_id = ?", f.ConfigID, "SELECT coalesce(sum(n), 0) FROM {p}key_counts WHERE config_id = ?", false)
	}
	if f.Enabled != nil {
		add("k.enabled = ?", bit(*f.Enabled), "SELECT coalesce(sum(n), 0) FROM {p}key_counts WHERE state = iif(?, 'enabled', 'disabled')", false)
	}
	if f.CreatedBefore != 0 {
		l.rangeOn(orderCreatedAt, "k.created_at < ?", f.CreatedBefore)
	}
	if f.ExpiresBefore != 0 {
		l.rangeOn(orderExpiresAt, "k.expires_at < ?", f.ExpiresBefore)
	}
}

// rangeOn adds a condition that the index of an order serves.
func (l *lister) rangeOn(o order, condition string, args ...any) {
	if l.order == o {
		l.span.add(condition, args...)
	} else {
		l.tests.add(condition, args...)
	}
}

// listReader reads what a list is planned by.
type listReader struct {
	ctx   context.Context
	tx    *sql.Tx
	stmts *statements
}

func (r *listReader) one(dest any, query string, args []any) error {
	return r.tx.QueryRowContext(r.ctx, r.stmts.sql(query), args...).Scan(dest)
}

// choose chooses among the indexes, and counts.
func (l *lister) choose(r *listReader) error {
	if err := r.one(&l.clearing, `SELECT EXISTS `+deletedOwners, nil); err != nil {
		return err
	}
	if err := l.search(r); err != nil {
		return err
	}
	var all int64
	if err := r.one(&all, "SELECT coalesce(sum(n), 0) FROM {p}key_counts", nil); err != nil {
		return err
	}
	l.bound, l.total = all, store.UnknownTotal
	best, exact := -1, len(l.choices) == 0
	for i := range l.choices {
		c := &l.choices[i]
		n := c.found
		if c.count != "" {
			if err := r.one(&n, c.count, c.args); err != nil {
				return err
			}
		}
		if best < 0 || n < l.bound {
			best, l.bound, exact = i, n, !c.capped || n <= maxCounted
		}
	}
	for i := range l.choices {
		l.use(&l.choices[i], i == best)
	}
	return l.count(r, exact && !l.clearing && len(l.choices) < 2 && len(l.span.list)+len(l.tests.list) == 0)
}

// use adds a condition. The best is served by its index: where that leaves few keys, these
// are sorted, and where it leaves many, it serves the order of creation too. For another
// order the index of that is read.
func (l *lister) use(c *choice, best bool) {
	switch {
	case best && l.bound <= maxCounted:
		l.where, l.column, l.hour = c.conditions, "+"+l.column, "" // no index of the order
		if l.order == orderLastRequest {
			l.tables = keysAndUses
		}
	case c.tested:
	case best && l.order == orderCreatedAt:
		l.where = c.conditions
	default:
		l.tests = l.tests.with(c.conditions)
	}
}

// count finds the total. exact: the bound is it.
func (l *lister) count(r *listReader, exact bool) error {
	if exact {
		l.total = l.bound
		return nil
	}
	if len(l.span.list) > 0 {
		var n int64
		query := "SELECT count(*) FROM (SELECT 1 FROM {p}keys k" + l.span.String() + " LIMIT ?)"
		if err := r.one(&n, query, append(slices.Clone(l.span.args), maxCounted+1)); err != nil {
			return err
		}
		l.bound = min(l.bound, n)
	}
	if l.bound > maxCounted {
		return nil
	}
	all := l.shown(l.where.with(l.span)).with(l.tests)
	return r.one(&l.total, "SELECT count(*)"+entryTables+all.String(), all.args)
}

// shown adds to conditions that the owner is not deleted.
func (l *lister) shown(c conditions) conditions {
	if l.clearing {
		c.add(ownerKept)
	}
	return c
}

const (
	isEnabled = `k.enabled AND o.enabled`
	hasEnded  = `coalesce(k.expires_at <= ?, 0)`
	// isExhausted is key.Credits.Balance below 1 with no refill due (key.Credits.Due).
	isExhausted = `coalesce(c.remaining + c.leased < 1
		AND (c.refill_amount IS NULL OR ? - max(coalesce(c.last_refill_at, 0), coalesce(c.refill_from, 0)) < c.refill_interval), 0)`
)

// filterByTests adds the conditions that no index serves.
func (l *lister) filterByTests(f store.Filter) error {
	switch f.State {
	case "":
	case store.StateDisabled:
		l.tests.add("NOT (" + isEnabled + ")")
	case store.StateExpired:
		l.tests.add(isEnabled+" AND "+hasEnded, f.Now)
	case store.StateExhausted:
		l.tests.add(isEnabled+" AND NOT "+hasEnded+" AND "+isExhausted, f.Now, f.Now)
	case store.StateActive:
		l.tests.add(isEnabled+" AND NOT "+hasEnded+" AND NOT "+isExhausted, f.Now, f.Now)
	default:
		return fmt.Errorf("unknown state %q", f.State)
	}
	if t := f.Tier; t != nil {
		l.tests.add(tierCondition(t), append([]any{t.Name}, texts(t.Known)...)...)
	}
	if f.UnusedSince != 0 {
		l.tests.add("(u.at IS NULL OR u.at < ?) AND k.created_at < ?", f.UnusedSince, f.UnusedSince)
	}
	if f.RotatedBefore != 0 {
		l.tests.add("coalesce(k.doc ->> 'rotatedAt', k.created_at) < ?", f.RotatedBefore)
	}
	if p := f.Permission; p != nil {
		l.tests.add(`EXISTS (SELECT 1 FROM json_each(k.doc, '$.permissions') r, json_each(r.value) a
			WHERE r.key = ? AND a.value IN (?, '*') OR r.key = '*' AND a.value = '*')`, p.Resource, p.Action)
	}
	if f.Query != "" {
		// LIKE would end at a NUL, and refuses very long patterns.
		l.text, l.nothing = f.Query, len(f.Query) > maxQuery || strings.ContainsRune(f.Query, 0)
		pattern := "%" + likeEscaper.Replace(f.Query) + "%" // LIKE folds the case of ASCII letters
		l.tests.add(`(k.name LIKE ? ESCAPE '\' OR k.start LIKE ? ESCAPE '\' OR o.user_id LIKE ? ESCAPE '\')`, pattern, pattern, pattern)
	}
	return nil
}

func tierCondition(t *store.TierFilter) string {
	if !t.Default {
		return "o.tier = ?" + strings.Repeat(" AND ? IS NOT NULL", len(t.Known)) // each has its argument
	}
	return "(o.tier IS NULL OR o.tier = ? OR o.tier NOT IN (" + strings.TrimSuffix(strings.Repeat("?, ", len(t.Known)), ", ") + "))"
}

func texts(list []string) (args []any) {
	for _, s := range list {
		args = append(args, s)
	}
	return args
}

var likeEscaper = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)
