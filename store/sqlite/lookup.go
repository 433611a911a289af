package sqlite

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// A request with a key that is not in memory waits for one look-up by hash. It goes
// through SQLite's own interface: database/sql and the driver allocate for every
// column of every query, which costs as much as the look-up itself.

const (
	// finderCount is how many look-ups run at a time; others wait. More do not help:
	// each connection has a page cache of its own.
	finderCount = 2
	// finderBusy is how long a look-up waits, in milliseconds, where another program
	// holds the database locked. It cannot be interrupted.
	finderBusy = 200

	byID = `SELECT ` + entryColumns + windowColumns + entryTables + windowJoin + ` WHERE k.id = ?1`

	// byHash is one statement, so that a key that is being rotated is found
	// under the old hash or the new one at any moment.
	byHash = `SELECT ` + entryColumns + windowColumns + entryTables + windowJoin + ` WHERE k.num = coalesce(
		(SELECT num FROM {p}keys WHERE hash = ?1), (SELECT key FROM {p}previous_hashes WHERE hash = ?1))`
)

// finder is a connection that looks keys up. One goroutine at a time uses it.
type finder struct {
	tls                    *libc.TLS
	db                     uintptr
	byHash, byID, previous uintptr // statements
}

// codeError is an error of SQLite that did not come through the driver.
type codeError struct {
	code    int
	message string
}

func (e *codeError) Error() string { return fmt.Sprintf("%s (%d)", e.message, e.code) }

