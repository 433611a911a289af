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
	cmd := h.command("verify [flags]", "Checks a raw key", noKeyArgs, func(c *call) (err error) {
		if in.Key, in.Secret, err = readCredential(c.InOrStdin(), c.ErrOrStderr(), withSecret); err != nil {
			return err
		}
		a, err := c.client.Verify(c.ctx, in)
		if err := answer(c, a, err, verified); err != nil {
			return err
		}
		return invalid(a.Value)
	})
	cmd.Long = `Checks whether a raw key is valid. Exit status: 0 if it is valid, 1 if not.

The key is read from the first line of standard input; on a terminal there is a
prompt that does not show it. An optional second line is its secret. Keys are never
taken from arguments, where other users of the machine can see them.

Like a request, this counts as a use of the key, unless --dry-run is given.`
	cmd.Example = `  caddy apikey verify
  caddy apikey verify --dry-run --permission files:read < key.txt`
	f := cmd.Flags()
	define(f, "permission", variable(&in.Permissions, permissions()), "`resource:action` that the key must have; repeatable")
	define(f, "cost", pointer(&in.Cost, parseNumber), "`number` of credits and rate slots to take (default 1)")
	define(f, "dry-run", pointer(&in.DryRun, parseBool), "check the key without counting a use")
	define(f, "ip", pointer(&in.IP, parseText), "client `address`; without it the allowed addresses are not checked")
	define(f, "config-id", pointer(&in.ConfigID, parseText), "`name` of the configuration that the key must belong to")
	define(f, "with-secret", variable(&withSecret, parseBool), "require a secret, and prompt for it on a terminal")
	return cmd
}

func noKeyArgs(args []string) error {
	if len(args) > 0 {
		return WrongUsage("the key is read from standard input, never from arguments, which other users can see")
	}
	return nil
}

func verified(v admin.Verification) string {
	if !v.Valid {
		return ""
	}
	return fmt.Sprintf("Valid: %s.", named(v.Key))
}

func named(k *admin.Key) string {
	return fmt.Sprintf("key %s of %s", printable(k.ID), printable(k.UserID))
}

// invalid returns why a key is refused, or nil.
func invalid(v admin.Verification) error {
	e := v.Error
	if e == nil {
		return nil
	}
	more := ""
	if v.Key != nil {
		more = ": " + named(v.Key)
	}
	if e.Details != nil {
		more += fmt.Sprintf("; try again in %s", formatDuration(e.Details.RetryAfter*1000))
	}
	return fmt.Errorf("%s (%s)%s", printable(strings.TrimSuffix(e.Message, ".")), printable(e.Code), more)
}
