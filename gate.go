package apikey

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/internal/near"
	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

func init() {
	caddy.RegisterModule(&Gate{})
}

// Gate is the handler "apikey". It admits requests that carry a valid API key and
// refuses all others.
//
// After a gate has run, these placeholders are set. Those without a value are
// empty:
//
// Placeholder | Description
// ------------|------------
// `{http.auth.user.id}` | The owner of the key, unless it is an organization
// `{http.auth.user.organization}` | The ID of the organization that owns the key
// `{http.auth.user.key_id}` | The ID of the key
// `{http.auth.user.key_name}` | The name of the key
// `{http.auth.user.tier}` | The owner's tier
// `{http.auth.user.config}` | The configuration of the key
// `{http.auth.user.permissions}` | The permissions of the key, as "resource:action" separated by spaces
// `{http.auth.user.metadata.*}` | A top-level field of the key's metadata
// `{http.auth.candidate.id}` | After a refusal of a known key, its owner
// `{http.auth.candidate.key_id}` | The ID of that key
// `{http.auth.candidate.key_name}` | The name of that key
// `{http.auth.candidate.tier}` | The tier of its owner
// `{http.auth.candidate.config}` | The configuration of that key
// `{http.apikey.error.code}` | After a refusal, its code
// `{http.apikey.error.limit}` | After a refusal by a limit, its name, as in the rate headers
type Gate struct {
	CredentialSources

	// Configs are the configurations whose keys are accepted. A key of another
	// configuration is refused like an unknown key. Default: all.
	Configs []string `json:"configs,omitempty"`

	// Require lists permissions. A key must have all of them. Default: none.
	Require []string `json:"require,omitempty"`
	// RequireAny lists lists of permissions. A key must have at least one
	// permission of each list. Default: none.
	RequireAny [][]string `json:"require_any,omitempty"`
	// Cost is the number of credits, and of requests in rate limits, that a request
	// takes: an integer from 0, or a placeholder that holds one. With 0 a key is
	// verified and nothing is taken. Placeholders that hold what the client has sent,
	// such as a header, are refused; those of map and vars are not. Default: 1.
	Cost caddyhttp.WeakString `json:"cost,omitempty"`

	// Secret is "check" to verify X-API-Secret for keys that have a secret, or
	// "required" to also refuse keys that have none. Default: secrets are not
	// verified.
	Secret string `json:"secret,omitempty"`
	// Optional admits requests without a key as unauthenticated. A request with a
	// bad key is still refused. Default: false.
	Optional bool `json:"optional,omitempty"`
	// Preflight admits CORS preflight requests without a key. They are not charged
	// and have no identity. Default: false.
	Preflight bool `json:"preflight,omitempty"`
	// KeepKey leaves the key in the request for the next handler. Default: false.
	KeepKey bool `json:"keep_key,omitempty"`
	// Session sets the placeholders http.auth.user.*, unless the configuration of
	// the key has session off. Default: true.
	Session *bool `json:"session,omitempty"`
	// IdentityHeaders are set on the request. Headers of the same names that the
	// client has sent are always removed from requests that meet the gate; apikey_clean
	// removes them from others. Default: none.
	IdentityHeaders []IdentityHeader `json:"identity_headers,omitempty"`
	// RateHeaders selects the rate limit headers of the response: "draft" is the
	// newest version of draft-ietf-httpapi-ratelimit-headers that is known here,
	// "draft-11" always version 11, "legacy" the headers X-RateLimit-*, "both"
	// means draft and legacy, and "off" none. Default: "draft".
	RateHeaders string `json:"rate_headers,omitempty"`
	// RefundOn lists status codes of the next handlers for which the credits of the
	// request are refunded. Default: none.
	RefundOn []int `json:"refund_on,omitempty"`
	// CutOnRevoke ends responses that are running, such as streams, WebSockets and downloads,
	// within a second after the key, its owner or the raw key that the request came with was
	// disabled, deleted or expired. Other changes count from the next request. Default: false.
	CutOnRevoke bool `json:"cut_on_revoke,omitempty"`

	logger   *zap.Logger
	alarms   *zap.Logger // logger with sampling, for messages that any request may cause
	app      *App
	keys     *keyring.Service
	sources  sources
	identity identity
	request  keyring.Request // what all requests have in common
	cost     string          // a placeholder; empty: request.Cost holds
	session  bool
	ownBody  bool // no error route may see a refusal
	logged   bool // the server has access logs
}

