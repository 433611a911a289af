package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/caddy-apikey/caddy-apikey/store"
)

// statements keeps prepared statements by their text, with the table prefix applied.
type statements struct {
	prefix  string
	prepare func(ctx context.Context, query string) (*sql.Stmt, error)

	mu    sync.Mutex
	known map[string]*sql.Stmt
}

func newStatements(prefix string, prepare func(context.Context, string) (*sql.Stmt, error)) *statements {
	return &statements{prefix: prefix, prepare: prepare, known: map[string]*sql.Stmt{}}
}

func (s *statements) sql(query string) string { return withPrefix(query, s.prefix) }

func withPrefix(query, prefix string) string { return strings.ReplaceAll(query, placeholder, prefix) }

func (s *statements) get(query string) (*sql.Stmt, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if stmt, ok := s.known[query]; ok {
		return stmt, nil
	}
	// Without a caller's context: the statement outlives the call.
	stmt, err := s.prepare(context.Background(), s.sql(query))
	if err != nil {
		return nil, err
	}
	s.known[query] = stmt
	return stmt, nil
}

func (s *statements) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, stmt := range s.known {
		errs = append(errs, stmt.Close())
	}
	clear(s.known)
	return errors.Join(errs...)
}

// writerConn is the one connection that writes. Only one goroutine at a time
// uses it. Its calls take no context: a write that has begun runs to its end.
type writerConn struct {
	path, prefix string

	db    *sql.DB
	conn  *sql.Conn
	stmts *statements

	// clearing: there may be deleted owners whose keys are still there.
	clearing bool

	spending atomic.Pointer[store.Spending] // see store.Outbox.ReportSpending

	// Of the transaction that is under way:
	changes []store.Change
	owners  []int64 // numbers of owners that were changed
}

// pin takes the only connection of db for good.
func pin(ctx context.Context, db *sql.DB, path, prefix string) (*writerConn, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	return &writerConn{path: path, prefix: prefix, db: db, conn: conn, stmts: newStatements(prefix, conn.PrepareContext), clearing: true}, nil
}

func (c *writerConn) close() error {
	stmtErr := c.stmts.close()
	connErr := c.conn.Close()
	if errors.Is(connErr, sql.ErrConnDone) { // it could not be opened again
		connErr = nil
	}
	return errors.Join(stmtErr, connErr, c.db.Close())
}

// exec runs a statement and returns how many rows it changed.
func (c *writerConn) exec(query string, args ...any) (int64, error) {
	stmt, err := c.stmts.get(query)
	if err != nil {
		return 0, err
	}
	res, err := stmt.ExecContext(context.Background(), args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// row runs a query and scans its first row.
func (c *writerConn) row(query string, args []any, dest ...any) error {
	stmt, err := c.stmts.get(query)
	if err != nil {
		return err
	}
	return stmt.QueryRowContext(context.Background(), args...).Scan(dest...)
}

// rows runs a query and hands each of its rows to read.
func (c *writerConn) rows(query string, args []any, read func(*sql.Rows) error) error {
	stmt, err := c.stmts.get(query)
	if err != nil {
		return err
	}
	return eachRow(context.Background(), stmt, args, read)
}

func eachRow(ctx context.Context, stmt *sql.Stmt, args []any, read func(*sql.Rows) error) (err error) {
	rows, err := stmt.QueryContext(ctx, args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		if err := read(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// ids runs a query whose rows are one text each.
func (c *writerConn) ids(query string, args ...any) (ids []string, err error) {
	err = c.rows(query, args, func(rows *sql.Rows) error {
		var id string
		err := rows.Scan(&id)
		ids = append(ids, id)
		return err
	})
	return ids, err
}

// reopen replaces the connection by a new one, and proves that the new one can
// commit. The proof also overwrites, in the log, what a commit that failed may
// have left there, so that no crash can bring it back.
func (c *writerConn) reopen() (err error) {
	ctx := context.Background()
	_ = c.close() // its state is what is in doubt
	db, err := sql.Open("sqlite", writerDSN(c.path))
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1)
	defer func() {
		if err != nil {
			err = errors.Join(err, db.Close())
		}
	}()
	fresh, err := pin(ctx, db, c.path, c.prefix)
	if err != nil {
		return err
	}
	if err := fresh.prove(ctx); err != nil {
		return errors.Join(err, fresh.close())
	}
	c.db, c.conn, c.stmts = fresh.db, fresh.conn, fresh.stmts
	return nil
}

// prove reads the schema and commits a page without changing anything.
func (c *writerConn) prove(ctx context.Context) error {
	if _, err := schemaVersion(ctx, c.conn, c.prefix); err != nil {
		return err
	}
	var n int64
	if err := c.conn.QueryRowContext(ctx, "PRAGMA user_version").Scan(&n); err != nil {
		return err
	}
	_, err := c.conn.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", n))
	return err
}

const (
	// readerCount is how many reads other than look-ups and lists run at a time.
	readerCount = 2
	// listerCount is how many lists are read at a time, which nothing else waits for.
	listerCount = 1
)

// readers are connections that cannot write.
type readers struct {
	db    *sql.DB
	stmts *statements
}

func openReaders(ctx context.Context, path, prefix string, count int) (*readers, error) {
	db, err := sql.Open("sqlite", readerDSN(path))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(count)
	db.SetMaxIdleConns(count)
	r := &readers{db: db, stmts: newStatements(prefix, db.PrepareContext)}
	if _, err := schemaVersion(ctx, db, prefix); err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

func readerDSN(path string) string {
	return dsn(path, "_busy_timeout=5000", "_pragma=cache_size("+cacheSize()+")", "_pragma=cell_size_check(1)", "_pragma=trusted_schema(0)", "_query_only=1")
}

func (r *readers) close() error { return errors.Join(r.stmts.close(), r.db.Close()) }
