package cli

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
)

func (h *Host) create() *cobra.Command {
	var in admin.CreateKey
	var shared admin.PatchKey
	flags := h.keyFlags(&shared)
	cmd := h.command("create --owner USERID [flags]", "Creates a key", noArgs, func(c *call) error {
		if err := createFrom(shared, &in); err != nil {
			return err
		}
		a, err := c.client.CreateKey(c.ctx, in)
		return c.issued(a, err, "Created key %s for %s%s.", c.where)
	})
	cmd.Long = `Creates a key and prints the raw key on standard output, on a line of its own.
It is not stored and cannot be shown again. With --with-secret the secret follows
on a second line. Everything else goes to standard error, with the database that the
key is in and the Caddy that answered.

The server's configuration provides the defaults. --refill without --remaining
also sets the first credits. Values of --metadata are strings; --metadata-json
takes other types.`
	cmd.Example = `  caddy apikey create --owner alice
  caddy apikey create --owner alice --name ci --prefix ci_ --expires-in 90d \
      --refill 1000/1d --rate-limit 100/1m --permission files:read --permission files:write
  KEY=$(caddy apikey create --owner alice)`
	h.defineKeyFlags(cmd, flags)
	f := cmd.Flags()
	define(f, "prefix", pointer(&in.Prefix, parseText), "first `characters` of the raw key")
	define(f, "config-id", pointer(&in.ConfigID, parseText), "`name` of the configuration whose rules apply")
	define(f, "with-secret", pointer(&in.WithSecret, parseBool), "create a secret too")
	define(f, "disabled", pointer(&in.Enabled, parseNot), "the key does not work until it is enabled")
	cmd.MarkFlagRequired("owner") //nolint:errcheck // the flag exists
	return cmd
}

// createFrom copies the fields of a patch, which have the same names in JSON. A
// refill without a number of credits also sets the first credits.
func createFrom(patch admin.PatchKey, in *admin.CreateKey) error {
	if patch.RefillAmount.Set && !patch.Remaining.Set {
		patch.Remaining = patch.RefillAmount
	}
	fields, err := api.Marshal(patch)
	if err != nil {
		return err
	}
	return json.Unmarshal(fields, in)
}

func (h *Host) rotate() *cobra.Command {
	var in admin.RotateKey
	cmd := h.keysCommand("rotate ID... [flags]", "Replaces the raw keys of keys", func(c *call) error {
		rotate := func(id string) (admin.Answer[admin.IssuedKey], error) { return c.client.RotateKey(c.ctx, id, in) }
		return each(c, nil, rotate, func(a admin.Answer[admin.IssuedKey], err error) error {
			if err := c.issued(a, err, "Rotated key %s of %s%s.", func() string { return "" }); err != nil {
				return err
			}
			c.warnOfEnd(a.Value.Key)
			return nil
		})
	})
	cmd.Long = `Replaces the raw key of a key and prints the new one on standard output, on a
line of its own. It cannot be shown again. ID, counters and limits do not change,
and without --expires-in the expiry does not either. With several ids, the new raw
keys are printed in the order of the ids.

The replaced raw key stops working at once, or at the end of --grace, and those
before it at the same time at the latest. "end-grace" ends them earlier. The new
secret of --with-secret is also that of the replaced raw keys.`
	setFormats(cmd, plainFormats)
	cmd.Example = `  caddy apikey rotate 6a1f0c2d9b3e4f5a6b7c8d9e --grace 1h`
	f := cmd.Flags()
	define(f, "grace", pointer(&in.Grace, h.seconds(0)), "`time` for which the replaced raw key works, such as 1h (default 0s)")
	define(f, "with-secret", pointer(&in.WithSecret, parseBool), "create a new secret too")
	define(f, "expires-in", pointer(&in.ExpiresIn, h.seconds(1)), "`lifetime` from now, such as 90d (default: the expiry does not change)")
	return cmd
}

// soon is how close the end of a key must be for a warning after its rotation.
const soon = 30 * 24 * time.Hour

// warnOfEnd warns of a key that was rotated, and ends soon all the same.
func (c *call) warnOfEnd(k admin.Key) {
	if !c.machine() && k.ExpiresAt != nil && k.ExpiresAt.Sub(c.now()) < soon {
		c.note("Warning: the key still expires at %s. To change that, use update --expires-in.", formatTime(k.ExpiresAt, ""))
	}
}

// issued prints a new raw key. The lines that explain it go to standard error, so
// that standard output holds only the key, and its secret on a second line. where
// returns what follows the owner in the headline.
func (c *call) issued(a admin.Answer[admin.IssuedKey], err error, headline string, where func() string) error {
	if err != nil {
		return err
	}
	if err := c.writeIssued(a, headline, where); err != nil {
		return fmt.Errorf("%w\nThe new raw key could not be shown: rotate or delete %s", err, printable(a.Value.ID))
	}
	return nil
}

func (c *call) writeIssued(a admin.Answer[admin.IssuedKey], headline string, where func() string) error {
	stdout, k := c.OutOrStdout(), a.Value
	if c.machine() {
		return write(stdout, string(a.Raw))
	}
	c.note(headline+"\nIt is shown only once, so store it now:", printable(k.ID), printable(k.UserID), where())
	if err := write(stdout, k.Raw); err != nil || k.Secret == "" {
		return err
	}
	c.note("Its secret, for the header X-API-Secret, is also shown only once:")
	return write(stdout, k.Secret)
}

// where says in which database a new key is, and which Caddy answered, so that a key
// in the wrong place is noticed at once.
func (c *call) where() string {
	a, err := c.client.Health(c.ctx)
	if err != nil {
		return "" // the key exists, and is to be shown
	}
	return fmt.Sprintf(" in %s (process %d at %s)", printable(a.Value.Store.Database), a.Value.PID, printable(c.client.Name))
}
