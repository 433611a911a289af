package keyring

import (
	"net/netip"
	"slices"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/ratelimit"
)

// The actions on the resource "api" that self-service knows.
const (
	Read  = "read"
	Write = "write"
	Admin = "admin"
)

// Grantable returns what somebody with these permissions may grant: the same, and
// with Admin every action that self-service knows.
func Grantable(p key.Permissions) key.Permissions {
	if !p.Allows(key.Permission{Resource: key.DefaultResource, Action: Admin}) {
		return p
	}
	return p.Union(key.Permissions{key.DefaultResource: {Read, Write, Admin}})
}

// Bounds are what somebody who is no operator has and may pass on: what is made
// or changed within them opens no door, lasts no longer and takes no more than
// they could themselves.
type Bounds struct {
	ConfigID    string // of their keys; empty: any
	Permissions key.Permissions
	ExpiresAt   int64             // 0: never
	AllowedIPs  []netip.Prefix    // nil: everywhere
	RateLimit   *ratelimit.Policy // nil: none
	// Metered: their credits are limited. A further key would have credits of its
	// own, so they can make none.
	Metered bool
	// KeyID is that of their own key; empty: they have none.
	KeyID string
	// Previous: they hold a previous raw key, in its grace. It opens what it did, and
	// changes nothing: whoever has it besides the owner could make a key that stays.
	Previous bool

	tiered bool // the tier of the owner has cut down Permissions
}

// ScopeError is a wish that goes beyond somebody's bounds.
type ScopeError struct {
	Field   string // empty: no field is to blame
	Message string
}

func (e *ScopeError) Error() string {
	if e.Field == "" {
		return e.Message
	}
	return e.Field + ": " + e.Message
}

// BoundsOf returns the bounds of who holds the key of a decision.
func (s *Service) BoundsOf(d *Decision) *Bounds {
	k := d.Key()
	b := &Bounds{
		ConfigID: k.ConfigID, Permissions: k.Permissions, ExpiresAt: k.ExpiresAt, AllowedIPs: k.AllowedIPs,
		Metered: d.entry.account.limited.Load(), KeyID: k.ID, Previous: d.previous,
	}
	if p, ok := k.RatePolicy(); ok {
		b.RateLimit = &p
	}
	return b
}

// mayChange refuses those who may change nothing at all.
func (b *Bounds) mayChange() error {
	if b != nil && b.Previous {
		return &ScopeError{"", "this raw key was replaced: it can change nothing until it ends"}
	}
	return nil
}

// under returns the bounds of what may be granted where the tier of the owner has
// permissions: those, and with Admin what that may grant. Nil: it has none. Operators
// are not bound.
func (b *Bounds) under(tier key.Permissions) *Bounds {
	if b == nil || tier == nil {
		return b
	}
	c := *b
	c.Permissions, c.tiered = Grantable(tier).Part(b.Permissions), true
	return &c
}

// disables returns who disables a key within these bounds.
func (b *Bounds) disables() key.DisabledBy {
	if b == nil {
		return key.DisabledByOperator
	}
	return key.DisabledByOwner
}

// draw brings a key that is being made within the bounds: what its maker chose
// must lie in them, what the rules chose is cut down to them.
func (b *Bounds) draw(k *sketch, d Draft) error {
	if b == nil {
		return nil
	}
	if b.Metered {
		return &ScopeError{"remaining", "a key with limited credits cannot make keys"}
	}
	if d.Permissions == nil {
		k.Permissions = b.Permissions.Part(k.Permissions)
	}
	if d.ExpiresIn.Value == nil && b.endsBefore(k.ExpiresAt) {
		k.ExpiresAt = b.ExpiresAt
	}
	if d.AllowedIPs == nil {
		k.AllowedIPs = slices.Clone(b.AllowedIPs)
	}
	if !d.limitsRate() && !b.holdsRate(&k.Key) {
		k.RateLimitEnabled = true
		k.RateLimitMax, k.RateLimitTimeWindow, k.RateLimitAlgorithm = b.RateLimit.Max, b.RateLimit.Window, b.RateLimit.Algorithm
	}
	return b.check(&k.Key, all)
}

// limitsRate reports whether the maker of a key says anything of its rate limit.
func (d *Draft) limitsRate() bool {
	return d.RateLimitEnabled != nil || d.RateLimitMax != nil || d.RateLimitTimeWindow != nil || d.RateLimitAlgorithm != nil
}

