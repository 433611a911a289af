// Package cli is "caddy apikey": flags, text and exit statuses in front of
// the client of the admin API. It knows nothing of Caddy.
//
// # Output
//
// Standard output holds what was asked for, and nothing else: with --json the
// bytes of the admin API, otherwise a table or a few lines, and for a new key
// the raw key alone on its line. Everything else goes to standard error.
//
// # Secrets
//
// Arguments are visible to other users of the machine, and often kept in a
// history. So no raw key is taken from them: what looks like one is refused, and
// no message repeats a value that was given.
package cli

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
)

// Host is what only Caddy knows.
type Host struct {
	// Connect returns a client for the values of --address, --config and
	// --adapter, which may be empty.
	Connect func(address, config, adapter string) (*admin.Client, error)
	// ParseDuration reads "90d", "1h30m".
	ParseDuration func(string) (time.Duration, error)
	// WrongUsage returns the error that ends the process with status 2, without
	// a message. Any other error ends it with 1.
	WrongUsage func(*cobra.Command) error

	json bool // the flag
}

// Setup makes root the command "apikey".
func Setup(root *cobra.Command, host Host) {
	h := &host
	root.Example = `  caddy apikey create --owner alice --name ci --expires-in 90d
  caddy apikey list --owner alice
  caddy apikey revoke 6a1f0c2d9b3e4f5a6b7c8d9e`
	flags := root.PersistentFlags()
	flags.String("address", "", "`address` of Caddy's admin endpoint (default the one Caddy uses)")
	flags.StringP("config", "c", "", "read that address from this configuration `file`")
	flags.StringP("adapter", "a", "", "`name` of the adapter for that file")
	define(flags, "json", variable(&h.json, parseBool), "print the admin API's JSON, and nothing else")
	root.DisableFlagsInUseLine = true
	h.group(root)
	root.PersistentPreRunE = func(cmd *cobra.Command, args []string) error {
		return h.finish(cmd, check(cmd, args))
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return h.finish(cmd, flagError(err))
	})
	root.AddCommand(
		h.create(), h.list(), h.show(), h.update(), h.enable(true), h.enable(false), h.delete(),
		h.rotate(), h.deleteExpired(), h.verify(), h.usage(), h.owner(), h.tiers(), h.health(), h.export(), h.importKeys(),
	)
}

// group makes cmd a command that only has subcommands.
func (h *Host) group(cmd *cobra.Command) {
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SuggestionsMinimumDistance = 2
	cmd.Args = func(cmd *cobra.Command, args []string) error { return h.finish(cmd, unknownCommand(cmd, args)) }
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
}
