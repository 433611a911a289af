package sqlite

import (
	"bytes"
	"database/sql"
	"errors"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

const (
	creditsColumns = `c.remaining, c.leased, c.spent, c.forfeited, c.granted, c.peak,
		c.refill_amount, c.refill_interval, c.refill_from, c.last_refill_at, c.version`
	ownerColumns = `o.user_id, o.tier, o.enabled, o.created_at, o.updated_at, o.generation`

	// entryColumns and entryTables read a whole store.Entry, but for its windows and
	// the uses of previous raw keys. The joins are outer ones so that a damaged database gives an
	// error and not a missing key.
	entryColumns = `k.num, k.doc, k.generation, u.at, ` + ownerColumns + `, c.key, ` + creditsColumns
	entryJoins   = ` LEFT JOIN {p}credits c ON c.key = k.num LEFT JOIN {p}owners o ON o.num = k.owner`
	entryTables  = ` FROM {p}keys k LEFT JOIN {p}last_uses u ON u.key = k.num` + entryJoins

	// windowColumns and windowJoin add the windows of a key to an entry, a row for each.
	windowColumns = `, w.unit, w.state`
	windowJoin    = ` LEFT JOIN {p}windows w ON w.subject = k.num AND w.kind = 'key'`

	// previousUses reads what is kept of a key's previous raw keys beside its document.
	previousUses = `SELECT hash, last_request FROM {p}previous_hashes WHERE key = ? AND last_request IS NOT NULL`
)

// keyValues are the columns of a key that a change may write: those of keySet.
func keyValues(k *key.Key, owner int64) ([]any, error) {
	doc, err := key.AppendDocument(nil, k)
	if err != nil {
		return nil, unavailable("storing a key: %w", err)
	}
	return []any{
		owner, k.ConfigID, optional(k.Name), optional(k.Prefix), optional(k.Start), k.Hash[:],
		bit(k.Checksummed), bit(k.Enabled), nonZero(k.ExpiresAt), k.CreatedAt, string(doc), k.Generation,
	}, nil
}

func creditsValues(c key.Credits) []any {
	var remaining any
	var peak int64
	if c.Limited {
		remaining, peak = c.Remaining, c.Peak
	}
	return []any{
		remaining, c.Leased, c.Spent, c.Forfeited, c.Granted, peak, nonZero(c.RefillAmount), nonZero(c.RefillInterval),
		nonZero(c.RefillFrom), nonZero(c.LastRefillAt), c.Version,
	}
}

func optional(s *string) any {
	if s == nil {
		return nil
	}
	return *s
}

func nonZero(n int64) any {
	if n == 0 {
		return nil
	}
	return n
}

func bit(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

type (
	nullNumber = sql.NullInt64
	nullText   = sql.NullString
)

// entryRow receives the columns of entryColumns.
type entryRow struct {
	num         int64
	doc         string
	generation  int64
	lastRequest nullNumber
	owner       ownerRow
	creditsOf   nullNumber
	credits     creditsRow
	windows     []store.Window
}

func (r *entryRow) addWindow(unit nullText, state []byte) {
	if unit.Valid {
		r.windows = append(r.windows, store.Window{Unit: unit.String, State: state})
	}
}

func (r *entryRow) dest() []any {
	d := []any{&r.num, &r.doc, &r.generation, &r.lastRequest}
	d = append(append(d, r.owner.dest()...), &r.creditsOf)
	return append(d, r.credits.dest()...)
}

// entry decodes the row. What cannot have been written by this package is an error.
func (r *entryRow) entry() (store.Entry, error) {
	k, err := key.ParseDocument(r.doc)
	switch {
	case err != nil:
	case r.owner.userID.String != k.UserID:
		err = errors.New("its owner is another one")
	}
	if err != nil {
		return store.Entry{}, unavailable("key number %d is damaged: %w", r.num, err)
	}
	k.Generation = r.generation
	e := store.Entry{
		Key:         k,
		Credits:     key.Credits{Version: 1}, // as those of a new key that has none
		LastRequest: r.lastRequest.Int64,
		Windows:     r.windows,
		Owner:       r.owner.owner(),
	}
	if r.creditsOf.Valid {
		e.Credits = r.credits.credits()
	}
	return e, nil
}

// used notes the last use of a previous raw key.
func used(k *key.Key, hash []byte, last int64) {
	for i := range k.Previous {
		if p := &k.Previous[i]; bytes.Equal(p.Hash[:], hash) {
			p.LastRequest = last
		}
	}
}

func pointer(s nullText) *string {
	if !s.Valid {
		return nil
	}
	return &s.String
}

// creditsRow receives the columns of creditsColumns.
type creditsRow struct {
	remaining, leased, spent, forfeited, granted, peak nullNumber
	amount, interval, from, last, version              nullNumber
}

func (r *creditsRow) numbers() [11]*nullNumber {
	return [...]*nullNumber{&r.remaining, &r.leased, &r.spent, &r.forfeited, &r.granted, &r.peak, &r.amount, &r.interval, &r.from, &r.last, &r.version}
}

func (r *creditsRow) dest() (d []any) {
	for _, n := range r.numbers() {
		d = append(d, n)
	}
	return d
}

func (r *creditsRow) credits() key.Credits {
	return key.Credits{
		Limited:        r.remaining.Valid,
		Remaining:      r.remaining.Int64,
		Leased:         r.leased.Int64,
		Spent:          r.spent.Int64,
		Forfeited:      r.forfeited.Int64,
		Granted:        r.granted.Int64,
		Peak:           r.peak.Int64,
		RefillAmount:   r.amount.Int64,
		RefillInterval: r.interval.Int64,
		RefillFrom:     r.from.Int64,
		LastRefillAt:   r.last.Int64,
		Version:        r.version.Int64,
	}
}

// ownerRow receives the columns of ownerColumns.
type ownerRow struct {
	userID, tier                              nullText
	enabled, createdAt, updatedAt, generation nullNumber
}

func (r *ownerRow) dest() []any {
	return []any{&r.userID, &r.tier, &r.enabled, &r.createdAt, &r.updatedAt, &r.generation}
}

func (r *ownerRow) owner() key.Owner {
	return key.Owner{
		UserID: r.userID.String, Tier: pointer(r.tier), Enabled: r.enabled.Int64 != 0,
		CreatedAt: r.createdAt.Int64, UpdatedAt: r.updatedAt.Int64, Generation: r.generation.Int64,
	}
}
