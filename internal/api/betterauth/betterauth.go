// Package betterauth is the self-service API in the wire format of Better Auth's
// API-key plugin, so that the plugin's own JavaScript client can be used with the
// keys that are kept here. docs/better-auth.md says where it differs, and why.
//
// A call is checked in this order: content type, the caller, JSON, the caller once more
// (which charges a key), the fields, then what the route itself demands. Errors have the plugin's
// codes and texts.
package betterauth

import (
	"net/http"
	"slices"
	"time"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/key"
)

// Options are what a mount of this dialect says beside an [api.Mount].
type Options struct {
	// Organization says which keys belong to organizations. Nil: none.
	Organization *Organization
	// Now is the clock.
	Now func() time.Time
}

// handler is what the routes need beside a call.
type handler struct {
	Options
	configs []string // the configurations that the API serves; nil: all
}

// New returns the API.
func New(m api.Mount, o Options) *api.API {
	h := &handler{o, m.Configs}
	m.Identify = h.identify(m.Identify)
	var table []*api.Route
	for _, rt := range routes {
		r := &api.Route{Method: rt.method, Path: rt.path, Needs: rt.needs, Free: rt.free, Ends: rt.ends, Status: http.StatusOK, Endpoint: api.Undecoded(h.endpoint(rt))}
		if rt.path == sessionPath {
			r.Header = map[string]string{"Pragma": "no-cache"}
		}
		table = append(table, r,
			// A trailing slash still means the route, and is refused here instead of
			// reaching somebody else.
			&api.Route{Method: rt.method, Path: rt.path + "/{$}", Public: true, Endpoint: api.Undecoded(notFound)})
	}
	return api.New(m, api.Dialect{
		Body: body, BodyFirst: true, Anonymous: true, NoHead: true, DecodedPaths: true, Error: errorOf,
	}, table)
}

func notFound(*api.Call) (any, error) { return nil, errNoPath }

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
	// free and ends are those of api.Route.
	free bool
	ends func(*api.Call) string
}

var routes = []route{
	{"/api-key/create", http.MethodPost, api.Write, createFields, false, (*call).create, false, nil},
	{"/api-key/get", http.MethodGet, "", getFields, true, (*call).get, true, nil},
	{"/api-key/update", http.MethodPost, api.Write, updateFields, false, (*call).update, false, nil},
	{"/api-key/delete", http.MethodPost, api.Write, deleteFields, true, (*call).delete, true, deleted},
	{"/api-key/list", http.MethodGet, "", listFields, true, (*call).list, true, nil},
	{"/api-key/verify", http.MethodPost, api.Admin, verifyFields, true, (*call).verify, false, nil},
	{sessionPath, http.MethodGet, "", nil, false, (*call).getSession, false, nil},
	{"/api-key/delete-all-expired-api-keys", http.MethodPost, api.Admin, nil, true, (*call).deleteAllExpired, false, nil},
}

// Route is what others may know of a call: a test goes through all of them.
type Route struct {
	Method, Path, Needs string
	Free                bool
}

// Routes returns all calls, by their paths below the base.
func Routes() (all []Route) {
	for _, rt := range routes {
		all = append(all, Route{rt.method, rt.path, rt.needs, rt.free})
	}
	return all
}

// call is one request on its way through a route.
type call struct {
	*api.Call
	*handler
	in input
}

// endpoint reads the fields of a request as the plugin does, and calls the route.
func (h *handler) endpoint(rt route) func(*api.Call) (any, error) {
	return func(ac *api.Call) (any, error) {
		c := &call{Call: ac, handler: h}
		var problems issues
		switch {
		case rt.fields == nil:
		case rt.method == http.MethodPost:
			c.in = problems.readObject(c.Body, rt.fields)
		default:
			c.in = problems.readQuery(c.URL.Query(), rt.fields)
		}
		if problems != nil {
			return nil, problems.failure()
		}
		if rt.session && c.Caller == nil {
			return nil, errUnauthorized
		}
		return rt.serve(c)
	}
}

// identify refuses keys of organizations. Such a key identifies no user.
func (h *handler) identify(next api.Identify) api.Identify {
	return func(w http.ResponseWriter, r *http.Request, ask api.Ask) (*api.Caller, error) {
		c, err := next(w, r, ask)
		if err == nil && c.Decision != nil && isOrganization(c.Decision.Key()) {
			c.Refused(http.StatusUnauthorized)
			return nil, errReference
		}
		return c, err
	}
}

// config returns the configuration that a call is about: the one it names, or the
// first where there is none of that name.
func (c *call) config() string {
	switch id := c.in.text("configId"); {
	case id != "" && c.covers(id) && c.Keys.HasConfig(id):
		return id
	case c.configs != nil:
		return c.configs[0]
	default:
		return key.DefaultConfig
	}
}

// covers reports whether the API is about the keys of a configuration.
func (h *handler) covers(configID string) bool {
	return h.configs == nil || slices.Contains(h.configs, configID)
}
