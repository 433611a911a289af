package key

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"unique"

	"github.com/caddy-apikey/caddy-apikey/ratelimit"
)

// MaxCount is the largest count, limit or duration a key may carry: 2^53-1, the
// largest integer that every JSON reader keeps exact.
const MaxCount int64 = 1<<53 - 1

// MaxTime is the last millisecond of the year 9999, the latest time that
// RFC 3339 can write.
const MaxTime int64 = 253402300799999

// MaxPrevious is how many previous raw keys of one key work at a time.
const MaxPrevious = 5

// DisplayLen is how many leading characters of a raw key are stored for display.
const DisplayLen = 12

// DefaultConfig is the name of the configuration that always exists.
const DefaultConfig = "default"

// Key is one credential record. A *Key that has left the store is never changed
// in place: a change makes a new one (see Clone).
type Key struct {
	ID       string
	ConfigID string // a named configuration, or DefaultConfig
	UserID   string // the owner
	Name     *string
	Prefix   *string
	// Start holds the first DisplayLen characters of the raw key at most; what
	// is shown is cut from it.
	Start *string

	Hash       Hash
	SecretHash *Hash         // goes with every raw key of the key; nil: none
	Previous   []PreviousKey // raw keys that rotation replaced, the oldest first
	// Checksummed is false for raw keys without the checksum of this package
	// (another generator, an import, "checksum off").
	Checksummed bool

	Enabled     bool
	DisabledBy  DisabledBy      // empty for an enabled key
	Permissions Permissions     // nil: none
	Metadata    json.RawMessage // a JSON object as it was sent; nil: none
	AllowedIPs  []netip.Prefix  // nil: everywhere
	ExpiresAt   int64           // 0: never
	CreatedAt   int64
	UpdatedAt   int64
	RotatedAt   int64 // 0: never

	RateLimitEnabled    bool
	RateLimitMax        int64 // 0: none
	RateLimitTimeWindow int64 // 0: none
	RateLimitAlgorithm  ratelimit.Algorithm

	// Revision is that of the store after the last change of the record: of two copies
	// the one with the higher revision is the later.
	Revision int64
}

// PreviousKey is a raw key that rotation replaced. It works while now < Until.
type PreviousKey struct {
	Hash  Hash
	Start string // as that of the key; empty: none
	Until int64
	// Checksummed is that of the key when this was its raw key.
	Checksummed bool
	// LastRequest is written behind the requests; 0: never.
	LastRequest int64
}

// DisabledBy is who disabled a key.
type DisabledBy string

const (
	// DisabledByOwner: somebody who may enable the key again in self-service.
	DisabledByOwner DisabledBy = "owner"
	// DisabledByOperator: the operator of the server, who alone enables it again.
	DisabledByOperator DisabledBy = "operator"
	// DisabledByLeak: the raw key was reported as leaked. The operator alone
	// enables it again.
	DisabledByLeak DisabledBy = "leak"
)

// Valid reports whether d may be that of a key which is enabled or not.
func (d DisabledBy) Valid(enabled bool) bool {
	switch d {
	case "":
		return true
	case DisabledByOwner, DisabledByOperator, DisabledByLeak:
		return !enabled
	}
	return false
}

// Owner is who keys belong to.
type Owner struct {
	UserID    string
	Tier      *string
	Enabled   bool
	CreatedAt int64
	UpdatedAt int64
	Revision  int64 // as that of a key
}

// Clone returns a copy whose fields can be replaced without touching k. Slices
// and maps are shared: replace them, do not write into them.
func (k *Key) Clone() *Key {
	c := *k
	return &c
}

// Compact returns a copy in as little memory as possible: it shares nothing with the
// document that k was read from. id and userID are those of k, which the caller has.
func (k *Key) Compact(id, userID string) *Key {
	c := &parsedKey{Key: *k}
	c.ID, c.UserID = id, userID
	c.ConfigID = unique.Make(k.ConfigID).Value()
	c.Name, c.Prefix, c.Start = compactText(k.Name, &c.name), compactText(k.Prefix, &c.prefix), compactText(k.Start, &c.start)
	if k.SecretHash != nil {
		c.secret = *k.SecretHash
		c.SecretHash = &c.secret
	}
	c.Previous = slices.Clone(k.Previous)
	for i := range c.Previous {
		c.Previous[i].Start = strings.Clone(c.Previous[i].Start)
	}
	c.Permissions = k.Permissions.compact()
	c.Metadata, c.AllowedIPs = slices.Clone(k.Metadata), slices.Clone(k.AllowedIPs)
	return &c.Key
}

