package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
)

func (h *Host) show() *cobra.Command {
	cmd := h.command("show <id>", "Shows a key", oneArg("the id of the key"), func(c *call) error {
		a, err := c.client.Key(c.ctx, c.args[0])
		return answer(c, a, err, details)
	})
	cmd.Long = "Shows a key. The raw key is not stored and cannot be shown."
	cmd.Example = `  caddy apikey show 6a1f0c2d9b3e4f5a6b7c8d9e`
	return cmd
}

// enable returns "enable" or "revoke".
func (h *Host) enable(on bool) *cobra.Command {
	use, short, message := "enable <id>", "Enables a revoked key", "Key %s is enabled."
	if !on {
		use, short, message = "revoke <id>", "Disables a key at once; enable reverts it", "Key %s is disabled."
	}
	return h.command(use, short, oneArg("the id of the key"), func(c *call) error {
		a, err := c.client.PatchKey(c.ctx, c.args[0], admin.PatchKey{Enabled: api.Some(on)})
		return answer(c, a, err, func(k admin.Key) string { return fmt.Sprintf(message, printable(k.ID)) })
	})
}

func (h *Host) endGrace() *cobra.Command {
	cmd := h.command("end-grace <id>", "Ends the previous raw keys of a key", oneArg("the id of the key"), func(c *call) error {
		a, err := c.client.EndGrace(c.ctx, c.args[0])
		return answer(c, a, err, func(k admin.Key) string {
			return fmt.Sprintf("No previous raw key of %s works any longer.", printable(k.ID))
		})
	})
	cmd.Long = `Ends every raw key that "rotate --grace" replaced and that still works. The raw
key of the last rotation is not affected.`
	cmd.Example = `  caddy apikey end-grace 6a1f0c2d9b3e4f5a6b7c8d9e`
	return cmd
}

func (h *Host) delete() *cobra.Command {
	cmd := h.command("delete <id>", "Deletes a key permanently", oneArg("the id of the key"), func(c *call) error {
		err := c.client.DeleteKey(c.ctx, c.args[0])
		return c.done(err, "Deleted key %s.", printable(c.args[0]))
	})
	cmd.Long = "Deletes a key permanently, without asking. To be able to revert it, use revoke."
	return cmd
}

func (h *Host) deleteExpired() *cobra.Command {
	return h.command("delete-expired", "Deletes every expired key", noArgs, func(c *call) error {
		a, err := c.client.DeleteExpired(c.ctx)
		return answer(c, a, err, func(d admin.Deleted) string { return fmt.Sprintf("Deleted %d expired keys.", d.Deleted) })
	})
}
