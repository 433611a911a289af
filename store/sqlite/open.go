// Package sqlite keeps keys in one SQLite file. It is the default store.
//
// # Architecture
//
// One connection writes. A single goroutine owns it and runs all writes, as
// many to a transaction as are waiting (see writer.go): so a durable commit,
// whose price is one fsync, is shared by all who ask at the same moment. Two
// connections look keys up (see lookup.go), one reads lists (see list.go) and two
// read everything else, each in its own snapshot. They cannot write.
//
// # Who may touch the files
//
// The database, its -wal and its -shm are opened by SQLite and by nothing else,
// as long as the store is open: on Unix, closing any descriptor of a file drops
// the locks that the process holds on it. A lock file beside the database keeps
// other processes away, and remembers that a database was here, so that a lost
// file is never replaced by an empty one in silence.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strings"

	_ "modernc.org/sqlite" // the driver

	"github.com/caddy-apikey/caddy-apikey/store"
)

// Options say where the database is.
type Options struct {
	// Path of the database file. It and its folder are made where they do not
	// exist, with the modes 0600 and 0700. Required.
	Path string
	// TablePrefix stands in front of every table name. A database can be opened
	// only with the prefix that it was made with. Default: none.
	TablePrefix string
	// Notice is told what was found unsafe about the files when the database was
	// opened, and whether it has been mended. Default: nobody is told.
	Notice func(FileNotice)
	// Report is told of failures of background work, which no caller waits for. It may
	// be called at any time until Close returns. Default: nobody is told.
	Report func(error)
}

// FileNotice is about a file of the database that somebody other than its owner could
// read or write, or that belongs to another user.
type FileNotice struct {
	Path string
	Mode fs.FileMode // as it was found
	// Tightened: the mode is now 0600. Otherwise Reason says why it is not.
	Tightened bool
	Reason    string
}

// Opener opens the store of one file.
type Opener struct {
	path   string // absolute, without symbolic links
	prefix string
	notice func(FileNotice)
	report func(error)

	// hooks let tests break what otherwise only a bad disk breaks.
	hooks hooks
}

var prefixPattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,31}$`)

// New checks options. It makes and opens nothing.
func New(o Options) (*Opener, error) {
	if o.Path == "" {
		return nil, errors.New("path: must not be empty")
	}
	if strings.ContainsRune(o.Path, 0) {
		return nil, errors.New("path: must not contain a NUL character")
	}
	if err := CheckTablePrefix(o.TablePrefix); err != nil {
		return nil, err
	}
	path, err := resolve(o.Path)
	if err != nil {
		return nil, fmt.Errorf("path: %w", err)
	}
	if o.Notice == nil {
		o.Notice = func(FileNotice) {}
	}
	if o.Report == nil {
		o.Report = func(error) {}
	}
	return &Opener{path: path, prefix: o.TablePrefix, notice: o.Notice, report: o.Report}, nil
}

// CheckTablePrefix reports a table prefix that cannot be used. Empty is none.
func CheckTablePrefix(prefix string) error {
	if prefix != "" && !prefixPattern.MatchString(prefix) {
		return errors.New("table prefix: must be a letter or _, then at most 31 of a-z A-Z 0-9 _")
	}
	if strings.HasPrefix(strings.ToLower(prefix), "sqlite_") {
		return errors.New(`table prefix: names that begin with "sqlite_" belong to SQLite`)
	}
	return nil
}

// Path returns the absolute path of the database, without symbolic links.
func (o *Opener) Path() string { return o.path }

// Identity implements store.Opener.
func (o *Opener) Identity() string { return "sqlite:" + o.path }

// Open implements store.Opener.
func (o *Opener) Open(ctx context.Context) (store.Store, error) {
	preparePageCache() // before SQLite is used first
	if err := makeFolder(o.path); err != nil {
		return nil, err
	}
	lock, err := lockDatabase(ctx, o.path)
	if err != nil {
		return nil, err
	}
	s, err := o.openLocked(ctx, lock)
	if err != nil {
		return nil, errors.Join(err, lock.release())
	}
	return s, nil
}

func (o *Opener) openLocked(ctx context.Context, lock *fileLock) (*Store, error) {
	exists, err := checkFile(o.path)
	if err != nil {
		return nil, err
	}
	if !exists {
		if lock.had {
			return nil, fmt.Errorf("%s is missing, but %s records that a database exists: restore the file, or remove the lock file to begin with an empty database", o.path, lock.path)
		}
		if err := create(ctx, o.path, o.prefix); err != nil {
			return nil, err
		}
	}
	if err := lock.remember(); err != nil {
		return nil, err
	}
	w, err := openWriter(ctx, o.path, o.prefix)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(discard(o.path+backupSuffix), discard(o.path+restoreSuffix)); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot remove what a backup or a restore left that did not end: %w", err), w.close())
	}
	o.tighten() // now that the file is known to be ours, and the log is beside it
	s, err := o.start(ctx, lock, w)
	if err != nil {
		return nil, errors.Join(err, w.close())
	}
	return s, nil
}

// start opens the readers beside the writer and sets the store going.
func (o *Opener) start(ctx context.Context, lock *fileLock, w *writerConn) (_ *Store, err error) {
	s := &Store{
		path:     o.path,
		lock:     lock,
		closing:  make(chan struct{}),
		foldNow:  make(chan struct{}, 1),
		clearNow: make(chan struct{}, 1),
		tidied:   make(chan struct{}),
		backups:  make(chan struct{}, 1),
		report:   o.report,

		foldPart:    foldSize,
		maxUnfolded: maxUnfolded,
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.closeReaders())
		}
	}()
	if s.readers, err = openReaders(ctx, o.path, o.prefix, readerCount); err != nil {
		return nil, unreadable(o.path, err)
	}
	if s.lists, err = openReaders(ctx, o.path, o.prefix, listerCount); err != nil {
		return nil, unreadable(o.path, err)
	}
	if s.lookups, err = openLookups(o.path, o.prefix); err != nil {
		return nil, unreadable(o.path, err)
	}
	if s.watch, err = watchFiles(o.path); err != nil {
		return nil, err
	}
	if err := s.usage.load(w); err != nil {
		return nil, unreadable(o.path, fmt.Errorf("reading the journal of usage: %w", err))
	}
	s.unfolded.Store(s.usage.size())
	s.writer = newWriter(w, s.watch, o.hooks, &s.lookups.owners)
	go s.writer.loop()
	go s.tidy()
	return s, nil
}

// openWriter checks and migrates the database, and returns the one connection that writes.
func openWriter(ctx context.Context, path, prefix string) (_ *writerConn, err error) {
	db, err := sql.Open("sqlite", writerDSN(path))
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, db.Close())
		}
	}()
	db.SetMaxOpenConns(1)
	if err := checkContent(ctx, db, path, prefix); err != nil {
		return nil, err
	}
	if err := migrate(ctx, db, prefix); err != nil {
		return nil, unreadable(path, fmt.Errorf("bringing its tables up to date: %w", err))
	}
	var mode string
	if err := db.QueryRowContext(ctx, "PRAGMA journal_mode = WAL").Scan(&mode); err != nil {
		return nil, unreadable(path, err)
	}
	if mode != "wal" {
		return nil, fmt.Errorf("cannot use %s: the file system allows no write-ahead log (journal mode %q): put the database on a local disk", path, mode)
	}
	return pin(ctx, db, path, prefix)
}

// writerDSN asks for durability: FULL syncs the log at each commit. NORMAL would
// give credits back after a power loss. The timeout bounds how long a foreign
// program that has the file open (a backup, the sqlite3 shell) can hold up all writes.
func writerDSN(path string) string {
	return dsn(path, "_busy_timeout=5000", "_pragma=synchronous(FULL)", "_pragma=foreign_keys(1)",
		"_pragma=cache_size("+cacheSize()+")", "_pragma=cell_size_check(1)", "_pragma=trusted_schema(0)")
}

var _ store.Opener = (*Opener)(nil)
