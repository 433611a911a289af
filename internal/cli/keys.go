package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
)

// keysCommand returns a subcommand that acts on one key or several.
func (h *Host) keysCommand(use, short string, run func(*call) error) *cobra.Command {
	var f filters
	cmd := h.command(use, short, anyIDs, func(c *call) error {
		if done, err := f.resolve(c); done || err != nil {
			return err
		}
		return run(c)
	})
	cmd.ValidArgsFunction = h.completeIDs()
	setFormats(cmd, listFormats)
	f.define(h, cmd)
	return cmd
}

func (h *Host) show() *cobra.Command {
	cmd := h.keysCommand("show ID... [flags]", "Shows keys", func(c *call) error {
		first := true
		return each(c, keyListing, func(id string) (admin.Answer[admin.Key], error) { return c.client.Key(c.ctx, id) },
			func(a admin.Answer[admin.Key], err error) error {
				return answerOne(c, a, err, keyListing, func(k admin.Key) string { return c.nextDetails(k, &first) })
			})
	})
	cmd.Long = "Shows keys. The raw key is not stored and cannot be shown."
	cmd.Example = `  caddy apikey show 6a1f0c2d9b3e4f5a6b7c8d9e
  caddy apikey show -o csv 6a1f0c2d9b3e4f5a6b7c8d9e 6a1f0c2d9b3e4f5a6b7c8d9f`
	h.defineTable(cmd, keyListing.names())
	return cmd
}

// enable returns "enable" or "revoke".
func (h *Host) enable(on bool) *cobra.Command {
	use, short, message := "enable ID... [flags]", "Enables revoked keys", "Key %s is enabled."
	if !on {
		use, short, message = "revoke ID... [flags]", "Disables keys at once; enable reverts it", "Key %s is disabled."
	}
	var y consent
	cmd := h.keysCommand(use, short, func(c *call) error {
		if !on && (len(c.args) > 1 || c.filtered) {
			if err := y.askAboutKeys(c, "disables", ""); err != nil {
				return err
			}
		}
		patch := admin.PatchKey{Enabled: api.Some(on)}
		return each(c, keyListing, func(id string) (admin.Answer[admin.Key], error) { return c.client.PatchKey(c.ctx, id, patch) },
			func(a admin.Answer[admin.Key], err error) error {
				return answerOne(c, a, err, keyListing, func(k admin.Key) string { return fmt.Sprintf(message, printable(k.ID)) })
			})
	})
	cmd.Long = "Enables keys that are disabled. An expired key stays expired."
	if !on {
		cmd.Long = "Disables keys at once. The command enable reverts it. For more than one key, it\nnames the keys and asks first."
		cmd.Example = `  caddy apikey revoke 6a1f0c2d9b3e4f5a6b7c8d9e
  caddy apikey revoke --filter userId=alice --filter unusedSince=90d --dry-run`
		y.define(cmd)
	}
	return cmd
}

func (h *Host) endGrace() *cobra.Command {
	cmd := h.keysCommand("end-grace ID... [flags]", "Ends the previous raw keys of keys", func(c *call) error {
		return each(c, keyListing, func(id string) (admin.Answer[admin.Key], error) { return c.client.EndGrace(c.ctx, id) },
			func(a admin.Answer[admin.Key], err error) error {
				return answerOne(c, a, err, keyListing, func(k admin.Key) string {
					return fmt.Sprintf("No previous raw key of %s works any longer.", printable(k.ID))
				})
			})
	})
	cmd.Long = `Ends every raw key that "rotate --grace" replaced and that still works. The present
raw key is not affected.`
	cmd.Example = `  caddy apikey end-grace 6a1f0c2d9b3e4f5a6b7c8d9e`
	return cmd
}

func (h *Host) delete() *cobra.Command {
	var y consent
	cmd := h.keysCommand("delete ID... [flags]", "Deletes keys permanently", func(c *call) error {
		if err := y.askAboutKeys(c, "deletes", " permanently"); err != nil {
			return err
		}
		// The answer is empty, so the id stands in for it.
		remove := func(id string) (a admin.Answer[string], err error) {
			a.Value = id
			return a, c.client.DeleteKey(c.ctx, id)
		}
		return each(c, nil, remove, func(a admin.Answer[string], err error) error {
			return c.done(err, a.Value, "Deleted key %s.", printable(a.Value))
		})
	})
	cmd.Long = `Deletes keys permanently. It names the keys and asks first; without a terminal,
--yes is required. To be able to revert it, use revoke.`
	cmd.Example = `  caddy apikey delete 6a1f0c2d9b3e4f5a6b7c8d9e
  caddy apikey delete --yes 6a1f0c2d9b3e4f5a6b7c8d9e`
	setFormats(cmd, append([]string{asName}, plainFormats...))
	y.define(cmd)
	return cmd
}

func (h *Host) deleteExpired() *cobra.Command {
	var y consent
	cmd := h.command("delete-expired [flags]", "Deletes every expired key", noArgs, func(c *call) error {
		if err := y.possible(c, "deletes every expired key permanently"); err != nil {
			return err
		}
		if !y.yes {
			what, err := c.expiredKeys()
			if err == nil {
				err = y.ask(c, "This deletes "+what+" permanently.")
			}
			if err != nil {
				return err
			}
		}
		a, err := c.client.DeleteExpired(c.ctx)
		return answer(c, a, err, func(d admin.Deleted) string { return "Deleted " + countOf(d.Deleted, "expired key") + "." })
	})
	cmd.Long = "Deletes every expired key permanently, whatever the configuration keeps. It says\nhow many there are and asks first; without a terminal, --yes is required."
	y.define(cmd)
	return cmd
}

var errNoExpired = errors.New("there are no expired keys")

// expiredKeys says how many keys are expired. Very many are not counted.
func (c *call) expiredKeys() (string, error) {
	limit, sort, now := int64(1), "expiresAt", api.TimeOf(c.now().UnixMilli()+1)
	a, err := c.client.ListKeys(c.ctx, admin.ListKeys{Limit: &limit, Sort: &sort, ExpiresBefore: &now})
	switch total := a.Value.Total; {
	case err != nil:
		return "", err
	case total == nil:
		return "more than 10,000 expired keys", nil
	case *total == 0:
		return "", errNoExpired
	default:
		return countOf(*total, "expired key"), nil
	}
}

// nextDetails returns the details of a key, after an empty line unless it is the
// first.
func (c *call) nextDetails(k admin.Key, first *bool) string {
	text := c.details(k)
	if !*first {
		text = "\n" + text
	}
	*first = false
	return text
}
