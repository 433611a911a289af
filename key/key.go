package key

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"slices"

	"github.com/caddy-apikey/caddy-apikey/ratelimit"
)

// MaxCount is the largest count, limit or duration a key may carry: 2^53-1, the
// largest integer that every JSON reader keeps exact.
const MaxCount int64 = 1<<53 - 1

// MaxTime is the last millisecond of the year 9999, the latest time that
// RFC 3339 can write.
const MaxTime int64 = 253402300799999

// MaxFormer is how many rotated-away raw keys of one key work at a time.
const MaxFormer = 5

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
	SecretHash *Hash
	Former     []Former // rotated-away raw keys that may still be in their grace
	// Checksummed is false for raw keys without the checksum of this package
	// (another generator, an import, "checksum off").
	Checksummed bool

	Enabled     bool
	Permissions Permissions     // nil: none
	Metadata    json.RawMessage // a JSON object as it was sent; nil: none
	AllowedIPs  []netip.Prefix  // nil: everywhere
	ExpiresAt   int64           // 0: never
	CreatedAt   int64
	UpdatedAt   int64

	RateLimitEnabled    bool
	RateLimitMax        int64 // 0: none
	RateLimitTimeWindow int64 // 0: none
	RateLimitAlgorithm  ratelimit.Algorithm

	// Generation grows by one with each change of the record, so that the later
	// of two copies can be told.
	Generation int64
}

// Former is a raw key that rotation replaced, with the secret it had. It works
// while now < Until.
type Former struct {
	Hash       Hash
	SecretHash *Hash
	Until      int64
	// Checksummed is that of the key when this was its raw key.
	Checksummed bool
}

// Counters is what use changes of a key, apart from its credits. Counters are
// written to the store behind the requests, never with the record.
type Counters struct {
	LastRequest int64  // 0: never
	Rate        []byte // an encoded ratelimit.State; nil: unused
}

// Owner is who keys belong to.
type Owner struct {
	UserID     string
	Tier       *string
	Enabled    bool
	CreatedAt  int64
	UpdatedAt  int64
	Generation int64
}

// Clone returns a copy whose fields can be replaced without touching k. Slices
// and maps are shared: replace them, do not write into them.
func (k *Key) Clone() *Key {
	c := *k
	return &c
}

// Plain reports whether one of the raw keys of k, current or former, has no checksum.
func (k *Key) Plain() bool {
	return !k.Checksummed || slices.ContainsFunc(k.Former, func(f Former) bool { return !f.Checksummed })
}

// Expired reports whether the key's time is over at now.
func (k *Key) Expired(now int64) bool {
	return k.ExpiresAt != 0 && now >= k.ExpiresAt
}

// Opening is what a raw key with a certain hash opens.
type Opening struct {
	OK         bool
	Over       bool  // it is a former raw key whose grace has ended
	SecretHash *Hash // the secret that goes with it
}

// OpenedBy tells what a raw key with hash h opens at now: this record, where it
// is the current raw key or a former one in its grace.
func (k *Key) OpenedBy(h Hash, now int64) Opening {
	if k.Hash.Equal(h) {
		return Opening{OK: true, SecretHash: k.SecretHash}
	}
	for i := range k.Former {
		if f := &k.Former[i]; f.Hash.Equal(h) {
			return Opening{OK: now < f.Until, Over: now >= f.Until, SecretHash: f.SecretHash}
		}
	}
	return Opening{}
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
	var b [14]byte // two bytes of slack in front, so that the time is one store
	binary.BigEndian.PutUint64(b[:8], uint64(now))
	rand.Read(b[8:])
	return hex.EncodeToString(b[2:])
}
