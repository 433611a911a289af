package rest

import (
	"errors"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/keyring"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// Usage is the answer to GET /usage.
type Usage struct {
	Tier   string      `json:"tier"`
	Usage  UsageSums   `json:"usage"`
	Limits UsageLimits `json:"limits"`
}

// UsageSums are the requests that were let in.
type UsageSums struct {
	Today int64 `json:"today"`
	Month int64 `json:"month"`
}

// UsageLimits are limits of the tier; null where it has none.
type UsageLimits struct {
	PerDay    *int64 `json:"perDay"`
	PerMinute *int64 `json:"perMinute"`
}

func usage(c *api.Call) (Usage, error) {
	u, _, err := usageOf(c)
	return u, err
}

func usageOf(c *api.Call) (Usage, keyring.UsageLimits, error) {
	u, err := c.Keys.OwnerUsage(c.Context(), c.Caller.UserID, 1)
	if errors.Is(err, store.ErrNotFound) { // a person who has made no key yet
		u, err = c.Keys.NewcomerUsage(), nil
	}
	if err != nil {
		return Usage{}, keyring.UsageLimits{}, err
	}
	return Usage{tierOf(u.Tier), UsageSums{u.Today, u.Month}, UsageLimits{u.PerDay, u.PerMinute}}, u.UsageLimits, nil
}
