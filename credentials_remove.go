package apikey

import (
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// minRemovedPrefix is the shortest prefix by which a value is removed that is not the
// key: values of others may begin with a shorter one by chance.
const minRemovedPrefix = 3

// remover removes credentials from a request: the key wherever it is a whole value,
// from the sources of the gate also what begins like a key, and the secret. The values
// of others stay.
type remover struct {
	*sources
	raw      string // empty: there is no key
	prefixes []string
}

// is reports whether a value is the key.
func (m *remover) is(value string) bool { return m.raw != "" && value == m.raw }

// fits reports whether the key could be one of some values, by their lengths. It is what
// most headers of a request cost.
func (m *remover) fits(values []string) bool {
	if m.raw == "" {
		return false
	}
	for _, value := range values {
		if len(value) >= len(m.raw) {
			return true
		}
	}
	return false
}

// isOwn reports whether a value in one of the sources of the gate is to be removed: a
// key that was cut off still is most of a key.
func (m *remover) isOwn(value string) bool {
	return m.is(value) || slices.ContainsFunc(m.prefixes, func(p string) bool { return len(p) >= minRemovedPrefix && strings.HasPrefix(value, p) })
}

func (m *remover) remove(r *http.Request) {
	for name, values := range r.Header {
		switch name {
		case "Authorization":
			m.filter(r.Header, name, values, m.inAuthorization)
		case "Cookie":
			m.removeCookies(r)
		case secretHeader:
			delete(r.Header, name)
		default:
			own := slices.Contains(m.headers, name)
			if !own && !m.fits(values) {
				continue
			}
			m.filter(r.Header, name, values, func(value string) bool {
				value = textproto.TrimString(value)
				return m.is(value) || own && m.isOwn(value)
			})
		}
	}
	if m.raw != "" || m.query != "" {
		m.removeParameters(r)
	}
}

// filter removes values of a header. It leaves the list alone where nothing is removed,
// which is the usual case.
func (m *remover) filter(h http.Header, name string, values []string, drop func(string) bool) {
	switch n := count(values, drop); n {
	case 0:
	case len(values):
		delete(h, name)
	default:
		h[name] = slices.DeleteFunc(slices.Clone(values), drop)
	}
}

func count(values []string, is func(string) bool) (n int) {
	for _, value := range values {
		if is(value) {
			n++
		}
	}
	return n
}

// inAuthorization reports whether a value of Authorization is to be removed: for its
// credential, or where "from" reads the whole value.
func (m *remover) inAuthorization(value string) bool {
	if whole := textproto.TrimString(value); m.is(whole) || slices.Contains(m.headers, "Authorization") && m.isOwn(whole) {
		return true
	}
	scheme, token := splitAuthorization(value)
	own := slices.ContainsFunc(m.schemes, func(s string) bool { return strings.EqualFold(s, scheme) })
	if !strings.EqualFold(scheme, basicScheme) {
		return m.is(token) || own && m.isOwn(token)
	}
	user, password, ok := decodeBasic(token)
	return ok && (m.is(user) || m.is(password) || own && (m.isOwn(user) || m.isOwn(password)))
}

// removeCookies removes cookies and leaves the text of the others alone.
func (m *remover) removeCookies(r *http.Request) {
	removed := false
	var lines []string
	for _, line := range r.Header["Cookie"] {
		var kept []string
		for part := range strings.SplitSeq(line, ";") {
			name, value, _ := strings.Cut(part, "=")
			value = strings.Trim(textproto.TrimString(value), `"`)
			if m.is(value) || m.cookie != "" && strings.EqualFold(textproto.TrimString(name), m.cookie) && m.isOwn(value) {
				removed = true
				continue
			}
			kept = append(kept, part)
		}
		if kept != nil {
			lines = append(lines, textproto.TrimString(strings.Join(kept, ";")))
		}
	}
	switch {
	case !removed:
	case lines == nil:
		delete(r.Header, "Cookie")
	default:
		r.Header["Cookie"] = lines
	}
}

// removeParameters removes query parameters, also from the original request that Caddy
// keeps (FastCGI sends that on as REQUEST_URI).
func (m *remover) removeParameters(r *http.Request) {
	m.removeFromURL(r.URL)
	r.RequestURI = m.withoutURI(r.RequestURI)
	ctx := r.Context()
	orig, ok := ctx.Value(caddyhttp.OriginalRequestCtxKey).(http.Request)
	if !ok || orig.URL == nil {
		return
	}
	m.removeFromURL(orig.URL)
	// This one is a copy; only a placeholder reads it.
	if uri := m.withoutURI(orig.RequestURI); uri != orig.RequestURI {
		ctx.Value(caddy.ReplacerCtxKey).(*caddy.Replacer).Set("http.request.orig_uri", uri)
	}
}

func (m *remover) removeFromURL(u *url.URL) {
	if stripped, ok := m.without(u.RawQuery); ok {
		u.RawQuery = stripped
	}
}

func (m *remover) withoutURI(uri string) string {
	before, query, _ := strings.Cut(uri, "?")
	if stripped, ok := m.without(query); ok {
		return strings.TrimSuffix(before+"?"+stripped, "?")
	}
	return uri
}

// without returns a query without the parameters that are removed.
func (m *remover) without(query string) (string, bool) {
	if m.query == "" && len(query) < len(m.raw) {
		return query, false // no encoding is shorter than the key
	}
	drop := func(name, value string) bool {
		return m.is(value) || m.query != "" && name == m.query && m.isOwn(value)
	}
	removed := false
	eachParameter(query, func(name, value, _ string) { removed = removed || drop(name, value) })
	if !removed {
		return query, false
	}
	var kept []string
	eachParameter(query, func(name, value, raw string) {
		if !drop(name, value) {
			kept = append(kept, raw)
		}
	})
	return strings.Join(kept, "&"), true
}

// eachParameter calls f with the decoded name and value and the raw text of each
// parameter. Text that cannot be decoded is taken as it is.
func eachParameter(query string, f func(name, value, raw string)) {
	for query != "" {
		var raw string
		raw, query, _ = strings.Cut(query, "&")
		name, value, _ := strings.Cut(raw, "=")
		f(unescape(name), unescape(value), raw)
	}
}

func unescape(s string) string {
	if u, err := url.QueryUnescape(s); err == nil {
		return u
	}
	return s
}

// removeTrailer removes the secret and the key from a trailer.
func (m *remover) removeTrailer(trailer http.Header) {
	for name, values := range trailer {
		if name == secretHeader {
			delete(trailer, name)
			continue
		}
		m.filter(trailer, name, values, func(value string) bool { return m.is(textproto.TrimString(value)) })
	}
}
