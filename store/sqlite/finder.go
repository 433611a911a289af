package sqlite

import (
	"errors"
	"fmt"
	"strings"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/caddy-apikey/caddy-apikey/store"
)

// A request with a key that is not in memory waits for one look-up by hash. It goes
// through SQLite's own interface: database/sql and the driver allocate for every
// column of every query, which costs as much as the look-up itself.

const (
	// finderBusy is how long a look-up waits, in milliseconds, where another program
	// holds the database locked. It cannot be interrupted.
	finderBusy = 200
	// boundSize is how long what a look-up looks for may be: an ID has 255 characters at most.
	boundSize = 1024

	// foundColumns are those of a key but for its owner, which is read only where it is
	// not in memory: its page is seldom cached, and costs as much as that of the key.
	foundColumns = `k.num, k.doc, k.revision, k.owner, u.at, ` + creditsColumns
	foundTables  = ` FROM {p}keys k LEFT JOIN {p}last_uses u ON u.key = k.num
		LEFT JOIN {p}accounts c ON c.subject = k.num AND c.kind = 'key'`

	findByID = `SELECT ` + foundColumns + windowColumns + foundTables + windowJoin + ` WHERE k.id = ?1`

	// findByHash is one statement, so that a key that is being rotated is found
	// under the old hash or the new one at any moment.
	findByHash = `SELECT ` + foundColumns + windowColumns + foundTables + windowJoin + ` WHERE k.num = coalesce(
		(SELECT num FROM {p}keys WHERE hash = ?1), (SELECT key FROM {p}previous_hashes WHERE hash = ?1))`

	ownerByNumber = `SELECT ` + ownerColumns + ` FROM {p}owners o WHERE o.num = ?1`
)

// finder is a connection that looks keys up. One goroutine at a time uses it.
type finder struct {
	path, prefix string
	batch        []*lookup // of its leader

	tls                           *libc.TLS
	db                            uintptr // 0: it is not open
	begin, commit, rollback       uintptr // statements
	byHash, byID, owner, previous uintptr
	bound                         uintptr // memory for a parameter
}

// codeError is an error of SQLite that did not come through the driver.
type codeError struct {
	code    int
	message string
}

func (e *codeError) Error() string { return fmt.Sprintf("%s (%d)", e.message, e.code) }

// open opens a connection that cannot write. Unlike the others it does not check
// the size of every cell of a page that it reads (cell_size_check), which takes a fifth
// of a look-up: what is found has to be the key that was looked for (see lookup.entry).
func (f *finder) open() (err error) {
	f.tls = libc.NewTLS()
	defer func() {
		if err != nil {
			err = errors.Join(err, f.close())
		}
	}()
	if f.bound = libc.Xmalloc(f.tls, boundSize); f.bound == 0 {
		return f.failure(sqlite3.SQLITE_NOMEM)
	}
	name, err := libc.CString(f.path)
	if err != nil {
		return err
	}
	defer libc.Xfree(f.tls, name)
	place := libc.Xcalloc(f.tls, 1, 8)
	defer libc.Xfree(f.tls, place)
	rc := sqlite3.Xsqlite3_open_v2(f.tls, name, place, sqlite3.SQLITE_OPEN_READWRITE|sqlite3.SQLITE_OPEN_NOMUTEX, 0)
	f.db = pointerAt(place)
	if rc != sqlite3.SQLITE_OK {
		return f.failure(rc)
	}
	sqlite3.Xsqlite3_extended_result_codes(f.tls, f.db, 1)
	sqlite3.Xsqlite3_busy_timeout(f.tls, f.db, finderBusy)
	for _, pragma := range []string{"query_only = 1", "cache_size = " + finderCacheSize(), "trusted_schema = 0"} {
		stmt, err := f.prepare("PRAGMA " + pragma)
		if err != nil {
			return err
		}
		sqlite3.Xsqlite3_step(f.tls, stmt)
		if rc := sqlite3.Xsqlite3_finalize(f.tls, stmt); rc != sqlite3.SQLITE_OK {
			return f.failure(rc)
		}
	}
	for _, s := range []struct {
		stmt  *uintptr
		query string
	}{
		{&f.begin, "BEGIN"},
		{&f.commit, "COMMIT"},
		{&f.rollback, "ROLLBACK"},
		{&f.byHash, findByHash},
		{&f.byID, findByID},
		{&f.owner, ownerByNumber},
		{&f.previous, previousUses},
	} {
		if *s.stmt, err = f.prepare(s.query); err != nil {
			return err
		}
	}
	return nil
}

func (f *finder) prepare(query string) (uintptr, error) {
	text, err := libc.CString(withPrefix(query, f.prefix))
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
	if f.tls == nil {
		return nil
	}
	for _, stmt := range []uintptr{f.begin, f.commit, f.rollback, f.byHash, f.byID, f.owner, f.previous} {
		sqlite3.Xsqlite3_finalize(f.tls, stmt) // 0 is allowed
	}
	var err error
	if rc := sqlite3.Xsqlite3_close_v2(f.tls, f.db); rc != sqlite3.SQLITE_OK {
		err = f.failure(rc)
	}
	libc.Xfree(f.tls, f.bound)
	f.tls.Close()
	f.forget()
	return err
}

// forget gives the connection up without closing it: nobody knows what state it is in.
func (f *finder) forget() { *f = finder{path: f.path, prefix: f.prefix, batch: f.batch} }

func (f *finder) failure(rc int32) error {
	message := "out of memory"
	if f.db != 0 {
		message = libc.GoString(sqlite3.Xsqlite3_errmsg(f.tls, f.db))
	}
	return &codeError{int(rc), message}
}

