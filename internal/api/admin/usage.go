package admin

import (
	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

const defaultDays = 30

func keyUsage(c *api.Call, in UsageQuery) (Usage, error) {
	id, err := c.ID()
	if err != nil {
		return Usage{}, err
	}
	u, err := c.Keys.KeyUsage(c.Context(), id, int(api.Or(in.Days, defaultDays)))
	return usageOf(u), err
}

func ownerUsage(c *api.Call, in UsageQuery) (Usage, error) {
	userID, err := owner(c)
	if err != nil {
		return Usage{}, err
	}
	u, err := c.Keys.OwnerUsage(c.Context(), userID, int(api.Or(in.Days, defaultDays)))
	return usageOf(u), err
}

func usageOf(u keyring.Usage) Usage {
	out := Usage{
		Tier:   u.Tier,
		Usage:  UsageSums{Today: u.Today, Month: u.Month},
		Limits: UsageLimits{PerDay: u.PerDay, PerMinute: u.PerMinute},
		Days:   make([]UsageDay, len(u.Days)),
	}
	for i, d := range u.Days {
		out.Days[i] = UsageDay{Date: d.Date, Allowed: d.Allowed, Limited: d.Limited, Denied: d.Denied}
	}
	return out
}
