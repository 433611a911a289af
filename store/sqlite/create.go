package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	fileMode   = fs.FileMode(0o600)
	folderMode = fs.FileMode(0o700)

	// ApplicationID tells our files from those of other programs: "ApKy".
	ApplicationID = 0x41704b79

	newSuffix = ".new"
)

// sideSuffixes are the files that SQLite keeps beside a database.
var sideSuffixes = []string{"-wal", "-shm", "-journal"}

// makeFolder makes the folder of the database, private, where there is none.
func makeFolder(path string) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, folderMode); err != nil {
		return fmt.Errorf("cannot make the folder of %s: %w", path, err)
	}
	return nil
}

// create makes an empty database at path. It is made under another name and
// then renamed, so that path never names half a database, wherever the power
// goes. The caller holds the lock and knows that path does not exist.
func create(ctx context.Context, path, prefix string) (err error) {
	for _, suffix := range sideSuffixes {
		// SQLite would play an orphaned log into the new file.
		if info, err := os.Lstat(path + suffix); err == nil && info.Size() > 0 {
			return fmt.Errorf("%s is missing but %s is there: restore the database, or remove both to begin with an empty one", path, path+suffix)
		}
	}
	fresh := path + newSuffix
	if err := discard(fresh); err != nil {
		return fmt.Errorf("cannot make %s: removing what a start left that did not finish: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("cannot make %s: %w", path, err)
			_ = discard(fresh) // the next start does it otherwise
		}
	}()
	if err := makeEmpty(fresh); err != nil {
		return err
	}
	if err := fill(ctx, fresh, prefix); err != nil {
		return err
	}
	if err := syncFile(fresh); err != nil {
		return err
	}
	if err := os.Rename(fresh, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// makeEmpty makes an empty private file that nobody else has made.
func makeEmpty(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, fileMode)
	if err != nil {
		return err
	}
	return f.Close()
}

// fill makes the tables, in the file itself: only at the end does it become a
// database with a write-ahead log.
func fill(ctx context.Context, path, prefix string) (err error) {
	db, err := sql.Open("sqlite", dsn(path, "_pragma=synchronous(FULL)"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(1)
	if _, err := db.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id = %d", ApplicationID)); err != nil {
		return err
	}
	if err := migrate(ctx, db, prefix); err != nil {
		return err
	}
	var mode string
	if err := db.QueryRowContext(ctx, "PRAGMA journal_mode = WAL").Scan(&mode); err != nil {
		return err
	}
	if mode != "wal" {
		return fmt.Errorf("the file system allows no write-ahead log (journal mode %q): put the database on a local disk", mode)
	}
	return nil
}

// discard removes a file that is no database yet, and what belongs to it.
func discard(path string) error {
	var errs []error
	for _, suffix := range append([]string{""}, sideSuffixes...) {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
