package apikey

import (
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"golang.org/x/net/http/httpguts"
)

const (
	defaultHeader = "X-API-Key"
	secretHeader  = "X-Api-Secret"
)

// Values of the option "secret".
const (
	secretCheck    = "check"
	secretRequired = "required"
)

// secretOptions are the values of the option "secret", in order of strictness.
var secretOptions = []string{"", secretCheck, secretRequired}

// CredentialSources are the places of a request that may carry a key.
type CredentialSources struct {
	// Headers are the request headers that may carry a key. Default: those of the
	// app.
	Headers []string `json:"headers,omitempty"`
	// Bearer also accepts a key in "Authorization: Bearer <key>". Default: as in
	// the app.
	Bearer *bool `json:"bearer,omitempty"`
	// Query is a query parameter that may carry a key. Default: none.
	Query string `json:"query,omitempty"`
	// From is a placeholder that holds the key, such as
	// {http.request.cookie.key}. It replaces headers and bearer. Default: none.
	From string `json:"from,omitempty"`
}

func (k *CredentialSources) check() error {
	if err := checkSources(k.Headers, k.Query); err != nil {
		return err
	}
	if k.From == "" {
		return nil
	}
	if k.Headers != nil || k.Bearer != nil || k.Query != "" {
		return errors.New("from: cannot be combined with headers, bearer or query")
	}
	if !isPlaceholder(k.From) {
		return errors.New("from: must be a placeholder such as {http.request.cookie.key}")
	}
	for _, name := range sourceOf(k.From).headers {
		if err := checkHeaderName(name); err != nil {
			return fmt.Errorf("from: %w", err)
		}
	}
	return nil
}

func checkSecret(option string) error {
	if !slices.Contains(secretOptions, option) {
		return fmt.Errorf("secret: must be %q or %q", secretCheck, secretRequired)
	}
	return nil
}

// errNoSource is the error for a configuration under which no request could carry
// a key.
var errNoSource = errors.New("requests could not carry a key: headers, bearer and query are all off")

// sources are the compiled CredentialSources.
type sources struct {
	headers []string // canonical
	bearer  bool
	query   string
	cookie  string
	from    string // a placeholder that reads something else
	// hasShape tells a key from somebody else's token.
	hasShape func(string) bool
}

func newSources(app *App, k *CredentialSources) sources {
	if k.From != "" {
		return sourceOf(k.From)
	}
	p := sources{query: k.Query, bearer: true}
	override(&p.bearer, app.Bearer)
	override(&p.bearer, k.Bearer)
	names := k.Headers
	if names == nil {
		names = app.headers()
	}
	for _, name := range names {
		p.headers = append(p.headers, http.CanonicalHeaderKey(name))
	}
	return p
}

// sourceOf returns the source that a placeholder reads. A header, a cookie or a
// parameter is searched and emptied as such: its placeholder would hide that there
// are several.
func sourceOf(placeholder string) sources {
	name := strings.TrimSuffix(strings.TrimPrefix(placeholder, "{"), "}")
	if header, ok := strings.CutPrefix(name, "http.request.header."); ok {
		return sources{headers: []string{http.CanonicalHeaderKey(header)}}
	}
	if cookie, ok := strings.CutPrefix(name, "http.request.cookie."); ok {
		return sources{cookie: cookie}
	}
	if parameter, ok := strings.CutPrefix(name, "http.request.uri.query."); ok {
		return sources{query: parameter}
	}
	return sources{from: placeholder}
}

// none reports whether there is no place at all.
func (p *sources) none() bool {
	return len(p.headers) == 0 && !p.bearer && p.query == "" && p.cookie == "" && p.from == ""
}

// ambient reports whether browsers may send a key from here by themselves, as they
// do with cookies, also for the page of somebody else.
func (p *sources) ambient() bool { return p.cookie != "" || p.from != "" }

func (a *App) headers() []string {
	if a.Headers == nil {
		return []string{defaultHeader}
	}
	return a.Headers
}

// checkSources checks the names of headers and of a query parameter.
func checkSources(headers []string, query string) error {
	seen := map[string]bool{}
	for _, name := range headers {
		if err := checkHeaderName(name); err != nil {
			return fmt.Errorf("headers: %w", err)
		}
		canonical := http.CanonicalHeaderKey(name)
		switch {
		case seen[canonical]:
			return fmt.Errorf("headers: %s already specified", canonical)
		case canonical == "Authorization":
			return errors.New("headers: use the option bearer for Authorization")
		case canonical == secretHeader:
			return errors.New("headers: X-API-Secret is reserved for the secret")
		}
		seen[canonical] = true
	}
	if strings.ContainsAny(query, "&=#; {}") {
		return errors.New("query: must be the name of a parameter")
	}
	return nil
}

// checkHeaderName returns an error for names that no request header can have when
// it arrives here.
func checkHeaderName(name string) error {
	switch {
	case !httpguts.ValidHeaderFieldName(name):
		return fmt.Errorf("%q is not a valid header name", name)
	case strings.ContainsAny(name, "_."):
		return fmt.Errorf(`%s can never match: Caddy drops headers whose name contains "_" or "."`, name)
	case hopByHop[http.CanonicalHeaderKey(name)]:
		return fmt.Errorf("%s cannot be used: it is a header of the connection or the message", name)
	}
	return nil
}

