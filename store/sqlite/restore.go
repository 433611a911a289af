package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

const (
	// restoreSuffix is of the copy of a backup until it takes the place of the database.
	restoreSuffix = ".restoring"

	// KeptLayout is the time in the name of a database that was replaced. Names sort by it,
	// and it holds nothing that a file system forbids.
	KeptLayout = "2006-01-02T15-04-05.000Z"
)

// Restore is a backup that has been checked and may take the place of the database. Until
// it is closed, no other process can open the database.
type Restore struct {
	// Path is that of the database.
	Path string
	// Keys is how many keys are in the backup.
	Keys int64
	// Replaces is how many keys are in the present database. It is -1 where that cannot be
	// read, and where there is none.
	Replaces int64
	// Exists: there is a present database.
	Exists bool

	opener *Opener
	lock   *fileLock
	like   string // a file or folder of the user that the server runs as
}

// makeFolderLike makes the folder of the database, for the user that the folder around it
// belongs to: as root's, the server could not use it.
func makeFolderLike(path string) error {
	var made []string
	like := filepath.Dir(path)
	for ; like != filepath.Dir(like); like = filepath.Dir(like) {
		if _, err := os.Stat(like); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		made = append(made, like)
	}
	if err := makeFolder(path); err != nil {
		return err
	}
	for _, dir := range made {
		if err := giveTo(dir, like); err != nil {
			return err
		}
	}
	return nil
}

// Restore locks the database, which no process may have open, and copies and checks a
// backup. It changes nothing of the database, which need not exist. The caller closes what
// it returns.
func (o *Opener) Restore(ctx context.Context, backup string) (_ *Restore, err error) {
	preparePageCache() // before SQLite is used first
	if err := makeFolderLike(o.path); err != nil {
		return nil, err
	}
	lock, err := lockDatabase(ctx, o.path)
	if errors.Is(err, errInUse) {
		return nil, fmt.Errorf("%w: stop Caddy first", err)
	}
	if err != nil {
		return nil, err
	}
	r := &Restore{Path: o.path, Replaces: -1, opener: o, lock: lock, like: filepath.Dir(o.path)}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	switch _, err := os.Lstat(o.path); {
	case err == nil:
		r.Exists, r.like = true, o.path
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	if err := giveTo(lock.path, r.like); err != nil {
		return nil, err
	}
	if err := r.copy(backup); err != nil {
		return nil, fmt.Errorf("cannot copy the backup %s: %w", backup, err)
	}
	if r.Keys, err = r.check(ctx, backup); err != nil {
		return nil, err
	}
	if n, err := countKeys(ctx, o.path, o.prefix); err == nil {
		r.Replaces = n
	}
	return r, nil
}

// copy copies the backup beside the database, so that it is itself never written to. If it
// has a log, as a database that was copied by other means may have, that belongs to it.
func (r *Restore) copy(backup string) error {
	to := r.Path + restoreSuffix
	if err := discard(to); err != nil {
		return err
	}
	info, err := os.Stat(backup)
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return errors.New("it is not a regular file")
	case info.Size() == 0:
		return errors.New("it is empty")
	}
	if err := copyFile(backup, to); err != nil {
		return err
	}
	if err := copyFile(backup+"-wal", to+"-wal"); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// copyFile copies a file to a private one that does not exist.
func copyFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // it was only read
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, fileMode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// check makes sure that the copy is a whole database of ours, makes it a single file, and
// counts its keys. Unlike the start of a server, it reads every page. Errors name the
// backup.
func (r *Restore) check(ctx context.Context, backup string) (keys int64, err error) {
	path := r.Path + restoreSuffix
	db, err := sql.Open("sqlite", writerDSN(path))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(1)
	if err := checkContent(ctx, db, backup, r.opener.prefix); err != nil {
		return 0, err
	}
	var result string
	if err := db.QueryRowContext(ctx, "PRAGMA integrity_check(1)").Scan(&result); err != nil {
		return 0, unreadable(backup, err)
	}
	if result != "ok" {
		return 0, fmt.Errorf("cannot use %s: it is damaged: %s", backup, result)
	}
	if err := unlog(ctx, db); err != nil {
		return 0, unreadable(backup, err)
	}
	if keys, err = countKeys(ctx, path, r.opener.prefix); err != nil {
		return 0, unreadable(backup, err)
	}
	return keys, nil
}

// countKeys counts the keys of a database without changing it.
func countKeys(ctx context.Context, path, prefix string) (n int64, err error) {
	db, err := sql.Open("sqlite", dsn(path, "mode=ro", "_busy_timeout=5000"))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	err = db.QueryRowContext(ctx, withPrefix(`SELECT coalesce(sum(n), 0) FROM (`+keyCounts+`)`, prefix)).Scan(&n)
	return n, err
}

// Finish puts the backup in the place of the database. It returns the name under which the
// database that it replaces is kept, if there is one.
//
// The database goes before its log does, and both before the backup comes. Wherever this
// ends, the next start finds one whole database or none, which is an error that it reports,
// but never one with the log of another.
func (r *Restore) Finish() (kept string, err error) {
	fresh, dir := r.Path+restoreSuffix, filepath.Dir(r.Path)
	if err := giveTo(fresh, r.like); err != nil {
		return "", err
	}
	if err := syncFile(fresh); err != nil {
		return "", err
	}
	if kept, err = r.keep(); err != nil {
		return kept, err
	}
	err = errors.Join(r.lock.remember(), syncDir(dir))
	if err == nil {
		err = os.Rename(fresh, r.Path)
	}
	if err != nil {
		return kept, fmt.Errorf("putting the backup in the place of %s: %w", r.Path, err)
	}
	return kept, syncDir(dir)
}

// keep moves the database away, with its log, and returns its new name.
func (r *Restore) keep() (kept string, err error) {
	name := r.Path + "." + time.Now().UTC().Format(KeptLayout)
	for _, suffix := range append([]string{""}, sideSuffixes...) {
		info, err := os.Lstat(r.Path + suffix)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return kept, err
		case suffix != "" && info.Size() == 0, suffix == "-shm": // an index of the log, which SQLite makes again
			err = os.Remove(r.Path + suffix)
		default:
			err = os.Rename(r.Path+suffix, name+suffix)
		}
		if err != nil {
			return kept, err
		}
		if suffix == "" {
			kept = name
		}
	}
	return kept, nil
}

// Close removes the copy of the backup, unless it has become the database, and lets other
// processes open the database.
func (r *Restore) Close() error {
	return errors.Join(discard(r.Path+restoreSuffix), discard(r.Path+restoreSuffix+lockSuffix), r.lock.release())
}