// compactText copies a text into the room that there is for it.
func compactText(text, room *string) *string {
	if text == nil {
		return nil
	}
	*room = strings.Clone(*text)
	return room
}

// Plain reports whether one of the raw keys of k, present or previous, has no checksum.
func (k *Key) Plain() bool {
	return !k.Checksummed || slices.ContainsFunc(k.Previous, func(p PreviousKey) bool { return !p.Checksummed })
}

// Expired reports whether the key's time is over at now.
func (k *Key) Expired(now int64) bool {
	return k.ExpiresAt != 0 && now >= k.ExpiresAt
}

// Match is how a raw key matches a record.
type Match struct {
	OK       bool // it opens the key
	Previous int  // its index in Key.Previous; -1 for the present raw key
	// GraceExpired: it is a previous raw key that works no longer.
	GraceExpired bool
}

// Match tells whether a raw key with hash h opens the key at now: as the present
// raw key, or as a previous one in its grace.
func (k *Key) Match(h Hash, now int64) Match {
	if k.Hash.Equal(h) {
		return Match{OK: true, Previous: -1}
	}
	for i := range k.Previous {
		if p := &k.Previous[i]; p.Hash.Equal(h) {
			return Match{OK: now < p.Until, Previous: i, GraceExpired: now >= p.Until}
		}
	}
	return Match{Previous: -1}
}

// Working returns the previous raw keys that work at now.
func (k *Key) Working(now int64) []PreviousKey {
	return slices.DeleteFunc(slices.Clone(k.Previous), func(p PreviousKey) bool { return now >= p.Until })
}

// Rotate replaces the raw key by one that Hash, Start and Checksummed are set to
// after that. The replaced one works for grace more milliseconds, and no previous
// one longer than it: a grace of 0 ends them all. At most MaxPrevious go on
// working; the oldest end first. lastRequest is that of the replaced raw key.
func (k *Key) Rotate(grace, lastRequest, now int64) {
	k.RotatedAt = now
	k.Previous = k.Working(now)
	if grace == 0 {
		k.Previous = nil
		return
	}
	replaced := PreviousKey{Hash: k.Hash, Until: now + grace, Checksummed: k.Checksummed, LastRequest: lastRequest}
	if k.Start != nil {
		replaced.Start = *k.Start
	}
	for i := range k.Previous {
		k.Previous[i].Until = min(k.Previous[i].Until, replaced.Until)
	}
	k.Previous = append(k.Previous, replaced)
	k.Previous = k.Previous[max(0, len(k.Previous)-MaxPrevious):]
}

// RatePolicy returns the key's rate limit; ok is false where it has none.
func (k *Key) RatePolicy() (p ratelimit.Policy, ok bool) {
	if !k.RateLimitEnabled || k.RateLimitMax == 0 || k.RateLimitTimeWindow == 0 {
		return ratelimit.Policy{}, false
	}
	return ratelimit.Policy{Algorithm: k.RateLimitAlgorithm, Max: k.RateLimitMax, Window: k.RateLimitTimeWindow}, true
}

// AllowsIP reports whether the key may be used from ip. An IPv4 address mapped
// into IPv6 counts as the IPv4 address.
func (k *Key) AllowsIP(ip netip.Addr) bool {
	if k.AllowedIPs == nil {
		return true
	}
	ip = ip.Unmap().WithZone("")
	for _, p := range k.AllowedIPs {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

// NewID returns 24 hexadecimal characters that sort by time: 48 bits of Unix
// milliseconds, then 48 random bits.
func NewID(now int64) string {
	var b [14]byte                                 // two bytes of slack in front, so that the time is one store
	binary.BigEndian.PutUint64(b[:8], uint64(now)) //nolint:gosec // not negative
	rand.Read(b[8:])
	return hex.EncodeToString(b[2:])
}
