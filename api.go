package apikey

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/internal/api/betterauth"
	"github.com/caddy-apikey/caddy-apikey/internal/api/leaks"
	"github.com/caddy-apikey/caddy-apikey/internal/api/rest"
	"github.com/caddy-apikey/caddy-apikey/internal/near"
	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

func init() {
	caddy.RegisterModule(&SelfService{})
}

// SelfService is the handler "apikey_api", an API with which people and keys manage
// the keys of their own owner. Requests for other paths go to the next handler.
//
// A valid key identifies the caller. Only if a request carries no key, an identity
// that another handler has set identifies the caller. Identities in headers and
// bodies are never trusted.
type SelfService struct {
	// Dialect is "rest" or "better_auth". Default: "rest".
	Dialect string `json:"dialect,omitempty"`
	// Base is the path prefix of the API.
	// Default: "/v1/auth" for rest, "/api/auth" for better_auth.
	Base string `json:"base,omitempty"`

	CredentialSources

	// Secret is "check" to verify X-API-Secret for keys that have a secret, or
	// "required" to also refuse keys that have none. If a gate verifies secrets, set
	// the same here: otherwise a key alone can create another key with its own
	// secret. Default: secrets are not verified.
	Secret string `json:"secret,omitempty"`
	// User is a placeholder that holds the identity of a person, such as
	// {http.auth.user.id}, for requests without a key. Placeholders that hold what
	// the client has sent, such as a header, are refused. A placeholder that reads a
	// client certificate is empty unless the server has verified the certificate
	// against an authority. Default: none, only keys may call.
	User string `json:"user,omitempty"`
	// Grant lists the permissions that such a person has and may give to keys.
	// Default: read, write.
	Grant []string `json:"grant,omitempty"`
	// Message is the message in the response that creates a key. Only for rest.
	// Default: a sentence saying that the secret is shown only once.
	Message string `json:"message,omitempty"`
	// Extended serves more than the plain dialect: expiry, last use and credits of keys,
	// pages of lists, and calls that change and rotate a key. Only for rest. Default: off.
	Extended bool `json:"extended,omitempty"`
	// Configs are the configurations whose keys may call, and are listed and
	// created. A key creates keys in its own configuration, a person in the first
	// of these. Default: all, and "default" for people.
	Configs []string `json:"configs,omitempty"`
	// TrustedOrigins lists other origins, such as "https://app.example.com", whose
	// pages may call from a browser. Default: none.
	TrustedOrigins []string `json:"trusted_origins,omitempty"`
	// Organization lets people act for an organization. Only for better_auth.
	// Default: none, all keys belong to users.
	Organization *Organization `json:"organization,omitempty"`

	// LeakReports is the path, from the root of the site, at which anybody may report a
	// raw key that has leaked. A route must lead there without a gate. Default: reports
	// are not taken; the Caddyfile option without a path means /.well-known/apikey/leak.
	LeakReports string `json:"leak_reports,omitempty"`

	logger  *zap.Logger
	alarms  *zap.Logger // logger with sampling, for messages that any request may cause
	app     *App
	keys    *keyring.Service
	sources sources
	grant   key.Permissions
	origins *api.Origins
	api     *api.API
	leaks   *api.API // nil: leaks are not reported here
}

// dialects are what an API may speak: the default base of each, and how it is made.
var dialects = map[string]struct {
	base string
	open func(*SelfService, api.Mount) *api.API
}{
	"rest": {"/v1/auth", func(s *SelfService, m api.Mount) *api.API {
		return rest.New(m, rest.Options{Message: s.Message, Extended: s.Extended})
	}},
	"better_auth": {"/api/auth", func(s *SelfService, m api.Mount) *api.API {
		return betterauth.New(m, betterauth.Options{Organization: s.Organization.rules(), Now: now})
	}},
}

const defaultDialect = "rest"

// bodyTimeout is how long the body of a call may take.
const bodyTimeout = 30 * time.Second

// CaddyModule returns the Caddy module information.
func (*SelfService) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.apikey_api", New: func() caddy.Module { return new(SelfService) }}
}

