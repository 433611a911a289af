package cli

import (
	"reflect"

	"github.com/spf13/cobra"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
)

func (h *Host) update() *cobra.Command {
	var in admin.PatchKey
	flags := h.keyFlags(&in)
	var y consent
	cmd := h.keysCommand("update ID... [flags]", "Changes keys", func(c *call) error {
		if reflect.ValueOf(in).IsZero() {
			return WrongUsage("at least one flag that changes something is required")
		}
		if in.Enabled.Value != nil && !*in.Enabled.Value && (len(c.args) > 1 || c.filtered) { // as revoke does
			if err := y.askAboutKeys(c, "disables", ""); err != nil {
				return err
			}
		}
		first := true
		return each(c, keyListing, func(id string) (admin.Answer[admin.Key], error) { return c.client.PatchKey(c.ctx, id, in) },
			func(a admin.Answer[admin.Key], err error) error {
				return answerOne(c, a, err, keyListing, func(k admin.Key) string { return c.nextDetails(k, &first) })
			})
	})
	cmd.Long = `Changes keys, all in the same way. Fields without a flag stay as they are.

A flag with "no-" in front clears the field: with --no-expires-in the key never
expires, with --no-remaining it has unlimited credits. Lists and metadata are
replaced as a whole. --add changes the credits by a number and is
safe while requests spend them.`
	cmd.Example = `  caddy apikey update 6a1f0c2d9b3e4f5a6b7c8d9e --name "build server" --expires-in 90d
  caddy apikey update 6a1f0c2d9b3e4f5a6b7c8d9e --add 500
  caddy apikey update 6a1f0c2d9b3e4f5a6b7c8d9e --no-rate-limit --no-allowed-ip`
	h.defineKeyFlags(cmd, flags)
	f := cmd.Flags()
	define(f, "add", optional(&in.RemainingDelta, parseNumber), "`number` of credits to add; a negative number subtracts")
	define(f, "enabled", optional(&in.Enabled, parseBool), "the key works")
	define(f, "disabled", optional(&in.Enabled, parseNot), "the key does not work")
	defineNoFlags(cmd, flags)
	y.define(cmd)
	cmd.MarkFlagsMutuallyExclusive("enabled", "disabled")
	cmd.MarkFlagsMutuallyExclusive("add", "remaining")
	cmd.MarkFlagsMutuallyExclusive("add", "no-remaining")
	return cmd
}
