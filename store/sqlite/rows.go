package sqlite

import (
	"bytes"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/ratelimit"
	"github.com/caddy-apikey/caddy-apikey/store"
)

const (
	keyColumns = `k.id, k.config_id, k.user_id, k.name, k.prefix, k.start, k.hash, k.secret_hash,
		k.checksummed, k.enabled, k.disabled_by, k.permissions, k.metadata, k.allowed_ips, k.expires_at, k.created_at, k.updated_at, k.rotated_at,
		k.rate_limit_enabled, k.rate_limit_max, k.rate_limit_time_window, k.rate_limit_algorithm, k.generation`

	// previousColumn reads the previous raw keys inside the same statement, and so
	// from the same snapshot, as the rest.
	previousColumn = `(SELECT group_concat(hex(f.hash) || ':' || f.until_ms || ':' || f.checksummed || ':' || coalesce(f.last_request, 0) || ':' || coalesce(f.start, ''), ',' ORDER BY f.position)
		FROM {p}former_hashes f WHERE f.key_id = k.id)`

	creditsColumns = `c.remaining, c.leased, c.spent, c.forfeited, c.granted, c.peak,
		c.refill_amount, c.refill_interval, c.refill_from, c.last_refill_at, c.version`
	countersColumns = `n.key_id, n.last_request, n.rate_state`
	ownerColumns    = `o.user_id, o.tier, o.enabled, o.created_at, o.updated_at, o.generation`

	// entryColumns and entryTables read a whole store.Entry. The joins are outer
	// ones so that a damaged database gives an error and not a missing key.
	entryColumns = keyColumns + `, ` + previousColumn + `, ` + creditsColumns + `, ` + countersColumns + `, ` + ownerColumns
	entryJoins   = ` LEFT JOIN {p}credits c ON c.key_id = k.id LEFT JOIN {p}owners o ON o.user_id = k.user_id`
	counterJoin  = ` LEFT JOIN {p}counters n ON n.key_id = k.id`
	entryTables  = ` FROM {p}keys k` + counterJoin + entryJoins
)

