package apikey

import (
	"context"
	"fmt"
	"runtime"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-apikey/caddy-apikey/keyring"
	"github.com/caddy-apikey/caddy-apikey/redact"
	"github.com/caddy-apikey/caddy-apikey/store/sqlite"
)

// handler is what the app must know of a gate or a self-service API to warn about
// options that are unsafe together.
type handler struct {
	kind     handlerKind
	sources  sources
	secret   string   // the option
	configs  []string // nil: all
	identity identity
	// organizations are the configurations whose keys belong to organizations.
	organizations []string
	// logCredentials is the option log_credentials of the server.
	logCredentials bool
}

type handlerKind int

const (
	gateHandler handlerKind = iota
	apiHandler
)

// appOf returns the app of the configuration that is being provisioned.
func appOf(ctx caddy.Context) (*App, error) {
	mod, err := ctx.App("apikey")
	if err != nil {
		return nil, fmt.Errorf("loading the apikey app: %w", err)
	}
	return mod.(*App), nil
}

// serverOf returns the HTTP server whose handler is being provisioned, or nil.
func serverOf(ctx caddy.Context) *caddyhttp.Server {
	server, _ := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	return server
}

// register adds a handler that is being provisioned with ctx, has logs mask the values
// in the places that it reads, and returns the keyring for it.
func (a *App) register(ctx caddy.Context, h handler) *keyring.Service {
	if server := serverOf(ctx); server != nil && server.Logs != nil {
		h.logCredentials = server.Logs.ShouldLogCredentials
	}
	a.handlers = append(a.handlers, h)
	a.identity = append(a.identity, h.identity.without(a.identity)...)
	// Nothing uses the settings before all handlers are provisioned.
	a.settings.Organizations = append(a.settings.Organizations, h.organizations...)
	// Requests that have begun under a configuration are logged after it has been
	// replaced. Their handlers lead to the app, so what it reads is masked until the app
	// is unreachable.
	withdraw := redact.Publish(h.requests().Places)
	runtime.AddCleanup(a, func(f func()) { f() }, withdraw)
	return a.service
}

// openOnReload opens the store on a reload. A handler calls it once its own options are
// valid. Caddy starts apps in random order, so the HTTP servers may serve the new
// configuration before Start runs: the store must be open by then, and if it cannot be
// opened, the reload must fail.
func (a *App) openOnReload() error {
	if caddy.ActiveContext().Context == nil {
		return nil
	}
	return a.engine.Open(context.Background())
}

// warn logs what is unsafe in the configuration as a whole.
func (a *App) warn() {
	logs, err := redact.Uncovered(a.ctx, a.requests(), a.service.Checksums())
	warnUncovered(a.logger, logs, err)
	a.warnServers()
	if weakSecrets(a.handlers) {
		a.logger.Warn(`an apikey_api checks secrets less strictly than a gate for the same keys: a key alone can create another key with its own secret; set the option "secret" of apikey_api as in the gate`)
	}
	for _, warning := range []string{sqlite.BuildWarning(), caddyWarning(versionOf(caddyModule))} {
		if warning != "" {
			a.logger.Warn(warning)
		}
	}
}

// requests returns the requests that carry credentials for the handlers.
func (a *App) requests() []redact.Requests {
	list := make([]redact.Requests, len(a.handlers))
	for i := range a.handlers {
		list[i] = a.handlers[i].requests()
	}
	return list
}

func (h *handler) requests() redact.Requests {
	r := redact.Requests{Credentials: h.logCredentials}
	r.Headers = slices.Clone(h.sources.headers)
	if h.secret != "" {
		r.Headers = append(r.Headers, secretHeader)
	}
	if len(h.sources.schemes) > 0 {
		r.Headers = append(r.Headers, "Authorization")
	}
	if name := h.sources.query; name != "" {
		r.Query = []string{name}
	}
	if name := h.sources.cookie; name != "" {
		r.Cookies = []string{name}
	}
	if name := h.sources.from; name != "" {
		r.From = []string{name}
	}
	return r
}

// warnUncovered warns about logs that would contain keys.
func warnUncovered(logger *zap.Logger, logs []redact.Log, err error) {
	if err != nil {
		logger.Warn(`cannot tell which logs would print API keys: make sure that each has "format apikey_redact"`, zap.Error(err))
	}
	for _, log := range logs {
		logger.Warn(`API keys would be printed in a log: give it "format apikey_redact"; with that format, only keys with a checksum are masked `+
			`where "from" reads anything but a header, a cookie, a query parameter or a segment of the path`,
			zap.String("log", log.Name), zap.Strings("headers", log.Headers), zap.Strings("query", log.Query),
			zap.Strings("cookies", log.Cookies), zap.Strings("from", log.From))
	}
}

// weakSecrets reports whether an API is less strict than a gate for the same keys.
func weakSecrets(handlers []handler) bool {
	for _, gate := range handlers {
		for _, api := range handlers {
			if gate.kind == gateHandler && api.kind == apiHandler &&
				slices.Index(secretOptions, api.secret) < slices.Index(secretOptions, gate.secret) && overlap(gate.configs, api.configs) {
				return true
			}
		}
	}
	return false
}

// overlap reports whether two lists of configurations, nil for all, have one in
// common.
func overlap(a, b []string) bool {
	return a == nil || b == nil || slices.ContainsFunc(a, func(id string) bool { return slices.Contains(b, id) })
}
