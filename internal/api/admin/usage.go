package admin

import "github.com/caddy-apikey/caddy-apikey/keyring"

const defaultDays = 30

func keyUsage(c *call, in UsageQuery) (Usage, error) {
	id, err := c.id()
	if err != nil {
		return Usage{}, err
	}
	u, err := c.svc.KeyUsage(c.Context(), id, int(or(in.Days, defaultDays)))
	return usageOf(u), err
}

func ownerUsage(c *call, in UsageQuery) (Usage, error) {
	userID, err := c.owner()
	if err != nil {
		return Usage{}, err
	}
	u, err := c.svc.OwnerUsage(c.Context(), userID, int(or(in.Days, defaultDays)))
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
