package sqlite

import (
	"bytes"
	"context"
	"errors"

	sqlite3 "modernc.org/sqlite/lib"

	"github.com/caddy-apikey/caddy-apikey/key"
)

const (
	presentHashes = `SELECT hash FROM {p}keys ORDER BY hash`
	pastHashes    = `SELECT hash FROM {p}previous_hashes ORDER BY hash`

	// hashesApart is after how many hashes EachHash looks whether it is still wanted.
	hashesApart = 1024
)

// EachHash implements store.Store. It merges two indexes, on a connection of its own:
// through database/sql it would take twice as long.
func (s *Store) EachHash(ctx context.Context, f func(key.Hash)) (err error) {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	c := &finder{path: s.path, prefix: s.readers.stmts.prefix}
	if err := c.open(); err != nil {
		return failed("reading hashes", err)
	}
	defer func() {
		if closeErr := c.close(); err == nil {
			err = failed("reading hashes", closeErr)
		}
	}()
	if err := c.exec(c.begin); err != nil {
		return failed("reading hashes", err)
	}
	defer func() { err = errors.Join(err, failed("reading hashes", c.end())) }()
	return c.eachHash(ctx, f)
}

func (f *finder) eachHash(ctx context.Context, each func(key.Hash)) error {
	present, err := f.openHashes(presentHashes)
	if err != nil {
		return err
	}
	defer present.close()
	past, err := f.openHashes(pastHashes)
	if err != nil {
		return err
	}
	defer past.close()
	var last key.Hash
	for n := 0; present.more || past.more; n++ {
		if n%hashesApart == 0 && ctx.Err() != nil {
			return unavailable("reading hashes: %w", ctx.Err())
		}
		next := present
		if !present.more || past.more && bytes.Compare(past.hash[:], present.hash[:]) < 0 {
			next = past
		}
		if n > 0 && bytes.Compare(next.hash[:], last[:]) <= 0 {
			return unavailable("reading hashes: their index is damaged")
		}
		last = next.hash
		each(last)
		if err := next.step(); err != nil {
			return err
		}
	}
	return nil
}

// hashes are the rows of a statement, the first of which has been read.
type hashes struct {
	f    *finder
	stmt uintptr
	hash key.Hash
	more bool // hash holds the next one
}

func (f *finder) openHashes(query string) (*hashes, error) {
	stmt, err := f.prepare(query)
	if err != nil {
		return nil, failed("reading hashes", err)
	}
	h := &hashes{f: f, stmt: stmt}
	if err := h.step(); err != nil {
		h.close()
		return nil, err
	}
	return h, nil
}

func (h *hashes) step() error {
	switch rc := sqlite3.Xsqlite3_step(h.f.tls, h.stmt); rc {
	case sqlite3.SQLITE_ROW:
	case sqlite3.SQLITE_DONE:
		h.more = false
		return nil
	default:
		return failed("reading hashes", h.f.failure(rc))
	}
	p := sqlite3.Xsqlite3_column_blob(h.f.tls, h.stmt, 0)
	n := int(sqlite3.Xsqlite3_column_bytes(h.f.tls, h.stmt, 0))
	if n != len(h.hash) {
		return unavailable("reading hashes: one has %d bytes", n)
	}
	copy(h.hash[:], bytesAt(p, n))
	h.more = true
	return nil
}

func (h *hashes) close() { sqlite3.Xsqlite3_finalize(h.f.tls, h.stmt) }
