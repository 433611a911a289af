package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/store/sqlite"
)

func (h *Host) restore() *cobra.Command {
	var y consent
	var path string
	cmd := h.command("restore FILE [flags]", "Replaces the database of a stopped server by a backup", oneArg("the backup"), nil)
	cmd.RunE = func(cmd *cobra.Command, args []string) error { // without a client: no server runs
		return h.finish(cmd, h.restoreFrom(h.call(cmd, args), &y, path, args[0]))
	}
	cmd.Long = `Replaces the database of a server that is not running by a backup, which is checked
first. The database that it replaces is kept, as FILE.TIME.

Keys that were revoked, and credits that were spent, after the backup was made are
back. Revoke again what must stay revoked before you start the server, or as soon as
it runs.

The database is that of --config, or that of --store. If neither names a path, it is
the default one of the user that runs the command: run it as the user that runs
Caddy.`
	cmd.ValidArgsFunction = nil // the shell completes names of files
	setFormats(cmd, []string{asTable, asJSON, asNDJSON})
	cmd.Example = `  sudo -u caddy -H caddy apikey restore /backup/apikey.db --config /etc/caddy/Caddyfile`
	define(cmd.Flags(), "store", variable(&path, parseText), "replace the database in this `FILE`")
	y.define(cmd)
	return cmd
}

// restored is the result as JSON.
type restored struct {
	Database string  `json:"database"`
	Keys     int64   `json:"keys"`
	Replaced *string `json:"replaced"` // the name of the database that was replaced
}

func (h *Host) restoreFrom(c *call, y *consent, path, backup string) (err error) {
	config, adapter := c.Flag("config").Value.String(), c.Flag("adapter").Value.String()
	if path != "" && config != "" {
		return WrongUsage("--store and --config: only one of them can say which database it is")
	}
	if err := y.possible(c, "replaces a database"); err != nil {
		return err
	}
	opener, err := h.Database(path, config, adapter)
	if err != nil {
		return err
	}
	r, err := opener.Restore(c.ctx, backup)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if err := y.ask(c, restoreQuestion(r, backup)); err != nil {
		return err
	}
	kept, err := r.Finish()
	if err != nil && kept != "" {
		return fmt.Errorf("%w\nThe database that was there is now %s", err, kept)
	}
	if err != nil {
		return err
	}
	if c.machine() {
		result := restored{Database: r.Path, Keys: r.Keys}
		if kept != "" {
			result.Replaced = &kept
		}
		line, err := api.MarshalLine(result)
		if err != nil {
			return err
		}
		return write(c.OutOrStdout(), string(line))
	}
	text := fmt.Sprintf("Restored %s with %s.\n", r.Path, countOf(r.Keys, "key"))
	if kept != "" {
		text += fmt.Sprintf("The database that was there is now %s.\n", kept)
	}
	return write(c.OutOrStdout(), text+"Keys that were revoked, and credits that were spent, after the backup was made are back.")
}

// restoreQuestion says what is about to happen.
func restoreQuestion(r *sqlite.Restore, backup string) string {
	switch {
	case !r.Exists:
		return fmt.Sprintf("This makes %s from %s, which has %s. There is no database yet.", r.Path, backup, countOf(r.Keys, "key"))
	case r.Replaces < 0:
		return fmt.Sprintf("This replaces %s, which cannot be read, by %s, which has %s.", r.Path, backup, countOf(r.Keys, "key"))
	}
	return fmt.Sprintf("This replaces %s, which has %s, by %s, which has %s.", r.Path, countOf(r.Replaces, "key"), backup, countOf(r.Keys, "key"))
}
