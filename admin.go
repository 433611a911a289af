package apikey

import (
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

func init() {
	caddy.RegisterModule(&adminAPI{})
}

// adminAPI is the module "admin.api.apikey": the admin API, below /apikey/ on
// Caddy's admin endpoint.
//
// Caddy makes and provisions one for each load of a configuration, before the
// apps, and keeps it in service if that load then fails. So it must hold on to
// nothing of a configuration, and look up the running app on each request.
type adminAPI struct {
	handler http.Handler
}

// CaddyModule returns the Caddy module information.
func (*adminAPI) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "admin.api.apikey", New: func() caddy.Module { return new(adminAPI) }}
}

// Provision implements caddy.Provisioner.
func (a *adminAPI) Provision(caddy.Context) error {
	a.handler = withClock(admin.New(runningService, admin.Info{
		Version: moduleVersion(),
		Report: func(err error) {
			caddy.Log().Named("admin.api.apikey").Error("request failed", zap.Error(err))
		},
	}))
	return nil
}

// Routes implements caddy.AdminRouter. One prefix takes all, so that answers to
// unknown paths and methods are ours too.
func (a *adminAPI) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{{Pattern: "/apikey/", Handler: caddy.AdminHandlerFunc(a.serve)}}
}

// serve writes errors itself: Caddy's have no room for a code and a field.
func (a *adminAPI) serve(w http.ResponseWriter, r *http.Request) error {
	a.handler.ServeHTTP(w, r)
	return nil
}

var errNotRunning = errors.New("no configuration that uses apikey is running")

// runningService returns the keys of the configuration that is in use now.
func runningService() (*keyring.Service, error) {
	app, err := caddy.ActiveContext().AppIfConfigured("apikey")
	if errors.Is(err, caddy.ErrNotConfigured) {
		return nil, errNotRunning
	}
	if err != nil {
		return nil, fmt.Errorf("the app apikey: %w", err)
	}
	return app.(*App).Service(), nil
}

// moduleVersion returns the version of this module in the running binary.
func moduleVersion() string {
	const path = "github.com/caddy-apikey/caddy-apikey"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, m := range append(info.Deps, &info.Main) {
		if m.Path != path {
			continue
		}
		if m.Replace != nil && m.Replace.Version != "" {
			return m.Replace.Version
		}
		return m.Version
	}
	return "unknown"
}

// Interface guards
var (
	_ caddy.Provisioner = (*adminAPI)(nil)
	_ caddy.AdminRouter = (*adminAPI)(nil)
)
