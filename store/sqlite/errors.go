package sqlite

import (
	"errors"
	"fmt"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/caddy-apikey/caddy-apikey/store"
)

// failed says in the store's words what went wrong while doing something. A
// second key with the same ID or hash is the caller's affair; everything else
// that SQLite says means that the storage cannot do its work now.
func failed(doing string, err error) error {
	if err == nil {
		return nil
	}
	switch extendedCode(err) {
	case sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY:
		return fmt.Errorf("%s: %w", doing, store.ErrExists)
	}
	return fmt.Errorf("%s: %w: %w", doing, store.ErrUnavailable, err)
}

// unavailable is failed where SQLite was not asked.
func unavailable(format string, args ...any) error {
	return fmt.Errorf("%w: %w", store.ErrUnavailable, fmt.Errorf(format, args...))
}

func extendedCode(err error) int {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code()
	}
	if e, ok := errors.AsType[*codeError](err); ok {
		return e.code
	}
	return sqlite3.SQLITE_OK
}

func primaryCode(err error) int { return extendedCode(err) & 0xff }

// harmless reports whether SQLite undid no more than the statement that failed.
// After any other error (disk full, input/output, no memory) it may have rolled
// back the whole transaction, and statements that follow would commit one by one.
func harmless(err error) bool {
	code := primaryCode(err)
	return code == sqlite3.SQLITE_OK || code == sqlite3.SQLITE_CONSTRAINT || code == sqlite3.SQLITE_TOOBIG
}

// distrusted reports whether the connection must be opened anew before it is
// believed again: after a failed fsync or a read error nobody knows what the
// file holds and what only memory does.
func distrusted(err error) bool {
	switch primaryCode(err) {
	case sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB,
		sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_MISUSE, sqlite3.SQLITE_NOMEM:
		return true
	}
	return false
}
