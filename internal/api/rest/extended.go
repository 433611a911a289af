package rest

import (
	"context"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// CreateExtendedKey is the body of POST /api-keys in the extended dialect.
type CreateExtendedKey struct {
	CreateKey
	ExpiresIn api.Optional[int64] `json:"expiresIn,omitzero" min:"1" max:"9007199254740991" doc:"seconds; default: as the configuration says; null is its maximum"`
}

// ListExtendedKeys is the query of GET /api-keys in the extended dialect.
type ListExtendedKeys struct {
	Limit  *int64  `query:"limit" min:"1" max:"500" doc:"default: all keys"`
	Cursor *string `query:"cursor" doc:"nextCursor of the page before"`
}

// ExtendedKeys is the answer to GET /api-keys in the extended dialect.
type ExtendedKeys struct {
	Keys       []ExtendedKey `json:"keys"`
	NextCursor *string       `json:"nextCursor" doc:"null on the last page"`
}

// ExtendedKey is one key in a list of the extended dialect.
type ExtendedKey struct {
	Key
	ExpiresAt  *api.Time `json:"expiresAt" doc:"null: never"`
	LastUsedAt *api.Time `json:"lastUsedAt" doc:"null: never"`
	Remaining  *int64    `json:"remaining" doc:"credits; null: unlimited"`
	Start      *string   `json:"start" doc:"first characters of the raw key; null where none are kept"`
}

// UpdateKey is the body of PATCH /api-keys/{id}.
type UpdateKey struct {
	Name    api.Optional[string] `json:"name,omitzero" doc:"null: no name"`
	Enabled *bool                `json:"enabled,omitzero" null:"no"`
}

// RotateKey is the body of POST /api-keys/{id}/rotate.
type RotateKey struct {
	Grace *int64 `json:"grace,omitzero" min:"0" max:"9007199254740991" doc:"seconds for which the replaced raw key works; default 0"`
}

// Rotated is the answer to POST /api-keys/{id}/rotate.
type Rotated struct {
	ID          string    `json:"id"`
	Key         string    `json:"key"`
	Name        string    `json:"name"`
	Permissions []string  `json:"permissions"`
	Tier        string    `json:"tier"`
	ExpiresAt   *api.Time `json:"expiresAt" doc:"null: never"`
}

// ExtendedUsage is the answer to GET /usage in the extended dialect.
type ExtendedUsage struct {
	Tier      string              `json:"tier"`
	Usage     UsageSums           `json:"usage"`
	Limits    ExtendedUsageLimits `json:"limits"`
	Remaining *int64              `json:"remaining" doc:"credits of the key that calls; null: unlimited, or no key"`
}

// ExtendedUsageLimits are limits of the tier; null where it has none.
type ExtendedUsageLimits struct {
	UsageLimits
	PerMonth *int64 `json:"perMonth"`
}

func (h *handler) listExtended(c *api.Call, q ListExtendedKeys) (api.List[ExtendedKeys], error) {
	next := ""
	return api.List[ExtendedKeys]{
		Each: func(write func(any) error) (err error) {
			next, err = h.each(c, q.Limit, api.Or(q.Cursor, ""), func(i keyring.Info) error { return write(extendedKeyOf(i)) })
			return err
		},
		Answer: func() ExtendedKeys { return ExtendedKeys{Keys: []ExtendedKey{}, NextCursor: api.MaybeText(next)} },
	}, nil
}

func extendedKeyOf(i keyring.Info) ExtendedKey {
	return ExtendedKey{
		Key: keyOf(i), ExpiresAt: api.MaybeTime(i.Key.ExpiresAt), LastUsedAt: api.MaybeTime(i.LastRequest),
		Remaining: remainingOf(i), Start: i.Start,
	}
}

func remainingOf(i keyring.Info) *int64 {
	if !i.Credits.Limited {
		return nil
	}
	return &i.Credits.Remaining
}

func (h *handler) update(c *api.Call, in UpdateKey) (ExtendedKey, error) {
	info, err := h.patch(c, keyring.Patch{
		Name:    keyring.Field[string]{Set: in.Name.Set, Value: in.Name.Value},
		Enabled: keyring.Field[bool]{Set: in.Enabled != nil, Value: in.Enabled},
	})
	if err != nil {
		return ExtendedKey{}, err
	}
	return extendedKeyOf(info), nil
}

func (h *handler) rotate(c *api.Call, in RotateKey) (Rotated, error) {
	id, err := keyID(c)
	if err != nil {
		return Rotated{}, err
	}
	// 2^53-1 seconds are less than 2^63 milliseconds.
	issued, err := c.Keys.As(c.Caller.Actor(h.only(c))).Rotate(context.WithoutCancel(c.Context()), id, keyring.Rotation{
		Grace: api.Or(in.Grace, 0) * 1000,
	})
	if err != nil {
		return Rotated{}, err
	}
	k := issued.Key
	return Rotated{
		ID: k.ID, Key: issued.Raw, Name: nameOf(k), Permissions: actionsOf(k.Permissions), Tier: tierOf(issued.Tier),
		ExpiresAt: api.MaybeTime(k.ExpiresAt),
	}, nil
}

func usageExtended(c *api.Call) (ExtendedUsage, error) {
	u, limits, err := usageOf(c)
	if err != nil {
		return ExtendedUsage{}, err
	}
	out := ExtendedUsage{Tier: u.Tier, Usage: u.Usage, Limits: ExtendedUsageLimits{u.Limits, limits.PerMonth}}
	if d := c.Caller.Decision; d != nil {
		info, err := c.Keys.Describe(c.Context(), d)
		if err != nil {
			return ExtendedUsage{}, err
		}
		out.Remaining = remainingOf(info)
	}
	return out, nil
}
