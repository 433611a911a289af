package betterauthdb

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// pageSize is the number of rows that are read at a time.
const pageSize = 500

// Each calls f for every key until f returns an error. It holds no lock while f
// runs, because f may be slow and the application may be writing. Rows that are
// added or deleted meanwhile may or may not be read.
func (d *DB) Each(ctx context.Context, f func(Key) error) error {
	var last []any
	for {
		keys, end, err := d.page(ctx, last)
		if err != nil {
			return fmt.Errorf("reading keys: %w", err)
		}
		for _, k := range keys {
			if err := f(k); err != nil {
				return err
			}
		}
		if len(keys) < pageSize {
			return nil
		}
		last = end
	}
}

// page returns the keys after a position, which is nil for the first page, and the
// position of its last row.
func (d *DB) page(ctx context.Context, after []any) (keys []Key, last []any, err error) {
	rows, err := d.db.QueryContext(ctx, d.query(after), after...)
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	values := make([]any, len(fields)+len(d.order))
	pointers := make([]any, len(values))
	for i := range values {
		pointers[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(pointers...); err != nil {
			return nil, nil, err
		}
		r := make(row, len(fields))
		for i, field := range fields {
			r[field] = values[i]
		}
		keys, last = append(keys, d.options.convert(r)), slices.Clone(values[len(fields):])
	}
	return keys, last, rows.Err()
}

func (d *DB) query(after []any) string {
	list := make([]string, len(fields), len(fields)+len(d.order))
	for i, column := range d.columns {
		list[i] = "NULL"
		if column != "" {
			list[i] = expression(column)
		}
	}
	for _, by := range d.order {
		list = append(list, "+"+by)
	}
	order, where := strings.Join(d.order, ", "), ""
	if after != nil {
		where = fmt.Sprintf(" WHERE (%s) > (?%s)", order, strings.Repeat(", ?", len(after)-1))
	}
	return fmt.Sprintf("SELECT %s FROM %s%s ORDER BY %s LIMIT %d", strings.Join(list, ", "), quote(d.options.Table), where, order, pageSize)
}

// expression returns a column as an expression. The driver would convert the values of
// a plain column to times.
func expression(column string) string { return "+" + quote(column) }

// findOrder returns the expressions that identify a row: the rowid, under a name that
// is not a column, or the primary key of a table without rowid. A view has neither;
// there it is id and key, and rows with the same values are the same key.
func (d *DB) findOrder(ctx context.Context, columns []string) ([]string, error) {
	const table = ` FROM pragma_table_list WHERE schema = 'main' AND name = ? COLLATE NOCASE`
	kind, err := d.strings(ctx, `SELECT iif(wr, 'without rowid', type)`+table, d.options.Table)
	switch {
	case err != nil:
		return nil, err
	case slices.Contains(kind, "without rowid"):
		names, err := d.strings(ctx, `SELECT name FROM pragma_table_info(?) WHERE pk > 0 ORDER BY pk`, d.options.Table)
		for i := range names {
			names[i] = quote(names[i])
		}
		return names, err
	case slices.Contains(kind, "table"):
		for _, alias := range []string{"rowid", "_rowid_", "oid"} {
			if !slices.ContainsFunc(columns, func(c string) bool { return strings.EqualFold(c, alias) }) {
				return []string{alias}, nil
			}
		}
	}
	id, key := d.columns[slices.Index(fields, "id")], d.columns[slices.Index(fields, "key")]
	return []string{"ifnull(" + expression(id) + ", '')", "ifnull(" + expression(key) + ", '')"}, nil
}
