package apikey

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

// origins are the pages in browsers that may call the API from elsewhere.
type origins struct {
	trusted []string
	headers string // that they may send
	cross   *http.CrossOriginProtection
}

func newOrigins(trusted, headers []string) origins {
	o := origins{trusted: trusted, cross: http.NewCrossOriginProtection()}
	for _, origin := range trusted {
		o.cross.AddTrustedOrigin(origin) //nolint:errcheck // checked
	}
	o.headers = strings.ToLower(strings.Join(append([]string{"Content-Type", "Authorization"}, headers...), ", "))
	return o
}

// foreign reports whether a browser sends the request for a page of an origin that
// is not trusted. The site's own is.
func (o *origins) foreign(r *http.Request) bool { return o.cross.Check(r) != nil }

// serve lets the pages of trusted origins read the answer, and answers a browser
// that asks beforehand.
func (o *origins) serve(w http.ResponseWriter, r *http.Request, methods []string) (answered bool) {
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
	if !isPreflight(r) {
		h.Set("Access-Control-Expose-Headers", "RateLimit, RateLimit-Policy, Retry-After")
		return false
	}
	h.Set("Access-Control-Allow-Methods", strings.Join(methods, ", "))
	h.Set("Access-Control-Allow-Headers", o.headers)
	w.WriteHeader(http.StatusNoContent)
	return true
}

// checkOrigins reports what no browser sends as its origin.
func checkOrigins(list []string) error {
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
			return fmt.Errorf("trusted_origins: no browser sends %q: write %s", origin, sent)
		}
		if seen[origin] {
			return fmt.Errorf("trusted_origins: %s stands twice", origin)
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
			return "", errors.New("there can be no host of this name")
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
