// Package betterauthdb reads the API keys of a Better Auth SQLite database. It
// only ever reads: the database may belong to a server that runs.
package betterauthdb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	_ "modernc.org/sqlite" // the driver
)

// Options say where the keys are, if not where Better Auth puts them.
type Options struct {
	Table   string            // default: apikey
	Columns map[string]string // names of columns, by the name that Better Auth has
	// PlainKeys tells that keys are stored as they are (disableKeyHashing). It is
	// seen by itself but for keys that look like a hash.
	PlainKeys bool
	// Configs are other names for configurations.
	Configs map[string]string
}

// DB is an open database.
type DB struct {
	db      *sql.DB
	options Options
	columns []string // of the table, in the order of fields; empty where it has none
	order   []string // expressions that tell rows apart, by which they are read
	extra   []string // columns that nobody knows
	count   int64
}

// fields are the columns that are read, by the name that Better Auth has.
var fields = []string{
	"id", "configId", "name", "start", "referenceId", "prefix", "key", "refillInterval", "refillAmount", "lastRefillAt",
	"enabled", "rateLimitEnabled", "rateLimitTimeWindow", "rateLimitMax", "requestCount", "remaining", "lastRequest",
	"expiresAt", "createdAt", "updatedAt", "permissions", "metadata",
}

// demanded are the fields without which there is no key.
var demanded = []string{"id", "referenceId", "key"}

const defaultTable = "apikey" // SQLite does not tell it from apiKey

// Open opens a database file.
func Open(ctx context.Context, path string, o Options) (_ *DB, err error) {
	if info, err := os.Stat(path); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no file", path)
	}
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if o.Table == "" {
		o.Table = defaultTable
	}
	if absolute = filepath.ToSlash(absolute); !strings.HasPrefix(absolute, "/") { // C:/…
		absolute = "/" + absolute
	}
	dsn := url.URL{Scheme: "file", OmitHost: true, Path: absolute, RawQuery: "mode=ro&_pragma=busy_timeout(5000)&_pragma=query_only(1)"}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, err
	}
	d := &DB{db: db, options: o}
	if err := d.look(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("reading %s: %w", path, err), db.Close())
	}
	return d, nil
}

// Close closes the database.
func (d *DB) Close() error { return d.db.Close() }

// Count is how many rows there were when the database was opened.
func (d *DB) Count() int64 { return d.count }

// Extra are the columns of the table that are not read.
func (d *DB) Extra() []string { return d.extra }

// look finds the table and its columns.
func (d *DB) look(ctx context.Context) error {
	names, err := d.strings(ctx, `SELECT name FROM pragma_table_info(?) ORDER BY cid`, d.options.Table)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		tables, err := d.strings(ctx, `SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\_%' ESCAPE '\' ORDER BY name`)
		if err != nil {
			return err
		}
		return fmt.Errorf("there is no table %q; there are: %s", d.options.Table, strings.Join(tables, ", "))
	}
	if err := d.match(names); err != nil {
		return err
	}
	if d.order, err = d.findOrder(ctx, names); err != nil {
		return err
	}
	return d.db.QueryRowContext(ctx, "SELECT count(*) FROM "+quote(d.options.Table)).Scan(&d.count)
}

// match finds the column of each field: by its name in any spelling, such as
// reference_id, or by the name that the options give it.
func (d *DB) match(names []string) error {
	for theirs := range d.options.Columns {
		if !slices.Contains(fields, theirs) {
			return fmt.Errorf("%q is no field of Better Auth's keys; they are: %s", theirs, strings.Join(fields, ", "))
		}
	}
	d.extra = slices.Clone(names)
	for _, field := range fields {
		want, given := d.options.Columns[field]
		if !given {
			want = field
		}
		column := find(names, want)
		if column == "" && field == "referenceId" && !given {
			column = find(names, "userId") // its name before version 1.5
		}
		if column == "" && (given || slices.Contains(demanded, field)) {
			return fmt.Errorf("the table %q has no column %q; it has: %s", d.options.Table, want, strings.Join(names, ", "))
		}
		d.columns = append(d.columns, column)
		d.extra = slices.DeleteFunc(d.extra, func(name string) bool { return name == column })
	}
	return nil
}

func find(names []string, want string) string {
	plain := func(s string) string { return strings.ToLower(strings.ReplaceAll(s, "_", "")) }
	for _, name := range names {
		if plain(name) == plain(want) {
			return name
		}
	}
	return ""
}

func (d *DB) strings(ctx context.Context, query string, args ...any) (list []string, err error) {
	rows, err := d.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, rows.Err()
}

func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
