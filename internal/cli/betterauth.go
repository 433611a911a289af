package cli

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/caddy-apikey/caddy-apikey/internal/betterauthdb"
)

func (h *Host) importBetterAuth() *cobra.Command {
	var dryRun bool
	var o betterauthdb.Options
	cmd := h.command("better-auth <file.db> [flags]", "Imports the keys of a Better Auth SQLite database", oneArg("the SQLite database of Better Auth"), func(c *call) error {
		return c.importBetterAuth(o, dryRun)
	})
	cmd.Long = `Imports the API keys of a Better Auth SQLite database into a server that runs. The
database is only read. The raw keys that people have go on working, because their
hashes are carried over.

Nothing that exists is changed, so this can be repeated until the applications
have moved. What was deleted here comes back, though: revoke, do not delete, while
you still import. The report tells what could not be carried over as it was, and why;
exit status 1 tells that a key was not imported, or lost something.`
	cmd.Example = `  caddy apikey import better-auth sqlite.db --dry-run
  caddy apikey import better-auth sqlite.db --config-map public=pub`
	f := cmd.Flags()
	define(f, "dry-run", variable(&dryRun, parseBool), dryRunUsage)
	define(f, "config-map", variable(&o.Configs, pairs(false, "theirs=ours")), "`theirs=ours`: another name for a configuration; repeatable")
	define(f, "table", variable(&o.Table, parseText), "`name` of the table (default apikey)")
	define(f, "column", variable(&o.Columns, pairs(false, "field=name")), "`field=name`: the column of a field of Better Auth that was renamed; repeatable")
	define(f, "plain-keys", variable(&o.PlainKeys, parseBool), "keys are stored as they are (disableKeyHashing); needed only where they look like hashes")
	return cmd
}

func (c *call) importBetterAuth(o betterauthdb.Options, dryRun bool) (err error) {
	db, err := betterauthdb.Open(c.ctx, c.args[0], o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if extra := db.Extra(); len(extra) > 0 {
		c.note("These columns are not carried over: %s", printable(strings.Join(extra, ", ")))
	}
	run := c.newImport(db.Count(), dryRun)
	done := int64(0)
	err = db.Each(c.ctx, func(k betterauthdb.Key) error {
		done++
		run.bar.at(done)
		return run.key(k)
	})
	if err == nil {
		err = run.flush()
	}
	return run.end(err)
}

// key sends a converted key on its way.
func (s *shipment) key(k betterauthdb.Key) error {
	one := item{id: k.Record.ID, notes: k.Notes, config: *k.Record.ConfigID}
	if k.Refused != nil {
		return s.refuse(one, "key", k.Refused.Field, k.Refused.Message)
	}
	raw, err := marshal(k.Record)
	if err != nil {
		return err
	}
	one.json = raw
	return s.put(one)
}
