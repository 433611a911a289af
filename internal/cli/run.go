package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
)

// call is one execution of a subcommand.
type call struct {
	*cobra.Command
	ctx    context.Context
	client *admin.Client
	args   []string
	json   bool
}

// command returns a subcommand.
func (h *Host) command(use, short string, args argsRule, run func(*call) error) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short,
		SilenceErrors: true, SilenceUsage: true, // finish prints errors
		DisableFlagsInUseLine: true,
		Args:                  func(cmd *cobra.Command, got []string) error { return h.finish(cmd, args(got)) },
		RunE: func(cmd *cobra.Command, got []string) error {
			return h.finish(cmd, h.run(cmd, got, run))
		},
	}
	cmd.Flags().SortFlags = false
	return cmd
}

func (h *Host) run(cmd *cobra.Command, args []string, run func(*call) error) error {
	flag := func(name string) string { return cmd.Flag(name).Value.String() }
	client, err := h.Connect(flag("address"), flag("config"), flag("adapter"))
	if err != nil {
		return err
	}
	return run(&call{cmd, cmd.Context(), client, args, h.json})
}

// finish prints an error and returns one that leads to the right exit status.
func (h *Host) finish(cmd *cobra.Command, err error) error {
	if err == nil {
		return nil
	}
	stderr := cmd.ErrOrStderr()
	var wrong usageError
	if errors.As(err, &wrong) {
		fmt.Fprintf(stderr, "Error: %s\nRun '%s --help' for usage.\n", wrong, cmd.CommandPath())
		return h.WrongUsage(cmd)
	}
	var refused *admin.APIError
	if errors.As(err, &refused) && refused.Raw != nil && h.json {
		write(cmd.OutOrStdout(), string(refused.Raw)) //nolint:errcheck // the command has failed already
	}
	fmt.Fprintf(stderr, "Error: %s\n", describe(err))
	return err
}

// describe returns the message of an error.
func describe(err error) string {
	var refused *admin.APIError
	var network *url.Error
	switch {
	case errors.As(err, &refused):
		return describeRefusal(refused)
	case errors.As(err, &network):
		return fmt.Sprintf("Caddy's admin endpoint does not answer: %v.\n"+
			"Is Caddy running, without \"admin off\", and with its admin endpoint at this address?\n"+
			"--address or --config names another one.", network.Err)
	default:
		return err.Error()
	}
}

func describeRefusal(e *admin.APIError) string {
	if e.Status == http.StatusNotFound && e.Code == "" {
		return "the Caddy at this address was built without caddy-apikey"
	}
	message := printable(e.Message)
	if e.Field == "" || strings.HasPrefix(e.Message, e.Field+":") {
		return message
	}
	return fmt.Sprintf("%s (%s)", message, printable(e.Field))
}

// answer prints a response of the API: as JSON, or as text returned by format.
func answer[T any](c *call, a admin.Answer[T], err error, format func(T) string) error {
	switch {
	case err != nil:
		return err
	case c.json:
		return write(c.OutOrStdout(), string(a.Raw))
	default:
		return write(c.OutOrStdout(), format(a.Value))
	}
}

// done prints a line where the response of the API is empty. With --json it prints
// nothing.
func (c *call) done(err error, format string, args ...any) error {
	if err != nil || c.json {
		return err
	}
	return write(c.OutOrStdout(), fmt.Sprintf(format, args...))
}

// note prints a line on standard error, unless --json is given.
func (c *call) note(format string, args ...any) {
	if !c.json {
		fmt.Fprintf(c.ErrOrStderr(), format+"\n", args...)
	}
}

// write writes text and adds a final newline if it is missing.
func write(w io.Writer, text string) error {
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	if _, err := io.WriteString(w, text); err != nil {
		return fmt.Errorf("writing the output: %w", err)
	}
	return nil
}