// CaddyModule returns the Caddy module information.
func (*Gate) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.apikey", New: func() caddy.Module { return new(Gate) }}
}

// Provision compiles the options and connects the gate to the keys.
func (g *Gate) Provision(ctx caddy.Context) error {
	g.logger = ctx.Logger()
	g.alarms = sampled(g.logger)
	if err := g.provisionRequest(); err != nil {
		return err
	}
	app, err := appOf(ctx)
	if err != nil {
		return err
	}
	g.sources, g.identity = newSources(app, &g.CredentialSources), newIdentity(g.IdentityHeaders)
	if err := g.sources.checkServer(serverOf(ctx)); err != nil {
		return err
	}
	g.app, g.keys = app, app.register(ctx, handler{
		kind: gateHandler, sources: g.sources, secret: g.Secret, configs: g.Configs, identity: g.identity,
	})
	g.session = g.Session == nil || *g.Session
	g.ownBody = inSubrouteWithErrors(ctx)
	server := serverOf(ctx)
	g.logged = server != nil && server.Logs != nil
	return nil
}

// Validate implements caddy.Validator.
func (g *Gate) Validate() error {
	if err := g.check(); err != nil {
		return err
	}
	if err := errors.Join(g.checkSources(), checkKnown(g.keys, g.Configs)); err != nil {
		return err
	}
	return g.app.openOnReload()
}

// provisionRequest compiles what all requests have in common.
func (g *Gate) provisionRequest() (err error) {
	g.request = keyring.Request{
		CheckIP: true, CheckSecret: g.Secret != "", RequireSecret: g.Secret == secretRequired,
		ConfigIDs: g.Configs, CountGuess: true,
	}
	if g.request.Require, g.request.RequireAny, err = g.permissions(); err != nil {
		return err
	}
	g.request.Cost, g.cost, err = g.costs()
	return err
}

// sampled returns a logger that writes only the first few of the same message in
// a second, so that an unavailable store does not flood the logs.
func sampled(logger *zap.Logger) *zap.Logger {
	const each, first = time.Second, 5
	return logger.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
		return zapcore.NewSamplerWithOptions(core, each, first, 0)
	}))
}

// permissions parses the permissions that a key must have.
func (g *Gate) permissions() (all []key.Permission, anyOf [][]key.Permission, err error) {
	if all, err = parsePermissions(g.Require); err != nil {
		return nil, nil, err
	}
	for _, list := range g.RequireAny {
		if len(list) == 0 {
			return nil, nil, errors.New("require_any: the list is empty, so no key would be accepted")
		}
		ps, err := parsePermissions(list)
		if err != nil {
			return nil, nil, err
		}
		anyOf = append(anyOf, ps)
	}
	return all, anyOf, nil
}

func parsePermissions(list []string) ([]key.Permission, error) {
	var ps []key.Permission
	for _, s := range list {
		p, err := key.ParsePermission(s)
		if err != nil {
			return nil, fmt.Errorf("permission: %w", err)
		}
		ps = append(ps, p)
	}
	return ps, nil
}

// costs returns what a request costs, or the placeholder that holds it.
func (g *Gate) costs() (n int64, placeholder string, err error) {
	cost := string(g.Cost)
	switch {
	case cost == "":
		return 1, "", nil
	case isPlaceholder(cost):
		if hasClientPlaceholder(cost) {
			err = errors.New("cost: must not be a placeholder that holds what the client sends, such as a header, a cookie, a parameter or the path; use one that another handler sets, such as {vars.cost}")
		}
		return 0, cost, err
	}
	if n, err = parseCost(cost); err != nil {
		err = fmt.Errorf("cost: %w, or a placeholder", err)
	}
	return n, "", err
}

