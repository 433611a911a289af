package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
)

func (h *Host) verify() *cobra.Command {
	var in admin.VerifyKey
	var withSecret bool
	cmd := h.command("verify [flags]", "Tells whether a raw key is valid", noKeyArgs, func(c *call) (err error) {
		if in.Key, in.Secret, err = readCredential(c.InOrStdin(), c.ErrOrStderr(), withSecret); err != nil {
			return err
		}
		a, err := c.client.Verify(c.ctx, in)
		if err := answer(c, a, err, verified); err != nil {
			return err
		}
		return invalid(a.Value.Error)
	})
	cmd.Long = `Tells whether a raw key is valid: exit status 0 if it is, 1 if it is not.

The key is read from the first line of standard input, or asked for on a terminal
without showing it. A second line, if there is one, is its secret. Keys are never
taken from arguments, where other users of the machine could see them.

This counts as a use of the key, like a request, unless --dry-run is given.`
	cmd.Example = `  caddy apikey verify
  caddy apikey verify --dry-run --permission files:read < key.txt`
	f := cmd.Flags()
	define(f, "permission", variable(&in.Permissions, permissions()), "`resource:action` that the key must have; repeatable")
	define(f, "cost", pointer(&in.Cost, parseNumber), "`number` of credits and rate slots (default 1)")
	define(f, "dry-run", pointer(&in.DryRun, parseBool), "decide without counting")
	define(f, "ip", pointer(&in.IP, parseText), "client `address`; without it allowed addresses are not checked")
	define(f, "config-id", pointer(&in.ConfigID, parseText), "`name` of the configuration that the key must belong to")
	define(f, "with-secret", variable(&withSecret, parseBool), "ask for the secret too; it must be given")
	return cmd
}

func noKeyArgs(args []string) error {
	if len(args) > 0 {
		return WrongUsage("the key is read from standard input, never from arguments: others can see those")
	}
	return nil
}

func verified(v admin.Verification) string {
	if v.Key == nil {
		return ""
	}
	return sprintf("Valid: key %s of %s.", printable(v.Key.ID), printable(v.Key.UserID))
}

// invalid says why a key is refused, or returns nil.
func invalid(e *admin.VerifyError) error {
	if e == nil {
		return nil
	}
	wait := ""
	if e.Details != nil {
		wait = fmt.Sprintf("; try again in %s", formatDuration(e.Details.RetryAfter*1000))
	}
	return fmt.Errorf("%s (%s)%s", printable(strings.TrimSuffix(e.Message, ".")), printable(e.Code), wait)
}
