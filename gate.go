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
// `{http.auth.user.id}` | The owner of the key
// `{http.auth.user.key_id}` | The ID of the key
// `{http.auth.user.key_name}` | The name of the key
// `{http.auth.user.tier}` | The owner's tier
// `{http.auth.user.config}` | The configuration of the key
// `{http.auth.user.permissions}` | The permissions of the key, as "resource:action" separated by spaces
// `{http.auth.user.metadata.*}` | A top-level field of the key's metadata
// `{http.apikey.error.code}` | After a refusal, its code
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
	// verified and nothing is taken. Default: 1.
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
	// client has sent are always removed. Default: none.
	IdentityHeaders []IdentityHeader `json:"identity_headers,omitempty"`
	// RateHeaders selects the rate limit headers of the response: "draft",
	// "legacy", "both" or "off". Default: "draft".
	RateHeaders string `json:"rate_headers,omitempty"`
	// RefundOn lists status codes of the next handlers for which the credits of the
	// request are refunded. Default: none.
	RefundOn []int `json:"refund_on,omitempty"`

	logger   *zap.Logger
	alarms   *zap.Logger // logger with sampling, for messages that any request may cause
	keys     *keyring.Service
	places   places
	identity identity
	request  keyring.Request // what all requests have in common
	cost     string          // a placeholder; empty: request.Cost holds
	session  bool
	ownBody  bool // no error route may see a refusal
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
	g.places, g.identity = newPlaces(app, &g.CredentialSources), newIdentity(g.IdentityHeaders)
	g.keys, err = app.register(ctx, handler{kind: gateHandler, places: g.places, secret: g.Secret, configs: g.Configs})
	if err != nil {
		return err
	}
	g.places.shaped = func(raw string) bool { return g.keys.HasShape(raw, g.Configs) }
	g.session = g.Session == nil || *g.Session
	g.ownBody = inSubrouteWithErrors(ctx)
	return nil
}

// Validate implements caddy.Validator.
func (g *Gate) Validate() error {
	if err := g.check(); err != nil {
		return err
	}
	return errors.Join(g.checkSources(), checkKnown(g.keys, g.Configs))
}

// provisionRequest compiles what all requests have in common.
func (g *Gate) provisionRequest() (err error) {
	g.request = keyring.Request{
		CheckIP: true, CheckSecret: g.Secret != "", RequireSecret: g.Secret == secretRequired,
		ConfigIDs: g.Configs,
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
	if _, err := key.ParsePermissions(list); err != nil {
		return nil, fmt.Errorf("permission: %w", err)
	}
	var ps []key.Permission
	for _, s := range list {
		p, _ := key.ParsePermission(s) // valid: ParsePermissions has accepted it
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
		return 0, cost, nil
	}
	if n, err = parseCost(cost); err != nil {
		err = fmt.Errorf("cost: %w, or a placeholder", err)
	}
	return n, "", err
}

// ServeHTTP lets the request through or refuses it.
func (g *Gate) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	g.identity.strip(r)
	repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	v := visitOf(r, repl)
	f := g.places.find(r, repl, v.admitted)
	v.keyed = v.keyed || f.count > 0
	if g.Preflight && api.IsPreflight(r) {
		g.clean(r, f)
		return next.ServeHTTP(w, r)
	}
	var d keyring.Decision
	err := g.decide(r, repl, v, f, &d)
	if errors.Is(err, errCost) {
		v.withdraw(r, g.keys, g.alarms, keyring.Unavailable) // for no fault of the caller's
		g.clean(r, f)
		g.alarms.Error("the request was refused", zap.Error(err))
		if g.mustAnswer(r) {
			w.WriteHeader(http.StatusInternalServerError)
			return nil
		}
		return caddyhttp.Error(http.StatusInternalServerError, err)
	}
	if d.Outcome == keyring.Missing && g.Optional {
		g.clean(r, f)
		return next.ServeHTTP(w, r)
	}
	writeRateHeaders(w.Header(), g.RateHeaders, d.Limits, v.admitted)
	if d.Outcome != keyring.Allowed {
		v.withdraw(r, g.keys, g.alarms, d.Outcome)
		g.clean(r, f)
		return g.refuse(w, r, v, &d, err)
	}
	v.admit(repl, &d, g.session && d.Session(), g.places.ambient())
	g.identity.set(r, repl)
	g.clean(r, f)
	if g.RefundOn == nil {
		return next.ServeHTTP(w, r)
	}
	return g.serveRefunding(w, r, next, v)
}

// decide asks the keyring. Where another gate has let the request in before, its
// decision holds, and only what is new here is checked and taken.
func (g *Gate) decide(r *http.Request, repl *caddy.Replacer, v *visit, f found, d *keyring.Decision) error {
	if d.Outcome = v.presented(f); d.Outcome != keyring.Allowed {
		return nil
	}
	q := g.request
	if q.CheckSecret {
		q.Secret = v.secretOf(r)
	}
	q.ClientIP = v.clientIP()
	q.Counted = &v.counted
	if g.cost != "" {
		n, err := parseCost(repl.ReplaceAll(g.cost, ""))
		if err != nil {
			return g.costless(r, v, f, &q, d)
		}
		q.Cost = n
	}
	return v.ask(r.Context(), g.keys, f, &q, d)
}

// costless decides where the cost cannot be told: a caller without a good key
// hears about the key, and takes no part in our log.
func (g *Gate) costless(r *http.Request, v *visit, f found, q *keyring.Request, d *keyring.Decision) error {
	q.Cost, q.DryRun = 0, true
	err := v.ask(r.Context(), g.keys, f, q, d)
	if err == nil && d.Outcome == keyring.Allowed {
		err = fmt.Errorf("%w: %q gives no integer from 0 on", errCost, g.cost)
	}
	return err
}

// errCost is a cost that cannot be told. It names the placeholder, not its value.
var errCost = errors.New("cost of the request")

func parseCost(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > key.MaxCount || s[0] < '0' || s[0] > '9' {
		return 0, fmt.Errorf("must be an integer from 0 to %d", key.MaxCount)
	}
	return n, nil
}

// clean removes the key and the secret from the request.
func (g *Gate) clean(r *http.Request, f found) {
	if g.KeepKey {
		return
	}
	g.places.remove(r, f)
	if g.request.CheckSecret {
		delete(r.Header, secretHeader)
	}
}

// serveRefunding calls the next handler and gives the credits back if it answers
// with one of the statuses that say so.
func (g *Gate) serveRefunding(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, v *visit) error {
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
		if rerr := g.keys.Refund(context.WithoutCancel(r.Context()), &v.decision); rerr != nil {
			g.alarms.Error("credits were not given back", zap.Error(rerr), zap.String("key_id", v.decision.Key().ID))
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
	if !slices.Contains([]string{"", rateDraft, rateLegacy, rateBoth, rateOff}, g.RateHeaders) {
		return fmt.Errorf("rate_headers: must be %s, %s, %s or %s", rateDraft, rateLegacy, rateBoth, rateOff)
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
	if g.places.none() {
		return errNoSource
	}
	for i := range g.identity {
		name := g.identity[i].canonical
		if slices.Contains(g.places.headers, name) || name == "Cookie" && g.places.cookie != "" {
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
