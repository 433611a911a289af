package apikey

import (
	"net/http"
	"slices"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// blindMatchers returns the headers that a matcher behind a gate looks at although the gate
// has removed them: with a key, such a matcher never sees one.
func (b *branches) blindMatchers(routes caddyhttp.RouteList) (names []string) {
	b.blind(routes, nil, &names)
	return names
}

// blind walks through routes. removed are the headers that gates have removed; it returns
// those that have been removed at the end.
func (b *branches) blind(routes caddyhttp.RouteList, removed []string, found *[]string) []string {
	if b.depth++; b.depth > maxDepth {
		b.depth--
		return removed
	}
	defer func() { b.depth-- }()
	for i := range routes {
		route := &routes[i]
		for _, name := range matchedHeaders(route.MatcherSets) {
			if slices.Contains(removed, name) && !slices.Contains(*found, name) {
				*found = append(*found, name)
			}
		}
		after := removed
		for _, h := range route.Handlers {
			if g, ok := h.(*Gate); ok && !g.Optional && !g.KeepKey {
				after = append(slices.Clip(after), g.sources.removes()...)
			}
			if inner, ok := b.inner(h); ok {
				after = b.blind(inner, after, found)
			}
		}
		// Of a group only one route runs, and nothing follows a terminal one.
		if route.Group == "" && !route.Terminal {
			removed = after
		}
	}
	return removed
}

// removes returns the headers that may carry a key, which is removed with them.
func (p *sources) removes() []string {
	if len(p.schemes) == 0 {
		return p.headers
	}
	return append(slices.Clip(p.headers), "Authorization")
}

// matchedHeaders returns the headers that matchers look at.
func matchedHeaders(sets caddyhttp.MatcherSets) (names []string) {
	for _, set := range sets {
		for _, m := range set {
			switch m := m.(type) {
			case caddyhttp.MatchHeader:
				names = appendNames(names, m)
			case *caddyhttp.MatchHeader:
				names = appendNames(names, *m)
			case caddyhttp.MatchHeaderRE:
				names = appendNames(names, m)
			case *caddyhttp.MatchHeaderRE:
				names = appendNames(names, *m)
			case caddyhttp.MatchNot:
				names = append(names, matchedHeaders(m.MatcherSets)...)
			case *caddyhttp.MatchNot:
				names = append(names, matchedHeaders(m.MatcherSets)...)
			}
		}
	}
	return names
}

func appendNames[V any](names []string, headers map[string]V) []string {
	for name := range headers {
		names = append(names, http.CanonicalHeaderKey(name))
	}
	return names
}
