package sqlite

import (
	"context"
	"database/sql"
	"errors"

	"github.com/caddy-apikey/caddy-apikey/store"
)

const (
	// ownersOff counts keys that only their owner disables.
	ownersOff = `SELECT count(*) FROM {p}owners o CROSS JOIN {p}keys k ON k.owner = o.num
		WHERE NOT o.enabled AND o.user_id IS NOT NULL AND k.enabled`
	ended = `SELECT count(*) FROM {p}keys k JOIN {p}owners o ON o.num = k.owner
		WHERE k.expires_at <= ? AND ` + isEnabled + ` AND o.user_id IS NOT NULL`
	exhausted = `SELECT count(*) FROM {p}accounts c CROSS JOIN {p}keys k ON k.num = c.subject JOIN {p}owners o ON o.num = k.owner
		WHERE c.kind = 'key' AND ` + isExhausted + ` AND NOT ` + hasEnded + ` AND ` + isEnabled + ` AND o.user_id IS NOT NULL`
	ending    = `SELECT count(*) FROM {p}keys k WHERE k.expires_at > ? AND k.expires_at <= ?`
	leasedSum = `SELECT coalesce(sum(amount), 0) FROM {p}leases`
)

// Figures implements store.Statistics. It takes one of the readers for a while, for no index
// serves all of it: beside the keys that have ended it looks at each account and each owner.
// A connection of its own would be opened by the path, which may lead to another file by now.
func (s *Store) Figures(ctx context.Context, now int64, until []int64) (f store.Figures, err error) {
	if err := s.enter(); err != nil {
		return f, err
	}
	defer s.leave()
	tx, err := s.readers.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return f, failed("counting keys", err)
	}
	f, err = readFigures(&listReader{ctx, tx, s.readers.stmts}, now, until)
	return f, failed("counting keys", errors.Join(err, tx.Rollback()))
}

func readFigures(r *listReader, now int64, until []int64) (f store.Figures, err error) {
	one := func(dest *int64, query string, args ...any) {
		if err == nil {
			err = r.one(dest, query, args)
		}
	}
	var all, byOwner int64
	var clearing bool
	one(&all, `SELECT coalesce(sum(n), 0) FROM (`+keyCounts+`)`)
	one(&f.Disabled, `SELECT coalesce(sum(n), 0) FROM (`+keyCounts+`) WHERE NOT enabled`)
	one(&byOwner, ownersOff)
	one(&f.Expired, ended, now)
	one(&f.Exhausted, exhausted, now, now)
	one(&f.Leased, leasedSum)
	f.Disabled += byOwner
	f.Active = all - f.Disabled - f.Expired - f.Exhausted
	if err == nil {
		err = r.one(&clearing, `SELECT EXISTS `+deletedOwners, nil)
	}
	query := ending
	if clearing {
		query += ` AND ` + ownerKept
	}
	f.Expiring = make([]int64, len(until))
	for i, t := range until {
		one(&f.Expiring[i], query, now, t)
	}
	return f, err
}

// Backlog implements store.Statistics.
func (s *Store) Backlog() int { return len(s.writer.queue) }
