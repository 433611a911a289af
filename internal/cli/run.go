package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
)

// call is one execution of a subcommand.
type call struct {
	*cobra.Command
	ctx    context.Context
	client *admin.Client
	args   []string
	now    func() time.Time
	*output

	filtered bool // args are what filters have found, be it one or none
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
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	setFormats(cmd, plainFormats)
	cmd.Flags().SortFlags = false
	return cmd
}

func (h *Host) run(cmd *cobra.Command, args []string, run func(*call) error) error {
	client, err := h.connect(cmd)
	if err != nil {
		return err
	}
	c := h.call(cmd, args)
	c.client = client
	return c.explain(run(c))
}

// call returns an execution without a client.
func (h *Host) call(cmd *cobra.Command, args []string) *call {
	return &call{Command: cmd, ctx: cmd.Context(), args: distinct(args), now: h.Now, output: &h.output}
}

// connect returns a client for the flags of a command.
func (h *Host) connect(cmd *cobra.Command) (*admin.Client, error) {
	flag := func(name string) string { return cmd.Flag(name).Value.String() }
	client, err := h.Connect(flag("address"), flag("config"), flag("adapter"))
	if err == nil {
		client.Actor = h.actor
	}
	return client, err
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
	if errors.As(err, &refused) && refused.Raw != nil && h.machine() {
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
		switch {
		case speaksAnother(network.Err):
			return "what answers at this address does not speak HTTP, so it is not Caddy's admin endpoint.\n" + otherAddress
		case errors.Is(network.Err, io.EOF) || errors.Is(network.Err, syscall.ECONNRESET) || errors.Is(network.Err, syscall.EPIPE):
			return "the connection was closed without an answer: Caddy is stopping, or this is not its admin endpoint, but a server that speaks HTTPS, for example.\n" + otherAddress
		}
		return fmt.Sprintf("Caddy's admin endpoint does not answer: %v.\n"+
			"Is Caddy running, without \"admin off\", and with its admin endpoint at this address?\n"+otherAddress, network.Err)
	default:
		return err.Error()
	}
}

// speaksAnother reports whether a server answered, but not as HTTP wants it. Package
// http has no error values for that. A server that speaks before it is asked, as SSH
// and SMTP do, may be met before or after the request is sent.
func speaksAnother(err error) bool {
	return strings.Contains(err.Error(), "malformed HTTP") || strings.Contains(err.Error(), "readLoopPeekFail")
}

const otherAddress = "--address, --config or the environment variable CADDY_ADMIN names another one; the default is localhost:2019."

// explain returns a better error where the one that answered is not the admin API.
func (c *call) explain(err error) error {
	var refused *admin.APIError
	if !errors.As(err, &refused) || refused.Code != "" {
		return err
	}
	switch isAdmin := c.client.IsAdminEndpoint(c.ctx); {
	case isAdmin && refused.Status == http.StatusNotFound && refused.Raw == nil:
		return errors.New("the Caddy at this address was built without caddy-apikey")
	case isAdmin || refused.Status == http.StatusForbidden && refused.Raw != nil:
		return err // Caddy itself refuses, such as a foreign origin
	}
	what := "a web server"
	switch {
	case strings.Contains(refused.Text, "HTTPS"):
		what = "a server that speaks HTTPS"
	case refused.Server == "Caddy":
		what = "a site of Caddy"
	case refused.Server != "":
		what = "another web server (" + printable(refused.Server) + ")"
	}
	return fmt.Errorf("what answers at %s is not Caddy's admin endpoint, but %s.\n%s", c.client.Name, what, otherAddress)
}

func describeRefusal(e *admin.APIError) string {
	message := printable(e.Message)
	if e.Field == "" || strings.HasPrefix(e.Message, e.Field+":") {
		return message
	}
	return fmt.Sprintf("%s (%s)", message, printable(e.Field))
}