// keyValues are the columns of a key in the order of keyColumns, without the ID
// and the generation.
func keyValues(k *key.Key) ([]any, error) {
	var permissions, ips []byte
	var err error
	if k.Permissions != nil {
		if permissions, err = json.Marshal(k.Permissions); err != nil {
			return nil, fmt.Errorf("permissions: %w", err)
		}
	}
	if k.AllowedIPs != nil {
		if ips, err = json.Marshal(k.AllowedIPs); err != nil {
			return nil, fmt.Errorf("allowed IPs: %w", err)
		}
	}
	return []any{
		k.ConfigID, k.UserID, optional(k.Name), optional(k.Prefix), optional(k.Start), k.Hash[:], secretValue(k.SecretHash),
		flag(k.Checksummed), flag(k.Enabled), nonEmpty(string(k.DisabledBy)), text(permissions), text(k.Metadata), text(ips),
		nonZero(k.ExpiresAt), k.CreatedAt, k.UpdatedAt, nonZero(k.RotatedAt),
		flag(k.RateLimitEnabled), nonZero(k.RateLimitMax), nonZero(k.RateLimitTimeWindow), k.RateLimitAlgorithm.String(),
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

func orNull(b []byte) any {
	if len(b) == 0 {
		return nil
	}
	return b
}

func text(b []byte) any {
	if b == nil {
		return nil
	}
	return string(b)
}

func nonZero(n int64) any {
	if n == 0 {
		return nil
	}
	return n
}

func nonEmpty(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// entryRow receives the columns of entryColumns.
type entryRow struct {
	k                      key.Key
	name, prefix, start    sql.NullString
	hash, secret           []byte
	checksummed, enabled   int64
	disabledBy             sql.NullString
	permissions, meta, ips sql.NullString
	expires, rotated       sql.NullInt64
	maxim, window          sql.NullInt64
	limited                int64
	algorithm              string
	previous               sql.NullString
	credits                creditsRow
	counterOf              string // NULL, and so an error, where the row is missing
	lastRequest            sql.NullInt64
	rate                   []byte
	owner                  ownerRow
}

func (r *entryRow) dest() []any {
	d := []any{
		&r.k.ID, &r.k.ConfigID, &r.k.UserID, &r.name, &r.prefix, &r.start, &r.hash, &r.secret,
		&r.checksummed, &r.enabled, &r.disabledBy, &r.permissions, &r.meta, &r.ips, &r.expires, &r.k.CreatedAt, &r.k.UpdatedAt, &r.rotated,
		&r.limited, &r.maxim, &r.window, &r.algorithm, &r.k.Generation, &r.previous,
	}
	d = append(d, r.credits.dest()...)
	d = append(d, &r.counterOf, &r.lastRequest, &r.rate)
	return append(d, r.owner.dest()...)
}

// entry decodes the row. What cannot have been written by this package is an error.
func (r *entryRow) entry() (store.Entry, error) {
	k := r.k
	k.Name, k.Prefix, k.Start = pointer(r.name), pointer(r.prefix), pointer(r.start)
	k.Checksummed, k.Enabled, k.RateLimitEnabled = r.checksummed != 0, r.enabled != 0, r.limited != 0
	k.DisabledBy, k.RotatedAt = key.DisabledBy(r.disabledBy.String), r.rotated.Int64
	k.ExpiresAt, k.RateLimitMax, k.RateLimitTimeWindow = r.expires.Int64, r.maxim.Int64, r.window.Int64
	if err := r.decode(&k); err != nil {
		return store.Entry{}, unavailable("key %q is damaged: %w", r.k.ID, err)
	}
	return store.Entry{
		Key:      &k,
		Credits:  r.credits.credits(),
		Counters: key.Counters{LastRequest: r.lastRequest.Int64, Rate: bytes.Clone(r.rate)},
		Owner:    r.owner.owner(),
	}, nil
}

func (r *entryRow) decode(k *key.Key) error {
	if len(r.hash) != len(k.Hash) {
		return errors.New("hash: wrong length")
	}
	copy(k.Hash[:], r.hash)
	if r.secret != nil {
		k.SecretHash = new(key.Hash)
		if copy(k.SecretHash[:], r.secret) != len(r.secret) || len(r.secret) != len(k.Hash) {
			return errors.New("secret hash: wrong length")
		}
	}
	if r.meta.Valid {
		k.Metadata = json.RawMessage(r.meta.String)
	}
	var err error
	if r.permissions.Valid {
		if err = json.Unmarshal([]byte(r.permissions.String), &k.Permissions); err != nil {
			return fmt.Errorf("permissions: %w", err)
		}
	}
	if r.ips.Valid {
		k.AllowedIPs = []netip.Prefix{}
		if err = json.Unmarshal([]byte(r.ips.String), &k.AllowedIPs); err != nil {
			return fmt.Errorf("allowed IPs: %w", err)
		}
		if k.AllowedIPs == nil { // "null": this package never writes it, and it would mean "everywhere"
			return errors.New("allowed IPs: null")
		}
	}
	if k.RateLimitAlgorithm, err = ratelimit.ParseAlgorithm(r.algorithm); err != nil {
		return fmt.Errorf("rate limit algorithm: %w", err)
	}
	k.Previous, err = parsePrevious(r.previous.String)
	return err
}

// secretValue returns what is stored for the hash of a secret, or NULL.
func secretValue(h *key.Hash) any {
	if h == nil {
		return nil
	}
	return h[:]
}

func parsePrevious(s string) (list []key.PreviousKey, _ error) {
	if s == "" {
		return nil, nil
	}
	for one := range strings.SplitSeq(s, ",") {
		p, err := parseOnePrevious(one)
		if err != nil {
			return nil, fmt.Errorf("previous key: %w", err)
		}
		list = append(list, p)
	}
	return list, nil
}

// parseOnePrevious reads "hash:until:checksummed:lastRequest:start", the last of
// which may be empty.
func parseOnePrevious(s string) (p key.PreviousKey, err error) {
	parts := strings.SplitN(s, ":", 5)
	if len(parts) < 5 {
		return p, errors.New("damaged")
	}
	if p.Hash, err = parseHash(parts[0]); err != nil {
		return p, err
	}
	if p.Until, err = strconv.ParseInt(parts[1], 10, 64); err != nil {
		return p, err
	}
	p.Checksummed, p.Start = parts[2] == "1", parts[4]
	p.LastRequest, err = strconv.ParseInt(parts[3], 10, 64)
	return p, err
}

func parseHash(s string) (h key.Hash, err error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(h) {
		return h, errors.New("damaged")
	}
	return key.Hash(b), nil
}

func pointer(s sql.NullString) *string {
	if !s.Valid {
		return nil
	}
	return &s.String
}

// creditsRow receives the columns of creditsColumns.
type creditsRow struct {
	remaining, amount, interval, from, last sql.NullInt64
	leased, spent, forfeited, granted       int64
	peak, version                           int64
}

func (r *creditsRow) dest() []any {
	return []any{&r.remaining, &r.leased, &r.spent, &r.forfeited, &r.granted, &r.peak, &r.amount, &r.interval, &r.from, &r.last, &r.version}
}

func (r *creditsRow) credits() key.Credits {
	return key.Credits{
		Limited:        r.remaining.Valid,
		Remaining:      r.remaining.Int64,
		Leased:         r.leased,
		Spent:          r.spent,
		Forfeited:      r.forfeited,
		Granted:        r.granted,
		Peak:           r.peak,
		RefillAmount:   r.amount.Int64,
		RefillInterval: r.interval.Int64,
		RefillFrom:     r.from.Int64,
		LastRefillAt:   r.last.Int64,
		Version:        r.version,
	}
}

// ownerRow receives the columns of ownerColumns.
type ownerRow struct {
	o       key.Owner
	tier    sql.NullString
	enabled int64
}

func (r *ownerRow) dest() []any {
	return []any{&r.o.UserID, &r.tier, &r.enabled, &r.o.CreatedAt, &r.o.UpdatedAt, &r.o.Generation}
}

func (r *ownerRow) owner() key.Owner {
	o := r.o
	o.Tier, o.Enabled = pointer(r.tier), r.enabled != 0
	return o
}
