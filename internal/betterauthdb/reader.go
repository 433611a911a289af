// Package betterauthdb reads the API keys of a Better Auth SQLite database. It
// never writes, so the database may be in use by a running server.
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

// Options describe a database that differs from Better Auth's defaults.
type Options struct {
	Table   string            // default: apikey
	Columns map[string]string // columns that were renamed, by the name of the field
	// PlainKeys means that keys are stored without hashing (disableKeyHashing). Such
	// keys are detected unless they look like a hash.
	PlainKeys bool
	// Configs are new names for configurations, by the old name.
	Configs map[string]string
	// Organizations are the configurations, by the old name, whose keys belong to
	// organizations.
	Organizations []string
}

// DB is an open database.
type DB struct {
	db      *sql.DB
	options Options
	columns []string // column of each of fields; "" if the table has none
	order   []string // expressions that identify a row and order the rows
	extra   []string // unknown columns
	count   int64
}

// fields are the fields that are read, by their name in Better Auth.
var fields = []string{
	"id", "configId", "name", "start", "referenceId", "prefix", "key", "refillInterval", "refillAmount", "lastRefillAt",
	"enabled", "rateLimitEnabled", "rateLimitTimeWindow", "rateLimitMax", "requestCount", "remaining", "lastRequest",
	"expiresAt", "createdAt", "updatedAt", "permissions", "metadata",
}

// required are the fields that the table must have.
var required = []string{"id", "referenceId", "key"}

const defaultTable = "apikey" // SQLite ignores the case

// Open opens a database file.
func Open(ctx context.Context, path string, o Options) (_ *DB, err error) {
	if info, err := os.Stat(path); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
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
	if err := d.inspect(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("reading %s: %w", path, err), db.Close())
	}
	return d, nil
}

// Close closes the database.
func (d *DB) Close() error { return d.db.Close() }

// Count returns the number of rows when the database was opened.
func (d *DB) Count() int64 { return d.count }

// Extra returns the columns of the table that are not read.
func (d *DB) Extra() []string { return d.extra }

// inspect finds the table and its columns.
func (d *DB) inspect(ctx context.Context) error {
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

// match finds the column of each field: the one that the options name, or one with
// the name of the field, regardless of case and underscores.
func (d *DB) match(names []string) error {
	for field := range d.options.Columns {
		if !slices.Contains(fields, field) {
			return fmt.Errorf("%q is not a field of Better Auth's keys; the fields are: %s", field, strings.Join(fields, ", "))
		}
	}
	d.extra = slices.Clone(names)
	for _, field := range fields {
		want, renamed := d.options.Columns[field]
		if !renamed {
			want = field
		}
		column := find(names, want)
		if column == "" && field == "referenceId" && !renamed {
			column = find(names, "userId") // its name before version 1.5
		}
		if column == "" && (renamed || slices.Contains(required, field)) {
			return fmt.Errorf("the table %q has no column %q; its columns are: %s", d.options.Table, want, strings.Join(names, ", "))
		}
		d.columns = append(d.columns, column)
		d.extra = slices.DeleteFunc(d.extra, func(name string) bool { return name == column })
	}
	return nil
}

func find(names []string, want string) string {
	normalize := func(s string) string { return strings.ToLower(strings.ReplaceAll(s, "_", "")) }
	for _, name := range names {
		if normalize(name) == normalize(want) {
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