// ServeHTTP admits the request or refuses it.
func (g *Gate) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	g.identity.strip(r)
	repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	s := stateOf(r, repl)
	s.clean(g.identity)
	if g.logged {
		s.log(r)
	}
	c := g.extract(r, repl, s)
	if g.Preflight && api.IsPreflight(r) {
		return next.ServeHTTP(w, r)
	}
	var d keyring.Decision
	err := g.decide(r, s, &c, &d)
	switch {
	case errors.Is(err, errCost):
		g.app.identity.stripAll(r)
		return g.fail(w, r, s, &d, err)
	case d.Outcome == keyring.Missing && g.Optional:
		s.trace(r)
		return next.ServeHTTP(w, r)
	}
	writeRateHeaders(w.Header(), g.RateHeaders, &d, s.admitted)
	if d.Outcome != keyring.Allowed {
		// An error route must see neither what an earlier gate has set, nor what another
		// one or its apikey_clean would have removed.
		g.app.identity.stripAll(r)
		return g.refuse(w, r, s, &d, err)
	}
	s.admit(repl, g.keys, &d, g.session && d.Session(), g.sources.ambient())
	s.trace(r)
	g.identity.set(r, repl)
	if g.RefundOn == nil && !g.CutOnRevoke {
		return next.ServeHTTP(w, r)
	}
	return g.serveNext(w, r, next, s)
}

// extract finds the key and the secret, and removes them from the request.
func (g *Gate) extract(r *http.Request, repl *caddy.Replacer, s *requestState) choice {
	var memory [2]candidate
	c := s.choose(r.Context(), g.keys, g.sources.find(r, repl, memory[:0]), g.Optional)
	s.keyed = s.keyed || c.present
	s.findSecret(r, c.secret)
	if g.cost != "" { // it may depend on what is removed
		c.cost = repl.ReplaceAll(g.cost, "")
	}
	m := remover{&g.sources, c.raw, g.keys.Prefixes()}
	if !g.KeepKey {
		m.remove(r)
	}
	if r.Trailer != nil {
		g.filterTrailer(r, m)
	}
	return c
}

// filterTrailer removes from the trailer what extract removes from the request.
func (g *Gate) filterTrailer(r *http.Request, m remover) {
	filterTrailer(r, func(trailer http.Header) {
		g.identity.stripTrailer(trailer)
		if !g.KeepKey {
			m.removeTrailer(trailer)
		}
	})
}

// decide writes the decision about the request into d, which is zero.
func (g *Gate) decide(r *http.Request, s *requestState, c *choice, d *keyring.Decision) error {
	if c.outcome == keyring.Missing && !g.Optional && s.repeat(d) {
		return nil
	}
	q := g.request
	q.Secret, q.ClientIP, q.EarlyData, q.Counted = s.secret, s.clientIP(), isEarlyData(r), &s.counted
	if c.outcome != keyring.Allowed {
		*d = keyring.Refusal(c.outcome)
		if c.outcome != keyring.Missing || !g.Optional {
			g.keys.Refused(d, &q)
		}
		return c.err
	}
	if g.cost == "" {
		return s.verify(r.Context(), g.keys, c.raw, &q, d)
	}
	var err error
	if q.Cost, err = parseCost(c.cost); err == nil {
		return s.verify(r.Context(), g.keys, c.raw, &q, d)
	}
	// The cost is not known. A caller without a valid key is refused for that, and
	// must not be able to fill the log.
	q.Cost, q.DryRun = 0, true
	if err := s.verify(r.Context(), g.keys, c.raw, &q, d); err != nil || d.Outcome != keyring.Allowed {
		return err
	}
	return fmt.Errorf("%w: the value of %s %w", errCost, g.cost, err)
}

