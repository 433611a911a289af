package sqlite

import (
	"slices"
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

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
	return unsafe.Slice((*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&p))), n) //nolint:gosec // SQLite keeps it until the next step
}

// pointerAt reads a pointer from memory that SQLite owns.
func pointerAt(p uintptr) uintptr { return *(*uintptr)(*(*unsafe.Pointer)(unsafe.Pointer(&p))) } //nolint:gosec // as in bytesAt
