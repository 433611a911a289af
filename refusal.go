package apikey

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// problem is the body of a refusal (RFC 9457).
type problem struct {
	Status     int    `json:"status"`
	Title      string `json:"title"`
	Detail     string `json:"detail"`
	Code       string `json:"code"`
	RetryAfter int64  `json:"retryAfter,omitempty"`
}

// refuse answers a request that may not pass. Where an error route is there for
// it, the error goes there; else the body is ours.
func (g *Gate) refuse(w http.ResponseWriter, r *http.Request, v *visit, d *keyring.Decision, err error) error {
	v.refusal = d.Outcome
	logRefusal(r, g.logger, g.alarms, d, err)
	p := problem{
		Status: d.Outcome.Status(), Title: http.StatusText(d.Outcome.Status()),
		Detail: d.Outcome.Title(), Code: d.Outcome.Code(),
	}
	h := w.Header()
	if d.Waitable {
		p.RetryAfter = max(1, seconds(d.Wait))
		h["Retry-After"] = []string{strconv.FormatInt(p.RetryAfter, 10)}
	}
	if p.Status == http.StatusUnauthorized {
		h["Www-Authenticate"] = []string{g.places.challenge(d.Outcome)}
	}
	refusal := caddyhttp.Error(p.Status, errors.New(p.Code))
	if !g.mustAnswer(r) && errorRouteMatches(r, refusal) {
		return refusal
	}
	h["Content-Type"] = []string{"application/problem+json"}
	h["Cache-Control"] = []string{"no-store"}
	body, _ := json.Marshal(p) // strings and numbers
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(p.Status)
	w.Write(body) // the client may be gone
	return nil
}

// logRefusal says why a request was refused: to alarms where we are to blame.
func logRefusal(r *http.Request, logger, alarms *zap.Logger, d *keyring.Decision, err error) {
	if err != nil && r.Context().Err() == nil { // else the client has gone
		alarms.Error("a key could not be checked", zap.Error(err))
		return
	}
	if c := logger.Check(zap.DebugLevel, "request refused"); c != nil {
		fields := []zap.Field{zap.String("code", d.Outcome.Code())}
		if k := d.Key(); k != nil {
			fields = append(fields, zap.String("key_id", k.ID), zap.String("user_id", k.UserID))
		}
		c.Write(fields...)
	}
}

// challenge is the value of WWW-Authenticate (RFC 6750, section 3: no error
// where nothing was sent).
func (p *places) challenge(o keyring.Outcome) string {
	scheme := "Bearer"
	if !p.bearer {
		scheme = "APIKey"
	}
	if o == keyring.Missing {
		return scheme
	}
	return scheme + ` error="invalid_token"`
}

// mustAnswer reports whether an error that the gate returned might not end the
// request.
func (g *Gate) mustAnswer(r *http.Request) bool {
	if g.ownBody {
		return true
	}
	// A named route knows nothing of the subroutes that invoke it.
	srv, ok := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok || len(srv.NamedRoutes) == 0 {
		return false
	}
	for _, route := range srv.NamedRoutes {
		if catchErrors(caddyhttp.RouteList{*route}) {
			return true
		}
	}
	return catchErrors(srv.Routes)
}

// catchErrors reports whether there is a subroute with error routes of its own.
func catchErrors(routes caddyhttp.RouteList) bool {
	for i := range routes {
		for _, handler := range routes[i].Handlers {
			if sub, ok := handler.(*caddyhttp.Subroute); ok && (sub.Errors != nil || catchErrors(sub.Routes)) {
				return true
			}
		}
	}
	return false
}

// errorRouteMatches reports whether one of the server's error routes would
// handle the error. The routes belong to all sites of a server, so that there
// are some says nothing about this request.
func errorRouteMatches(r *http.Request, refusal error) bool {
	ctx := r.Context()
	if ctx.Value(caddyhttp.ErrorCtxKey) != nil {
		return false // this gate sits in an error route itself
	}
	srv, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok || srv.Errors == nil || len(srv.Errors.Routes) == 0 {
		return false
	}
	// As the server will do it: the request as it came in, with the error.
	r = srv.Errors.WithError(r, refusal)
	if orig, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok {
		r.Method, r.RemoteAddr, r.RequestURI = orig.Method, orig.RemoteAddr, orig.RequestURI
		u := *orig.URL
		r.URL = &u
	}
	return routesMatch(r, srv.Errors.Routes)
}

// routesMatch looks for a route that matches down to a handler that is not just
// a list of routes.
func routesMatch(r *http.Request, routes caddyhttp.RouteList) bool {
	for i := range routes {
		matches, err := routes[i].MatcherSets.AnyMatchWithError(r)
		if err != nil || !matches {
			continue
		}
		for _, handler := range routes[i].Handlers {
			sub, ok := handler.(*caddyhttp.Subroute)
			if !ok || routesMatch(r, sub.Routes) {
				return true
			}
		}
	}
	return false
}

// inSubrouteWithErrors reports whether the module that is being provisioned sits
// in a subroute with error routes of its own. Those run with the rest of the
// chain behind them, so a refusal that none of them ends would let the request
// go on: there the gate answers itself.
func inSubrouteWithErrors(ctx caddy.Context) bool {
	for _, mod := range ctx.Modules() {
		if sub, ok := mod.(*caddyhttp.Subroute); ok && sub.Errors != nil {
			return true
		}
	}
	return false
}
