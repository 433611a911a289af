// Package betterauthdb reads the API keys of a Better Auth SQLite database. It
// never writes, so the database may be in use by a running server.
//
// The file may come from anybody. Only an ordinary table is read, so that no SQL out of
// the file is run; SQLite's limits, the size of the file and a deadline bound what
// reading it costs.
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
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
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
	conn    *sql.Conn // the only connection of db, with limits
	options Options
	columns []string // column of each of fields; "" if the table has none
	order   []string // expressions that identify a row and order the rows
	extra   []string // unknown columns
	count   int64
	most    int64 // rows that a file of this size can have
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
	dsn := url.URL{Scheme: "file", OmitHost: true, Path: absolute, RawQuery: "mode=ro&_defensive=1" +
		"&_pragma=busy_timeout(5000)&_pragma=query_only(1)&_pragma=trusted_schema(0)&_pragma=cell_size_check(1)&_pragma=mmap_size(0)"}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, err
	}
	d := &DB{db: db, options: o}
	if err := within(ctx, d.inspect); err != nil {
		return nil, errors.Join(fmt.Errorf("reading %s: %w", path, err), d.Close())
	}
	return d, nil
}

// Close closes the database.
func (d *DB) Close() error {
	if d.conn == nil {
		return d.db.Close()
	}
	return errors.Join(d.conn.Close(), d.db.Close())
}

// limits are those of the connection. They hold for the whole schema of the
// application, so they leave room for any that is not made to do harm.
var limits = map[int]int{
	sqlite3.SQLITE_LIMIT_LENGTH:         1 << 20, // of a value, or a statement of the schema
	sqlite3.SQLITE_LIMIT_SQL_LENGTH:     1 << 20,
	sqlite3.SQLITE_LIMIT_ATTACHED:       0,
	sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH:  1,
	sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}

// readTime is how long SQLite may take to inspect the database, or to read a page.
var readTime = time.Minute

// within runs f, which must end in time.
func within(ctx context.Context, f func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	err := f(limited)
	if err != nil && ctx.Err() == nil && limited.Err() != nil {
		return fmt.Errorf("it took longer than %v", readTime)
	}
	return err
}

// connect opens the only connection, and limits it.
func (d *DB) connect(ctx context.Context) (err error) {
	d.db.SetMaxOpenConns(1)
	if d.conn, err = d.db.Conn(ctx); err != nil {
		return err
	}
	for id, limit := range limits {
		if _, err := sqlite.Limit(d.conn, id, limit); err != nil {
			return err
		}
	}
	return nil
}

// Count returns the number of rows when the database was opened.
func (d *DB) Count() int64 { return d.count }

// Extra returns the columns of the table that are not read.
func (d *DB) Extra() []string { return d.extra }

// inspect finds the table and its columns.
func (d *DB) inspect(ctx context.Context) error {
	if err := d.connect(ctx); err != nil {
		return err
	}
	if err := d.checkTable(ctx); err != nil {
		return err
	}
	names, err := d.strings(ctx, `SELECT name FROM pragma_table_info(?) ORDER BY cid`, d.options.Table)
	if err != nil {
		return err
	}
	if err := d.match(names); err != nil {
		return err
	}
	if d.order, err = d.findOrder(ctx, names); err != nil {
		return err
	}
	return d.countRows(ctx)
}

// checkTable makes sure that the table is an ordinary one. A view would run what it was
// made of, and a virtual table the module behind it. Only the list of all tables is
// asked: other ways to ask would compile the views.
func (d *DB) checkTable(ctx context.Context) error {
	kinds, err := d.strings(ctx, `SELECT iif(type = 'table' AND rootpage < 1, 'virtual table', type) FROM main.sqlite_schema
		WHERE type IN ('table', 'view') AND name = ? COLLATE NOCASE`, d.options.Table)
	switch {
	case err != nil:
		return err
	case len(kinds) == 0:
		const most = 20
		tables, err := d.strings(ctx, `SELECT name FROM main.sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\_%' ESCAPE '\' ORDER BY name LIMIT ?`, most)
		if err != nil {
			return err
		}
		return fmt.Errorf("there is no table %q; there are: %s", d.options.Table, strings.Join(tables, ", "))
	case len(kinds) > 1 || kinds[0] != "table":
		return fmt.Errorf("%q is a %s: only an ordinary table is read", d.options.Table, kinds[0])
	}
	return nil
}

// minCell is the least that a row takes in the file.
const minCell = 4

// countRows counts the rows, up to what the file can have: the pages of a damaged one
// may refer to the same page again and again.
func (d *DB) countRows(ctx context.Context) error {
	const size = `SELECT page_count * page_size FROM pragma_page_count, pragma_page_size`
	if err := d.conn.QueryRowContext(ctx, size).Scan(&d.most); err != nil {
		return err
	}
	d.most /= minCell
	count := "SELECT count(*) FROM (SELECT 1 FROM " + d.table() + " LIMIT ?)"
	if err := d.conn.QueryRowContext(ctx, count, d.most+1).Scan(&d.count); err != nil {
		return err
	}
	if d.count > d.most {
		return errDamaged
	}
	return nil
}

var errDamaged = errors.New("the database is damaged: it has more rows than its file has room for, or has them out of order")

// table returns the table in SQL.
func (d *DB) table() string { return "main." + quote(d.options.Table) }

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
	rows, err := d.conn.QueryContext(ctx, query, args...)
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
