package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
)

// tierListing describes the list of tiers.
var tierListing = &listing[admin.Tier]{
	name: func(t admin.Tier) string { return t.Name },
	columns: []column[admin.Tier]{
		{name: "tier", value: func(t admin.Tier) string { return t.Name }},
		{name: "default", value: func(t admin.Tier) string { return formatBool(t.Default) }},
		{name: "limits", value: tierLimits},
		{name: "permissions", value: func(t admin.Tier) string { return strings.Join(t.Permissions.List(), " ") }},
	},
}

func (h *Host) tiers() *cobra.Command {
	cmd := h.command("tiers [flags]", "Lists the configured tiers", noArgs, func(c *call) error {
		a, err := c.client.Tiers(c.ctx)
		if err == nil && len(a.Value.Tiers) == 0 {
			c.note("No tiers are configured.")
		}
		return answerList(c, a, err, "tiers", func(t admin.TierList) []admin.Tier { return t.Tiers }, tierListing)
	})
	cmd.Long = `Lists the tiers of the configuration, with the permissions that new keys get. All
keys of an owner share the limits of the owner's tier, which
"caddy apikey owner set" changes.`
	setFormats(cmd, listFormats)
	h.defineTable(cmd, tierListing.names())
	return cmd
}

func tierLimits(t admin.Tier) string {
	limits := make([]string, len(t.Limits))
	for i, l := range t.Limits {
		limits[i] = fmt.Sprintf("%d/%s", l.Max, l.Per)
	}
	return strings.Join(limits, " ")
}
