package cli

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/internal/betterauthdb"
)

func (h *Host) importBetterAuth() *cobra.Command {
	var dryRun bool
	var o betterauthdb.Options
	cmd := h.command("better-auth FILE [flags]", "Imports the keys of a Better Auth SQLite database", oneArg("the SQLite database of Better Auth"), func(c *call) error {
		return c.importBetterAuth(o, dryRun)
	})
	cmd.Long = `Imports the API keys of a Better Auth SQLite database into a running server. The
database is only read. Existing raw keys keep working, because their hashes are
imported.

An import changes nothing that exists, so it can be repeated until all applications
have moved. A key that was deleted here comes back: revoke, do not delete, while you
still import. The report says what could not be imported unchanged, and why. Exit
status 1 means that a key was not imported, or lost something.`
	cmd.Example = `  caddy apikey import better-auth sqlite.db --dry-run
  caddy apikey import better-auth sqlite.db --config-map public=pub`
	f := cmd.Flags()
	importFlags(cmd)
	define(f, "dry-run", variable(&dryRun, parseBool), dryRunUsage)
	configs, columns := pairs(false, "theirs=ours"), pairs(false, "field=name")
	define(f, "config-map", variable(&o.Configs, configs), "`theirs=ours`: import the keys of a configuration into one of another name; repeatable")
	define(f, "organizations", variable(&o.Organizations, texts()), "`config`, as named there: its keys belong to organizations (references: \"organization\"); repeatable")
	define(f, "table", variable(&o.Table, parseText), "`name` of the table (default: apikey)")
	define(f, "column", variable(&o.Columns, columns), "`field=name`: the column of a Better Auth field that was renamed; repeatable")
	define(f, "plain-keys", variable(&o.PlainKeys, parseBool), "keys are stored without hashing (disableKeyHashing); only needed if they look like hashes")
	return cmd
}

func (c *call) importBetterAuth(o betterauthdb.Options, dryRun bool) (err error) {
	db, err := betterauthdb.Open(c.ctx, c.args[0], o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if extra := db.Extra(); len(extra) > 0 {
		c.note("These columns are not imported: %s", printable(strings.Join(extra, ", ")))
	}
	run := c.newImport(db.Count(), dryRun)
	done := int64(0)
	err = db.Each(c.ctx, func(k betterauthdb.Key) error {
		done++
		run.bar.at(done)
		return run.putConverted(k)
	})
	if err == nil {
		err = run.flush()
	}
	return run.end(err)
}

// putConverted adds a converted key to the batch.
func (r *importRun) putConverted(k betterauthdb.Key) error {
	rec := record{id: k.Record.ID, notes: k.Notes, config: *k.Record.ConfigID}
	if k.Refused != nil {
		return r.reject(rec, "key", k.Refused.Field, k.Refused.Message)
	}
	raw, err := api.Marshal(k.Record)
	if err != nil {
		return err
	}
	rec.json = raw
	return r.put(rec)
}
