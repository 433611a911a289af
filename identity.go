package apikey

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"unicode"

	"github.com/caddyserver/caddy/v2"
)

// IdentityHeader is a request header that identifies the caller to the next
// handler.
type IdentityHeader struct {
	// Name is the name of the header. Required.
	Name string `json:"name"`
	// Value is the value of the header, in which placeholders are replaced. The header
	// is not set if the result is empty, or would not arrive as it is because it has
	// control characters, or white space at an end. Placeholders that hold what the
	// client has sent, such as a header, are refused. Required.
	Value string `json:"value"`
}

// identity sets the identity headers. Whatever a client sends under their names
// is removed first, on every request, under every spelling that a server behind
// may take for the same name.
type identity []identityHeader

type identityHeader struct {
	canonical, value string
	certificate      bool // value reads the certificate of the client
}

func newIdentity(headers []IdentityHeader) identity {
	var id identity
	for _, h := range headers {
		id = append(id, identityHeader{
			http.CanonicalHeaderKey(h.Name), h.Value, strings.Contains(h.Value, "{"+certificatePrefix),
		})
	}
	return id
}

func checkIdentity(headers []IdentityHeader, keyHeaders []string) error {
	seen := map[string]bool{}
	for _, h := range headers {
		if err := checkHeaderName(h.Name); err != nil {
			return fmt.Errorf("identity_header: %w", err)
		}
		canonical := http.CanonicalHeaderKey(h.Name)
		switch {
		case strings.ContainsAny(h.Name, "_."):
			return fmt.Errorf(`identity_header: %s must be written with "-": applications may take "_" and "." for it, and Caddy drops such headers`, h.Name)
		case seen[canonical]:
			return fmt.Errorf("identity_header: %s already specified", canonical)
		case h.Value == "":
			return fmt.Errorf("identity_header: %s has no value", canonical)
		case !arrives(h.Value):
			return fmt.Errorf("identity_header: the value of %s must not contain control characters, nor white space at either end", canonical)
		case canonical == secretHeader || canonical == "Authorization" || slices.ContainsFunc(keyHeaders, func(n string) bool { return strings.EqualFold(n, canonical) }):
			return fmt.Errorf("identity_header: %s carries a credential", canonical)
		}
		if hasClientPlaceholder(h.Value) {
			return fmt.Errorf("identity_header: the value of %s must not contain a placeholder that holds what the client sends, such as a header, a cookie, a parameter or the path", canonical)
		}
		seen[canonical] = true
	}
	return nil
}

// sameHeader reports whether servers may take two names of headers for one: CGI and
// its heirs turn "-" and often "." into "_".
func sameHeader(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if foldByte(a[i]) != foldByte(b[i]) {
			return false
		}
	}
	return true
}

func foldByte(c byte) byte {
	switch {
	case 'A' <= c && c <= 'Z':
		return c + 'a' - 'A'
	case c == '_' || c == '.':
		return '-'
	}
	return c
}

// has reports whether name is that of one of the identity headers, in any spelling.
func (id identity) has(name string) bool {
	for i := range id {
		if sameHeader(name, id[i].canonical) {
			return true
		}
	}
	return false
}

// without returns the headers that are not in others, whatever their spelling.
func (id identity) without(others identity) identity {
	if !slices.ContainsFunc(id, func(h identityHeader) bool { return others.has(h.canonical) }) {
		return id
	}
	var rest identity
	for _, h := range id {
		if !others.has(h.canonical) {
			rest = append(rest, h)
		}
	}
	return rest
}

// strip removes the client's own copies from headers, and their names from the list of
// headers that Connection makes a proxy drop.
func (id identity) strip(r *http.Request) {
	if len(id) == 0 {
		return
	}
	for name := range r.Header {
		if id.has(name) {
			delete(r.Header, name)
		}
	}
	id.stripConnection(r)
}

// stripAll is strip, and removes trailers of the same names.
func (id identity) stripAll(r *http.Request) {
	if len(id) == 0 {
		return
	}
	id.strip(r)
	filterTrailer(r, id.stripTrailer)
}

// stripConnection keeps a client from having our header dropped by naming it in
// Connection.
func (id identity) stripConnection(r *http.Request) {
	for i, line := range r.Header["Connection"] {
		var kept []string
		removed := false
		for token := range strings.SplitSeq(line, ",") {
			if id.has(strings.TrimSpace(token)) {
				removed = true
			} else {
				kept = append(kept, token)
			}
		}
		if removed {
			r.Header["Connection"][i] = strings.Join(kept, ",")
		}
	}
}

func (id identity) stripTrailer(trailer http.Header) {
	for name := range trailer {
		if id.has(name) {
			delete(trailer, name)
		}
	}
}

// filterTrailer removes what must not reach the next handler from the trailer: now, and
// again when it arrives, which is when the body ends.
func filterTrailer(r *http.Request, remove func(http.Header)) {
	if r.Trailer == nil {
		return
	}
	remove(r.Trailer)
	r.Body = &trailerFilter{r.Body, r.Trailer, remove}
}

type trailerFilter struct {
	io.ReadCloser
	trailer http.Header
	remove  func(http.Header)
}

func (f *trailerFilter) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	if err != nil {
		f.remove(f.trailer)
	}
	return n, err
}

func (f *trailerFilter) Close() error {
	err := f.ReadCloser.Close()
	f.remove(f.trailer)
	return err
}

// set puts our values on the request.
func (id identity) set(r *http.Request, repl *caddy.Replacer) {
	for i := range id {
		if id[i].certificate && (r.TLS == nil || len(r.TLS.VerifiedChains) == 0) {
			continue // the client may have written anything into it
		}
		if value := repl.ReplaceAll(id[i].value, ""); value != "" && arrives(value) {
			r.Header[id[i].canonical] = []string{value}
		}
	}
}

// serverPlaceholders begin the names of the placeholders of a request that hold what
// the server knows of it. All others below http.request hold what the client wrote.
var serverPlaceholders = []string{
	"http.request.remote", "http.request.local", "http.request.scheme", "http.request.uuid", "http.request.duration",
	"http.request.tls.version", "http.request.tls.cipher_suite", "http.request.tls.resumed", "http.request.tls.proto_mutual",
	certificatePrefix, // judged with the request
}

// hasClientPlaceholder reports whether a text contains a placeholder that holds what
// the client wrote. What other handlers derive from that, such as map, is their
// business.
func hasClientPlaceholder(text string) bool {
	for {
		_, rest, ok := strings.Cut(text, "{")
		if !ok {
			return false
		}
		text = rest
		known := func(prefix string) bool { return strings.HasPrefix(rest, prefix) }
		if known("http.request.") && !slices.ContainsFunc(serverPlaceholders, known) || known("http.regexp.") {
			return true
		}
	}
}

// arrives reports whether the next handler's server would receive a header value as
// it is. Servers trim white space and refuse or replace control characters, so that
// one identity could become another. A tab between other characters is allowed.
func arrives(s string) bool {
	return strings.TrimFunc(s, isSpace) == s &&
		!strings.ContainsFunc(s, func(c rune) bool { return unicode.IsControl(c) && c != '\t' })
}

// isSpace reports whether somebody may trim a character as white space. Some take the
// byte order mark for it.
func isSpace(c rune) bool { return unicode.IsSpace(c) || c == '\ufeff' }
