// Package betterauth is the self-service API in the wire format of Better Auth's
// API-key plugin, so that the plugin's own JavaScript client can be used with the
// keys that are kept here. docs/better-auth.md says where it differs, and why.
//
// A call is checked in this order: content type and JSON, who calls (which charges
// a key), the fields, then what the route itself demands. Errors have the plugin's
// codes and texts.
package betterauth

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddy-apikey/caddy-apikey/internal/caller"
	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// Options are what one mount of the API says.
type Options struct {
	// Base is the path in front, without a slash at its end.
	Base string
	// Configs are the configurations whose keys the API is about; new keys that name
	// none of them belong to the first. Nil: all of them, and new ones to "default".
	Configs []string
	// Organization says which keys belong to organizations. Nil: none.
	Organization *Organization
	// Now is the clock.
	Now func() time.Time
	// Report gets the errors behind answers from 500 on.
	Report func(error)
}

// Handler answers the calls below a base path.
type Handler struct {
	keys *keyring.Service
	Options
	routes map[string]*route
}

// New returns the handler of a mount.
func New(keys *keyring.Service, o Options) *Handler {
	h := &Handler{keys: keys, Options: o, routes: map[string]*route{}}
	for _, rt := range routes {
		h.routes[o.Base+rt.path] = &rt
	}
	return h
}

// route is one call.
type route struct {
	path   string
	method string
	// needs is the action on the resource "api" that the caller must have, if any.
	needs string
	// fields are those of the body of a POST, or of the query of a GET.
	fields []field
	// session refuses callers without an identity once the fields are checked.
	// Routes with another place for that check do it themselves.
	session bool
	serve   func(*call) (any, error)
}

var routes = []route{
	{"/api-key/create", http.MethodPost, caller.Write, createFields, false, (*call).create},
	{"/api-key/get", http.MethodGet, "", getFields, true, (*call).get},
	{"/api-key/update", http.MethodPost, caller.Write, updateFields, false, (*call).update},
	{"/api-key/delete", http.MethodPost, caller.Write, deleteFields, true, (*call).delete},
	{"/api-key/list", http.MethodGet, "", listFields, true, (*call).list},
	{"/api-key/verify", http.MethodPost, caller.Admin, verifyFields, true, (*call).verify},
	{"/get-session", http.MethodGet, "", nil, false, (*call).getSession},
	{"/api-key/delete-all-expired-api-keys", http.MethodPost, caller.Admin, nil, true, (*call).deleteAllExpired},
}

// Route is what others may know of a call: a test goes through all of them.
type Route struct{ Method, Path, Needs string }

// Routes returns all calls, by their paths below the base.
func Routes() (all []Route) {
	for _, rt := range routes {
		all = append(all, Route{rt.method, rt.path, rt.needs})
	}
	return all
}

// call is one request on its way through a route.
type call struct {
	*http.Request
	*Handler
	caller *caller.Caller // nil: nobody is known to call
	in     input
}

// match returns the route of a path. A slash too many still means the route, so
// that it is refused here instead of reaching somebody else.
func (h *Handler) match(path string) *route {
	return h.routes[strings.TrimSuffix(path, "/")]
}

// Methods returns the methods that are answered at the path of a request, or none
// where the request is for somebody else.
func (h *Handler) Methods(r *http.Request) []string {
	rt := h.match(r.URL.Path)
	if rt == nil {
		return nil
	}
	return []string{rt.method}
}

// Serve answers a request for which Methods gave some.
func (h *Handler) Serve(w http.ResponseWriter, r *http.Request, identify caller.Identify) {
	rt := h.match(r.URL.Path)
	if rt.method != r.Method || strings.HasSuffix(r.URL.Path, "/") {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	c := &call{Request: r, Handler: h}
	answer, err := c.run(w, rt, identify)
	if err != nil {
		c.fail(w, err)
		return
	}
	if rt.path == sessionPath {
		w.Header().Set("Pragma", "no-cache")
	}
	h.write(w, http.StatusOK, answer)
}

// run takes a request through the checks to its route.
func (c *call) run(w http.ResponseWriter, rt *route, identify caller.Identify) (any, error) {
	var body []byte
	if rt.method == http.MethodPost {
		var err error
		if body, err = readBody(w, c.Request); err != nil {
			return nil, err
		}
	}
	if err := c.identify(w, rt, identify); err != nil {
		return nil, err
	}
	var problems issues
	switch {
	case rt.fields == nil:
	case rt.method == http.MethodPost:
		c.in = problems.readObject(body, rt.fields)
	default:
		c.in = problems.readQuery(c.URL.Query(), rt.fields)
	}
	if problems != nil {
		return nil, problems.failure()
	}
	if rt.session && c.caller == nil {
		return nil, errUnauthorized
	}
	return rt.serve(c)
}

// identify asks who calls.
func (c *call) identify(w http.ResponseWriter, rt *route, identify caller.Identify) error {
	a := identify(w, c.Request, rt.needs)
	switch {
	case a.Foreign:
		return foreignOrigin(c.Request)
	case a.NotJSON:
		return mediaType("")
	case a.Caller == nil && a.Refusal.Outcome == keyring.Missing:
		w.Header().Set("WWW-Authenticate", a.Challenge)
		return nil
	case a.Caller == nil:
		a.SetHeaders(w.Header())
		if a.Refusal.Outcome == keyring.Disabled && a.Refusal.Key() == nil {
			return errBanned // a person, whose owner is switched off
		}
		return refused(&a.Refusal)
	}
	c.caller = a.Caller
	// A key of an organization stands for no user: the two have names of their own,
	// which may be the same.
	if d := c.caller.Decision; d != nil && c.Organization.owns(d.Key()) {
		return errReference
	}
	return nil
}

// config returns the configuration that a call is about: the one it names, or the
// first where there is none of that name.
func (c *call) config() string {
	switch id := c.in.text("configId"); {
	case id != "" && c.covers(id) && c.keys.HasConfig(id):
		return id
	case c.Configs != nil:
		return c.Configs[0]
	default:
		return key.DefaultConfig
	}
}

// covers reports whether the API is about the keys of a configuration.
func (h *Handler) covers(configID string) bool {
	return h.Configs == nil || slices.Contains(h.Configs, configID)
}
