package sqlite

import (
	"context"
	"database/sql"
	"errors"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// ownerInfo reads an owner with the number of its keys, counted in an index.
const ownerInfo = `SELECT ` + ownerColumns + `, o.key_count FROM {p}owners o`

// Owner implements store.Store.
func (s *Store) Owner(ctx context.Context, userID string) (store.OwnerInfo, error) {
	var row ownerRow
	var count int64
	err := s.readRow(ctx, "reading an owner", ownerInfo+` WHERE o.user_id = ?`, []any{userID}, append(row.dest(), &count)...)
	return published(ctx, s, store.OwnerInfo{Owner: row.owner(), KeyCount: count}, err)
}

// Owners implements store.Store.
func (s *Store) Owners(ctx context.Context, limit int, cursor string) (store.OwnerPage, error) {
	after := ""
	if cursor != "" {
		c, err := parseCursor(cursor, orderOwners, false)
		if err != nil {
			return store.OwnerPage{}, err
		}
		after = c.id
	}
	if err := s.enter(); err != nil {
		return store.OwnerPage{}, err
	}
	defer s.leave()
	stmt, err := s.lists.stmts.get(ownerInfo + ` WHERE o.user_id > ? ORDER BY o.user_id LIMIT ?`)
	if err != nil {
		return store.OwnerPage{}, failed("listing owners", err)
	}
	limit = pageSize(limit)
	rows, err := stmt.QueryContext(ctx, after, limit+1) // one more tells whether there is a next page
	if err != nil {
		return store.OwnerPage{}, failed("listing owners", err)
	}
	defer rows.Close()
	var page store.OwnerPage
	for rows.Next() {
		var row ownerRow
		var count int64
		if err := rows.Scan(append(row.dest(), &count)...); err != nil {
			return store.OwnerPage{}, failed("listing owners", err)
		}
		page.Owners = append(page.Owners, store.OwnerInfo{Owner: row.owner(), KeyCount: count})
	}
	if err := rows.Err(); err != nil {
		return store.OwnerPage{}, failed("listing owners", err)
	}
	if len(page.Owners) > limit {
		page.Owners = page.Owners[:limit]
		page.Next = cursorPoint{id: page.Owners[limit-1].UserID}.encode(orderOwners, false)
	}
	return published(ctx, s, page, nil)
}

// PutOwner implements store.Store.
func (s *Store) PutOwner(ctx context.Context, userID string, now int64, change func(*key.Owner) error, note store.Note) (store.Change, error) {
	return changeFor(ctx, s, note, func(w *writerConn) (store.Change, error) { return putOwner(w, userID, now, change) })
}

func putOwner(w *writerConn, userID string, now int64, change func(*key.Owner) error) (store.Change, error) {
	before, err := getOwner(w, userID)
	switch {
	case errors.Is(err, store.ErrNotFound):
		before.Owner = key.Owner{UserID: userID, Enabled: true, CreatedAt: now, UpdatedAt: now}
	case err != nil:
		return store.Change{}, err
	}
	after := before.Owner
	if err := change(&after); err != nil {
		return store.Change{}, err
	}
	after.UserID, after.Revision = userID, before.Revision
	if before.Revision != 0 && sameOwner(before.Owner, after) {
		return store.Change{Revision: before.Revision, Subject: store.OfOwner(userID), Owner: &before}, nil
	}
	if after.UpdatedAt == before.UpdatedAt {
		after.UpdatedAt = now
	}
	if after.Revision, err = w.revisions(1); err != nil {
		return store.Change{}, err
	}
	const query = `INSERT INTO {p}owners (user_id, tier, enabled, created_at, updated_at, revision) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (user_id) DO UPDATE SET tier = excluded.tier, enabled = excluded.enabled,
			created_at = excluded.created_at, updated_at = excluded.updated_at, revision = excluded.revision`
	_, err = w.exec(query, userID, optional(after.Tier), bit(after.Enabled), after.CreatedAt, after.UpdatedAt, after.Revision)
	if err != nil {
		return store.Change{}, failed("storing an owner", err)
	}
	stored, err := getOwner(w, userID)
	if err != nil {
		return store.Change{}, err
	}
	return w.changedOwner(stored), nil
}

func sameOwner(a, b key.Owner) bool {
	return samePointer(a.Tier, b.Tier) && a.Enabled == b.Enabled && a.CreatedAt == b.CreatedAt && a.UpdatedAt == b.UpdatedAt
}

func getOwner(w *writerConn, userID string) (store.OwnerInfo, error) {
	var row ownerRow
	var count int64
	err := w.row(ownerInfo+` WHERE o.user_id = ?`, []any{userID}, append(row.dest(), &count)...)
	if errors.Is(err, sql.ErrNoRows) {
		return store.OwnerInfo{}, store.ErrNotFound
	}
	if err != nil {
		return store.OwnerInfo{}, failed("reading an owner", err)
	}
	return store.OwnerInfo{Owner: row.owner(), KeyCount: count}, nil
}

// ensureOwner makes an owner where there is none, and returns it with its number; one
// that exists stays as it is.
func ensureOwner(w *writerConn, userID string, now, revision int64) (o key.Owner, num int64, err error) {
	var row ownerRow
	err = w.row(`SELECT `+ownerColumns+`, o.num FROM {p}owners o WHERE o.user_id = ?`, []any{userID}, append(row.dest(), &num)...)
	if errors.Is(err, sql.ErrNoRows) {
		const query = `INSERT INTO {p}owners (user_id, enabled, created_at, updated_at, revision) VALUES (?, 1, ?, ?, ?) RETURNING num`
		err = w.row(query, []any{userID, now, now, revision}, &num)
		return key.Owner{UserID: userID, Enabled: true, CreatedAt: now, UpdatedAt: now, Revision: revision}, num, failed("making an owner", err)
	}
	return row.owner(), num, failed("reading an owner", err)
}
