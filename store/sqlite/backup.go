package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"time"

	"modernc.org/sqlite"

	"github.com/caddy-apikey/caddy-apikey/store"
)

const (
	// backupSuffix is of the copy that a backup is read from.
	backupSuffix = ".sending"
	// backupPages is how many pages are copied at a time: 256 KiB. A pause that is as long
	// follows, in which requests have the processor and the disk.
	backupPages = 64
	// backupCache is the page cache of each of the two connections that copy. Every page
	// is read and written once, and the memory for pages belongs to the others.
	backupCache = "_pragma=cache_size(-100)"
)

// Backup implements store.Backuper. It copies the database page by page, as it is in one
// read transaction, to a file beside it. Writes go on meanwhile. They stay in the log
// until the copy is complete, which does not depend on how fast the caller reads it.
func (s *Store) Backup(ctx context.Context) (_ *store.Backup, err error) {
	// The writer looks whether the file is still the one that was opened.
	if err := s.write(ctx, func(*writerConn) error { return nil }); err != nil {
		return nil, err
	}
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.leave()
	// One at a time: each needs as much space as the database.
	select {
	case s.backups <- struct{}{}:
	case <-s.closing:
		return nil, store.ErrClosed
	case <-ctx.Done():
		return nil, unavailable("another backup is being made: %w", ctx.Err())
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.endBackup())
		}
	}()
	path := s.path + backupSuffix
	if err := errors.Join(discard(path), makeEmpty(path)); err != nil {
		return nil, unavailable("making a file for the copy of the database: %w", err)
	}
	if err := s.copyTo(ctx, path); err != nil {
		return nil, failed(fmt.Sprintf("copying the database to %s", path), err)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, unavailable("reading the copy of the database: %w", err)
	}
	b := &backupFile{File: f, store: s}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(unavailable("reading the copy of the database: %w", err), f.Close())
	}
	return &store.Backup{ReadCloser: b, Size: info.Size()}, nil
}

// endBackup removes the copy and lets the next backup begin.
func (s *Store) endBackup() error {
	err := discard(s.path + backupSuffix)
	<-s.backups
	return err
}

// backupFile is a copy that is removed when it is closed.
type backupFile struct {
	*os.File
	store *Store
}

func (f *backupFile) Close() error {
	err := f.File.Close()
	if errors.Is(err, os.ErrClosed) {
		return err // and the next backup may have begun
	}
	return errors.Join(err, f.store.endBackup())
}

// copyTo copies the database to an empty file.
func (s *Store) copyTo(ctx context.Context, path string) (err error) {
	db, err := sql.Open("sqlite", dsn(s.path, "_busy_timeout=5000", backupCache, "_query_only=1"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	// The transaction keeps the copy from beginning anew with every write.
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // it has only read
	if _, err := schemaVersion(ctx, tx, s.readers.stmts.prefix); err != nil {
		return err
	}
	// A copy that does not end well is removed, so it needs no journal and no fsync.
	to := dsn(path, backupCache, "_pragma=synchronous(off)")
	err = conn.Raw(func(c any) error { return s.copyPages(ctx, c, to+"&_pragma=journal_mode(off)") })
	if err != nil {
		return err
	}
	copied, err := sql.Open("sqlite", to)
	if err != nil {
		return err
	}
	return errors.Join(unlog(ctx, copied), copied.Close())
}

func (s *Store) copyPages(ctx context.Context, from any, to string) error {
	c, ok := from.(interface {
		NewBackup(string) (*sqlite.Backup, error)
	})
	if !ok {
		return fmt.Errorf("the driver's %T makes no backups", from)
	}
	b, err := c.NewBackup(to)
	if err != nil {
		return err
	}
	pause := time.NewTimer(0)
	defer pause.Stop()
	for more := true; more && err == nil; {
		select {
		case <-s.closing:
			err = store.ErrClosed
		case <-ctx.Done():
			err = ctx.Err()
		case <-pause.C:
			begin := time.Now()
			more, err = b.Step(backupPages)
			pause.Reset(time.Since(begin))
		}
	}
	return errors.Join(err, b.Finish())
}

// unlog makes a database one that is a single file, which can be read where nothing can be
// written. The store makes it one with a log again when it opens it.
func unlog(ctx context.Context, db *sql.DB) error {
	var mode string
	if err := db.QueryRowContext(ctx, "PRAGMA journal_mode = DELETE").Scan(&mode); err != nil {
		return err
	}
	if mode != "delete" {
		return fmt.Errorf("journal mode %q", mode)
	}
	return nil
}

var _ store.Backuper = (*Store)(nil)
