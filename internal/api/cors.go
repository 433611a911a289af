package api

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/net/idna"
)

// Origins are the rules for pages in browsers: which may call the API from another
// origin (CORS), and what a page of a foreign origin may not make a browser send.
type Origins struct {
	trusted []string
	headers string // that they may send
	cross   *http.CrossOriginProtection
}

// NewOrigins returns the rules for trusted origins, which [CheckOrigins] must have
// accepted, and the names of the headers that carry credentials.
func NewOrigins(trusted, headers []string) *Origins {
	o := &Origins{trusted: trusted, cross: http.NewCrossOriginProtection()}
	for _, origin := range trusted {
		o.cross.AddTrustedOrigin(origin) //nolint:errcheck // checked
	}
	o.headers = strings.ToLower(strings.Join(append([]string{"Content-Type", "Authorization"}, headers...), ", "))
	return o
}

// CheckForged refuses a request that the page of somebody else may have made a
// browser send, with an identity that the browser adds by itself, to change
// something. Requests of the site's own origin and of trusted ones pass.
func (o *Origins) CheckForged(r *http.Request) error {
	switch {
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		return nil
	case o.cross.Check(r) != nil:
		return ErrCrossOrigin
	case !saysJSON(r):
		return ErrMediaType
	}
	return nil
}

// serve lets the pages of trusted origins read the answer, and answers a browser
// that asks beforehand.
func (o *Origins) serve(w http.ResponseWriter, r *http.Request, methods []string) (answered bool) {
	if len(o.trusted) == 0 {
		return false
	}
	h := w.Header()
	h.Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	if !slices.Contains(o.trusted, origin) {
		return false
	}
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Allow-Credentials", "true")
	if methods == nil || !IsPreflight(r) {
		h.Set("Access-Control-Expose-Headers", "RateLimit, RateLimit-Policy, Retry-After")
		return false
	}
	h.Set("Access-Control-Allow-Methods", strings.Join(methods, ", "))
	h.Set("Access-Control-Allow-Headers", o.headers)
	w.WriteHeader(http.StatusNoContent)
	return true
}

// IsPreflight tells a real CORS preflight from any other OPTIONS request.
func IsPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && r.Header.Get("Origin") != "" &&
		r.Header.Get("Access-Control-Request-Method") != ""
}

// CheckOrigins reports what no browser sends as its origin.
func CheckOrigins(list []string) error {
	seen := map[string]bool{}
	for _, origin := range list {
		u, err := url.Parse(origin)
		if err != nil || u.Scheme == "" || u.Host == "" || strings.ContainsAny(origin, "*{}@ ") ||
			origin != strings.ToLower(u.Scheme+"://"+u.Host) || u.Hostname() == "" || strings.HasSuffix(u.Host, ":") {
			return fmt.Errorf("trusted_origins: %q must be scheme://host or scheme://host:port, in lower case and without anything behind", origin)
		}
		sent, err := asSent(u)
		if err != nil {
			return fmt.Errorf("trusted_origins: %q: %w", origin, err)
		}
		if sent != origin {
			return fmt.Errorf("trusted_origins: browsers do not send %q; use %s", origin, sent)
		}
		if seen[origin] {
			return fmt.Errorf("trusted_origins: %s already specified", origin)
		}
		seen[origin] = true
	}
	return nil
}

// usualPorts are those that browsers leave out.
var usualPorts = map[string]int{"http": 80, "https": 443}

// asSent returns an origin as browsers send it: names in ASCII, the port as a plain
// number, and only where it is not the usual one.
func asSent(u *url.URL) (string, error) {
	port := u.Port()
	host := strings.TrimSuffix(u.Host, ":"+port)
	if strings.ContainsFunc(host, func(r rune) bool { return r > unicode.MaxASCII }) {
		var err error
		if host, err = idna.Lookup.ToASCII(host); err != nil {
			return "", errors.New("the host name is invalid")
		}
	}
	if port == "" {
		return u.Scheme + "://" + host, nil
	}
	n, err := strconv.Atoi(port)
	if err != nil || n < 1 || n > 65535 {
		return "", errors.New("the port must be from 1 to 65535")
	}
	if n == usualPorts[u.Scheme] {
		return u.Scheme + "://" + host, nil
	}
	return fmt.Sprintf("%s://%s:%d", u.Scheme, host, n), nil
}
