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
			return WrongUsage("there is nothing to change: give at least one flag")
		}
		a, err := c.client.PatchKey(c.ctx, c.args[0], in)
		return answer(c, a, err, details)
	})
	cmd.Long = `Changes a key. What no flag names stays as it is.

"no-" in front of a flag clears what the flag sets: --no-expires-in makes a key
that never expires, --no-remaining one with unlimited credits. Lists and metadata
are replaced whole. --add changes the credits by a number, safely beside requests
that spend them.`
	cmd.Example = `  caddy apikey update 6a1f0c2d9b3e4f5a6b7c8d9e --name "build server" --expires-in 90d
  caddy apikey update 6a1f0c2d9b3e4f5a6b7c8d9e --add 500
  caddy apikey update 6a1f0c2d9b3e4f5a6b7c8d9e --no-rate-limit --no-allowed-ip`
	defineKeyFlags(cmd, flags)
	f := cmd.Flags()
	define(f, "add", optional(&in.RemainingDelta, parseNumber), "`number` of credits to add; below zero takes them away")
	define(f, "enabled", optional(&in.Enabled, parseBool), "the key works")
	define(f, "disabled", optional(&in.Enabled, parseNot), "the key does not work")
	defineNoFlags(cmd, flags)
	cmd.MarkFlagsMutuallyExclusive("enabled", "disabled")
	cmd.MarkFlagsMutuallyExclusive("add", "remaining")
	cmd.MarkFlagsMutuallyExclusive("add", "no-remaining")
	return cmd
}
