package apikey

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// startedAt is when the process started, more exactly: when Go initialized this
// package.
var startedAt = api.TimeOf(time.Now().UnixMilli())

func init() {
	caddy.RegisterModule(&adminAPI{})
}

// adminAPI is the module "admin.api.apikey": the admin API, below /apikey/ on
// Caddy's admin endpoint.
//
// Caddy provisions one each time it loads a configuration, before the apps, and
// keeps it in service if loading then fails. It must therefore keep nothing of a
// configuration, and look up the running app for each request.
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
		Process: admin.Process{PID: int64(os.Getpid()), StartedAt: startedAt},
		Report: func(err error) {
			caddy.Log().Named("admin.api.apikey").Error("request failed", zap.Error(err))
		},
	}))
	return nil
}

// Routes implements caddy.AdminRouter. One route takes the whole prefix, so that
// unknown paths and methods also get an answer in the format of this API.
func (a *adminAPI) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{{Pattern: "/apikey/", Handler: caddy.AdminHandlerFunc(a.serve)}}
}

// serve writes errors itself, because those of Caddy have no code and no field.
func (a *adminAPI) serve(w http.ResponseWriter, r *http.Request) error {
	a.handler.ServeHTTP(w, r)
	return nil
}

var errNotRunning = errors.New("no configuration that uses apikey is running")

// runningService returns the keyring of the configuration that is running.
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

// Interface guards
var (
	_ caddy.Provisioner = (*adminAPI)(nil)
	_ caddy.AdminRouter = (*adminAPI)(nil)
)
