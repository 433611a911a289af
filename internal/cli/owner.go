package cli

import (
	"github.com/spf13/cobra"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
)

func (h *Host) owner() *cobra.Command {
	cmd := &cobra.Command{Use: "owner", Short: "Lists, shows, changes and deletes owners of keys"}
	h.group(cmd)
	cmd.AddCommand(h.ownerList(), h.ownerShow(), h.ownerSet(), h.ownerDelete())
	return cmd
}

func (h *Host) ownerList() *cobra.Command {
	var in admin.ListOwners
	var pages *paging
	cmd := h.command("list [flags]", "Lists owners", noArgs, func(c *call) error {
		a, err := fetch(pages, "owners", func() (admin.Answer[admin.OwnerList], error) { return c.client.ListOwners(c.ctx, in) })
		if err == nil && a.Value.NextCursor != nil {
			c.note("Showing the first %d owners. To list all of them, use --all.", len(a.Value.Owners))
		}
		return answer(c, a, err, ownerTable)
	})
	pages = definePaging(cmd, &in.Limit, &in.Cursor)
	return cmd
}

func (h *Host) ownerShow() *cobra.Command {
	return h.command("show <userId>", "Shows an owner", oneArg("the userId of the owner"), func(c *call) error {
		a, err := c.client.Owner(c.ctx, c.args[0])
		return answer(c, a, err, ownerDetails)
	})
}

func (h *Host) ownerSet() *cobra.Command {
	var in admin.PutOwner
	cmd := h.command("set <userId> [flags]", "Creates or changes an owner", oneArg("the userId of the owner"), func(c *call) error {
		a, err := c.client.PutOwner(c.ctx, c.args[0], in)
		return answer(c, a, err, ownerDetails)
	})
	cmd.Long = "Creates or changes an owner. No key of a disabled owner works."
	cmd.Example = `  caddy apikey owner set alice --tier pro
  caddy apikey owner set alice --disable`
	f := cmd.Flags()
	tier := optional(&in.Tier, parseText)
	define(f, "tier", tier, "`name` of the owner's tier; \"caddy apikey tiers\" lists them")
	defineNo(cmd, "tier", tier, "the default tier, if one is configured")
	define(f, "enable", optional(&in.Enabled, parseBool), "the owner's keys work")
	define(f, "disable", optional(&in.Enabled, parseNot), "none of the owner's keys work")
	cmd.MarkFlagsMutuallyExclusive("enable", "disable")
	return cmd
}

func (h *Host) ownerDelete() *cobra.Command {
	cmd := h.command("delete <userId>", "Deletes an owner and all its keys", oneArg("the userId of the owner"), func(c *call) error {
		err := c.client.DeleteOwner(c.ctx, c.args[0])
		return c.done(err, "Deleted owner %s and all its keys.", printable(c.args[0]))
	})
	cmd.Long = "Deletes an owner and all its keys permanently, without asking. To be able to\nrevert it, use owner set --disable."
	return cmd
}
