package apikey

import (
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// gatedAPIs returns the paths of self-service APIs that a plain call reaches only through
// a gate.
func (b *branches) gatedAPIs(routes caddyhttp.RouteList) (paths []string) {
	for _, s := range b.apis {
		path := s.api.Base + "/"
		if call := b.call(s, http.MethodGet, path, routes); call != nil && call.reached && call.gated {
			paths = append(paths, path)
		}
	}
	return paths
}

// missedLeaks returns the paths at which reports of leaked keys are to be taken, but which
// lead elsewhere, or to a gate first.
func (b *branches) missedLeaks(routes caddyhttp.RouteList) (paths []string) {
	for _, s := range b.apis {
		if s.leaks == nil {
			continue
		}
		if call := b.call(s, http.MethodPost, s.LeakReports, routes); call != nil && (!call.reached || call.gated) {
			paths = append(paths, s.LeakReports)
		}
	}
	return paths
}

// call follows a plain request that is meant for an API; nil where no client can send it.
func (b *branches) call(s *SelfService, method, path string, routes caddyhttp.RouteList) *trial {
	r, err := http.NewRequest(method, "http://localhost"+path, nil)
	if err != nil {
		return nil
	}
	r.RemoteAddr = "127.0.0.1:1"
	call := &trial{branches: b, api: s, request: caddyhttp.PrepareRequest(r, caddy.NewReplacer(), nil, nil)}
	call.routes(routes)
	return call
}

// trial follows one request through routes.
type trial struct {
	*branches
	api            *SelfService
	request        *http.Request
	gated, reached bool
}

// routes follows the request, and reports whether its way ends there.
func (t *trial) routes(list caddyhttp.RouteList) (ends bool) {
	if t.depth++; t.depth > maxDepth {
		t.depth--
		return true
	}
	defer func() { t.depth-- }()
	taken := map[string]bool{} // groups
	for i := range list {
		route := &list[i]
		if route.Group != "" && taken[route.Group] {
			continue
		}
		if ok, err := route.MatcherSets.AnyMatchWithError(t.request); !ok || err != nil {
			continue
		}
		taken[route.Group] = true
		if t.handlers(route.Handlers) || route.Terminal {
			return true
		}
	}
	return false
}

func (t *trial) handlers(list []caddyhttp.MiddlewareHandler) (ends bool) {
	for _, h := range list {
		switch h := h.(type) {
		case *Gate:
			t.gated = true
		case *SelfService:
			if h == t.api {
				t.reached = true
				return true
			}
		}
		if inner, ok := t.inner(h); ok && t.routes(inner) {
			return true
		}
	}
	return false
}
