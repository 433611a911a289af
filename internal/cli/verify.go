package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
	"github.com/caddy-apikey/caddy-apikey/key"
)

func (h *Host) verify() *cobra.Command {
	var in admin.VerifyKey
	var permissions []string
	var withSecret bool
	cmd := h.command("verify [flags]", "Tells whether a raw key is valid", noKeyArgs, func(c *call) (err error) {
		if in.Permissions, err = permissionsOf(permissions); err != nil {
			return err
		}
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
	f.SortFlags = false
	each(f, "permission", "`resource:action` that the key must have; repeatable", func(s string) error {
		_, err := key.ParsePermission(s)
		permissions = append(permissions, s)
		return err
	})
	value(f, &in.Cost, "cost", "`number` of credits and rate slots (default 1)", parseNumber)
	boolean(f, "dry-run", "decide without counting", on(&in.DryRun))
	value(f, &in.IP, "ip", "client `address`; without it allowed addresses are not checked", parseText)
	value(f, &in.ConfigID, "config-id", "`name` of the configuration that the key must belong to", parseText)
	f.BoolVar(&withSecret, "with-secret", false, "ask for the secret too; it must be given")
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
	return sprintln("Valid: key %s of %s.", printable(v.Key.ID), printable(v.Key.UserID))
}

// invalid says why a key is refused, or returns nil.
func invalid(e *admin.VerifyError) error {
	if e == nil {
		return nil
	}
	wait := ""
	if e.Details != nil {
		wait = fmt.Sprintf("; try again in %s", duration(e.Details.RetryAfter*1000))
	}
	return fmt.Errorf("%s (%s)%s", printable(strings.TrimSuffix(e.Message, ".")), printable(e.Code), wait)
}
