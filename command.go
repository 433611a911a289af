package apikey

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
	"github.com/caddy-apikey/caddy-apikey/internal/cli"
	"github.com/caddy-apikey/caddy-apikey/store/sqlite"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "apikey",
		Usage: "COMMAND",
		Short: "Manages API keys",
		Long: `
Manages the API keys of a running Caddy through its admin endpoint.

The address of the endpoint is the first of: --address; admin in the file of
--config; the environment variable CADDY_ADMIN; localhost:2019.

Exit status: 0 for success, 1 for a refusal or failure with the reason on standard
error, 2 for wrong usage.`,
		CobraFunc: func(cmd *cobra.Command) {
			cli.Setup(cmd, cli.Host{
				Connect:       connect,
				Database:      database,
				ParseDuration: caddy.ParseDuration,
				Now:           time.Now,
				Documentation: documentation,
				WrongUsage:    exitWith(2),
			})
		},
	})
}

// documentation is where the command line is documented.
const documentation = "https://github.com/caddy-apikey/caddy-apikey/blob/main/docs/cli.md"

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
	addr, err := adminAddress(found)
	if err != nil {
		return nil, cli.WrongUsage("the address of the admin endpoint %v", err)
	}
	client := &admin.Client{Base: "http://" + addr.JoinHostPort(0), HTTP: clientOf(addr), Name: addr.JoinHostPort(0)}
	if addr.IsUnixNetwork() || addr.IsFdNetwork() {
		client.Base = "http://127.0.0.1" // not dialed, but a URL needs a host
		client.Name = found
	} else {
		client.Origin = client.Base
	}
	return client, nil
}

// database returns the database at a path, or else that of a configuration, or else the
// default one.
func database(path, config, adapter string) (*sqlite.Opener, error) {
	store := SQLite{Path: path}
	var app struct {
		Store       json.RawMessage `json:"store"`
		TablePrefix string          `json:"table_prefix"`
	}
	if config != "" {
		text, _, _, err := caddycmd.LoadConfig(config, adapter)
		if err != nil {
			return nil, fmt.Errorf("loading the configuration: %w", err)
		}
		var all struct {
			Apps map[string]json.RawMessage `json:"apps"`
		}
		err = json.Unmarshal(text, &all)
		if raw, ok := all.Apps["apikey"]; err == nil && ok {
			err = json.Unmarshal(raw, &app)
		}
		if err != nil {
			return nil, fmt.Errorf("reading the configuration: %w", err)
		}
	}
	if app.Store != nil {
		var module struct {
			Store string `json:"store"`
			SQLite
		}
		if err := json.Unmarshal(app.Store, &module); err != nil {
			return nil, fmt.Errorf("reading the configuration: store: %w", err)
		}
		if module.Store != "sqlite" {
			return nil, fmt.Errorf("the store of the configuration is %q: only a database of the store sqlite can be restored", module.Store)
		}
		store = module.SQLite
	}
	return store.sqlite(app.TablePrefix)
}

var errAddress = errors.New("must be host:port such as localhost:2019, a URL such as http://localhost:2019, or a socket such as unix//run/caddy.sock")

// adminAddress reads the address of an admin endpoint. Without a port it is Caddy's
// default port.
func adminAddress(s string) (caddy.NetworkAddress, error) {
	network, rest, isURL := strings.Cut(s, "://")
	switch network = strings.ToLower(network); {
	case isURL && network == "unix":
		s = "unix/" + rest
	case isURL:
		u, err := url.Parse(s)
		switch {
		case err != nil || u.Host == "":
			return caddy.NetworkAddress{}, errAddress
		case network == "https":
			return caddy.NetworkAddress{}, errors.New("must not begin with https: the admin endpoint speaks HTTP")
		case network != "http":
			return caddy.NetworkAddress{}, errAddress
		case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil:
			return caddy.NetworkAddress{}, errors.New("must be a URL of host and port only, such as http://localhost:2019")
		}
		s = u.Host
	}
	const defaultPort = 2019 // that of caddy.DefaultAdminListen, unless CADDY_ADMIN changes it
	addr, err := caddy.ParseNetworkAddressWithDefaults(s, "tcp", defaultPort)
	if err != nil || addr.PortRangeSize() > 1 || !addr.IsUnixNetwork() && strings.ContainsAny(addr.Host, " \t") {
		return addr, errAddress
	}
	if addr.Host == "" {
		addr.Host = "localhost"
	}
	if addr.StartPort == 0 && !addr.IsUnixNetwork() && !addr.IsFdNetwork() {
		return addr, errAddress
	}
	return addr, nil
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
