package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/keyring"
	"github.com/caddy-apikey/caddy-apikey/store"
	"github.com/caddy-apikey/caddy-apikey/store/sqlite"
)

func (h *Host) restore() *cobra.Command {
	var y consent
	var path, since string
	cmd := h.command("restore FILE [flags]", "Replaces the database of a stopped server by a backup", oneArg("the backup"), nil)
	cmd.RunE = func(cmd *cobra.Command, args []string) error { // without a client: no server runs
		return h.finish(cmd, h.restoreFrom(h.call(cmd, args), &y, path, args[0], since))
	}
	cmd.Long = `Replaces the database of a server that is not running by a backup, which is checked
first. The database that it replaces is kept, as FILE.TIME.

Keys that were revoked, and credits that were spent, after the backup was made are
back. --revoke-since disables the keys and owners that were changed since, as the audit
log of the database tells that is replaced; enable those again that may work.

The database is that of --config, or that of --store. If neither names a path, it is
the default one of the user that runs the command: run it as the user that runs
Caddy.`
	cmd.ValidArgsFunction = nil // the shell completes names of files
	setFormats(cmd, []string{asTable, asJSON, asNDJSON})
	cmd.Example = `  sudo -u caddy -H caddy apikey restore /backup/apikey.db --config /etc/caddy/Caddyfile`
	define(cmd.Flags(), "revoke-since", parsed(func(s string) (string, error) { return s, h.checkSince(s) }, func(s string) { since = s }),
		"disable the keys and owners that were changed since this `time`, for a duration such as 2d, or since the \"backup\" was made")
	define(cmd.Flags(), "store", variable(&path, parseText), "replace the database in this `FILE`")
	y.define(cmd)
	return cmd
}

// restored is the result as JSON.
type restored struct {
	Database string   `json:"database"`
	Keys     int64    `json:"keys"`
	Replaced *string  `json:"replaced"` // the name of the database that was replaced
	Disabled disabled `json:"disabled"`
}

// disabled are the keys and owners that --revoke-since has disabled.
type disabled struct {
	Keys   int64 `json:"keys"`
	Owners int64 `json:"owners"`
}

// sinceBackup is the value of --revoke-since for the moment of the backup.
const sinceBackup = "backup"

func (h *Host) checkSince(s string) error {
	if s == sinceBackup {
		return nil
	}
	_, err := h.parseWhen(-1)(s)
	return err
}

// changedSince returns what was changed since a moment; nothing for none.
func (h *Host) changedSince(ctx context.Context, r *sqlite.Restore, since string) (sqlite.Changed, error) {
	switch since {
	case "":
		return sqlite.Changed{}, nil
	case sinceBackup:
		return r.ChangedSinceBackup(ctx)
	}
	at, err := h.parseWhen(-1)(since)
	if err != nil {
		return sqlite.Changed{}, err
	}
	return r.ChangedSince(ctx, at.UnixMilli())
}

// disable disables keys and owners in the copy of the backup. Those that it does not have
// are left out.
func (h *Host) disable(ctx context.Context, r *sqlite.Restore, all sqlite.Changed) (n disabled, err error) {
	if len(all.Keys) == 0 && len(all.Owners) == 0 {
		return n, nil
	}
	return n, r.Change(ctx, func(o store.Opener) (err error) {
		engine := keyring.New(o, h.Now, func(error) {}) // what works in the background makes no difference here
		if err := engine.Open(ctx); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, engine.Close()) }()
		by := keyring.NewService(engine, &keyring.Settings{Rules: keyring.DefaultRules()}).
			As(keyring.Actor{Kind: keyring.ActorOperator, Name: h.actor})
		no := keyring.Field[bool]{Set: true, Value: new(bool)}
		for _, id := range all.Keys {
			k, err := by.Get(ctx, id)
			if err == nil && k.Key.Enabled {
				n.Keys++
				_, err = by.Update(ctx, id, keyring.Patch{Enabled: no})
			}
			if err != nil && !errors.Is(err, store.ErrNotFound) {
				return fmt.Errorf("disabling key %s: %w", id, err)
			}
		}
		for _, userID := range all.Owners {
			owner, err := by.Owner(ctx, userID)
			if err == nil && owner.Enabled {
				n.Owners++
				_, err = by.PutOwner(ctx, userID, keyring.OwnerPatch{Enabled: no})
			}
			if err != nil && !errors.Is(err, store.ErrNotFound) {
				return fmt.Errorf("disabling owner %s: %w", userID, err)
			}
		}
		return nil
	})
}

func (h *Host) restoreFrom(c *call, y *consent, path, backup, since string) (err error) {
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
	changed, err := h.changedSince(c.ctx, r, since)
	if err != nil {
		return err
	}
	if err := y.ask(c, restoreQuestion(r, backup)); err != nil {
		return err
	}
	n, err := h.disable(c.ctx, r, changed)
	if err != nil {
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
		result := restored{Database: r.Path, Keys: r.Keys, Disabled: n}
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
	if since != "" {
		return write(c.OutOrStdout(), text+fmt.Sprintf("Disabled %s and %s that were changed since. Credits that were spent after the backup was made are back.",
			countOf(n.Keys, "key"), countOf(n.Owners, "owner")))
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
