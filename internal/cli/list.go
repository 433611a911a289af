package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
)

func (h *Host) list() *cobra.Command {
	var in admin.ListKeys
	var pages *paging
	cmd := h.command("list [flags]", "Lists keys", noArgs, func(c *call) error {
		a, err := fetch(pages, "keys", func() (admin.Answer[admin.KeyList], error) { return c.client.ListKeys(c.ctx, in) })
		if err == nil && a.Value.NextCursor != nil {
			shown := countOf(int64(len(a.Value.Keys)), "key")
			if total := a.Value.Total; total != nil {
				shown = fmt.Sprintf("%d of %s", len(a.Value.Keys), countOf(*total, "key"))
			}
			c.note("Showing %s. To list all of them, use --all.", shown)
		}
		return answerList(c, a, err, "keys", func(l admin.KeyList) []admin.Key { return l.Keys }, keyListing)
	})
	cmd.Long = `Lists keys, the oldest first. A key must match all filters that are given. Keys
without a name, never used or without an end come last when sorted by it.

On a terminal, cells that do not fit are cut. STATUS is what a gate would say: active,
disabled (the key or its owner), expired, or exhausted (no credits left).`
	setFormats(cmd, listFormats)
	h.defineTable(cmd, keyListing.names())
	cmd.Example = `  caddy apikey list --owner alice --enabled
  caddy apikey list --query build --sort -lastRequest --limit 10
  caddy apikey list --all -o name
  caddy apikey list --columns id,owner,permissions,expires`
	f := cmd.Flags()
	sorts := []string{"createdAt", "-createdAt", "name", "-name", "lastRequest", "-lastRequest", "expiresAt", "-expiresAt"}
	states := []string{"active", "disabled", "expired", "exhausted"}
	define(f, "owner", pointer(&in.UserID, parseText), "keys of this `userId`")
	define(f, "config-id", pointer(&in.ConfigID, parseText), "keys of the configuration of this `name`")
	define(f, "enabled", pointer(&in.Enabled, parseBool), "keys that are enabled")
	define(f, "disabled", pointer(&in.Enabled, parseNot), "keys that are disabled")
	define(f, "prefix", pointer(&in.Prefix, parseText), "keys with exactly this `prefix`")
	define(f, "query", pointer(&in.Query, parseText), "keys with this `text` in their name, first characters or userId")
	define(f, "tier", pointer(&in.Tier, parseText), "keys whose owner is in the tier of this `name`, be it by default")
	define(f, "permission", pointer(&in.Permission, parseText), "keys with this `permission`, be it by a wildcard")
	define(f, "state", pointer(&in.State, oneOf(states...)), "keys in this `state`: active, disabled, expired or exhausted")
	define(f, "expires-before", pointer(&in.ExpiresBefore, h.parseWhen(+1)), "keys that expire before this `time`, or within a duration such as 14d")
	define(f, "unused-since", pointer(&in.UnusedSince, h.parseWhen(-1)), "keys not used since this `time`, or for a duration such as 90d")
	define(f, "created-before", pointer(&in.CreatedBefore, h.parseWhen(-1)), "keys from before this `time`, or older than a duration")
	define(f, "rotated-before", pointer(&in.RotatedBefore, h.parseWhen(-1)), "keys whose raw key is from before this `time`, or older than a duration")
	define(f, "sort", pointer(&in.Sort, oneOf(sorts...)), "`field`: createdAt, name, lastRequest or expiresAt; - in front reverses the order")
	completeFlag(cmd, "owner", h.completeOwners())
	completeFlag(cmd, "sort", completeWords(sorts...))
	completeFlag(cmd, "state", completeWords(states...))
	pages = definePaging(cmd, &in.Limit, &in.Cursor)
	cmd.MarkFlagsMutuallyExclusive("enabled", "disabled")
	return cmd
}
