package cli

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/caddy-apikey/caddy-apikey/internal/betterauthdb"
)

func (h *Host) importBetterAuth() *cobra.Command {
	var dryRun bool
	o := betterauthdb.Options{Columns: map[string]string{}, Configs: map[string]string{}}
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
	f.SortFlags = false
	f.BoolVar(&dryRun, "dry-run", false, dryRunUsage)
	each(f, "config-map", "`theirs=ours`: another name for a configuration; repeatable", pair(o.Configs))
	f.StringVar(&o.Table, "table", "", "`name` of the table (default apikey)")
	each(f, "column", "`field=name`: the column of a field of Better Auth that was renamed; repeatable", pair(o.Columns))
	f.BoolVar(&o.PlainKeys, "plain-keys", false, "keys are stored as they are (disableKeyHashing); needed only where they look like hashes")
	return cmd
}

// pair makes a parser of "a=b" that fills in a map.
func pair(to map[string]string) func(string) error {
	return func(s string) error {
		name, value, ok := strings.Cut(s, "=")
		if !ok || name == "" || value == "" {
			return errors.New("must be two names with = between them")
		}
		to[name] = value
		return nil
	}
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
