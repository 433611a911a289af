package apikey

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	caddy.RegisterModule(&Clean{})
}

// Clean is the handler "apikey_clean". It removes identity headers that the client
// has sent from requests that no gate has met. The directive apikey adds it where a
// matcher selects the requests that meet the gate; in JSON, place it behind the gate.
// It changes no request for which a gate has set, or decided not to set, the same
// headers.
type Clean struct {
	// Headers are the names of the headers. Required.
	Headers []string `json:"headers"`

	names identity
}

// newClean returns the handler that removes the identity headers of a gate.
func newClean(headers []IdentityHeader) *Clean {
	c := new(Clean)
	for _, h := range headers {
		c.Headers = append(c.Headers, http.CanonicalHeaderKey(h.Name))
	}
	return c
}

// CaddyModule returns the Caddy module information.
func (*Clean) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.apikey_clean", New: func() caddy.Module { return new(Clean) }}
}

// Provision compiles the names.
func (c *Clean) Provision(caddy.Context) error {
	headers := make([]IdentityHeader, len(c.Headers))
	for i, name := range c.Headers {
		headers[i].Name = name
	}
	c.names = newIdentity(headers)
	return nil
}

// Validate implements caddy.Validator.
func (c *Clean) Validate() error {
	if len(c.Headers) == 0 {
		return errors.New("headers: at least one name is required")
	}
	for _, name := range c.Headers {
		if err := checkHeaderName(name); err != nil {
			return fmt.Errorf("headers: %w", err)
		}
	}
	return nil
}

// ServeHTTP removes the headers and calls the next handler.
func (c *Clean) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	names := c.names
	vars, _ := r.Context().Value(caddyhttp.VarsCtxKey).(map[string]any)
	if s, ok := vars[stateVar].(*requestState); ok {
		names = names.without(s.cleaned)
	}
	names.stripAll(r)
	return next.ServeHTTP(w, r)
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Clean)(nil)
	_ caddy.Validator             = (*Clean)(nil)
	_ caddyhttp.MiddlewareHandler = (*Clean)(nil)
)
