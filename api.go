package apikey

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/internal/api/betterauth"
	"github.com/caddy-apikey/caddy-apikey/internal/api/rest"
	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

func init() {
	caddy.RegisterModule(&SelfService{})
}

// SelfService is the handler "apikey_api": an API with which people and keys manage
// the keys of their own owner. Requests for other paths go to the next handler.
//
// Who calls is told by a valid key, or, only where no key was presented, by an
// identity that another handler has set. It is never taken from a header or a body.
type SelfService struct {
	// Dialect is "rest" or "better_auth". Default: "rest".
	Dialect string `json:"dialect,omitempty"`
	// Base is the path in front of those of the dialect.
	// Default: "/v1/auth" for rest, "/api/auth" for better_auth.
	Base string `json:"base,omitempty"`

	KeyPlaces

	// Secret is "check" to check X-API-Secret for keys that have a secret, or
	// "required" to refuse keys that have none. Where a gate asks for secrets, this
	// should too: else the key alone can make another one, with a secret of its own.
	// Default: the header is not looked at.
	Secret string `json:"secret,omitempty"`
	// User is a placeholder that holds the identity of a person, such as
	// {http.auth.user.id}, for requests without a key. One that holds what the client
	// has sent, such as a header, is refused, and one that reads a client certificate
	// holds nothing unless the server has verified that against an authority.
	// Default: none, only keys may call.
	User string `json:"user,omitempty"`
	// Grant lists the permissions that such a person has, and may give to keys.
	// Default: read, write.
	Grant []string `json:"grant,omitempty"`
	// Message is the sentence in the answer to creating a key. Only for rest.
	// Default: it says that the secret is shown only once.
	Message string `json:"message,omitempty"`
	// Configs are the configurations whose keys may call, and are shown and made. What
	// a key makes belongs to the configuration of that key, what a person makes to the
	// first of these. Default: all, and "default" for people.
	Configs []string `json:"configs,omitempty"`
	// TrustedOrigins lists other origins, such as "https://app.example.com", whose
	// pages may call from a browser. Default: none.
	TrustedOrigins []string `json:"trusted_origins,omitempty"`
	// Organization lets people act for an organization. Only for better_auth.
	// Default: none, all keys belong to users.
	Organization *Organization `json:"organization,omitempty"`

	logger  *zap.Logger
	alarms  *zap.Logger // logger, but for what may come with every request
	keys    *keyring.Service
	places  places
	grant   key.Permissions
	origins *api.Origins
	api     *api.API
}

// dialects are what an API may speak: the default base of each, and how it is made.
var dialects = map[string]struct {
	base string
	open func(*SelfService, api.Mount) *api.API
}{
	"rest": {"/v1/auth", func(s *SelfService, m api.Mount) *api.API { return rest.New(m, s.Message) }},
	"better_auth": {"/api/auth", func(s *SelfService, m api.Mount) *api.API {
		return betterauth.New(m, betterauth.Options{Organization: s.Organization.rules(), Now: now})
	}},
}

const defaultDialect = "rest"

// CaddyModule returns the Caddy module information.
func (*SelfService) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.apikey_api", New: func() caddy.Module { return new(SelfService) }}
}

// Provision compiles the options and connects the API to the keys.
func (s *SelfService) Provision(ctx caddy.Context) error {
	s.logger = ctx.Logger()
	s.alarms = sampled(s.logger)
	granted, err := s.granted()
	if err = errors.Join(err, s.checkPaths()); err != nil {
		return err
	}
	mod, err := ctx.App("apikey")
	if err != nil {
		return fmt.Errorf("loading the apikey app: %w", err)
	}
	app := mod.(*App)
	if s.keys, err = app.connect(); err != nil {
		return err
	}
	s.places = newPlaces(app, &s.KeyPlaces)
	s.places.shaped = func(raw string) bool { return s.keys.HasShape(raw, s.Configs) }
	app.exposed.add(&s.places, s.Secret != "")
	app.secrets.apis = append(app.secrets.apis, asking{s.Secret, s.Configs})
	s.grant = api.Grantable(granted)
	s.origins = api.NewOrigins(s.TrustedOrigins, s.credentialHeaders())
	d := dialects[s.dialectName()]
	base := d.base
	if s.Base != "" {
		base = strings.TrimSuffix(s.Base, "/")
	}
	s.api = d.open(s, api.Mount{
		Base: base, Configs: s.Configs, Identify: s.identify, Origins: s.origins,
		Keys:   func() (*keyring.Service, error) { return s.keys, nil },
		Report: func(err error) { s.alarms.Error("a call failed", zap.Error(err)) },
	})
	return nil
}

// Validate implements caddy.Validator.
func (s *SelfService) Validate() error {
	if err := s.check(); err != nil {
		return err
	}
	if err := s.checkWhole(); err != nil {
		return err
	}
	if s.places.none() {
		return errNoPlace
	}
	if err := checkKnown(s.keys, s.Configs); err != nil {
		return err
	}
	if s.Organization != nil {
		if err := checkKnown(s.keys, s.Organization.Configs); err != nil {
			return fmt.Errorf("organization: %w", err)
		}
	}
	return nil
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
		return s.places.headers
	}
	return append(slices.Clone(s.places.headers), secretHeader)
}

// granted returns the permissions of a person.
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

// ServeHTTP answers the requests that are for the API.
func (s *SelfService) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if s.api.Handle(w, r) {
		return nil
	}
	return next.ServeHTTP(w, r)
}

// check validates each field on its own. The Caddyfile parser calls it after each
// option, so that an error names the line of the option.
func (s *SelfService) check() error {
	if err := s.KeyPlaces.check(); err != nil {
		return err
	}
	if err := s.checkPaths(); err != nil {
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

// checkPaths validates what a dialect is made with.
func (s *SelfService) checkPaths() error {
	if _, ok := dialects[s.dialectName()]; !ok {
		return fmt.Errorf("dialect: must be one of %s", strings.Join(dialectNames(), ", "))
	}
	if s.Base != "" && !isBase(s.Base) {
		return errors.New("base: must be a path such as /v1/auth, without a slash at its end")
	}
	return nil
}

// checkWhole validates the options together.
func (s *SelfService) checkWhole() error {
	switch {
	case s.Grant != nil && s.User == "":
		return errors.New("grant: says what a person may do, so it needs user")
	case s.Message != "" && s.dialectName() != "rest":
		return errors.New("message: is for the dialect rest only")
	}
	return s.Organization.checkWhole(s)
}

func dialectNames() (names []string) {
	for name := range dialects {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// isBase reports whether requests can have a path that begins so.
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
