package admin

import (
	"cmp"
	"net/http"
	"net/netip"
	"strings"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring"
	"github.com/caddy-apikey/caddy-apikey/store"
)

const defaultLimit = 50

// actorHeader is the header in which operators say who they are, for the audit log.
const actorHeader = "X-Actor"

// edit makes the changes of a call. Whoever reaches Caddy's admin endpoint is an
// operator, under the name that he gives himself.
func edit[T any](c *api.Call, change func(*keyring.Editor) (T, error)) (T, error) {
	by := keyring.Actor{Kind: keyring.ActorOperator}
	if names := c.Header[actorHeader]; names != nil {
		by.Name = names[0]
		if err := keyring.CheckActorName(by.Name); err != nil || len(names) > 1 {
			return *new(T), api.Invalid(actorHeader, "must be one name of 1 to 64 printable ASCII characters")
		}
	}
	if at, err := netip.ParseAddrPort(c.RemoteAddr); err == nil { // not that of a Unix socket
		by.Address = at.Addr().Unmap().WithZone("")
	}
	return change(c.Keys.As(by))
}

func createKey(c *api.Call, in CreateKey) (IssuedKey, error) {
	allowed, err := networks(in.AllowedIPs)
	if err != nil {
		return IssuedKey{}, err
	}
	draft := keyring.Draft{
		UserID:              in.UserID,
		ConfigID:            in.ConfigID,
		Name:                in.Name,
		Prefix:              in.Prefix,
		ExpiresIn:           keyring.Field[int64]{Set: in.ExpiresIn != nil, Value: in.ExpiresIn},
		Attributes:          in.values(),
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
		WithSecret:          api.Or(in.WithSecret, false),
	}
	issued, err := edit(c, func(e *keyring.Editor) (keyring.Issued, error) { return e.Create(c.Context(), draft) })
	return issuedOf(issued), err
}

func listKeys(c *api.Call, in ListKeys) (KeyList, error) {
	q := store.List{
		Filter: store.Filter{
			UserID:   api.Or(in.UserID, ""),
			ConfigID: api.Or(in.ConfigID, ""),
			Enabled:  in.Enabled,
			Prefix:   api.Or(in.Prefix, ""),
			Query:    api.Or(in.Query, ""),
		},
		Limit:  int(api.Or(in.Limit, defaultLimit)),
		Cursor: api.Or(in.Cursor, ""),
	}
	f := &q.Filter
	f.State = store.State(api.Or(in.State, ""))
	f.ExpiresBefore, f.UnusedSince = filterTime(in.ExpiresBefore), filterTime(in.UnusedSince)
	f.CreatedBefore, f.RotatedBefore = filterTime(in.CreatedBefore), filterTime(in.RotatedBefore)
	if in.Tier != nil {
		f.Tier = &store.TierFilter{Name: *in.Tier}
	}
	if in.Permission != nil {
		p, err := key.ParsePermission(*in.Permission)
		if err != nil {
			return KeyList{}, api.Invalid("permission", "%v", err)
		}
		f.Permission = &p
	}
	order, reverse := strings.CutPrefix(api.Or(in.Sort, ""), "-")
	q.Sort, q.Reverse = cmp.Or(store.Sort(order), store.SortCreatedAt), reverse
	page, err := c.Keys.List(c.Context(), q)
	if err != nil {
		return KeyList{}, err
	}
	list := KeyList{Keys: make([]Key, len(page.Keys)), NextCursor: api.MaybeText(page.Next)}
	if page.Total != store.UnknownTotal {
		list.Total = &page.Total
	}
	for i, info := range page.Keys {
		list.Keys[i] = keyOf(info)
	}
	return list, nil
}

// filterTime returns a time of a filter in Unix milliseconds, at least 1: 0 does not narrow.
func filterTime(t *api.Time) int64 {
	if t == nil {
		return 0
	}
	return max(1, t.UnixMilli())
}

func getKey(c *api.Call) (Key, error) {
	id, err := c.ID()
	if err != nil {
		return Key{}, err
	}
	info, err := c.Keys.Get(c.Context(), id)
	return keyOf(info), err
}

