package apikey

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// problem is the body of a refusal (RFC 9457), but for its last member,
// retryAfter.
type problem struct {
	Status int    `json:"status"`
	Title  string `json:"title"`
	Detail string `json:"detail"`
	Code   string `json:"code"`
}

// problems are the bodies of all refusals, without the end that depends on the
// request.
var problems = sync.OnceValue(func() (all [keyring.NumOutcomes][]byte) {
	for i := range all {
		o := keyring.Outcome(i)
		body, _ := json.Marshal(problem{o.Status(), http.StatusText(o.Status()), o.Title(), o.Code()}) // strings and numbers
		all[i] = bytes.TrimSuffix(body, []byte("}"))
	}
	return all
})

// bodyOf returns the body of a refusal. retryAfter 0 is none.
func bodyOf(o keyring.Outcome, retryAfter int64) []byte {
	body := append(make([]byte, 0, 192), problems()[o]...)
	if retryAfter > 0 {
		body = strconv.AppendInt(append(body, `,"retryAfter":`...), retryAfter, 10)
	}
	return append(body, '}')
}

// headers sets response headers whose values share one piece of memory. Each has
// a slice of its own, for other handlers may write into it.
type headers struct {
	http.Header
	values []string
}

func (h *headers) set(name, value string) {
	h.values = append(h.values, value)
	n := len(h.values)
	h.Header[name] = h.values[n-1 : n : n]
}

// refuse answers a request that may not pass. Where an error route is there for
// it, the error goes there; else the body is ours.
func (g *Gate) refuse(w http.ResponseWriter, r *http.Request, v *visit, d *keyring.Decision, err error) error {
	v.refusal = d.Outcome
	logRefusal(r, g.logger, g.alarms, d, err)
	h, status, retryAfter := headers{w.Header(), make([]string, 0, 5)}, d.Outcome.Status(), int64(0)
	if d.Waitable {
		retryAfter = max(1, seconds(d.Wait))
		h.set("Retry-After", strconv.FormatInt(retryAfter, 10))
	}
	if status == http.StatusUnauthorized {
		h.set("Www-Authenticate", g.places.challenge(d.Outcome))
	}
	// An error of Caddy's costs as much as all the rest here: it is made only for
	// somebody who may want it.
	if hasErrorRoutes(r) && !g.mustAnswer(r) {
		if refusal := caddyhttp.Error(status, errors.New(d.Outcome.Code())); errorRouteMatches(r, refusal) {
			return refusal
		}
	}
	body := bodyOf(d.Outcome, retryAfter)
	h.set("Content-Type", "application/problem+json")
	h.set("Cache-Control", "no-store")
	h.set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
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
	switch {
	case o == keyring.Missing && p.bearer:
		return "Bearer"
	case o == keyring.Missing:
		return "APIKey"
	case p.bearer:
		return `Bearer error="invalid_token"`
	default:
		return `APIKey error="invalid_token"`
	}
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

// hasErrorRoutes reports whether an error could reach an error route at all.
func hasErrorRoutes(r *http.Request) bool {
	ctx := r.Context()
	if ctx.Value(caddyhttp.ErrorCtxKey) != nil {
		return false // this gate sits in an error route itself
	}
	srv, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	return ok && srv.Errors != nil && len(srv.Errors.Routes) > 0
}

// errorRouteMatches reports whether one of the server's error routes, of which
// there are some, would handle the error. The routes belong to all sites of a
// server, so that there are some says nothing about this request.
func errorRouteMatches(r *http.Request, refusal error) bool {
	srv := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
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
