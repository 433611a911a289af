package betterauthdb

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

const (
	// pageSize is the number of rows that are read at a time, and pageBytes the size of
	// their fields from which a page has fewer.
	pageSize  = 500
	pageBytes = 4 << 20
	// maxField is the longest field that is read.
	maxField = 256 << 10
	// maxAdded is how many rows may be added while the others are read.
	maxAdded = 1_000_000
)

// Each calls f for every key until f returns an error. It holds no lock while f
// runs, because f may be slow and the application may be writing. Rows that are
// added or deleted meanwhile may or may not be read.
func (d *DB) Each(ctx context.Context, f func(Key) error) error {
	var p page
	for read := int64(0); ; {
		err := within(ctx, func(ctx context.Context) (err error) {
			p, err = d.page(ctx, p.last)
			return err
		})
		if read += int64(len(p.keys)); err == nil && read > d.most+maxAdded {
			err = errDamaged
		}
		if err != nil {
			return fmt.Errorf("reading keys: %w", err)
		}
		for _, k := range p.keys {
			if err := f(k); err != nil {
				return err
			}
		}
		if !p.more {
			return nil
		}
	}
}

// page is some of the keys.
type page struct {
	keys []Key
	last []any // position of the last row
	more bool
}

// page returns the keys after a position, which is nil for the first page.
func (d *DB) page(ctx context.Context, after []any) (p page, err error) {
	rows, err := d.conn.QueryContext(ctx, d.query(after), after...)
	if err != nil {
		return p, err
	}
	defer rows.Close()
	p.last = after
	var long int64
	values := make([]any, len(fields)+len(d.order))
	pointers := []any{&long}
	for i := range values {
		pointers = append(pointers, &values[i])
	}
	for size := 0; !p.more && rows.Next(); {
		if err := rows.Scan(pointers...); err != nil {
			return p, err
		}
		r := make(row, len(fields))
		for i, field := range fields {
			r[field] = values[i]
			if long>>i&1 == 1 {
				r[field] = tooLong{}
			}
			size += sizeOf(values[i])
		}
		position := slices.Clone(values[len(fields):])
		if !follows(position, p.last) {
			return p, errDamaged
		}
		p.keys, p.last = append(p.keys, d.options.convert(r)), position
		p.more = len(p.keys) == pageSize || size >= pageBytes
	}
	return p, rows.Err()
}

// follows reports whether a row may come after another one: rowids grow.
func follows(position, last []any) bool {
	if len(last) != 1 {
		return true
	}
	before, known := last[0].(int64)
	now, isID := position[0].(int64)
	return !known || !isID || now > before
}

func sizeOf(value any) int {
	switch v := value.(type) {
	case string:
		return len(v)
	case []byte:
		return len(v)
	}
	return 0
}

// query returns the statement for a page. Its first column has a bit for each field that
// is too long, which is read as NULL: SQLite knows the length without reading the field.
func (d *DB) query(after []any) string {
	list, long := make([]string, 1, 1+len(fields)+len(d.order)), "0"
	for i, column := range d.columns {
		if column == "" {
			list = append(list, "NULL")
			continue
		}
		length := "octet_length(" + quote(column) + ")"
		list = append(list, fmt.Sprintf("iif(%s <= %d, %s, NULL)", length, maxField, expression(column)))
		long += fmt.Sprintf(" + (ifnull(%s, 0) > %d) * %d", length, maxField, 1<<i)
	}
	list[0] = long
	for _, by := range d.order {
		list = append(list, "+"+by)
	}
	order, where := strings.Join(d.order, ", "), ""
	if after != nil {
		where = fmt.Sprintf(" WHERE (%s) > (?%s)", order, strings.Repeat(", ?", len(after)-1))
	}
	return fmt.Sprintf("SELECT %s FROM %s%s ORDER BY %s LIMIT %d", strings.Join(list, ", "), d.table(), where, order, pageSize)
}

// expression returns a column as an expression. The driver would convert the values of
// a plain column to times.
func expression(column string) string { return "+" + quote(column) }

// findOrder returns the expressions that identify a row: the rowid, under a name that
// is not a column, or the primary key of a table without rowid.
func (d *DB) findOrder(ctx context.Context, columns []string) ([]string, error) {
	for _, alias := range []string{"rowid", "_rowid_", "oid"} {
		if slices.ContainsFunc(columns, func(c string) bool { return strings.EqualFold(c, alias) }) {
			continue
		}
		stmt, err := d.conn.PrepareContext(ctx, "SELECT "+alias+" FROM "+d.table()) //nolint:gosec // both names are quoted
		if err == nil {
			return []string{alias}, stmt.Close()
		}
		break // it has none
	}
	names, err := d.strings(ctx, `SELECT name FROM pragma_table_info(?) WHERE pk > 0 ORDER BY pk`, d.options.Table)
	if err == nil && len(names) == 0 {
		err = fmt.Errorf("the table %q has columns named rowid, _rowid_ and oid: its rows cannot be told apart", d.options.Table)
	}
	for i := range names {
		names[i] = quote(names[i])
	}
	return names, err
}
