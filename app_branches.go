package apikey

import (
	"net/http"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	caddyheaders "github.com/caddyserver/caddy/v2/modules/caddyhttp/headers"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"go.uber.org/zap"
)

// warnServers warns about what is unsafe in the servers of the configuration: identity
// headers that a client can forge, and addresses that it can.
func (a *App) warnServers() {
	mod, err := a.ctx.AppIfConfigured("http")
	if err != nil {
		return // nothing is served
	}
	for name, srv := range mod.(*caddyhttp.App).Servers {
		log := a.logger.With(zap.String("server", name))
		used := false
		for _, scope := range scopes(srv.Routes) {
			b := branches{named: srv.NamedRoutes}
			b.collect(scope, false)
			used = used || b.used
			if forgeable := b.forgeable(scope); forgeable != nil {
				log.Warn("a client can forge identity headers: the gate that sets them removes the client's own only in its branch (handle, route, invoke or match), and other requests of the site meet no gate; "+
					`in the other branches, put the same gate with the option "optional", or remove the header, as in "request_header -X-User-Id"`,
					zap.Strings("headers", forgeable))
			}
			if headers := b.blindMatchers(scope); headers != nil {
				log.Warn("a matcher behind a gate looks at a header that may carry the key, which the gate has removed by then; let the matcher decide before the gate runs, as in two handle blocks",
					zap.Strings("headers", headers))
			}
			for _, path := range b.gatedAPIs(scope) {
				log.Warn("a gate is in front of an apikey_api: it refuses people who have no key yet (option user), and a key whose credits are used up, so that its owner cannot end it; "+
					"put apikey_api into a handle of its own, without a gate", zap.String("path", path))
			}
			for _, path := range b.missedLeaks(scope) {
				log.Warn("reports of leaked keys do not arrive: the path of leak_reports, which begins at the root of the site, leads past the apikey_api that has this option, or to a gate first; "+
					"let the handle that contains apikey_api match this path as well, and put no gate in front", zap.String("path", path))
			}
		}
		if used && forgeableAddress(srv) {
			log.Warn("a client can forge its address, which allowedIps of keys is compared with: trusted_proxies takes the first address of X-Forwarded-For, which the client writes, unless the servers option trusted_proxies_strict is set")
		}
		warnErrorContent(log, srv)
	}
}

// forgeableAddress reports whether the client of a trusted proxy chooses the address
// that it has.
func forgeableAddress(srv *caddyhttp.Server) bool {
	if srv.TrustedProxiesStrict > 0 || !slices.ContainsFunc(srv.ClientIPHeaders, func(name string) bool { return strings.EqualFold(name, "X-Forwarded-For") }) {
		return false
	}
	// Caddy empties the exported field once it has loaded the module.
	source := reflect.ValueOf(srv).Elem().FieldByName("trustedProxies")
	return srv.TrustedProxiesUnix || source.IsValid() && !source.IsNil()
}

// scopes splits the routes of a server into those of its sites. Requests of one site
// are no business of another.
func scopes(routes caddyhttp.RouteList) (all []caddyhttp.RouteList) {
	var rest caddyhttp.RouteList
	for _, route := range routes {
		if !isSite(&route) {
			rest = append(rest, route)
			continue
		}
		site := caddyhttp.RouteList{{Handlers: route.Handlers}}
		if sub, ok := route.Handlers[0].(*caddyhttp.Subroute); ok && len(route.Handlers) == 1 {
			site = sub.Routes
		}
		all = append(all, site)
	}
	return append(all, rest)
}

// isSite reports whether a route is one like those that the Caddyfile makes of sites.
func isSite(route *caddyhttp.Route) bool {
	for _, set := range route.MatcherSets {
		for _, m := range set {
			switch m.(type) {
			case caddyhttp.MatchHost, *caddyhttp.MatchHost:
			default:
				return false
			}
		}
	}
	return route.Terminal && len(route.Handlers) > 0
}

// maxDepth is how deep routes are followed: named routes may invoke themselves.
const maxDepth = 16

// branches looks for ways through the routes of a site on which a header of the client
// is forwarded.
type branches struct {
	named map[string]*caddyhttp.Route
	depth int
	used  bool // there is a gate or an API
	apis  []*SelfService
	names []string // of the identity headers of gates in branches

	name string // the header that walk looks for
	open bool   // walk has found a way
}