// isEarlyData reports whether a request came in TLS early data (RFC 8446, section
// 2.3; RFC 8470): anybody may have replayed it, and its source address is not proven.
// Several lines of the header, or another value than 1, count as 1 (RFC 8470, section
// 5.1): a client cannot disarm what a proxy adds.
func isEarlyData(r *http.Request) bool {
	return r.TLS != nil && !r.TLS.HandshakeComplete || len(r.Header["Early-Data"]) > 0
}

// errCost is the error for a cost that is not known. It names the placeholder, not
// its value.
var errCost = errors.New("cost")

func parseCost(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > key.MaxCount || s[0] < '0' || s[0] > '9' {
		return 0, fmt.Errorf("must be an integer from 0 to %d", key.MaxCount)
	}
	return n, nil
}

// serveRefunding calls the next handler and gives the credits back if it answers
// with one of the statuses that say so.
func (g *Gate) serveRefunding(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, s *requestState) error {
	sw := &statusWriter{ResponseWriterWrapper: &caddyhttp.ResponseWriterWrapper{ResponseWriter: w}}
	err := next.ServeHTTP(sw, r)
	status := sw.status
	if err != nil && status == 0 {
		status = http.StatusInternalServerError
		var herr caddyhttp.HandlerError
		if errors.As(err, &herr) && herr.StatusCode != 0 {
			status = herr.StatusCode
		}
	}
	if slices.Contains(g.RefundOn, status) {
		// The client may be gone; its credits come back all the same.
		if rerr := g.keys.Refund(context.WithoutCancel(r.Context()), &s.decision); rerr != nil {
			g.alarms.Error("credits were not given back", zap.Error(rerr), zap.String("key_id", s.decision.Key().ID))
		}
	}
	return err
}

// statusWriter remembers the final status of a response.
type statusWriter struct {
	*caddyhttp.ResponseWriterWrapper
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		w.status = status
	}
	w.ResponseWriterWrapper.WriteHeader(status)
}

func (w *statusWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriterWrapper.Write(b)
}

// check validates each field on its own. The Caddyfile parser calls it after each
// option, so that an error names the line of the option.
func (g *Gate) check() error {
	if err := g.CredentialSources.check(); err != nil {
		return err
	}
	if _, _, err := g.permissions(); err != nil {
		return err
	}
	if _, _, err := g.costs(); err != nil {
		return err
	}
	if err := checkSecret(g.Secret); err != nil {
		return err
	}
	if names := []string{rateDraft, rateDraft11, rateLegacy, rateBoth, rateOff}; g.RateHeaders != "" && !slices.Contains(names, g.RateHeaders) {
		return fmt.Errorf("rate_headers: %s", near.OneOf(g.RateHeaders, names...))
	}
	for _, status := range g.RefundOn {
		if status < 200 || status > 599 {
			return errors.New("refund_on: must be status codes from 200 to 599")
		}
	}
	return errors.Join(checkConfigList(g.Configs), checkIdentity(g.IdentityHeaders, g.Headers))
}

// checkSources validates the credential sources together with those of the app.
func (g *Gate) checkSources() error {
	if g.sources.none() {
		return errNoSource
	}
	for i := range g.identity {
		name := g.identity[i].canonical
		if slices.Contains(g.sources.headers, name) || name == "Cookie" && g.sources.cookie != "" {
			return fmt.Errorf("identity_header: %s carries a credential", name)
		}
	}
	return nil
}

func isPlaceholder(s string) bool {
	return len(s) > 2 && s[0] == '{' && strings.IndexByte(s, '}') == len(s)-1
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Gate)(nil)
	_ caddy.Validator             = (*Gate)(nil)
	_ caddyhttp.MiddlewareHandler = (*Gate)(nil)
	_ http.ResponseWriter         = (*statusWriter)(nil)
)
