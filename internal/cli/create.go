package cli

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
)

func (h *Host) create() *cobra.Command {
	var in admin.CreateKey
	var shared admin.PatchKey
	flags := h.keyFlags(&shared)
	cmd := h.command("create --owner <userId> [flags]", "Makes a key", noArgs, func(c *call) error {
		if err := createFrom(shared, &in); err != nil {
			return err
		}
		a, err := c.client.CreateKey(c.ctx, in)
		return c.issued(a, err, "Made key %s of %s.")
	})
	cmd.Long = `Makes a key and prints it on standard output, alone on its line, for the only
time: it is not stored. With --with-secret the secret follows on a second line.
All else goes to standard error.

What no flag says is decided by the server's configuration. --refill without
--remaining also gives the key its first credits. Values of --metadata are
strings; --metadata-json takes other types.`
	cmd.Example = `  caddy apikey create --owner alice
  caddy apikey create --owner alice --name ci --prefix ci_ --expires-in 90d \
      --refill 1000/1d --rate-limit 100/1m --permission files:read --permission files:write
  KEY=$(caddy apikey create --owner alice)`
	defineKeyFlags(cmd, flags)
	f := cmd.Flags()
	define(f, "prefix", pointer(&in.Prefix, parseText), "first `characters` of the raw key")
	define(f, "config-id", pointer(&in.ConfigID, parseText), "`name` of the configuration whose rules apply")
	define(f, "with-secret", pointer(&in.WithSecret, parseBool), "make a secret too")
	define(f, "disabled", pointer(&in.Enabled, parseNot), "the key does not work before it is enabled")
	if err := cmd.MarkFlagRequired("owner"); err != nil {
		panic(err)
	}
	return cmd
}

// createFrom takes the fields of a patch over. They have the same names in JSON.
// Where only a refill is given, its amount is also the first credits.
func createFrom(patch admin.PatchKey, in *admin.CreateKey) error {
	if patch.RefillAmount.Set && !patch.Remaining.Set {
		patch.Remaining = patch.RefillAmount
	}
	fields, err := marshal(patch)
	if err != nil {
		return err
	}
	return json.Unmarshal(fields, in)
}

func (h *Host) rotate() *cobra.Command {
	var in admin.RotateKey
	cmd := h.command("rotate <id> [flags]", "Gives a key a new raw key", oneArg("the id of the key"), func(c *call) error {
		a, err := c.client.RotateKey(c.ctx, c.args[0], in)
		return c.issued(a, err, "Rotated key %s of %s.")
	})
	cmd.Long = `Gives a key a new raw key and prints it on standard output, alone on its line,
for the only time. ID, counters and limits stay. The old raw key stops at once,
or works until --grace is over.`
	cmd.Example = `  caddy apikey rotate 6a1f0c2d9b3e4f5a6b7c8d9e --grace 1h`
	f := cmd.Flags()
	define(f, "grace", pointer(&in.Grace, h.seconds(0)), "`time` that the old raw key goes on working, such as 1h")
	define(f, "with-secret", pointer(&in.WithSecret, parseBool), "make a new secret too")
	return cmd
}

// issued prints a new raw key. On a terminal it stands between lines that
// explain it; captured, standard output is the key, and the secret below it.
func (c *call) issued(a admin.Answer[admin.IssuedKey], err error, headline string) error {
	if err != nil {
		return err
	}
	if err := c.writeIssued(a, headline); err != nil {
		return fmt.Errorf("%w\nThe key exists, but nobody has seen it: rotate or delete %s", err, printable(a.Value.ID))
	}
	return nil
}

func (c *call) writeIssued(a admin.Answer[admin.IssuedKey], headline string) error {
	stdout, k := c.OutOrStdout(), a.Value
	if c.json {
		return write(stdout, string(a.Raw))
	}
	c.note(headline+"\nIt is shown only once, so keep it now:", printable(k.ID), printable(k.UserID))
	if err := write(stdout, k.Raw); err != nil || k.Secret == "" {
		return err
	}
	c.note("Its secret, for the header X-API-Secret, is shown only once too:")
	return write(stdout, k.Secret)
}
