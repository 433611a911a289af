package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"

	sqlite3 "modernc.org/sqlite/lib"
)

// checkFile looks at the name of the database, without opening it. It reports
// whether there is one.
func checkFile(path string) (exists bool, err error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("cannot use %s: %w", path, err)
	case info.IsDir():
		return true, fmt.Errorf("cannot use %s: it is a directory, not a database file", path)
	case !info.Mode().IsRegular():
		return true, fmt.Errorf("cannot use %s: it is not a regular file", path)
	case info.Size() == 0:
		return true, fmt.Errorf("cannot use %s: it is empty, which a database never is: restore it, or remove it and %s to begin with an empty database", path, path+lockSuffix)
	}
	return true, nil
}

// checkContent looks whether the database is ours, whole enough to read its
// schema, not newer than this program, and writable.
//
// It does not run PRAGMA quick_check: that reads every page, which takes many
// seconds for a million keys, at each start. Damage further inside is found
// when it is read, and answered with an error then.
func checkContent(ctx context.Context, db *sql.DB, path, prefix string) error {
	var id int64
	if err := db.QueryRowContext(ctx, "PRAGMA application_id").Scan(&id); err != nil {
		return unreadable(path, err)
	}
	if id != ApplicationID {
		return fmt.Errorf("cannot use %s: it is a database of another program (application_id %#x)", path, id)
	}
	if err := checkSchema(ctx, db, path, prefix); err != nil {
		return err
	}
	return checkWritable(ctx, db, path)
}

// checkWritable writes a page and takes it back. BEGIN IMMEDIATE alone says
// nothing: on a file that cannot be written SQLite quietly only reads.
func checkWritable(ctx context.Context, db *sql.DB, path string) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return unreadable(path, err)
	}
	var n int64
	if err = tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&n); err == nil {
		_, err = tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", n))
	}
	if err = errors.Join(err, tx.Rollback()); err != nil {
		return unreadable(path, err)
	}
	return nil
}

func checkSchema(ctx context.Context, db *sql.DB, path, prefix string) error {
	var ours, unreleased int
	err := db.QueryRowContext(ctx, `SELECT count(*) FILTER (WHERE name IN (?1, ?2)), count(*) FILTER (WHERE name = ?3)
		FROM sqlite_schema WHERE type = 'table'`, prefix+schemaTable, prefix+"keys", prefix+unreleasedTable).Scan(&ours, &unreleased)
	if err != nil {
		return unreadable(path, err)
	}
	if unreleased != 0 {
		return fmt.Errorf("cannot use %s: a version of this program from before the first release made it: run \"caddy apikey export\" with that version, move %[1]s and %[2]s away, and run \"caddy apikey import\" with this one", path, path+lockSuffix)
	}
	if ours != 2 {
		// A changed prefix must not look like a database without keys.
		return fmt.Errorf("cannot use %s: it has no tables with the prefix %q: set the table prefix that it was made with", path, prefix)
	}
	have, err := schemaVersion(ctx, db, prefix)
	if err != nil {
		return unreadable(path, err)
	}
	know, err := newest()
	if err != nil {
		return err
	}
	if have > know {
		return fmt.Errorf("cannot use %s: a newer version of this program made it (schema %d, this one knows %d): use that version, or restore a backup", path, have, know)
	}
	return nil
}

type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func schemaVersion(ctx context.Context, db querier, prefix string) (version int64, err error) {
	err = db.QueryRowContext(ctx, "SELECT coalesce(max(version_id), 0) FROM "+prefix+schemaTable+" WHERE is_applied").Scan(&version)
	return version, err
}

// unreadable says what an error of SQLite at the start means for who runs the server.
func unreadable(path string, err error) error {
	hint := ""
	switch primaryCode(err) {
	case sqlite3.SQLITE_NOTADB:
		hint = "it is not an SQLite database"
	case sqlite3.SQLITE_CORRUPT:
		hint = "it is damaged: restore a backup"
	case sqlite3.SQLITE_READONLY:
		hint = "it cannot be written: the file, its folder and the files beside it must be writable for the user that runs this server"
	case sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM:
		hint = "it cannot be opened: the file, its folder and the files beside it must be readable and writable for the user that runs this server"
	case sqlite3.SQLITE_BUSY:
		hint = "another program keeps it locked"
	default:
		return fmt.Errorf("cannot use %s: %w", path, err)
	}
	return fmt.Errorf("cannot use %s: %s: %w", path, hint, err)
}
