package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"

	"github.com/caddy-apikey/caddy-apikey/store"
)

// Changed are keys and owners that were changed.
type Changed struct {
	Keys   []string
	Owners []string
}

// ChangedSince returns the keys and owners that the audit log of the present database has
// entries about, from a time on.
func (r *Restore) ChangedSince(ctx context.Context, since int64) (c Changed, err error) {
	return r.changed(ctx, func(db *sql.DB) (string, int64, error) {
		const cut = `SELECT EXISTS (SELECT 1 FROM {p}audit_anchor) AND coalesce((SELECT at FROM {p}audit ORDER BY id LIMIT 1), ?1) >= ?1`
		var missing bool
		err := db.QueryRowContext(ctx, withPrefix(cut, r.opener.prefix), since).Scan(&missing)
		if err == nil && missing {
			err = errors.New("entries from that time have been removed for their age")
		}
		return `at >= ?`, since, err
	})
}

// ChangedSinceBackup is ChangedSince for the moment of the backup.
func (r *Restore) ChangedSinceBackup(ctx context.Context) (Changed, error) {
	return r.changed(ctx, func(db *sql.DB) (_ string, _ int64, err error) {
		backup, err := sql.Open("sqlite", dsn(r.Path+restoreSuffix, "mode=ro", "_busy_timeout=5000"))
		if err != nil {
			return "", 0, err
		}
		defer func() { err = errors.Join(err, backup.Close()) }()
		var then store.AuditPoint
		if err := backup.QueryRowContext(ctx, withPrefix(auditHead, r.opener.prefix)).Scan(&then.ID, &then.Chain); err != nil && !errors.Is(err, sql.ErrNoRows) {
			return "", 0, err
		}
		var same bool
		const known = `SELECT ?1 = 0 OR EXISTS (SELECT 1 FROM (SELECT id, chain FROM {p}audit UNION ALL SELECT id, chain FROM {p}audit_anchor) WHERE id = ?1 AND chain = ?2)`
		err = db.QueryRowContext(ctx, withPrefix(known, r.opener.prefix), then.ID, then.Chain).Scan(&same)
		if err == nil && !same {
			err = errors.New("it does not continue that of the backup, or its entries have been removed for their age: give a time instead")
		}
		return `id > ?`, then.ID, err
	})
}

// changed reads the audit log of the present database. from returns which of its entries
// count.
func (r *Restore) changed(ctx context.Context, from func(*sql.DB) (condition string, value int64, err error)) (c Changed, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("the audit log of %s cannot tell what was changed: %w", r.Path, err)
		}
	}()
	db, err := sql.Open("sqlite", dsn(r.Path, "mode=ro", "_busy_timeout=5000"))
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	where, value, err := from(db)
	if err != nil {
		return c, err
	}
	for _, of := range []struct {
		query string
		ids   *[]string
	}{
		{`SELECT DISTINCT key_id FROM {p}audit WHERE action GLOB 'key.*' AND key_id IS NOT NULL AND ` + where + ` ORDER BY key_id`, &c.Keys},
		{`SELECT DISTINCT user_id FROM {p}audit WHERE action GLOB 'owner.*' AND user_id IS NOT NULL AND ` + where + ` ORDER BY user_id`, &c.Owners},
	} {
		rows, err := db.QueryContext(ctx, withPrefix(of.query, r.opener.prefix), value)
		if err == nil {
			err = scanIDs(rows, of.ids)
		}
		if err != nil {
			return c, err
		}
	}
	return c, nil
}

func scanIDs(rows *sql.Rows, ids *[]string) error {
	defer rows.Close()
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return err
		}
		*ids = append(*ids, id)
	}
	return rows.Err()
}

// Change opens the copy of the backup as a store, for f to change it and to close it,
// before it takes the place of the database.
func (r *Restore) Change(ctx context.Context, f func(store.Opener) error) (err error) {
	o := *r.opener
	o.path = r.Path + restoreSuffix
	if err := f(&o); err != nil {
		return err
	}
	if err := os.Remove(o.path + lockSuffix); err != nil {
		return err
	}
	db, err := sql.Open("sqlite", writerDSN(o.path))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(1)
	return unlog(ctx, db) // it must be a single file
}
