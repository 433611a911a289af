package cli

import (
	"github.com/spf13/cobra"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
)

func (h *Host) tiers() *cobra.Command {
	cmd := h.command("tiers", "Lists the tiers that owners may have", noArgs, func(c *call) error {
		a, err := c.client.Tiers(c.ctx)
		if err == nil && len(a.Value.Tiers) == 0 {
			c.note("No tiers are configured.")
		}
		return answer(c, a, err, tierTable)
	})
	cmd.Long = "Lists the tiers of the configuration. All keys of an owner share the limits of the\nowner's tier; \"caddy apikey owner set\" gives an owner another one."
	return cmd
}

func tierTable(all admin.TierList) string {
	rows := [][]string{{"TIER", "DEFAULT", "LIMITS", "PERMISSIONS OF NEW KEYS"}}
	for _, t := range all.Tiers {
		rows = append(rows, []string{printable(t.Name), yesNo(t.Default), tierLimits(t), list(t.Permissions.List())})
	}
	return table(rows)
}

func tierLimits(t admin.Tier) string {
	limits := make([]string, len(t.Limits))
	for i, l := range t.Limits {
		limits[i] = sprintf("%d/%s", l.Max, l.Per)
	}
	return list(limits)
}
