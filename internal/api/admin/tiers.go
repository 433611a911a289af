package admin

import (
	"cmp"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// TierList is what the configuration says of tiers.
type TierList struct {
	Tiers    []Tier `json:"tiers" doc:"in the order of the configuration"`
	TimeZone string `json:"timeZone" doc:"where days and months begin and end"`
}

// Tier is a named plan: limits that all keys of an owner share.
type Tier struct {
	Name        string          `json:"name"`
	Default     bool            `json:"default" doc:"holds for owners that have no tier of their own"`
	Limits      []TierLimit     `json:"limits" doc:"all of them hold"`
	Permissions key.Permissions `json:"permissions" doc:"of new keys that do not say; null: those of the configuration"`
}

// TierLimit is a limit of a tier.
type TierLimit struct {
	Max int64  `json:"max" min:"1" doc:"requests"`
	Per string `json:"per" doc:"a duration such as 1m, or day or month: those of the calendar"`
}

func listTiers(c *api.Call) (TierList, error) {
	list := TierList{Tiers: []Tier{}, TimeZone: c.Keys.Zone().String()}
	for _, t := range c.Keys.Tiers() {
		list.Tiers = append(list.Tiers, tierOf(t, c.Keys.DefaultTier()))
	}
	return list, nil
}

func tierOf(t keyring.Tier, normal string) Tier {
	out := Tier{Name: t.Name, Default: t.Name == normal, Limits: []TierLimit{}, Permissions: t.Permissions}
	for _, l := range t.Limits {
		out.Limits = append(out.Limits, TierLimit{Max: l.Max, Per: cmp.Or(l.Text, l.Unit.String())})
	}
	return out
}
