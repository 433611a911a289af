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

// Scope is what somebody who is no operator has and may pass on: what is made or changed
// within it opens no door, lasts no longer and takes no more than they could themselves.
type Scope struct {
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

// ScopeError is a wish that goes beyond somebody's scope.
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

// ScopeOf returns the scope of who holds the key of a decision.
func (s *Service) ScopeOf(d *Decision) *Scope {
	k := d.Key()
	sc := &Scope{
		ConfigID: k.ConfigID, Permissions: k.Permissions, ExpiresAt: k.ExpiresAt, AllowedIPs: k.AllowedIPs,
		Metered: d.entry.metered(), KeyID: k.ID, Previous: d.previous,
	}
	if p, ok := k.RatePolicy(); ok {
		sc.RateLimit = &p
	}
	return sc
}

// mayChange refuses those who may change nothing at all.
func (sc *Scope) mayChange() error {
	if sc != nil && sc.Previous {
		return &ScopeError{"", "this raw key was replaced: it can change nothing until it ends"}
	}
	return nil
}

// under returns the scope of what may be granted where the tier of the owner has
// permissions: those, and with Admin what that may grant. Nil: it has none. Operators
// are not bound.
func (sc *Scope) under(tier key.Permissions) *Scope {
	if sc == nil || tier == nil {
		return sc
	}
	c := *sc
	c.Permissions, c.tiered = Grantable(tier).Part(sc.Permissions), true
	return &c
}

// disables returns who disables a key within this scope.
func (sc *Scope) disables() key.DisabledBy {
	if sc == nil {
		return key.DisabledByOperator
	}
	return key.DisabledByOwner
}

// draw brings a key that is being made within the scope: what its maker chose
// must lie in them, what the rules chose is cut down to them.
func (sc *Scope) draw(k *sketch, d Draft) error {
	if sc == nil {
		return nil
	}
	if sc.Metered {
		return &ScopeError{"remaining", "a key with limited credits cannot make keys"}
	}
	if d.Permissions == nil {
		k.Permissions = sc.Permissions.Part(k.Permissions)
	}
	if d.ExpiresIn.Value == nil && sc.endsBefore(k.ExpiresAt) {
		k.ExpiresAt = sc.ExpiresAt
	}
	if d.AllowedIPs == nil {
		k.AllowedIPs = slices.Clone(sc.AllowedIPs)
	}
	if !d.limitsRate() && !sc.holdsRate(&k.Key) {
		k.RateLimitEnabled = true
		k.RateLimitMax, k.RateLimitTimeWindow, k.RateLimitAlgorithm = sc.RateLimit.Max, sc.RateLimit.Window, sc.RateLimit.Algorithm
	}
	return sc.check(&k.Key, all)
}

// limitsRate reports whether the maker of a key says anything of its rate limit.
func (d *Draft) limitsRate() bool {
	return d.RateLimitEnabled != nil || d.RateLimitMax != nil || d.RateLimitTimeWindow != nil || d.RateLimitAlgorithm != nil
}

// patch checks a change of old that gave k: of what it touches, nothing may go beyond
// the scope. What an operator has given the key before may, unless the change has
// the key work when it did not: then it counts as one that is made now.
func (sc *Scope) patch(old, k *key.Key, p Patch) error {
	switch {
	case sc == nil:
		return nil
	case p.UserID.Set:
		return &ScopeError{"userId", "a caller cannot move a key to another owner"}
	case k.Enabled && !old.Enabled && old.DisabledBy != key.DisabledByOwner:
		return &ScopeError{"enabled", "only an operator can enable this key again"}
	case sc.Metered && (p.Remaining.Set || p.RemainingDelta.Set || p.RefillAmount.Set || p.RefillInterval.Set):
		return &ScopeError{"remaining", "a key with limited credits cannot grant credits"}
	}
	if field := revived(old, k); field != "" {
		if sc.Metered {
			return &ScopeError{field, "a key with limited credits cannot enable or prolong other keys"}
		}
		return sc.check(k, all)
	}
	return sc.check(k, parts{
		permissions: p.Permissions.Set, end: p.ExpiresIn.Set, networks: p.AllowedIPs.Set,
		rate: p.RateLimitEnabled.Set || p.RateLimitMax.Set || p.RateLimitTimeWindow.Set || p.RateLimitAlgorithm.Set,
	})
}

// rotate checks the rotation of a key, which gives the caller a raw key that opens
// all that the key opens.
func (sc *Scope) rotate(k *key.Key) error {
	if sc == nil {
		return nil
	}
	if sc.Metered && k.ID != sc.KeyID {
		return &ScopeError{"", "a key with limited credits cannot rotate other keys"}
	}
	return sc.check(k, all)
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

// check reports the first part of a key that goes beyond the scope.
func (sc *Scope) check(k *key.Key, p parts) error {
	switch {
	case p.config && sc.ConfigID != "" && k.ConfigID != sc.ConfigID:
		return &ScopeError{"configId", "must be the configuration of the caller's key"}
	case p.permissions && !sc.Permissions.Covers(k.Permissions):
		if sc.tiered {
			return &ScopeError{"permissions", "must be within those of the caller and of the owner's tier"}
		}
		return &ScopeError{"permissions", "must be within those of the caller"}
	case p.end && sc.endsBefore(k.ExpiresAt):
		return &ScopeError{"expiresIn", "must not end after the key of the caller"}
	case p.networks && !sc.holdsNetworks(k.AllowedIPs):
		return &ScopeError{"allowedIps", "must be within those of the caller"}
	case p.rate && !sc.holdsRate(k):
		return &ScopeError{"rateLimitMax", "must be at least as tight as that of the caller"}
	}
	return nil
}

func (sc *Scope) endsBefore(at int64) bool {
	return sc.ExpiresAt != 0 && (at == 0 || at > sc.ExpiresAt)
}

// holdsNetworks reports whether every network lies in one of the scope.
func (sc *Scope) holdsNetworks(list []netip.Prefix) bool {
	if sc.AllowedIPs == nil {
		return true
	}
	return list != nil && !slices.ContainsFunc(list, func(network netip.Prefix) bool {
		return !slices.ContainsFunc(sc.AllowedIPs, func(mine netip.Prefix) bool {
			return mine.Bits() <= network.Bits() && mine.Contains(network.Addr())
		})
	})
}

// holdsRate reports whether the key's limit lets nothing pass that the scope does
// not. Limits of the same algorithm can be compared; a sliding window also admits
// no more than any other of the same size.
func (sc *Scope) holdsRate(k *key.Key) bool {
	if sc.RateLimit == nil {
		return true
	}
	p, ok := k.RatePolicy()
	return ok && p.Max <= sc.RateLimit.Max && p.Window >= sc.RateLimit.Window &&
		(p.Algorithm == sc.RateLimit.Algorithm || p.Algorithm == ratelimit.SlidingWindow)
}
