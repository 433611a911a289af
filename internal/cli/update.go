package cli

import (
	"reflect"

	"github.com/spf13/cobra"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
)

func (h *Host) update() *cobra.Command {
	var in admin.PatchKey
	flags := h.keyFlags(&in)
	cmd := h.command("update <id> [flags]", "Changes a key", oneArg("the id of the key"), func(c *call) error {
		if reflect.ValueOf(in).IsZero() {
			return WrongUsage("at least one flag is required")
		}
		a, err := c.client.PatchKey(c.ctx, c.args[0], in)
		return answer(c, a, err, details)
	})
	cmd.Long = `Changes a key. Fields without a flag stay as they are.

A flag with "no-" in front clears the field: with --no-expires-in the key never
expires, with --no-remaining it has unlimited credits. Lists and metadata are
replaced as a whole. --add changes the credits by a number and is
safe while requests spend them.`
	cmd.Example = `  caddy apikey update 6a1f0c2d9b3e4f5a6b7c8d9e --name "build server" --expires-in 90d
  caddy apikey update 6a1f0c2d9b3e4f5a6b7c8d9e --add 500
  caddy apikey update 6a1f0c2d9b3e4f5a6b7c8d9e --no-rate-limit --no-allowed-ip`
	defineKeyFlags(cmd, flags)
	f := cmd.Flags()
	define(f, "add", optional(&in.RemainingDelta, parseNumber), "`number` of credits to add; a negative number subtracts")
	define(f, "enabled", optional(&in.Enabled, parseBool), "the key works")
	define(f, "disabled", optional(&in.Enabled, parseNot), "the key does not work")
	defineNoFlags(cmd, flags)
	cmd.MarkFlagsMutuallyExclusive("enabled", "disabled")
	cmd.MarkFlagsMutuallyExclusive("add", "remaining")
	cmd.MarkFlagsMutuallyExclusive("add", "no-remaining")
	return cmd
}
