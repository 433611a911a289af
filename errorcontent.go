package apikey

import (
	"context"
	"encoding/json"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/fileserver"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"go.uber.org/zap"

	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// content is what a part of a server serves.
type content struct {
	hosts     []string // nil: all
	roots     []string // of file servers; "": that of the site
	upstreams []string
}

// warnErrorContent warns about error routes that serve what a gate protects: they run
// without the gate, so a refused request would be answered with the protected content.
func warnErrorContent(logger *zap.Logger, server *caddyhttp.Server) {
	if server.Errors == nil {
		return
	}
	w := contentWalk{named: server.NamedRoutes}
	protected := w.sites(server.Routes)
	for _, errors := range errorContents(server.Errors.Routes) {
		for i := range protected {
			site := &protected[i]
			roots, upstreams := errors.sharedRoots(site), shared(errors.upstreams, site.upstreams)
			if !overlapHosts(errors.hosts, site.hosts) || roots == nil && upstreams == nil {
				continue
			}
			logger.Warn(`handle_errors serves what a gate protects: a request that the gate refuses is answered with it; `+
				`use "respond" there, serve error pages from a "root" or an upstream of their own, or put "apikey" first in handle_errors`,
				zap.Strings("hosts", errors.hosts), zap.Strings("roots", roots), zap.Strings("upstreams", upstreams))
		}
	}
}

// contentWalk collects what is behind gates.
type contentWalk struct {
	named   map[string]*caddyhttp.Route
	invoked []string // the named routes that the walk is in
}

// position is what a walk through routes has met.
type position struct {
	gated bool     // a gate
	roots []string // values of the variable root
}

func (p position) and(other position) position {
	return position{p.gated || other.gated, append(slices.Clip(p.roots), other.roots...)}
}

// sites returns what is behind gates on each of the sites of a server.
func (w *contentWalk) sites(routes caddyhttp.RouteList) (sites []content) {
	var at position
	for i := range routes {
		site := content{hosts: hostsOf(&routes[i])}
		after := w.route(&routes[i], at, &site)
		if !routes[i].Terminal {
			at = at.and(after)
		}
		sites = append(sites, site)
	}
	return sites
}

// routes collects what is behind gates in a list of routes. Of a group, only one
// route runs, so what others of the group contain does not count for it.
func (w *contentWalk) routes(routes caddyhttp.RouteList, at position, c *content) position {
	groups := map[string]position{}
	for i := range routes {
		from := at
		if group := routes[i].Group; group != "" {
			if before, ok := groups[group]; ok {
				from = before
			}
			groups[group] = from
		}
		if after := w.route(&routes[i], from, c); !routes[i].Terminal {
			at = at.and(after)
		}
	}
	return at
}

func (w *contentWalk) route(route *caddyhttp.Route, at position, c *content) position {
	for _, handler := range route.Handlers {
		switch h := handler.(type) {
		case *Gate:
			at.gated = at.gated || !h.Optional
		case *caddyhttp.VarsMiddleware:
			at.roots = append(slices.Clip(at.roots), rootOf(h)...)
		case *caddyhttp.Subroute:
			at = w.routes(h.Routes, at, c)
		case *caddyhttp.Invoke:
			at = w.invoke(h.Name, at, c)
		case *fileserver.FileServer:
			if at.gated {
				c.roots = append(c.roots, rootsOf(h, at.roots, ".")...)
			}
		case *reverseproxy.Handler:
			if at.gated {
				c.upstreams = append(c.upstreams, upstreamsOf(h)...)
			}
		}
	}
	return at
}

func (w *contentWalk) invoke(name string, at position, c *content) position {
	route := w.named[name]
	if route == nil || slices.Contains(w.invoked, name) {
		return at
	}
	w.invoked = append(w.invoked, name)
	defer func() { w.invoked = w.invoked[:len(w.invoked)-1] }()
	return w.route(route, at, c)
}

// errorContents returns what each of the error routes serves to refused requests.
func errorContents(routes caddyhttp.RouteList) (all []content) {
	for i := range routes {
		c := content{hosts: hostsOf(&routes[i])}
		for _, status := range refusalStatuses() {
			c.walkErrors(routes[i:i+1], status, nil)
		}
		all = append(all, c)
	}
	return all
}

// walkErrors collects what error routes serve to requests that were refused with a
// status. It reports whether every such request ends in these routes.
func (c *content) walkErrors(routes caddyhttp.RouteList, status int, roots []string) (after []string, ended bool) {
	for i := range routes {
		matches := matchStatus(&routes[i], status)
		if matches == never {
			continue
		}
		var end bool
		if roots, end = c.errorRoute(&routes[i], status, roots); end && matches == always {
			return roots, true
		}
	}
	return roots, false
}

func (c *content) errorRoute(route *caddyhttp.Route, status int, roots []string) (after []string, ended bool) {
	for _, handler := range route.Handlers {
		switch h := handler.(type) {
		case *Gate:
			if !h.Optional {
				return roots, true // it lets nobody through who has no valid key
			}
		case *caddyhttp.StaticResponse:
			return roots, true
		case *caddyhttp.VarsMiddleware:
			if own := rootOf(h); own != nil {
				roots = own
			}
		case *caddyhttp.Subroute:
			if roots, ended = c.walkErrors(h.Routes, status, roots); ended {
				return roots, true
			}
		case *fileserver.FileServer:
			c.roots = append(c.roots, rootsOf(h, roots, "")...)
			if !h.PassThru {
				return roots, true
			}
		case *reverseproxy.Handler:
			c.upstreams = append(c.upstreams, upstreamsOf(h)...)
			return roots, true
		}
	}
	return roots, false
}

// refusalStatuses returns the statuses of refusals.
func refusalStatuses() (all []int) {
	for o := keyring.Missing; o < keyring.NumOutcomes; o++ {
		if !slices.Contains(all, o.Status()) {
			all = append(all, o.Status())
		}
	}
	return all
}

// How a route matches the requests that were refused with a status.
const (
	never = iota
	sometimes
	always
)

// aboutStatus is an expression about the status of an error and nothing else, as
// "handle_errors 404 5xx" becomes one.
var aboutStatus = regexp.MustCompile(`^(\{http\.error\.status_code\}|\bin\b|[\d\s<>=&|!()\[\],])+$`)

func matchStatus(route *caddyhttp.Route, status int) int {
	if len(route.MatcherSets) == 0 {
		return always
	}
	matches := never
	for _, set := range route.MatcherSets {
		one := always
		for _, matcher := range set {
			one = min(one, matcherStatus(matcher, status))
		}
		matches = max(matches, one)
	}
	return matches
}

func matcherStatus(matcher any, status int) int {
	expression, ok := matcher.(*caddyhttp.MatchExpression)
	if !ok || !aboutStatus.MatchString(expression.Expr) {
		return sometimes
	}
	repl := caddy.NewReplacer()
	repl.Set("http.error.status_code", status)
	ctx := context.WithValue(context.Background(), caddy.ReplacerCtxKey, repl)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
	if err != nil {
		return sometimes
	}
	switch matches, err := expression.MatchWithError(r); {
	case err != nil:
		return sometimes
	case matches:
		return always
	}
	return never
}

// hostsOf returns the hosts that a route matches. Nil: all.
func hostsOf(route *caddyhttp.Route) (hosts []string) {
	for _, set := range route.MatcherSets {
		found := false
		for _, matcher := range set {
			if list, ok := matcher.(*caddyhttp.MatchHost); ok {
				hosts, found = append(hosts, *list...), true
			}
		}
		if !found {
			return nil
		}
	}
	return hosts
}

// overlapHosts reports whether a request may be for one of both. Patterns may match
// anything.
func overlapHosts(a, b []string) bool {
	pattern := func(host string) bool { return strings.ContainsAny(host, "*{") }
	return a == nil || b == nil || slices.ContainsFunc(a, pattern) || slices.ContainsFunc(b, pattern) ||
		slices.ContainsFunc(a, func(host string) bool {
			return slices.ContainsFunc(b, func(other string) bool { return strings.EqualFold(host, other) })
		})
}

// rootOf returns the root that a vars handler sets, if it sets one.
func rootOf(vars *caddyhttp.VarsMiddleware) []string {
	if root, ok := (*vars)["root"].(string); ok {
		return []string{root}
	}
	return nil
}

// rootsOf returns where a file server may find its files. Where the variable root
// decides and is not known, it is otherwise.
func rootsOf(h *fileserver.FileServer, vars []string, otherwise string) []string {
	switch {
	case h.Root != "" && h.Root != "{http.vars.root}":
		return []string{h.Root}
	case vars != nil:
		return vars
	}
	return []string{otherwise}
}

func upstreamsOf(h *reverseproxy.Handler) (all []string) {
	for _, upstream := range h.Upstreams {
		all = append(all, upstream.Dial)
	}
	if h.DynamicUpstreams != nil {
		if text, err := json.Marshal(h.DynamicUpstreams); err == nil {
			all = append(all, string(text))
		}
	}
	return all
}

// sharedRoots returns the protected folders that the error routes reach.
func (c *content) sharedRoots(protected *content) (all []string) {
	for _, root := range protected.roots {
		if slices.ContainsFunc(c.roots, func(own string) bool { return own == "" || contains(own, root) }) {
			all = append(all, root)
		}
	}
	return unique(all)
}

// contains reports whether a folder is another one or contains it. Of paths with
// placeholders, only equal ones are known to be.
func contains(folder, other string) bool {
	if folder == other {
		return true
	}
	if strings.Contains(folder+other, "{") {
		return false
	}
	a, errA := filepath.Abs(folder)
	b, errB := filepath.Abs(other)
	if errA != nil || errB != nil {
		return false
	}
	rel, err := filepath.Rel(a, b)
	return err == nil && filepath.IsLocal(rel)
}

func shared(a, b []string) (all []string) {
	for _, s := range b {
		if slices.Contains(a, s) {
			all = append(all, s)
		}
	}
	return unique(all)
}

func unique(list []string) []string {
	slices.Sort(list)
	return slices.Compact(list)
}
