package keyring

import (
	"net/netip"
	"slices"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/ratelimit"
)

// Bounds are what somebody who is no operator has and may pass on: what is made
// or changed within them opens no door, lasts no longer and takes no more than
// they could themselves.
type Bounds struct {
	Permissions key.Permissions
	ExpiresAt   int64             // 0: never
	AllowedIPs  []netip.Prefix    // nil: everywhere
	RateLimit   *ratelimit.Policy // nil: none
	// Metered: their credits are limited. A further key would have credits of its
	// own, so they can make none.
	Metered bool
}

// BeyondError is a wish that goes beyond somebody's bounds.
type BeyondError struct {
	Field   string
	Message string
}

func (e *BeyondError) Error() string { return e.Field + ": " + e.Message }

// BoundsOf returns the bounds of who holds the key of a decision.
func (s *Service) BoundsOf(d *Decision) *Bounds {
	k := d.Key()
	b := &Bounds{
		Permissions: k.Permissions, ExpiresAt: k.ExpiresAt, AllowedIPs: k.AllowedIPs,
		Metered: d.live.metered.Load(),
	}
	if p, ok := k.RatePolicy(); ok {
		b.RateLimit = &p
	}
	return b
}

// draw brings a key that is being made within the bounds: what its maker chose
// must lie in them, what the rules chose is cut down to them.
func (b *Bounds) draw(k *sketch, d Draft) error {
	if b == nil {
		return nil
	}
	if b.Metered {
		return &BeyondError{"remaining", "a key with limited credits cannot make keys"}
	}
	if d.Permissions != nil && !b.Permissions.Covers(d.Permissions) {
		return &BeyondError{"permissions", "must be within those of the caller"}
	}
	k.Permissions = b.Permissions.Part(k.Permissions)
	if d.ExpiresIn != nil {
		if err := b.checkEnd(k.ExpiresAt); err != nil {
			return err
		}
	} else if b.ExpiresAt != 0 && (k.ExpiresAt == 0 || k.ExpiresAt > b.ExpiresAt) {
		k.ExpiresAt = b.ExpiresAt
	}
	if b.AllowedIPs != nil {
		k.AllowedIPs = slices.Clone(b.AllowedIPs)
	}
	b.drawRateLimit(k)
	return nil
}

// drawRateLimit gives the key the limit of the bounds, unless its own is at least
// as tight in both of its numbers.
func (b *Bounds) drawRateLimit(k *sketch) {
	if b.RateLimit == nil {
		return
	}
	if p, ok := k.RatePolicy(); ok && p.Max <= b.RateLimit.Max && p.Window >= b.RateLimit.Window {
		return
	}
	k.RateLimitEnabled = true
	k.RateLimitMax, k.RateLimitTimeWindow, k.RateLimitAlgorithm = b.RateLimit.Max, b.RateLimit.Window, b.RateLimit.Algorithm
}

// patch checks a change that was made to k.
func (b *Bounds) patch(k *key.Key, p Patch) error {
	switch {
	case b == nil:
		return nil
	case p.Permissions.Set && !b.Permissions.Covers(k.Permissions):
		return &BeyondError{"permissions", "must be within those of the caller"}
	case p.ExpiresIn.Set:
		return b.checkEnd(k.ExpiresAt)
	}
	return nil
}

func (b *Bounds) checkEnd(at int64) error {
	if b.ExpiresAt != 0 && (at == 0 || at > b.ExpiresAt) {
		return &BeyondError{"expiresIn", "must not end after the key of the caller"}
	}
	return nil
}
