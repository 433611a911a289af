package apikey

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"golang.org/x/net/http/httpguts"

	"github.com/caddy-apikey/caddy-apikey/keyring"
)

const (
	defaultHeader = "X-API-Key"
	secretHeader  = "X-Api-Secret"
)

// Schemes of Authorization with rules of their own.
const (
	bearerScheme = "Bearer"
	basicScheme  = "Basic"
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
	// Headers are the request headers that may carry a key; an empty list is none.
	// Default: those of the app.
	Headers []string `json:"headers,omitzero"`
	// Authorization lists the schemes of the header Authorization that may carry a
	// key; an empty list is none. With "Basic", the key is the user name and the
	// password is empty or the secret, or the key is the password. With any other
	// scheme, such as "Bearer" or "ApiKey", the key follows the scheme. A 401 offers
	// the schemes in this order. Default: those of the app.
	Authorization []string `json:"authorization,omitzero"`
	// Query is a query parameter that may carry a key. Default: none.
	Query string `json:"query,omitempty"`
	// From is a placeholder that holds the key, such as
	// {http.request.cookie.key}. It replaces headers and authorization. Default: none.
	From string `json:"from,omitempty"`
}

func (k *CredentialSources) check() error {
	if err := checkHeaders(k.Headers); err != nil {
		return err
	}
	if err := checkSchemes(k.Authorization); err != nil {
		return err
	}
	if strings.ContainsAny(k.Query, "&=#; {}") {
		return errors.New("query: must be the name of a parameter")
	}
	if k.From == "" {
		return nil
	}
	if k.Headers != nil || k.Authorization != nil || k.Query != "" {
		return errors.New("from: cannot be combined with headers, authorization or query")
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
var errNoSource = errors.New("requests could not carry a key: headers, authorization and query are all off")

// sources are the compiled CredentialSources.
type sources struct {
	headers []string // canonical
	schemes []string
	query   string
	cookie  string
	from    string // a placeholder that reads something else
}

func newSources(app *App, k *CredentialSources) sources {
	if k.From != "" {
		return sourceOf(k.From)
	}
	p := sources{query: k.Query, schemes: []string{bearerScheme}}
	names := []string{defaultHeader}
	for _, list := range [][]string{app.Headers, k.Headers} {
		if list != nil {
			names = list
		}
	}
	for _, list := range [][]string{app.Authorization, k.Authorization} {
		if list != nil {
			p.schemes = list
		}
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

// none reports whether there is no source at all.
func (p *sources) none() bool {
	return len(p.headers) == 0 && len(p.schemes) == 0 && p.query == "" && p.cookie == "" && p.from == ""
}

// ambient reports whether browsers may send a key from here by themselves, as they
// do with cookies and Basic credentials, also for the page of somebody else.
func (p *sources) ambient() bool {
	return p.cookie != "" || p.from != "" || slices.ContainsFunc(p.schemes, func(s string) bool { return strings.EqualFold(s, basicScheme) })
}

// checkServer returns an error for headers that never reach the handlers of a server:
// Caddy drops those with "_" or "." in their names unless the server expects them, and
// then drops the ones with "-" instead.
func (p *sources) checkServer(server *caddyhttp.Server) error {
	for _, name := range p.headers {
		expected := server != nil && (expects(server.ExpectedUnderscoreHeaders, name, "_") || expects(server.ExpectedDotHeaders, name, "."))
		alias := server != nil && (expectsAlias(server.ExpectedUnderscoreHeaders, name, "_") || expectsAlias(server.ExpectedDotHeaders, name, "."))
		switch {
		case strings.ContainsAny(name, "_.") && !expected:
			return fmt.Errorf(`headers: %s can never match: Caddy drops headers whose name contains "_" or ".", unless the server expects them (expected_underscore_headers, expected_dot_headers)`, name)
		case alias:
			return fmt.Errorf(`headers: %s can never match: this server expects another spelling, and Caddy drops this one`, name)
		}
	}
	return nil
}

// expects reports whether a server option lists the header, which has a separator in
// its name.
func expects(list []string, name, separator string) bool {
	return strings.Contains(name, separator) && slices.ContainsFunc(list, func(entry string) bool { return matchesEntry(entry, name) })
}

// expectsAlias reports whether a server option lists the header under its spelling
// with a separator in place of a hyphen.
func expectsAlias(list []string, name, separator string) bool {
	return !strings.ContainsAny(name, "_.") && slices.ContainsFunc(list, func(entry string) bool {
		return matchesEntry(strings.ReplaceAll(entry, separator, "-"), name)
	})
}

func matchesEntry(entry, name string) bool {
	if prefix, ok := strings.CutSuffix(entry, "*"); ok {
		return len(name) >= len(prefix) && strings.EqualFold(name[:len(prefix)], prefix)
	}
	return strings.EqualFold(entry, name)
}

// checkHeaders checks the names of headers that may carry a key.
func checkHeaders(headers []string) error {
	seen := map[string]bool{}
	for _, name := range headers {
		if err := checkHeaderName(name); err != nil {
			return fmt.Errorf("headers: %w", err)
		}
		canonical := http.CanonicalHeaderKey(name)
		switch {
		case canonical == "Off" || canonical == "On":
			return errors.New("headers: off cannot be combined with other values")
		case seen[canonical]:
			return fmt.Errorf("headers: %s already specified", canonical)
		case canonical == "Authorization":
			return errors.New("headers: use the option authorization for Authorization")
		case canonical == secretHeader:
			return errors.New("headers: X-API-Secret is reserved for the secret")
		}
		seen[canonical] = true
	}
	return nil
}

// checkSchemes checks schemes of Authorization (RFC 9110, section 11.1).
func checkSchemes(schemes []string) error {
	for i, scheme := range schemes {
		if !httpguts.ValidHeaderFieldName(scheme) { // both are tokens
			return fmt.Errorf("authorization: %q is not a scheme, such as Bearer, Basic or ApiKey", scheme)
		}
		if slices.ContainsFunc(schemes[:i], func(s string) bool { return strings.EqualFold(s, scheme) }) {
			return fmt.Errorf("authorization: %s already specified", scheme)
		}
	}
	return nil
}

// checkHeaderName returns an error for names that no header with a credential or an
// identity can have.
func checkHeaderName(name string) error {
	switch {
	case !httpguts.ValidHeaderFieldName(name):
		return fmt.Errorf("%q is not a valid header name", name)
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

// candidate is one value that a request carries where a key may be.
type candidate struct {
	raw    string
	secret string // the password beside it, with Basic
	header bool   // from Authorization
}

// candidates are the different candidates of a request. They are passed on by value,
// so that a short list can stay in its caller's memory.
type candidates []candidate

// with returns the candidates with one more, unless it has no value or is among them.
func (c candidates) with(v candidate) candidates {
	if v.raw == "" {
		return c
	}
	for i := range c {
		if o := &c[i]; o.raw == v.raw {
			o.header = o.header && v.header
			if o.secret == "" {
				o.secret = v.secret
			}
			return c
		}
	}
	return append(c, v)
}

// find adds the candidates of a request, which it does not change. Spaces around a
// value, which HTTP/2 and HTTP/3 leave there, are not part of it.
func (p *sources) find(r *http.Request, repl *caddy.Replacer, c candidates) candidates {
	if p.from != "" {
		return c.with(candidate{raw: repl.ReplaceAll(p.from, "")})
	}
	for _, name := range p.headers {
		for _, value := range r.Header[name] {
			c = c.with(candidate{raw: textproto.TrimString(value)})
		}
	}
	if p.cookie != "" {
		for _, cookie := range r.Cookies() {
			if strings.EqualFold(cookie.Name, p.cookie) {
				c = c.with(candidate{raw: cookie.Value})
			}
		}
	}
	if p.query != "" {
		eachParameter(r.URL.RawQuery, func(name, value, _ string) {
			if name == p.query {
				c = c.with(candidate{raw: value})
			}
		})
	}
	if len(p.schemes) > 0 {
		for _, value := range r.Header["Authorization"] {
			c = p.findAuthorization(value, c)
		}
	}
	return c
}

func (p *sources) findAuthorization(value string, c candidates) candidates {
	scheme, token := splitAuthorization(value)
	if !slices.ContainsFunc(p.schemes, func(s string) bool { return strings.EqualFold(s, scheme) }) {
		return c
	}
	if !strings.EqualFold(scheme, basicScheme) {
		return c.with(candidate{raw: token, header: true})
	}
	user, password, ok := decodeBasic(token)
	switch {
	case !ok:
		return c
	case user == password:
		return c.with(candidate{raw: user, header: true})
	}
	return c.with(candidate{raw: user, secret: password, header: true}).with(candidate{raw: password, header: true})
}

// splitAuthorization splits a value of Authorization into its scheme and what follows.
func splitAuthorization(value string) (scheme, rest string) {
	scheme, rest, _ = strings.Cut(textproto.TrimString(value), " ")
	return scheme, strings.TrimLeft(rest, " ")
}

// decodeBasic decodes what follows the scheme Basic (RFC 7617).
func decodeBasic(token string) (user, password string, ok bool) {
	text, err := base64.StdEncoding.DecodeString(token)
	if err != nil {
		return "", "", false
	}
	return strings.Cut(string(text), ":")
}

// choice is the result of choosing among candidates.
type choice struct {
	candidate
	outcome keyring.Outcome // Allowed: the candidate, or the decision of an earlier gate, decides
	present bool            // there was a credential, good or bad
	err     error           // why the outcome is Unavailable
	cost    string          // the value of the placeholder that holds the cost
}

// choose decides which candidate is the key: the only one that counts. Where an
// earlier gate has admitted the request, none need be left. lenient: a value of
// Authorization that does not look like a key is for somebody else.
func (s *requestState) choose(ctx context.Context, keys *keyring.Service, c candidates, lenient bool) (found choice) {
	if len(c) == 0 {
		if !s.admitted {
			found.outcome = keyring.Missing
		}
		return found
	}
	if len(c) == 1 && !s.admitted && !(lenient && c[0].header) {
		return choice{candidate: c[0], present: true} // the keyring checks it
	}
	counting := 0
	for i := range c {
		v := &c[i]
		recognizes := keys.Recognizes
		if counting > 0 && found.secret == v.raw { // a secret ends in a checksum, like a key
			recognizes = keys.Has
		}
		ok, err := recognizes(ctx, v.raw)
		if err != nil {
			found.err = err
		}
		if ok {
			counting++
			found.candidate = *v
		}
	}
	found.present = true
	switch {
	case counting > 1 || counting == 1 && s.admitted && !s.decision.Opens(found.raw):
		found.outcome = keyring.Ambiguous
	case counting == 1 || s.admitted:
		found.err = nil
	case found.err != nil:
		found.outcome = keyring.Unavailable
	case lenient && !slices.ContainsFunc(c, func(v candidate) bool { return !v.header || hasPrefix(v.raw, keys.Prefixes()) }):
		found.outcome, found.present = keyring.Missing, false
	default:
		found.outcome = keyring.Invalid
	}
	return found
}

// hasPrefix reports whether a value begins with one of some prefixes.
func hasPrefix(value string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return p != "" && strings.HasPrefix(value, p) })
}
