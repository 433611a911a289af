package admin

import (
	"cmp"
	"encoding/json"
	"net/netip"
	"strings"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring"
	"github.com/caddy-apikey/caddy-apikey/store"
)

const defaultLimit = 50

func createKey(c *call, in CreateKey) (IssuedKey, error) {
	allowed, err := networks(in.AllowedIPs)
	if err != nil {
		return IssuedKey{}, err
	}
	issued, err := c.svc.Create(c.Context(), keyring.Draft{
		UserID:              in.UserID,
		ConfigID:            in.ConfigID,
		Name:                in.Name,
		Prefix:              in.Prefix,
		ExpiresIn:           in.ExpiresIn,
		Metadata:            in.Metadata,
		Remaining:           in.Remaining,
		RefillAmount:        in.RefillAmount,
		RefillInterval:      in.RefillInterval,
		RateLimitEnabled:    in.RateLimitEnabled,
		RateLimitMax:        in.RateLimitMax,
		RateLimitTimeWindow: in.RateLimitTimeWindow,
		RateLimitAlgorithm:  in.RateLimitAlgorithm,
		Permissions:         in.Permissions,
		AllowedIPs:          allowed,
		Enabled:             in.Enabled,
		WithSecret:          or(in.WithSecret, false),
	})
	return issuedOf(issued), err
}

func listKeys(c *call, in ListKeys) (KeyList, error) {
	q := store.List{
		Filter: store.Filter{
			UserID:   or(in.UserID, ""),
			ConfigID: or(in.ConfigID, ""),
			Enabled:  in.Enabled,
			Prefix:   or(in.Prefix, ""),
			Query:    or(in.Query, ""),
		},
		Limit:  int(or(in.Limit, defaultLimit)),
		Cursor: or(in.Cursor, ""),
	}
	order, reverse := strings.CutPrefix(or(in.Sort, ""), "-")
	q.Sort, q.Reverse = cmp.Or(store.Sort(order), store.SortCreatedAt), reverse
	page, err := c.svc.List(c.Context(), q)
	if err != nil {
		return KeyList{}, err
	}
	list := KeyList{Keys: make([]Key, len(page.Keys)), Total: page.Total, NextCursor: maybeText(page.Next)}
	for i, info := range page.Keys {
		list.Keys[i] = keyOf(info)
	}
	return list, nil
}

func getKey(c *call) (Key, error) {
	id, err := c.id()
	if err != nil {
		return Key{}, err
	}
	info, err := c.svc.Get(c.Context(), id)
	return keyOf(info), err
}

func patchKey(c *call, in PatchKey) (Key, error) {
	id, err := c.id()
	if err != nil {
		return Key{}, err
	}
	if in == (PatchKey{}) {
		f := malformed("there is nothing to change")
		f.body.Code = keyring.NoValuesToUpdate
		return Key{}, f
	}
	p := keyring.Patch{
		UserID:              keyring.Field[string](in.UserID),
		Name:                keyring.Field[string](in.Name),
		ExpiresIn:           keyring.Field[int64](in.ExpiresIn),
		Metadata:            keyring.Field[json.RawMessage](in.Metadata),
		Remaining:           keyring.Field[int64](in.Remaining),
		RemainingDelta:      keyring.Field[int64](in.RemainingDelta),
		RefillAmount:        keyring.Field[int64](in.RefillAmount),
		RefillInterval:      keyring.Field[int64](in.RefillInterval),
		RateLimitEnabled:    keyring.Field[bool](in.RateLimitEnabled),
		RateLimitMax:        keyring.Field[int64](in.RateLimitMax),
		RateLimitTimeWindow: keyring.Field[int64](in.RateLimitTimeWindow),
		RateLimitAlgorithm:  keyring.Field[string](in.RateLimitAlgorithm),
		Permissions:         keyring.Field[key.Permissions](in.Permissions),
		AllowedIPs:          keyring.Field[[]netip.Prefix]{Set: in.AllowedIPs.Set},
		Enabled:             keyring.Field[bool](in.Enabled),
	}
	if in.AllowedIPs.Value != nil {
		allowed, err := networks(*in.AllowedIPs.Value)
		if err != nil {
			return Key{}, err
		}
		p.AllowedIPs.Value = &allowed
	}
	info, err := c.svc.Update(c.Context(), id, p)
	return keyOf(info), err
}

func deleteKey(c *call) (none, error) {
	id, err := c.id()
	if err != nil {
		return none{}, err
	}
	return none{}, c.svc.Delete(c.Context(), id, nil)
}

func rotateKey(c *call, in RotateKey) (IssuedKey, error) {
	id, err := c.id()
	if err != nil {
		return IssuedKey{}, err
	}
	// 2^53-1 seconds are less than 2^63 milliseconds.
	issued, err := c.svc.Rotate(c.Context(), id, or(in.Grace, 0)*1000, or(in.WithSecret, false))
	return issuedOf(issued), err
}

func deleteExpired(c *call) (Deleted, error) {
	n, err := c.svc.DeleteExpired(c.Context())
	return Deleted{int64(n)}, err
}

// networks reads allowed networks; nil is everywhere.
func networks(list []string) ([]netip.Prefix, error) {
	if list == nil {
		return nil, nil
	}
	return keyring.ParseAllowedIPs(list)
}

func or[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}

func issuedOf(i keyring.Issued) IssuedKey {
	return IssuedKey{Key: keyOf(i.Info), Raw: i.Raw, Secret: i.Secret}
}

// keyOf makes the key object. It is empty for an empty Info, which stands beside
// an error.
func keyOf(i keyring.Info) Key {
	k, credits := i.Key, i.Credits
	if k == nil {
		return Key{}
	}
	out := Key{
		ID: k.ID, ConfigID: k.ConfigID, Name: k.Name, Start: i.Start, Prefix: k.Prefix, Tier: i.Tier,
		UserID: k.UserID, Enabled: k.Enabled, Permissions: k.Permissions, Metadata: k.Metadata,
		RefillAmount:        maybeCount(credits.RefillAmount),
		RefillInterval:      maybeCount(credits.RefillInterval),
		LastRefillAt:        maybeTime(credits.LastRefillAt),
		RateLimitEnabled:    k.RateLimitEnabled,
		RateLimitMax:        maybeCount(k.RateLimitMax),
		RateLimitTimeWindow: maybeCount(k.RateLimitTimeWindow),
		RateLimitAlgorithm:  k.RateLimitAlgorithm.String(),
		RequestCount:        i.RequestCount,
		LastRequest:         maybeTime(i.LastRequest),
		ExpiresAt:           maybeTime(k.ExpiresAt),
		CreatedAt:           timeOf(k.CreatedAt),
		UpdatedAt:           timeOf(k.UpdatedAt),
	}
	if credits.Limited {
		out.Remaining = &credits.Remaining
	}
	out.AllowedIPs = networkTexts(k.AllowedIPs)
	return out
}
