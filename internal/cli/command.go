// Package cli implements the command "caddy apikey" with the client of the admin
// API: flags, output and exit statuses. It does not depend on Caddy.
//
// # Output
//
// Standard output holds only the result: with --json the response of the admin
// API, unchanged; otherwise a table or a few lines, or what --format says; for a new
// key the raw key on a line of its own. Everything else goes to standard error.
//
// # Secrets
//
// Other users of the machine can see arguments, and shells record them. No command
// takes a raw key as an argument: what looks like one is refused, and no message
// repeats the value of a flag.
package cli

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
	"github.com/caddy-apikey/caddy-apikey/store/sqlite"
)

// Host holds the functions that Caddy provides.
type Host struct {
	// Connect returns a client for the values of --address, --config and
	// --adapter, which may be empty.
	Connect func(address, config, adapter string) (*admin.Client, error)
	// Database returns the database at a path, or else that of the values of --config
	// and --adapter, which may be empty too.
	Database func(path, config, adapter string) (*sqlite.Opener, error)
	// ParseDuration parses a duration such as "90d" or "1h30m".
	ParseDuration func(string) (time.Duration, error)
	// WrongUsage returns an error that ends the process with status 2 and prints no
	// message. Every other error ends it with status 1.
	WrongUsage func(*cobra.Command) error
	// Now returns the time, from which tables show distances.
	Now func() time.Time
	// Documentation is the address of the documentation.
	Documentation string

	actor string
	output
}

// Setup turns root into the command "apikey".
func Setup(root *cobra.Command, host Host) {
	h := &host
	root.Example = `  caddy apikey create --owner alice --name ci --expires-in 90d
  caddy apikey list --owner alice
  caddy apikey revoke 6a1f0c2d9b3e4f5a6b7c8d9e`
	flags := root.PersistentFlags()
	flags.String("address", "", "`ADDRESS` of Caddy's admin endpoint: host:port, a URL, or unix//PATH (default: that of --config, $CADDY_ADMIN, or localhost:2019)")
	flags.StringP("config", "c", "", "read the address from this configuration `FILE`")
	flags.StringP("adapter", "a", "", "`NAME` of the config adapter for that file")
	define(flags, "actor", variable(&h.actor, parseActor), "your `NAME` for the audit log: up to 64 printable ASCII characters")
	h.defineOutput(root)
	root.DisableFlagsInUseLine = true
	root.SetHelpTemplate(helpTemplate + "\nDocumentation: " + h.Documentation + "\n")
	h.group(root)
	root.PersistentPreRunE = func(cmd *cobra.Command, args []string) error {
		if err := validate(cmd, args); err != nil {
			return h.finish(cmd, err)
		}
		return h.finish(cmd, h.finishFlags(cmd))
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return h.finish(cmd, flagError(err))
	})
	root.AddCommand(
		h.create(), h.list(), h.show(), h.update(), h.enable(true), h.enable(false), h.delete(),
		h.rotate(), h.endGrace(), h.deleteExpired(), h.verify(), h.usage(), h.owner(), h.tiers(), h.audit(), h.report(), h.scan(), h.webhooks(), h.health(), h.export(), h.importKeys(),
		h.backup(), h.restore(),
	)
}

// helpTemplate is cobra's own.
const helpTemplate = `{{with (or .Long .Short)}}{{. | trimTrailingWhitespaces}}

{{end}}{{if or .Runnable .HasSubCommands}}{{.UsageString}}{{end}}`

// group sets cmd up as a command that only has subcommands.
func (h *Host) group(cmd *cobra.Command) {
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SuggestionsMinimumDistance = 2
	cmd.Args = func(cmd *cobra.Command, args []string) error { return h.finish(cmd, unknownCommand(cmd, args)) }
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
}
