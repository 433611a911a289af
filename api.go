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

	"github.com/caddy-apikey/caddy-apikey/internal/api/betterauth"
	"github.com/caddy-apikey/caddy-apikey/internal/api/rest"
	"github.com/caddy-apikey/caddy-apikey/internal/caller"
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
	origins origins
	dialect dialect
}

// dialect is one of the languages that the API speaks.
type dialect interface {
	// Methods returns the methods that the dialect answers at the path of r, HEAD
	// included; none where the request is for somebody else.
	Methods(r *http.Request) []string
	// Serve answers a request for which Methods gave some, whatever its method.
	Serve(w http.ResponseWriter, r *http.Request, identify caller.Identify)
}

// dialects are what an API may speak.
var dialects = map[string]struct {
	base string // default
	make func(s *SelfService, base string) (dialect, error)
}{
	"rest":        {"/v1/auth", (*SelfService).newREST},
	"better_auth": {"/api/auth", (*SelfService).newBetterAuth},
}

const defaultDialect = "rest"

// CaddyModule returns the Caddy module information.
func (*SelfService) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.apikey_api", New: func() caddy.Module { return new(SelfService) }}
}

// Provision checks the configuration and connects the API to the keys.
func (s *SelfService) Provision(ctx caddy.Context) error {
	s.logger = ctx.Logger()
	s.alarms = sampled(s.logger)
	if err := errors.Join(s.check(), s.checkWhole()); err != nil {
		return err
	}
	mod, err := ctx.App("apikey")
	if err != nil {
		return fmt.Errorf("loading the apikey app: %w", err)
	}
	app := mod.(*App)
	s.keys = app.Service()
	if s.places = newPlaces(app, &s.KeyPlaces); s.places.none() {
		return errNoPlace
	}
	if err := checkKnown(s.keys, s.Configs); err != nil {
		return err
	}
	s.places.shaped = func(raw string) bool { return s.keys.HasShape(raw, s.Configs) }
	app.exposed.add(ctx, &s.places, s.Secret != "")
	app.secrets.apis = append(app.secrets.apis, asking{s.Secret, s.Configs})
	s.grant = caller.Grantable(s.granted())
	s.origins = newOrigins(s.TrustedOrigins, s.credentialHeaders())
	d := dialects[s.dialectName()]
	base := d.base
	if s.Base != "" {
		base = strings.TrimSuffix(s.Base, "/")
	}
	s.dialect, err = d.make(s, base)
	return err
}

func (s *SelfService) newREST(base string) (dialect, error) {
	return rest.New(s.keys, rest.Options{
		Base: base, Message: s.Message, Configs: s.Configs,
		Report: func(err error) { s.alarms.Error("a call failed", zap.Error(err)) },
	}), nil
}

func (s *SelfService) newBetterAuth(base string) (dialect, error) {
	organization := s.Organization.rules()
	if organization != nil {
		if err := checkKnown(s.keys, organization.Configs); err != nil {
			return nil, fmt.Errorf("organization: %w", err)
		}
	}
	return betterauth.New(s.keys, betterauth.Options{
		Base: base, Configs: s.Configs, Organization: organization, Now: now,
		Report: func(err error) { s.alarms.Error("a call failed", zap.Error(err)) },
	}), nil
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
func (s *SelfService) granted() key.Permissions {
	if s.Grant == nil {
		return key.Permissions{key.DefaultResource: {caller.Read, caller.Write}}
	}
	p, _ := key.ParsePermissions(s.Grant) // checked
	return p
}

// ServeHTTP answers the requests that are for the API.
func (s *SelfService) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	methods := s.dialect.Methods(r)
	if methods == nil {
		return next.ServeHTTP(w, r)
	}
	// What keys there are is nobody else's business, and some answers hold one.
	w.Header().Set("Cache-Control", "no-store")
	if s.origins.serve(w, r, methods) {
		return nil
	}
	s.dialect.Serve(w, r, s.identify)
	return nil
}

// check reports what could never work. It looks at the fields alone, so that the
// Caddyfile can call it after each option and name the line.
func (s *SelfService) check() error {
	if err := s.KeyPlaces.check(); err != nil {
		return err
	}
	if _, ok := dialects[s.dialectName()]; !ok {
		return fmt.Errorf("dialect: must be one of %s", strings.Join(dialectNames(), ", "))
	}
	if err := checkSecret(s.Secret); err != nil {
		return err
	}
	if s.Base != "" && !isBase(s.Base) {
		return errors.New("base: must be a path such as /v1/auth, without a slash at its end")
	}
	if s.User != "" {
		if err := checkIdentityPlaceholder(s.User); err != nil {
			return fmt.Errorf("user: %w", err)
		}
	}
	if _, err := key.ParsePermissions(s.Grant); err != nil {
		return fmt.Errorf("grant: %w", err)
	}
	return errors.Join(checkConfigList(s.Configs), checkOrigins(s.TrustedOrigins), s.Organization.check())
}

// checkWhole reports options that do nothing without, or beside, another.
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
	_ caddyhttp.MiddlewareHandler = (*SelfService)(nil)
	_ dialect                     = (*rest.Handler)(nil)
	_ dialect                     = (*betterauth.Handler)(nil)
)