// Provision compiles the options and connects the API to the keys.
func (s *SelfService) Provision(ctx caddy.Context) error {
	s.logger = ctx.Logger()
	s.alarms = sampled(s.logger)
	granted, err := s.granted()
	if err = errors.Join(err, s.checkDialect(), s.checkLeakReports()); err != nil {
		return err
	}
	app, err := appOf(ctx)
	if err != nil {
		return err
	}
	s.sources = newSources(app, &s.CredentialSources)
	if err := s.sources.checkServer(serverOf(ctx)); err != nil {
		return err
	}
	s.app, s.keys = app, app.register(ctx, handler{
		kind: apiHandler, sources: s.sources, secret: s.Secret, configs: s.Configs, organizations: s.Organization.configs(),
	})
	s.grant = api.Grantable(granted)
	s.origins = api.NewOrigins(s.TrustedOrigins, s.credentialHeaders())
	d := dialects[s.dialectName()]
	base := d.base
	if s.Base != "" {
		base = strings.TrimSuffix(s.Base, "/")
	}
	mount := api.Mount{
		BodyTimeout: bodyTimeout,
		Keys:        func() (*keyring.Service, error) { return s.keys, nil },
		Report:      func(err error) { s.alarms.Error("a call failed", zap.Error(err)) },
	}
	if s.LeakReports != "" {
		mount.Identify = s.reporter
		s.leaks = leaks.New(mount, s.LeakReports)
	}
	mount.Base, mount.Configs, mount.Identify, mount.Origins = base, s.Configs, s.identify, s.origins
	s.api = d.open(s, mount)
	return nil
}

// Validate implements caddy.Validator.
func (s *SelfService) Validate() error {
	if err := s.check(); err != nil {
		return err
	}
	if err := s.checkTogether(); err != nil {
		return err
	}
	if err := s.checkLeakPath(); err != nil {
		return err
	}
	if s.sources.none() {
		return errNoSource
	}
	if err := checkKnown(s.keys, s.Configs); err != nil {
		return err
	}
	if s.Organization != nil {
		if err := checkKnown(s.keys, s.Organization.Configs); err != nil {
			return fmt.Errorf("organization: %w", err)
		}
	}
	return s.app.openOnReload()
}

func (s *SelfService) dialectName() string {
	if s.Dialect == "" {
		return defaultDialect
	}
	return s.Dialect
}

// credentialHeaders returns the headers in which a caller sends a key and a secret.
func (s *SelfService) credentialHeaders() []string {
	if s.Secret == "" {
		return s.sources.headers
	}
	return append(slices.Clone(s.sources.headers), secretHeader)
}

// granted returns the permissions of people.
func (s *SelfService) granted() (key.Permissions, error) {
	if s.Grant == nil {
		return key.Permissions{key.DefaultResource: {api.Read, api.Write}}, nil
	}
	p, err := key.ParsePermissions(s.Grant)
	if err != nil {
		return nil, fmt.Errorf("grant: %w", err)
	}
	return p, nil
}

// ServeHTTP answers requests for paths of the API.
func (s *SelfService) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if s.leaks != nil && s.leaks.Handle(w, r) || s.api.Handle(w, r) {
		return nil
	}
	return next.ServeHTTP(w, r)
}

// check validates each field on its own. The Caddyfile parser calls it after each
// option, so that an error names the line of the option.
func (s *SelfService) check() error {
	if err := s.CredentialSources.check(); err != nil {
		return err
	}
	if err := errors.Join(s.checkDialect(), s.checkLeakReports()); err != nil {
		return err
	}
	if err := checkSecret(s.Secret); err != nil {
		return err
	}
	if s.User != "" {
		if err := checkIdentityPlaceholder(s.User); err != nil {
			return fmt.Errorf("user: %w", err)
		}
	}
	if _, err := s.granted(); err != nil {
		return err
	}
	return errors.Join(checkConfigList(s.Configs), api.CheckOrigins(s.TrustedOrigins), s.Organization.check())
}

// checkDialect validates the options that Provision needs to create the dialect.
func (s *SelfService) checkDialect() error {
	if _, ok := dialects[s.dialectName()]; !ok {
		return fmt.Errorf("dialect: %s", near.OneOf(s.Dialect, dialectNames()...))
	}
	if s.Base != "" && !isBase(s.Base) {
		return errors.New("base: must be a path such as /v1/auth, without a trailing slash")
	}
	return nil
}

// checkTogether validates the options in combination.
func (s *SelfService) checkTogether() error {
	switch {
	case s.Grant != nil && s.User == "":
		return errors.New("grant: requires user, because it grants permissions to people")
	case s.Message != "" && s.dialectName() != "rest":
		return errors.New("message: only available with dialect rest")
	case s.Extended && s.dialectName() != "rest":
		return errors.New("extended: only available with dialect rest")
	}
	return s.Organization.checkTogether(s)
}

func dialectNames() (names []string) {
	for name := range dialects {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// isBase reports whether base can be the beginning of the path of a request.
func isBase(base string) bool {
	if base == "/" {
		return true
	}
	u, err := url.Parse(base)
	if err != nil || u.Path != base || strings.ContainsAny(base, "{}*%") {
		return false
	}
	segments := strings.Split(base, "/")
	return segments[0] == "" && len(segments) > 1 && !slices.ContainsFunc(segments[1:], func(s string) bool {
		return s == "" || s == "." || s == ".."
	})
}

// Interface guards
var (
	_ caddy.Provisioner           = (*SelfService)(nil)
	_ caddy.Validator             = (*SelfService)(nil)
	_ caddyhttp.MiddlewareHandler = (*SelfService)(nil)
)
