package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/pressly/goose/v3"
)

// Each file is one step, named <number>_<what>.sql, and runs in a transaction
// of its own. Steps add; they change and remove nothing that an older program
// on the same file would miss.
//
//go:embed migrations/*.sql
var migrationFiles embed.FS

const placeholder = "{p}"

const (
	// schemaTable is where goose remembers which steps were done.
	schemaTable = "apikey_schema"
	// unreleasedTable is where it did so before the first release, for tables of
	// another shape.
	unreleasedTable = "apikey_migrations"
)

type migration struct {
	version int64
	sql     string
}

// migrations returns the steps in their order, with the table prefix applied.
func migrations(prefix string) ([]migration, error) {
	entries, err := fs.ReadDir(migrationFiles, "migrations") // sorted by name
	if err != nil {
		return nil, err
	}
	var all []migration
	for _, e := range entries {
		text, err := migrationFiles.ReadFile("migrations/" + e.Name())
		if err != nil {
			return nil, err
		}
		number, _, _ := strings.Cut(e.Name(), "_")
		version, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.Name(), err)
		}
		all = append(all, migration{version, strings.ReplaceAll(string(text), placeholder, prefix)})
	}
	return all, nil
}

// migrate brings the tables of db to the newest schema.
func migrate(ctx context.Context, db *sql.DB, prefix string) error {
	steps, err := migrations(prefix)
	if err != nil {
		return err
	}
	return migrateBy(ctx, db, prefix, steps)
}

func migrateBy(ctx context.Context, db *sql.DB, prefix string, steps []migration) error {
	var list []*goose.Migration
	for _, s := range steps {
		list = append(list, goose.NewGoMigration(s.version, &goose.GoFunc{
			RunTx: func(ctx context.Context, tx *sql.Tx) error {
				_, err := tx.ExecContext(ctx, s.sql)
				return err
			},
		}, nil))
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, nil,
		goose.WithTableName(prefix+schemaTable),
		goose.WithGoMigrations(list...),
		goose.WithDisableGlobalRegistry(true), // other plugins may use goose too
		goose.WithLogger(goose.NopLogger()),
	)
	if err != nil {
		return err
	}
	_, err = p.Up(ctx)
	return err
}

// newest returns the number of the last step.
func newest() (int64, error) {
	steps, err := migrations("")
	if err != nil {
		return 0, err
	}
	return steps[len(steps)-1].version, nil
}
