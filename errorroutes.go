package apikey

import (
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

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
