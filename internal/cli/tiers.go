package cli

import (
	"fmt"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
)

func (h *Host) tiers() *cobra.Command {
	cmd := h.command("tiers", "Lists the configured tiers", noArgs, func(c *call) error {
		a, err := c.client.Tiers(c.ctx)
		if err == nil && len(a.Value.Tiers) == 0 {
			c.note("No tiers are configured.")
		}
		return answer(c, a, err, tierTable)
	})
	cmd.Long = "Lists the tiers of the configuration. All keys of an owner share the limits of the\nowner's tier, which \"caddy apikey owner set\" changes."
	return cmd
}

func tierTable(all admin.TierList) string {
	rows := newTable("TIER", "DEFAULT", "LIMITS", "PERMISSIONS OF NEW KEYS")
	for _, t := range all.Tiers {
		rows.AppendRow(table.Row{printable(t.Name), formatBool(t.Default), tierLimits(t), formatList(t.Permissions.List())})
	}
	return rows.Render()
}

func tierLimits(t admin.Tier) string {
	limits := make([]string, len(t.Limits))
	for i, l := range t.Limits {
		limits[i] = fmt.Sprintf("%d/%s", l.Max, l.Per)
	}
	return formatList(limits)
}