// hopByHop are the headers that servers and proxies process themselves.
var hopByHop = map[string]bool{
	"Connection": true, "Content-Length": true, "Host": true, "Keep-Alive": true, "Proxy-Authenticate": true,
	"Proxy-Authorization": true, "Proxy-Connection": true, "Te": true, "Trailer": true, "Transfer-Encoding": true,
	"Upgrade": true, "Content-Type": true, "Content-Encoding": true, "Expect": true,
}

// candidates are what a request carries where a key may be.
type candidates struct {
	count  int      // more than one is ambiguous
	raw    string   // of the last one
	bearer bool     // one of them is a Bearer token
	others []string // the values of Authorization that are not candidates, if bearer
}

func (c *candidates) add(raw string) {
	c.count++
	c.raw = raw
}

// find finds the candidates in a request, which it does not change. admitted: an
// earlier gate has found and removed the key. Spaces around a value, which HTTP/2 and
// HTTP/3 leave there, are not part of it.
func (p *sources) find(r *http.Request, repl *caddy.Replacer, admitted bool) (c candidates) {
	if p.from != "" {
		if raw := repl.ReplaceAll(p.from, ""); raw != "" {
			c.add(raw)
		}
		return c
	}
	for _, name := range p.headers {
		for _, value := range r.Header[name] {
			if value = textproto.TrimString(value); value != "" {
				c.add(value)
			}
		}
	}
	if p.cookie != "" {
		for _, cookie := range r.Cookies() {
			if strings.EqualFold(cookie.Name, p.cookie) && cookie.Value != "" {
				c.add(cookie.Value)
			}
		}
	}
	if p.query != "" {
		eachParameter(r.URL.RawQuery, func(name, value, _ string) {
			if name == p.query && value != "" {
				c.add(value)
			}
		})
	}
	if p.bearer {
		p.findBearer(r, &c, c.count > 0 || admitted)
	}
	return c
}

// findBearer adds Bearer tokens. Beside another candidate, a token counts only if it
// has the shape of a key; else it is for somebody else.
func (p *sources) findBearer(r *http.Request, c *candidates, beside bool) {
	for _, value := range r.Header["Authorization"] {
		token, ok := bearerToken(value)
		if !ok || beside && !p.hasShape(token) {
			c.others = append(c.others, value)
			continue
		}
		c.add(token)
		c.bearer = true
	}
}

// bearerToken returns the token of an Authorization header with the scheme
// Bearer, in any case.
func bearerToken(value string) (string, bool) {
	const scheme = "bearer "
	value = textproto.TrimString(value)
	if len(value) <= len(scheme) || !strings.EqualFold(value[:len(scheme)], scheme) {
		return "", false
	}
	token := strings.TrimLeft(value[len(scheme):], " ")
	return token, token != ""
}

// remove removes the candidates from the request.
func (p *sources) remove(r *http.Request, c candidates) {
	for _, name := range p.headers {
		delete(r.Header, name)
	}
	switch {
	case c.bearer && c.others != nil:
		r.Header["Authorization"] = c.others
	case c.bearer:
		delete(r.Header, "Authorization")
	}
	if p.cookie != "" {
		removeCookie(r, p.cookie)
	}
	if p.query != "" {
		removeParameter(r, p.query)
	}
}

// removeCookie removes a cookie and leaves the text of the others alone.
func removeCookie(r *http.Request, name string) {
	var lines []string
	for _, line := range r.Header["Cookie"] {
		var kept []string
		for part := range strings.SplitSeq(line, ";") {
			if n, _, _ := strings.Cut(part, "="); !strings.EqualFold(textproto.TrimString(n), name) {
				kept = append(kept, part)
			}
		}
		if kept != nil {
			lines = append(lines, textproto.TrimString(strings.Join(kept, ";")))
		}
	}
	r.Header["Cookie"] = lines
	if lines == nil {
		delete(r.Header, "Cookie")
	}
}

// removeParameter removes a query parameter, also from the original request that
// Caddy keeps (FastCGI sends that on as REQUEST_URI).
func removeParameter(r *http.Request, name string) {
	removeFromURL(r.URL, name)
	r.RequestURI = withoutParameterURI(r.RequestURI, name)
	ctx := r.Context()
	orig, ok := ctx.Value(caddyhttp.OriginalRequestCtxKey).(http.Request)
	if !ok || orig.URL == nil {
		return
	}
	removeFromURL(orig.URL, name)
	// This one is a copy; only a placeholder reads it.
	if uri := withoutParameterURI(orig.RequestURI, name); uri != orig.RequestURI {
		ctx.Value(caddy.ReplacerCtxKey).(*caddy.Replacer).Set("http.request.orig_uri", uri)
	}
}

func removeFromURL(u *url.URL, name string) {
	if stripped, ok := withoutParameter(u.RawQuery, name); ok {
		u.RawQuery = stripped
	}
}

func withoutParameterURI(uri, name string) string {
	before, query, _ := strings.Cut(uri, "?")
	if stripped, ok := withoutParameter(query, name); ok {
		return strings.TrimSuffix(before+"?"+stripped, "?")
	}
	return uri
}

func withoutParameter(query, name string) (string, bool) {
	var kept []string
	removed := false
	eachParameter(query, func(n, _, raw string) {
		if n == name {
			removed = true
		} else {
			kept = append(kept, raw)
		}
	})
	return strings.Join(kept, "&"), removed
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
