package cli

import (
	"github.com/spf13/cobra"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
)

func (h *Host) list() *cobra.Command {
	var in admin.ListKeys
	var pages *paging
	cmd := h.command("list [flags]", "Lists keys", noArgs, func(c *call) error {
		a, err := fetch(pages, "keys", func() (admin.Answer[admin.KeyList], error) { return c.client.ListKeys(c.ctx, in) })
		if err == nil && a.Value.NextCursor != nil {
			c.note("Showing %d of %d keys. To list all of them, use --all.", len(a.Value.Keys), a.Value.Total)
		}
		return answerList(c, a, err, "keys", func(l admin.KeyList) []admin.Key { return l.Keys }, keyListing)
	})
	cmd.Long = `Lists keys, the oldest first. A key must match all filters that are given. Keys
without a name, or never used, come last when sorted by it.

On a terminal, cells that do not fit are cut. STATUS is what a gate would say: active,
disabled (the key or its owner), expired, or exhausted (no credits left).`
	setFormats(cmd, listFormats)
	h.defineTable(cmd, keyListing.names())
	cmd.Example = `  caddy apikey list --owner alice --enabled
  caddy apikey list --query build --sort -lastRequest --limit 10
  caddy apikey list --all -o name
  caddy apikey list --columns id,owner,permissions,expires`
	f := cmd.Flags()
	sorts := []string{"createdAt", "-createdAt", "name", "-name", "lastRequest", "-lastRequest"}
	define(f, "owner", pointer(&in.UserID, parseText), "keys of this `userId`")
	define(f, "config-id", pointer(&in.ConfigID, parseText), "keys of the configuration of this `name`")
	define(f, "enabled", pointer(&in.Enabled, parseBool), "keys that are enabled")
	define(f, "disabled", pointer(&in.Enabled, parseNot), "keys that are disabled")
	define(f, "prefix", pointer(&in.Prefix, parseText), "keys with exactly this `prefix`")
	define(f, "query", pointer(&in.Query, parseText), "keys with this `text` in their name or first characters")
	define(f, "sort", pointer(&in.Sort, oneOf(sorts...)), "`field`: createdAt, name or lastRequest; - in front reverses the order")
	completeFlag(cmd, "owner", h.completeOwners())
	completeFlag(cmd, "sort", completeWords(sorts...))
	pages = definePaging(cmd, &in.Limit, &in.Cursor)
	cmd.MarkFlagsMutuallyExclusive("enabled", "disabled")
	return cmd
}