// patch checks a change of old that gave k: of what it touches, nothing may go beyond
// the bounds. What an operator has given the key before may, unless the change has
// the key work when it did not: then it counts as one that is made now.
func (b *Bounds) patch(old, k *key.Key, p Patch) error {
	switch {
	case b == nil:
		return nil
	case p.UserID.Set:
		return &ScopeError{"userId", "a caller cannot move a key to another owner"}
	case k.Enabled && !old.Enabled && old.DisabledBy != key.DisabledByOwner:
		return &ScopeError{"enabled", "only an operator can enable this key again"}
	case b.Metered && (p.Remaining.Set || p.RemainingDelta.Set || p.RefillAmount.Set || p.RefillInterval.Set):
		return &ScopeError{"remaining", "a key with limited credits cannot grant credits"}
	}
	if field := revived(old, k); field != "" {
		if b.Metered {
			return &ScopeError{field, "a key with limited credits cannot enable or prolong other keys"}
		}
		return b.check(k, all)
	}
	return b.check(k, parts{
		permissions: p.Permissions.Set, end: p.ExpiresIn.Set, networks: p.AllowedIPs.Set,
		rate: p.RateLimitEnabled.Set || p.RateLimitMax.Set || p.RateLimitTimeWindow.Set || p.RateLimitAlgorithm.Set,
	})
}

// rotate checks the rotation of a key, which gives the caller a raw key that opens
// all that the key opens.
func (b *Bounds) rotate(k *key.Key) error {
	if b == nil {
		return nil
	}
	if b.Metered && k.ID != b.KeyID {
		return &ScopeError{"", "a key with limited credits cannot rotate other keys"}
	}
	return b.check(k, all)
}

// revived returns the field by which a changed key works when it did not before.
func revived(old, k *key.Key) string {
	switch {
	case k.Enabled && !old.Enabled:
		return "enabled"
	case old.ExpiresAt != 0 && (k.ExpiresAt == 0 || k.ExpiresAt > old.ExpiresAt):
		return "expiresIn"
	}
	return ""
}

// parts are what of a key is checked.
type parts struct{ config, permissions, end, networks, rate bool }

var all = parts{true, true, true, true, true}

// check reports the first part of a key that goes beyond the bounds.
func (b *Bounds) check(k *key.Key, p parts) error {
	switch {
	case p.config && b.ConfigID != "" && k.ConfigID != b.ConfigID:
		return &ScopeError{"configId", "must be the configuration of the caller's key"}
	case p.permissions && !b.Permissions.Covers(k.Permissions):
		if b.tiered {
			return &ScopeError{"permissions", "must be within those of the caller and of the owner's tier"}
		}
		return &ScopeError{"permissions", "must be within those of the caller"}
	case p.end && b.endsBefore(k.ExpiresAt):
		return &ScopeError{"expiresIn", "must not end after the key of the caller"}
	case p.networks && !b.holdsNetworks(k.AllowedIPs):
		return &ScopeError{"allowedIps", "must be within those of the caller"}
	case p.rate && !b.holdsRate(k):
		return &ScopeError{"rateLimitMax", "must be at least as tight as that of the caller"}
	}
	return nil
}

func (b *Bounds) endsBefore(at int64) bool {
	return b.ExpiresAt != 0 && (at == 0 || at > b.ExpiresAt)
}

// holdsNetworks reports whether every network lies in one of the bounds.
func (b *Bounds) holdsNetworks(list []netip.Prefix) bool {
	if b.AllowedIPs == nil {
		return true
	}
	return list != nil && !slices.ContainsFunc(list, func(network netip.Prefix) bool {
		return !slices.ContainsFunc(b.AllowedIPs, func(mine netip.Prefix) bool {
			return mine.Bits() <= network.Bits() && mine.Contains(network.Addr())
		})
	})
}

// holdsRate reports whether the key's limit lets nothing pass that the bounds do
// not. Limits of the same algorithm can be compared; a sliding window also admits
// no more than any other of the same size.
func (b *Bounds) holdsRate(k *key.Key) bool {
	if b.RateLimit == nil {
		return true
	}
	p, ok := k.RatePolicy()
	return ok && p.Max <= b.RateLimit.Max && p.Window >= b.RateLimit.Window &&
		(p.Algorithm == b.RateLimit.Algorithm || p.Algorithm == ratelimit.SlidingWindow)
}
