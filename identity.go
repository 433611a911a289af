package apikey

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
)

// IdentityHeader is a request header that identifies the caller to the next
// handler.
type IdentityHeader struct {
	// Name is the name of the header. Required.
	Name string `json:"name"`
	// Value is the value of the header, in which placeholders are replaced. If the
	// result is empty, the header is not set. Required.
	Value string `json:"value"`
}

// identity sets the identity headers. Whatever a client sends under their names
// is removed first, on every request, under every spelling that a server behind
// may take for the same name.
type identity []identityHeader

type identityHeader struct {
	canonical, folded, value string
}

func newIdentity(headers []IdentityHeader) identity {
	var id identity
	for _, h := range headers {
		id = append(id, identityHeader{http.CanonicalHeaderKey(h.Name), fold(h.Name), h.Value})
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
		case strings.ContainsAny(h.Value, "\r\n\x00"):
			return fmt.Errorf("identity_header: the value of %s contains a control character", canonical)
		case canonical == secretHeader || canonical == "Authorization" || slices.ContainsFunc(keyHeaders, func(n string) bool { return strings.EqualFold(n, canonical) }):
			return fmt.Errorf("identity_header: %s carries a credential", canonical)
		}
		seen[canonical] = true
	}
	return nil
}

// fold maps the spellings of a header name that servers take for one: CGI and
// its heirs turn "-" and often "." into "_".
func fold(name string) string {
	return strings.NewReplacer("_", "-", ".", "-").Replace(strings.ToLower(name))
}

// has reports whether name folds to one of the identity headers.
func (id identity) has(name string) bool {
	for i := range id {
		if len(name) == len(id[i].folded) && fold(name) == id[i].folded {
			return true
		}
	}
	return false
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
		if value := headerValue(repl.ReplaceAll(id[i].value, "")); value != "" {
			r.Header[id[i].canonical] = []string{value}
		}
	}
}

// headerValue replaces what may not stand in a header by blanks.
func headerValue(s string) string {
	control := func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }
	if !strings.ContainsFunc(s, control) {
		return s
	}
	return strings.Map(func(c rune) rune {
		if control(c) {
			return ' '
		}
		return c
	}, s)
}