// exec runs a statement without parameters and rows.
func (f *finder) exec(stmt uintptr) error {
	defer sqlite3.Xsqlite3_reset(f.tls, stmt)
	if rc := sqlite3.Xsqlite3_step(f.tls, stmt); rc != sqlite3.SQLITE_DONE {
		return f.failure(rc)
	}
	return nil
}

// inTransaction reports whether a transaction is open.
func (f *finder) inTransaction() bool { return sqlite3.Xsqlite3_get_autocommit(f.tls, f.db) == 0 }

// end ends the transaction, if one is open: an error may have ended it.
func (f *finder) end() error {
	if !f.inTransaction() {
		return nil
	}
	err := f.exec(f.commit)
	if err != nil && f.inTransaction() {
		return f.exec(f.rollback)
	}
	return nil
}

// read reads what a look-up asks for. Until its statement is reset the transaction
// is open: all that is read is of one moment.
//
// changes are those of owners before the transaction.
func (f *finder) read(l *lookup, owners *ownerCache, changes uint64) error {
	stmt, rc := f.byHash, int32(sqlite3.SQLITE_OK)
	if l.id != "" {
		stmt = f.byID
		rc = f.bind(stmt, []byte(l.id), sqlite3.Xsqlite3_bind_text)
	} else {
		rc = f.bind(stmt, l.hash[:], sqlite3.Xsqlite3_bind_blob)
	}
	defer sqlite3.Xsqlite3_reset(f.tls, stmt)
	if rc == sqlite3.SQLITE_OK {
		rc = sqlite3.Xsqlite3_step(f.tls, stmt)
	}
	switch rc {
	case sqlite3.SQLITE_ROW:
	case sqlite3.SQLITE_DONE:
		return store.ErrNotFound
	default:
		return failed("reading a key", f.failure(rc))
	}
	owner := f.scan(stmt, l)
	for more := f.scanWindow(stmt, l); more; more = f.scanWindow(stmt, l) { // a row for each
		if rc = sqlite3.Xsqlite3_step(f.tls, stmt); rc == sqlite3.SQLITE_DONE {
			break
		} else if rc != sqlite3.SQLITE_ROW {
			return failed("reading a key", f.failure(rc))
		}
	}
	if strings.Contains(l.doc, `"previous"`) {
		if err := f.readUses(l); err != nil {
			return err
		}
	}
	var cached bool
	if l.owner, cached = owners.get(owner); !cached {
		switch found, err := f.readOwner(owner, &l.owner); {
		case err != nil:
			return err
		case found:
			owners.put(owner, &l.owner, changes)
		}
	}
	if l.owner.deleted {
		return store.ErrNotFound
	}
	return nil
}

// scan reads foundColumns, and returns the number of the owner.
func (f *finder) scan(stmt uintptr, l *lookup) (owner int64) {
	c := columns{f.tls, stmt, 0}
	l.num, l.doc, l.revision, owner, l.lastRequest = c.number().Int64, c.text().String, c.number().Int64, c.number().Int64, c.number().Int64
	if l.credits.unit = c.text(); l.credits.unit.Valid {
		for _, n := range l.credits.numbers() {
			*n = c.number()
		}
	}
	return owner
}

// windowAt is the first of windowColumns.
var windowAt = int32(strings.Count(foundColumns, ",") + 1)

// scanWindow reads windowColumns, and reports whether there is a window.
func (f *finder) scanWindow(stmt uintptr, l *lookup) bool {
	c := columns{f.tls, stmt, windowAt}
	unit := c.text()
	if unit.Valid {
		l.windows = append(l.windows, store.Window{Unit: unit.String, State: c.blob()})
	}
	return unit.Valid
}

// readUses reads the last uses of previous raw keys.
func (f *finder) readUses(l *lookup) error {
	stmt := f.previous
	defer sqlite3.Xsqlite3_reset(f.tls, stmt)
	sqlite3.Xsqlite3_bind_int64(f.tls, stmt, 1, l.num)
	for {
		switch rc := sqlite3.Xsqlite3_step(f.tls, stmt); rc {
		case sqlite3.SQLITE_ROW:
			c := columns{f.tls, stmt, 0}
			l.uses = append(l.uses, previousUse{c.blob(), c.number().Int64})
		case sqlite3.SQLITE_DONE:
			return nil
		default:
			return failed("reading the uses of previous keys", f.failure(rc))
		}
	}
}

// readOwner reads the owner with a number. One that is not there is not found by its
// user ID either (see lookup.entry).
func (f *finder) readOwner(num int64, o *ownerRecord) (found bool, err error) {
	stmt := f.owner
	defer sqlite3.Xsqlite3_reset(f.tls, stmt)
	sqlite3.Xsqlite3_bind_int64(f.tls, stmt, 1, num)
	switch rc := sqlite3.Xsqlite3_step(f.tls, stmt); rc {
	case sqlite3.SQLITE_ROW:
	case sqlite3.SQLITE_DONE:
		return false, nil
	default:
		return false, failed("reading an owner", f.failure(rc))
	}
	c := columns{f.tls, stmt, 0}
	userID, tier := c.text(), c.text()
	*o = ownerRecord{
		user: hashOfUser(userID.String), deleted: !userID.Valid, tier: pointer(tier), enabled: c.number().Int64 != 0,
		createdAt: c.number().Int64, updatedAt: c.number().Int64, revision: c.number().Int64,
	}
	return true, nil
}

// bind binds the only parameter of a statement to a copy of value, which is there
// until the next call.
func (f *finder) bind(stmt uintptr, value []byte, by func(*libc.TLS, uintptr, int32, uintptr, int32, uintptr) int32) int32 {
	copy(bytesAt(f.bound, len(value)), value)
	return by(f.tls, stmt, 1, f.bound, int32(len(value)), 0) //nolint:gosec // at most boundSize; 0: SQLite uses it where it is
}
