package betterauthdb

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// pageRows is how many rows are read at a time.
const pageRows = 500

// Each calls f for every key. It reads page by page and holds no lock in between:
// f may take long, and the application goes on writing. So rows that come or go
// meanwhile are read or not. An error of f ends it.
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
		if len(keys) < pageRows {
			return nil
		}
		last = end
	}
}

// page returns the keys behind a place, nil for the first, and the place where it ends.
func (d *DB) page(ctx context.Context, after []any) (keys []Key, last []any, err error) {
	rows, err := d.db.QueryContext(ctx, d.query(after), after...)
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	all := make([]any, len(fields)+len(d.order))
	into := make([]any, len(all))
	for i := range all {
		into[i] = &all[i]
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return nil, nil, err
		}
		r := make(row, len(fields))
		for i, field := range fields {
			r[field] = all[i]
		}
		keys, last = append(keys, d.options.convert(r)), slices.Clone(all[len(fields):])
	}
	return keys, last, rows.Err()
}

func (d *DB) query(after []any) string {
	list := make([]string, len(fields), len(fields)+len(d.order))
	for i, column := range d.columns {
		list[i] = "NULL"
		if column != "" {
			list[i] = value(column)
		}
	}
	for _, by := range d.order {
		list = append(list, "+"+by)
	}
	order, where := strings.Join(d.order, ", "), ""
	if after != nil {
		where = fmt.Sprintf(" WHERE (%s) > (?%s)", order, strings.Repeat(", ?", len(after)-1))
	}
	return fmt.Sprintf("SELECT %s FROM %s%s ORDER BY %s LIMIT %d", strings.Join(list, ", "), quote(d.options.Table), where, order, pageRows)
}

// value makes an expression of a column, so that the driver makes no dates of it.
func value(column string) string { return "+" + quote(column) }

// findOrder finds what rows are told apart by: the rowid by a name that no column
// has, or the primary key of a table without one. A view has neither: there id and
// key must do, and rows that have both in common are the same key.
func (d *DB) findOrder(ctx context.Context, columns []string) ([]string, error) {
	const about = ` FROM pragma_table_list WHERE schema = 'main' AND name = ? COLLATE NOCASE`
	kind, err := d.strings(ctx, `SELECT iif(wr, 'keyed', type)`+about, d.options.Table)
	switch {
	case err != nil:
		return nil, err
	case slices.Contains(kind, "keyed"):
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
	return []string{"ifnull(" + value(id) + ", '')", "ifnull(" + value(key) + ", '')"}, nil
}
