package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
)

func (h *Host) owner() *cobra.Command {
	cmd := &cobra.Command{Use: "owner COMMAND", Short: "Lists, shows, changes and deletes owners of keys"}
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
		return answerList(c, a, err, "owners", func(l admin.OwnerList) []admin.Owner { return l.Owners }, ownerListing)
	})
	setFormats(cmd, listFormats)
	pages = definePaging(cmd, &in.Limit, &in.Cursor)
	h.defineTable(cmd, ownerListing.names())
	return cmd
}

func (h *Host) ownerShow() *cobra.Command {
	return h.ownerCommand("show USERID [flags]", "Shows an owner", listFormats, func(c *call) error {
		a, err := c.client.Owner(c.ctx, c.args[0])
		return answerOne(c, a, err, ownerListing, c.ownerDetails)
	})
}

// ownerCommand returns a subcommand that acts on one owner.
func (h *Host) ownerCommand(use, short string, formats []string, run func(*call) error) *cobra.Command {
	cmd := h.command(use, short, oneArg("the userId of the owner"), run)
	cmd.ValidArgsFunction = completeFirst(h.completeOwners())
	setFormats(cmd, formats)
	return cmd
}

func (h *Host) ownerSet() *cobra.Command {
	var in admin.PutOwner
	cmd := h.ownerCommand("set USERID [flags]", "Creates or changes an owner", listFormats, func(c *call) error {
		_, err := c.client.Owner(c.ctx, c.args[0])
		created := isNotFound(err)
		if err != nil && !created {
			return err
		}
		a, err := c.client.PutOwner(c.ctx, c.args[0], in)
		switch {
		case err != nil:
		case created:
			c.note("Created owner %s, which did not exist and has no keys.", printable(a.Value.UserID))
		default:
			c.note("Changed owner %s, which has %s.", printable(a.Value.UserID), countOf(a.Value.KeyCount, "key"))
		}
		return answerOne(c, a, err, ownerListing, c.ownerDetails)
	})
	cmd.Long = "Creates or changes an owner, and says which of the two. No key of a disabled owner\nworks."
	cmd.Example = `  caddy apikey owner set alice --tier pro
  caddy apikey owner set alice --disable`
	f := cmd.Flags()
	tier := optional(&in.Tier, parseText)
	define(f, "tier", tier, "`name` of the owner's tier; \"caddy apikey tiers\" lists them")
	completeFlag(cmd, "tier", h.completeTiers())
	defineNo(cmd, "tier", tier, "the default tier, if one is configured")
	define(f, "enable", optional(&in.Enabled, parseBool), "the owner's keys work")
	define(f, "disable", optional(&in.Enabled, parseNot), "none of the owner's keys work")
	cmd.MarkFlagsMutuallyExclusive("enable", "disable")
	return cmd
}

func (h *Host) ownerDelete() *cobra.Command {
	var y consent
	cmd := h.ownerCommand("delete USERID [flags]", "Deletes an owner and all its keys", append([]string{asName}, plainFormats...), func(c *call) error {
		id := c.args[0]
		if err := y.possible(c, "deletes an owner and all its keys permanently"); err != nil {
			return err
		}
		owner, err := c.client.Owner(c.ctx, id)
		if err != nil {
			return err
		}
		keys := countOf(owner.Value.KeyCount, "key")
		if err := y.ask(c, fmt.Sprintf("This deletes owner %s and %s permanently.", printable(id), keys)); err != nil {
			return err
		}
		return c.done(c.client.DeleteOwner(c.ctx, id), id, "Deleted owner %s and %s.", printable(id), keys)
	})
	cmd.Long = `Deletes an owner and all its keys permanently. It says how many keys there are and
asks first; without a terminal, --yes is required. To be able to revert it, use
owner set --disable.`
	y.define(cmd)
	return cmd
}
