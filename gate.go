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

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

func init() {
	caddy.RegisterModule(&Gate{})
}

// Gate is the handler "apikey": it lets a request through that carries a valid
// API key, and refuses every other one.
//
// Once a gate has run, these placeholders are always set, to nothing where there
// is no value:
//
// Placeholder | Description
// ------------|------------
// `{http.auth.user.id}` | The owner of the key
// `{http.auth.user.key_id}` | The ID of the key
// `{http.auth.user.key_name}` | The name of the key
// `{http.auth.user.tier}` | The owner's tier
// `{http.auth.user.config}` | The configuration of the key
// `{http.auth.user.permissions}` | The permissions of the key, as "resource:action" separated by blanks
// `{http.auth.user.metadata.*}` | A top-level field of the key's metadata
// `{http.apikey.error.code}` | After a refusal, its code
type Gate struct {
	KeyPlaces

	// Configs are the configurations whose keys the gate lets in; a key of another
	// one is unknown to it. Default: all.
	Configs []string `json:"configs,omitempty"`

	// Require lists permissions that a key must all have. Default: none.
	Require []string `json:"require,omitempty"`
	// RequireAny lists lists of permissions: a key must have one of each.
	RequireAny [][]string `json:"require_any,omitempty"`
	// Cost is how many credits and rate slots a request takes: an integer from
	// 0, or a placeholder that holds one. 0 checks and takes nothing. Default: 1.
	Cost caddyhttp.WeakString `json:"cost,omitempty"`

	// Secret is "check" to check X-API-Secret for keys that have a secret, or
	// "required" to refuse keys that have none. Default: the header is not looked at.
	Secret string `json:"secret,omitempty"`
	// Optional lets requests without a key through, unauthenticated; a bad key
	// is still refused. Default: false.
	Optional bool `json:"optional,omitempty"`
	// Preflight lets CORS preflight requests through without a key. They are
	// never charged and get no identity. Default: false.
	Preflight bool `json:"preflight,omitempty"`
	// KeepKey leaves the key in the request for the next handler. Default: false.
	KeepKey bool `json:"keep_key,omitempty"`
	// Session sets http.auth.user.*, unless the configuration of the key does not
	// allow it. Default: true.
	Session *bool `json:"session,omitempty"`
	// IdentityHeaders are set on the request, after the client's own copies were removed.
	IdentityHeaders []IdentityHeader `json:"identity_headers,omitempty"`
	// RateHeaders are "draft", "legacy", "both" or "off". Default: "draft".
	RateHeaders string `json:"rate_headers,omitempty"`
	// RefundOn lists status codes of what is behind the gate that give the
	// request's credits back, once. Default: none.
	RefundOn []int `json:"refund_on,omitempty"`

	logger   *zap.Logger
	alarms   *zap.Logger // logger, but for what may come with every request
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

// Provision checks the configuration and connects the gate to the keys.
func (g *Gate) Provision(ctx caddy.Context) error {
	g.logger = ctx.Logger()
	g.alarms = sampled(g.logger)
	if err := g.check(); err != nil {
		return err
	}
	mod, err := ctx.App("apikey")
	if err != nil {
		return fmt.Errorf("loading the apikey app: %w", err)
	}
	app := mod.(*App)
	g.keys = app.Service()
	g.places, g.identity = newPlaces(app, &g.KeyPlaces), newIdentity(g.IdentityHeaders)
	if err := errors.Join(g.checkPlaces(), checkKnown(g.keys, g.Configs)); err != nil {
		return err
	}
	g.places.shaped = func(raw string) bool { return g.keys.HasShape(raw, g.Configs) }
	app.exposed.add(ctx, &g.places, g.Secret != "")
	app.secrets.gates = append(app.secrets.gates, asking{g.Secret, g.Configs})
	g.session = g.Session == nil || *g.Session
	g.provisionRequest()
	g.ownBody = inSubrouteWithErrors(ctx)
	return nil
}

// provisionRequest fills in what all requests have in common. check has passed.
func (g *Gate) provisionRequest() {
	g.request = keyring.Request{
		Cost: 1, CheckIP: true,
		CheckSecret: g.Secret != "", RequireSecret: g.Secret == secretRequired,
		Require: permissions(g.Require), ConfigIDs: g.Configs,
	}
	for _, list := range g.RequireAny {
		g.request.RequireAny = append(g.request.RequireAny, permissions(list))
	}
	if cost := string(g.Cost); cost != "" {
		if n, err := parseCost(cost); err == nil {
			g.request.Cost = n
		} else {
			g.cost = cost
		}
	}
}

// sampled keeps a store that is away from filling the logs: of each message, the
// first few in a second are printed.
func sampled(logger *zap.Logger) *zap.Logger {
	const each, first = time.Second, 5
	return logger.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
		return zapcore.NewSamplerWithOptions(core, each, first, 0)
	}))
}

func permissions(list []string) []key.Permission {
	var ps []key.Permission
	for _, s := range list {
		p, _ := key.ParsePermission(s) // checked
		ps = append(ps, p)
	}
	return ps
}

// ServeHTTP lets the request through or refuses it.
func (g *Gate) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	g.identity.strip(r)
	repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	v := visitOf(r, repl)
	f := g.places.find(r, repl, v.admitted)
	v.keyed = v.keyed || f.count > 0
	if g.Preflight && isPreflight(r) {
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

// isPreflight tells a real CORS preflight from any other OPTIONS request.
func isPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && r.Header.Get("Origin") != "" &&
		r.Header.Get("Access-Control-Request-Method") != ""
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

// check reports what could never work. It looks at the fields alone, so that the
// Caddyfile can call it after each option and name the line.
func (g *Gate) check() error {
	if err := g.KeyPlaces.check(); err != nil {
		return err
	}
	if slices.ContainsFunc(g.RequireAny, func(list []string) bool { return len(list) == 0 }) {
		return errors.New("require_any: a list without permissions lets nobody in")
	}
	for _, list := range append([][]string{g.Require}, g.RequireAny...) {
		if _, err := key.ParsePermissions(list); err != nil {
			return fmt.Errorf("permission: %w", err)
		}
	}
	if cost := string(g.Cost); cost != "" && !isPlaceholder(cost) {
		if _, err := parseCost(cost); err != nil {
			return fmt.Errorf("cost: %w, or a placeholder", err)
		}
	}
	return errors.Join(g.checkWords(), checkConfigList(g.Configs), checkIdentity(g.IdentityHeaders, g.Headers))
}

// checkPlaces reports what could never work once it is known what the app says.
func (g *Gate) checkPlaces() error {
	if g.places.none() {
		return errNoPlace
	}
	for i := range g.identity {
		name := g.identity[i].canonical
		if slices.Contains(g.places.headers, name) || name == "Cookie" && g.places.cookie != "" {
			return fmt.Errorf("identity_header: %s is the place of a credential", name)
		}
	}
	return nil
}

func (g *Gate) checkWords() error {
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
	return nil
}

func isPlaceholder(s string) bool {
	return len(s) > 2 && s[0] == '{' && strings.IndexByte(s, '}') == len(s)-1
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Gate)(nil)
	_ caddyhttp.MiddlewareHandler = (*Gate)(nil)
	_ http.ResponseWriter         = (*statusWriter)(nil)
)