// inner returns the routes within a handler, if it has some.
func (b *branches) inner(h caddyhttp.MiddlewareHandler) (caddyhttp.RouteList, bool) {
	switch h := h.(type) {
	case *caddyhttp.Subroute:
		return h.Routes, true
	case *caddyhttp.Invoke:
		if route, ok := b.named[h.Name]; ok {
			return caddyhttp.RouteList{*route}, true
		}
	}
	return nil, false
}

// collect finds the gates, and the names of the identity headers of those that not
// every request of the site meets.
func (b *branches) collect(routes caddyhttp.RouteList, inBranch bool) {
	if b.depth++; b.depth > maxDepth {
		b.depth--
		return
	}
	for i := range routes {
		branch := inBranch || len(routes[i].MatcherSets) > 0
		for _, h := range routes[i].Handlers {
			switch h := h.(type) {
			case *SelfService:
				b.used, b.apis = true, append(b.apis, h)
			case *Gate:
				b.used = true
				for _, header := range h.identity {
					if branch && !slices.Contains(b.names, header.canonical) {
						b.names = append(b.names, header.canonical)
					}
				}
			}
			if inner, ok := b.inner(h); ok {
				b.collect(inner, true)
			}
		}
	}
	b.depth--
}

// forgeable returns the identity headers that a client can forge.
func (b *branches) forgeable(routes caddyhttp.RouteList) (names []string) {
	for _, name := range b.names {
		b.name, b.open = name, false
		b.walk(routes, true)
		if b.open {
			names = append(names, name)
		}
	}
	return names
}

// walk follows requests through routes. They come with the client's header or without;
// walk returns whether some leave with it.
func (b *branches) walk(routes caddyhttp.RouteList, with bool) bool {
	if b.depth++; b.depth > maxDepth {
		b.depth--
		return with
	}
	group, left := "", false // left: some left a route of this group with the header
	for i := range routes {
		route := &routes[i]
		if route.Group != group {
			with, left, group = with || left, false, route.Group
		}
		out := b.handlers(route.Handlers, with) && !route.Terminal
		all := len(route.MatcherSets) == 0
		switch {
		case group != "":
			left, with = left || out, with && !all
		case all:
			with = out
		}
	}
	b.depth--
	return with || left
}

func (b *branches) handlers(list []caddyhttp.MiddlewareHandler, with bool) bool {
	for _, h := range list {
		if !with {
			return false
		}
		if inner, ok := b.inner(h); ok {
			with = b.walk(inner, with)
			continue
		}
		switch h := h.(type) {
		case *Gate:
			with = !h.identity.has(b.name)
		case *Clean:
			with = !h.names.has(b.name)
		case *caddyheaders.Handler:
			with = !replaces(h.Request, b.name)
		case *reverseproxy.Handler:
			b.open = b.open || h.Headers == nil || !replaces(h.Headers.Request, b.name)
		case *caddyhttp.StaticResponse:
			status, err := strconv.Atoi(string(h.StatusCode))
			b.open = b.open || !h.Abort && (err != nil || status < http.StatusMultipleChoices)
			with = false
		default:
			b.open = b.open || !isHarmless(h)
		}
	}
	return with
}

// replaces reports whether an operation removes or sets a header.
func replaces(ops *caddyheaders.HeaderOps, name string) bool {
	if ops == nil {
		return false
	}
	if _, ok := ops.Set[name]; ok {
		return true
	}
	return slices.ContainsFunc(ops.Delete, func(pattern string) bool {
		ok, err := path.Match(strings.ToLower(pattern), strings.ToLower(name))
		return ok && err == nil
	})
}

// harmless are the handlers that give no request to an application.
var harmless = []string{
	"acme_server", "apikey_api", "authentication", "copy_response", "copy_response_headers", "encode", "error", "file_server", "intercept",
	"log_append", "map", "metrics", "push", "request_body", "rewrite", "templates", "timeouts", "tracing", "vars",
}

func isHarmless(h caddyhttp.MiddlewareHandler) bool {
	m, ok := h.(caddy.Module)
	return ok && slices.Contains(harmless, m.CaddyModule().ID.Name())
}
