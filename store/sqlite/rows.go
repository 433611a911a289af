package sqlite

import (
	"bytes"
	"database/sql"
	"errors"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

const (
	//nolint:gosec // names of columns, not credentials
	creditsColumns = `c.unit, c.remaining, c.leased, c.held, c.debt, c.spent, c.forfeited, c.expired, c.granted, c.peak, c.reported,
		c.refill_amount, c.refill_interval, c.refill_from, c.last_refill_at, c.version`
	ownerColumns = `o.user_id, o.tier, o.enabled, o.created_at, o.updated_at, o.revision`

	// entryColumns and entryTables read a whole store.Entry, but for its windows and
	// the uses of previous raw keys. The joins are outer ones so that a damaged database gives an
	// error and not a missing key.
	entryColumns = `k.num, k.doc, k.revision, u.at, ` + ownerColumns + `, ` + creditsColumns
	entryJoins   = ` LEFT JOIN {p}accounts c ON c.subject = k.num AND c.kind = 'key' LEFT JOIN {p}owners o ON o.num = k.owner`
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
		bit(k.Checksummed), bit(k.Enabled), disabledAt(k), nonZero(k.ExpiresAt), k.CreatedAt, string(doc), k.Revision,
	}, nil
}

// disabledAt is when a key was changed last that its owner has disabled.
func disabledAt(k *key.Key) any {
	if k.DisabledBy != key.DisabledByOwner {
		return nil
	}
	return k.UpdatedAt
}

func creditsValues(c key.Credits) []any {
	var remaining any
	var peak, reported int64
	if c.Limited {
		remaining, peak, reported = c.Remaining, c.Peak, c.Reported
	}
	return []any{
		c.Unit.String(), remaining, c.Leased, c.Held, c.Debt, c.Spent, c.Forfeited, c.Expired, c.Granted, peak, reported, nonZero(c.RefillAmount), nonZero(c.RefillInterval),
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
	revision    int64
	lastRequest nullNumber
	owner       ownerRow
	credits     creditsRow
	windows     []store.Window
}

func (r *entryRow) addWindow(unit nullText, state []byte) {
	if unit.Valid {
		r.windows = append(r.windows, store.Window{Unit: unit.String, State: state})
	}
}

func (r *entryRow) dest() []any {
	d := []any{&r.num, &r.doc, &r.revision, &r.lastRequest}
	d = append(d, r.owner.dest()...)
	return append(d, r.credits.dest()...)
}

// entry decodes the row. What cannot have been written by this package is an error.
func (r *entryRow) entry() (store.Entry, error) {
	k, err := key.ParseDocument(r.doc)
	if err == nil && r.owner.userID.String != k.UserID {
		err = errOtherOwner
	}
	if err != nil {
		return store.Entry{}, damagedKey(r.num, err)
	}
	k.Revision = r.revision
	e := store.Entry{
		Key:         k,
		LastRequest: r.lastRequest.Int64,
		Windows:     r.windows,
		Owner:       r.owner.owner(),
	}
	e.Credits, err = r.credits.orNone()
	return e, err
}

var errOtherOwner = errors.New("its owner is another one")

func damagedKey(num int64, err error) error {
	return unavailable("key number %d is damaged: %w", num, err)
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
	unit                                     nullText // NULL: there is no row
	remaining, leased, held, debt            nullNumber
	spent, forfeited, expired, granted, peak nullNumber
	reported                                 nullNumber
	amount, interval, from, last, version    nullNumber
}

// numbers are the columns after the unit.
func (r *creditsRow) numbers() [15]*nullNumber {
	return [...]*nullNumber{
		&r.remaining, &r.leased, &r.held, &r.debt, &r.spent, &r.forfeited, &r.expired, &r.granted, &r.peak, &r.reported,
		&r.amount, &r.interval, &r.from, &r.last, &r.version,
	}
}

func (r *creditsRow) dest() []any {
	d := []any{&r.unit}
	for _, n := range r.numbers() {
		d = append(d, n)
	}
	return d
}

// orNone returns the credits, or those of a new key that has none.
func (r *creditsRow) orNone() (key.Credits, error) {
	if !r.unit.Valid {
		return key.Credits{Version: 1}, nil
	}
	return r.credits()
}

func (r *creditsRow) credits() (key.Credits, error) {
	unit, err := key.ParseUnit(r.unit.String)
	if err != nil {
		return key.Credits{}, unavailable("the unit of credits: %w", err)
	}
	return key.Credits{
		Unit:           unit,
		Held:           r.held.Int64,
		Debt:           r.debt.Int64,
		Expired:        r.expired.Int64,
		Limited:        r.remaining.Valid,
		Remaining:      r.remaining.Int64,
		Leased:         r.leased.Int64,
		Spent:          r.spent.Int64,
		Forfeited:      r.forfeited.Int64,
		Granted:        r.granted.Int64,
		Peak:           r.peak.Int64,
		Reported:       r.reported.Int64,
		RefillAmount:   r.amount.Int64,
		RefillInterval: r.interval.Int64,
		RefillFrom:     r.from.Int64,
		LastRefillAt:   r.last.Int64,
		Version:        r.version.Int64,
	}, nil
}

// ownerRow receives the columns of ownerColumns.
type ownerRow struct {
	userID, tier                            nullText
	enabled, createdAt, updatedAt, revision nullNumber
}

func (r *ownerRow) dest() []any {
	return []any{&r.userID, &r.tier, &r.enabled, &r.createdAt, &r.updatedAt, &r.revision}
}

// deleted reports whether the owner is there, and deleted.
func (r *ownerRow) deleted() bool { return r.enabled.Valid && !r.userID.Valid }

func (r *ownerRow) owner() key.Owner {
	return key.Owner{
		UserID: r.userID.String, Tier: pointer(r.tier), Enabled: r.enabled.Int64 != 0,
		CreatedAt: r.createdAt.Int64, UpdatedAt: r.updatedAt.Int64, Revision: r.revision.Int64,
	}
}