func patchKey(c *api.Call, in PatchKey) (Key, error) {
	id, err := c.ID()
	if err != nil {
		return Key{}, err
	}
	if in == (PatchKey{}) {
		return Key{}, &api.Error{Status: http.StatusBadRequest, Code: keyring.NoValuesToUpdate, Message: "there is nothing to change"}
	}
	p := keyring.Patch{
		UserID:              in.UserID,
		Name:                in.Name,
		ExpiresIn:           in.ExpiresIn,
		Attributes:          in.values(),
		Remaining:           in.Remaining,
		RemainingDelta:      in.RemainingDelta,
		RefillAmount:        in.RefillAmount,
		RefillInterval:      in.RefillInterval,
		RateLimitEnabled:    in.RateLimitEnabled,
		RateLimitMax:        in.RateLimitMax,
		RateLimitTimeWindow: in.RateLimitTimeWindow,
		RateLimitAlgorithm:  in.RateLimitAlgorithm,
		Permissions:         in.Permissions,
		AllowedIPs:          keyring.Field[[]netip.Prefix]{Set: in.AllowedIPs.Set},
		Enabled:             in.Enabled,
	}
	if in.AllowedIPs.Value != nil {
		allowed, err := networks(*in.AllowedIPs.Value)
		if err != nil {
			return Key{}, err
		}
		p.AllowedIPs.Value = &allowed
	}
	info, err := edit(c, func(e *keyring.Editor) (keyring.Info, error) { return e.Update(c.Context(), id, p) })
	return keyOf(info), err
}

func deleteKey(c *api.Call) (api.None, error) {
	id, err := c.ID()
	if err != nil {
		return api.None{}, err
	}
	return edit(c, func(e *keyring.Editor) (api.None, error) { return api.None{}, e.Delete(c.Context(), id) })
}

func rotateKey(c *api.Call, in RotateKey) (IssuedKey, error) {
	id, err := c.ID()
	if err != nil {
		return IssuedKey{}, err
	}
	// 2^53-1 seconds are less than 2^63 milliseconds.
	r := keyring.Rotation{Grace: api.Or(in.Grace, 0) * 1000, WithSecret: api.Or(in.WithSecret, false), ExpiresIn: in.ExpiresIn}
	issued, err := edit(c, func(e *keyring.Editor) (keyring.Issued, error) { return e.Rotate(c.Context(), id, r) })
	return issuedOf(issued), err
}

func endGrace(c *api.Call) (Key, error) {
	id, err := c.ID()
	if err != nil {
		return Key{}, err
	}
	info, err := edit(c, func(e *keyring.Editor) (keyring.Info, error) { return e.EndGrace(c.Context(), id) })
	return keyOf(info), err
}

func deleteExpired(c *api.Call) (Deleted, error) {
	n, err := edit(c, func(e *keyring.Editor) (int, error) { return e.DeleteExpired(c.Context()) })
	return Deleted{int64(n)}, err
}

// networks reads allowed networks; none is everywhere.
func networks(list []string) ([]netip.Prefix, error) {
	if len(list) == 0 {
		return nil, nil
	}
	return keyring.ParseAllowedIPs(list)
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
		UserID: k.UserID, Enabled: k.Enabled, DisabledBy: api.MaybeText(string(k.DisabledBy)), State: string(i.State),
		Permissions: k.Permissions, Attributes: api.Present(attributesOf(k)),
		RefillAmount:        api.MaybeCount(credits.RefillAmount),
		RefillInterval:      api.MaybeCount(credits.RefillInterval),
		LastRefillAt:        api.MaybeTime(credits.LastRefillAt),
		RateLimitEnabled:    k.RateLimitEnabled,
		RateLimitMax:        api.MaybeCount(k.RateLimitMax),
		RateLimitTimeWindow: api.MaybeCount(k.RateLimitTimeWindow),
		RateLimitAlgorithm:  k.RateLimitAlgorithm.String(),
		RequestCount:        i.RequestCount,
		LastRequest:         api.MaybeTime(i.LastRequest),
		ExpiresAt:           api.MaybeTime(k.ExpiresAt),
		CreatedAt:           api.TimeOf(k.CreatedAt),
		UpdatedAt:           api.TimeOf(k.UpdatedAt),
		RotatedAt:           api.MaybeTime(k.RotatedAt),
		PreviousKeys:        make([]PreviousKey, len(i.Previous)),
	}
	for n, p := range i.Previous {
		out.PreviousKeys[n] = PreviousKey{Start: api.MaybeText(p.Start), Until: api.TimeOf(p.Until), LastRequest: api.MaybeTime(p.LastRequest)}
	}
	if credits.Limited {
		out.Remaining = &credits.Remaining
	}
	out.AllowedIPs = networkTexts(k.AllowedIPs)
	return out
}