func openFinder(path, prefix string) (_ *finder, err error) {
	f := &finder{tls: libc.NewTLS()}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.close())
		}
	}()
	name, err := libc.CString(path)
	if err != nil {
		return nil, err
	}
	defer libc.Xfree(f.tls, name)
	place := libc.Xcalloc(f.tls, 1, 8)
	defer libc.Xfree(f.tls, place)
	rc := sqlite3.Xsqlite3_open_v2(f.tls, name, place, sqlite3.SQLITE_OPEN_READWRITE|sqlite3.SQLITE_OPEN_NOMUTEX, 0)
	f.db = pointerAt(place)
	if rc != sqlite3.SQLITE_OK {
		return nil, f.failure(rc)
	}
	sqlite3.Xsqlite3_extended_result_codes(f.tls, f.db, 1)
	sqlite3.Xsqlite3_busy_timeout(f.tls, f.db, finderBusy)
	for _, pragma := range []string{"query_only = 1", "cache_size = " + cacheSize(), "cell_size_check = 1", "trusted_schema = 0"} {
		stmt, err := f.prepare("PRAGMA "+pragma, prefix)
		if err != nil {
			return nil, err
		}
		sqlite3.Xsqlite3_step(f.tls, stmt)
		if rc := sqlite3.Xsqlite3_finalize(f.tls, stmt); rc != sqlite3.SQLITE_OK {
			return nil, f.failure(rc)
		}
	}
	for _, s := range []struct {
		stmt  *uintptr
		query string
	}{{&f.byHash, byHash}, {&f.byID, byID}, {&f.previous, previousUses}} {
		if *s.stmt, err = f.prepare(s.query, prefix); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func (f *finder) prepare(query, prefix string) (uintptr, error) {
	text, err := libc.CString(withPrefix(query, prefix))
	if err != nil {
		return 0, err
	}
	defer libc.Xfree(f.tls, text)
	place := libc.Xcalloc(f.tls, 1, 8)
	defer libc.Xfree(f.tls, place)
	if rc := sqlite3.Xsqlite3_prepare_v2(f.tls, f.db, text, -1, place, 0); rc != sqlite3.SQLITE_OK {
		return 0, f.failure(rc)
	}
	return pointerAt(place), nil
}

func (f *finder) close() error {
	for _, stmt := range []uintptr{f.byHash, f.byID, f.previous} {
		sqlite3.Xsqlite3_finalize(f.tls, stmt) // 0 is allowed
	}
	var err error
	if rc := sqlite3.Xsqlite3_close_v2(f.tls, f.db); rc != sqlite3.SQLITE_OK {
		err = f.failure(rc)
	}
	f.tls.Close()
	return err
}

func (f *finder) failure(rc int32) error {
	message := "out of memory"
	if f.db != 0 {
		message = libc.GoString(sqlite3.Xsqlite3_errmsg(f.tls, f.db))
	}
	return &codeError{int(rc), message}
}

// find runs one of the statements that read an entry.
func (f *finder) find(stmt uintptr, bind func() int32) (e store.Entry, err error) {
	defer sqlite3.Xsqlite3_reset(f.tls, stmt)
	rc := bind()
	if rc == sqlite3.SQLITE_OK {
		rc = sqlite3.Xsqlite3_step(f.tls, stmt)
	}
	switch rc {
	case sqlite3.SQLITE_ROW:
	case sqlite3.SQLITE_DONE:
		return e, store.ErrNotFound
	default:
		return e, failed("reading a key", f.failure(rc))
	}
	var row entryRow
	for rc == sqlite3.SQLITE_ROW {
		f.scan(stmt, &row)
		rc = sqlite3.Xsqlite3_step(f.tls, stmt) // a row for each window
	}
	if rc != sqlite3.SQLITE_DONE {
		return e, failed("reading a key", f.failure(rc))
	}
	if e, err = row.entry(); err == nil && len(e.Key.Previous) > 0 {
		err = f.readUses(row.num, e.Key)
	}
	return e, err
}

// scan reads the columns of entryColumns and windowColumns, in that order.
func (f *finder) scan(stmt uintptr, r *entryRow) {
	w := columns{f.tls, stmt, windowAt}
	r.addWindow(w.text(), w.blob())
	if r.num != 0 {
		return // another window of the same key
	}
	c := columns{f.tls, stmt, 0}
	r.num, r.doc, r.revision = c.number().Int64, c.text().String, c.number().Int64
	r.lastRequest = c.number()
	o := &r.owner
	o.userID, o.tier, o.enabled, o.createdAt, o.updatedAt, o.revision = c.text(), c.text(), c.number(), c.number(), c.number(), c.number()
	if r.credits.unit = c.text(); !r.credits.unit.Valid {
		return
	}
	for _, n := range r.credits.numbers() {
		*n = c.number()
	}
}

// windowAt is the first of windowColumns.
var windowAt = int32(strings.Count(entryColumns, ",") + 1) //nolint:gosec // few

// readUses adds the last uses of previous raw keys.
func (f *finder) readUses(num int64, k *key.Key) error {
	stmt := f.previous
	defer sqlite3.Xsqlite3_reset(f.tls, stmt)
	sqlite3.Xsqlite3_bind_int64(f.tls, stmt, 1, num)
	for {
		switch rc := sqlite3.Xsqlite3_step(f.tls, stmt); rc {
		case sqlite3.SQLITE_ROW:
			c := columns{f.tls, stmt, 0}
			hash := c.blob()
			used(k, hash, c.number().Int64)
		case sqlite3.SQLITE_DONE:
			return nil
		default:
			return failed("reading the uses of previous keys", f.failure(rc))
		}
	}
}

// openFinders returns finders that are free.
func openFinders(path, prefix string) (chan *finder, error) {
	all := make(chan *finder, finderCount)
	for range finderCount {
		f, err := openFinder(path, prefix)
		if err != nil {
			return nil, errors.Join(err, closeFinders(all))
		}
		all <- f
	}
	return all, nil
}

// closeFinders closes all finders, which are free.
func closeFinders(all chan *finder) (err error) {
	for range len(all) {
		err = errors.Join(err, (<-all).close())
	}
	return err
}

// withFinder lends a finder to read.
func (s *Store) withFinder(ctx context.Context, read func(*finder) (store.Entry, error)) (store.Entry, error) {
	if err := s.enter(); err != nil {
		return store.Entry{}, err
	}
	defer s.leave()
	if err := ctx.Err(); err != nil {
		return store.Entry{}, unavailable("reading a key: %w", err)
	}
	select {
	case f := <-s.finders:
		defer func() { s.finders <- f }()
		return read(f)
	case <-ctx.Done():
		return store.Entry{}, unavailable("reading a key, too many look-ups wait: %w", ctx.Err())
	}
}

// Find implements store.Store.
func (s *Store) Find(ctx context.Context, hash key.Hash) (store.Entry, error) {
	e, err := s.withFinder(ctx, func(f *finder) (store.Entry, error) {
		return f.find(f.byHash, func() int32 {
			return f.bind(f.byHash, hash[:], sqlite3.Xsqlite3_bind_blob)
		})
	})
	if err != nil {
		return store.Entry{}, err
	}
	previous := func(p key.PreviousKey) bool { return p.Hash.Equal(hash) }
	if !e.Key.Hash.Equal(hash) && !slices.ContainsFunc(e.Key.Previous, previous) {
		// Only a damaged index leads from a hash to another key.
		return store.Entry{}, unavailable("finding a key: the index of hashes is damaged")
	}
	return e, nil
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, id string) (store.Entry, error) {
	return s.withFinder(ctx, func(f *finder) (store.Entry, error) {
		return f.find(f.byID, func() int32 {
			return f.bind(f.byID, []byte(id), sqlite3.Xsqlite3_bind_text)
		})
	})
}

// bind binds the only parameter of a statement. SQLite makes a copy of it.
func (f *finder) bind(stmt uintptr, value []byte, by func(*libc.TLS, uintptr, int32, uintptr, int32, uintptr) int32) int32 {
	room := libc.Xmalloc(f.tls, libc.Tsize_t(len(value)+1))
	if room == 0 {
		return sqlite3.SQLITE_NOMEM
	}
	defer libc.Xfree(f.tls, room)
	copy(bytesAt(room, len(value)), value)
	return by(f.tls, stmt, 1, room, int32(len(value)), sqlite3.SQLITE_TRANSIENT) //nolint:gosec // IDs are short
}

// columns reads the columns of a row, one after another.
type columns struct {
	tls  *libc.TLS
	stmt uintptr
	i    int32
}

func (c *columns) next() (i int32, null bool) {
	i = c.i
	c.i++
	return i, sqlite3.Xsqlite3_column_type(c.tls, c.stmt, i) == sqlite3.SQLITE_NULL
}

func (c *columns) number() (n nullNumber) {
	if i, null := c.next(); !null {
		n.Int64, n.Valid = sqlite3.Xsqlite3_column_int64(c.tls, c.stmt, i), true
	}
	return n
}

func (c *columns) text() (s nullText) {
	if i, null := c.next(); !null {
		p := sqlite3.Xsqlite3_column_text(c.tls, c.stmt, i)
		s.String, s.Valid = string(bytesAt(p, int(sqlite3.Xsqlite3_column_bytes(c.tls, c.stmt, i)))), true
	}
	return s
}

func (c *columns) blob() []byte {
	i, null := c.next()
	if null {
		return nil
	}
	p := sqlite3.Xsqlite3_column_blob(c.tls, c.stmt, i)
	return slices.Clone(bytesAt(p, int(sqlite3.Xsqlite3_column_bytes(c.tls, c.stmt, i))))
}

// bytesAt returns memory that SQLite owns.
func bytesAt(p uintptr, n int) []byte {
	if p == 0 || n == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&p))), n)
}

// pointerAt reads a pointer from memory that SQLite owns.
func pointerAt(p uintptr) uintptr { return *(*uintptr)(*(*unsafe.Pointer)(unsafe.Pointer(&p))) }
