package apikey

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
	"github.com/caddy-apikey/caddy-apikey/internal/cli"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "apikey",
		Usage: "<command>",
		Short: "Manages API keys",
		Long: `
Manages the API keys of a running Caddy through its admin endpoint.

Exit status: 0 for success, 1 for a refusal or failure with the reason on standard
error, 2 for wrong usage.`,
		CobraFunc: func(cmd *cobra.Command) {
			cli.Setup(cmd, cli.Host{
				Connect:       connect,
				ParseDuration: caddy.ParseDuration,
				WrongUsage:    exitWith(2),
			})
		},
	})
}

// exitWith returns an error that makes Caddy exit with the status. Only Caddy can
// create one, because its type is not exported.
func exitWith(status int) func(*cobra.Command) error {
	return func(cmd *cobra.Command) error {
		exit := caddycmd.WrapCommandFuncForCobra(func(caddycmd.Flags) (int, error) { return status, nil })
		return exit(cmd, nil)
	}
}

// connect returns a client of the admin endpoint, which it finds as Caddy's own
// commands do.
func connect(address, config, adapter string) (*admin.Client, error) {
	found, err := caddycmd.DetermineAdminAPIAddress(address, nil, config, adapter)
	if err != nil {
		return nil, fmt.Errorf("finding the address of the admin endpoint: %w", err)
	}
	addr, err := caddy.ParseNetworkAddress(found)
	if err != nil || addr.PortRangeSize() > 1 || strings.Contains(found, "://") {
		return nil, cli.WrongUsage("%q is not the address of an admin endpoint, such as localhost:2019 or unix//run/caddy.sock", found)
	}
	client := &admin.Client{Base: "http://" + addr.JoinHostPort(0), HTTP: clientOf(addr)}
	if addr.IsUnixNetwork() || addr.IsFdNetwork() {
		client.Base = "http://127.0.0.1" // not dialed, but a URL needs a host
	} else {
		client.Origin = client.Base
	}
	return client, nil
}

// clientOf returns an HTTP client that connects to one address, regardless of the URL.
// It follows no redirects, so that raw keys are not sent elsewhere.
func clientOf(addr caddy.NetworkAddress) *http.Client {
	if addr.IsUnixNetwork() {
		addr.Host, _, _ = strings.Cut(addr.Host, "|") // the socket's permissions
	}
	dialer := net.Dialer{Timeout: 5 * time.Second}
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return dialer.DialContext(ctx, addr.Network, addr.JoinHostPort(0))
			},
		},
	}
}
