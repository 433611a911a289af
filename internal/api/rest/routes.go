package rest

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/caddy-apikey/caddy-apikey/internal/caller"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// Route is one call of the API.
type Route struct {
	Method, Path string
	Needs        string // the action of the resource "api"; empty: any caller
	Status       int    // of the good answer

	serve    func(*call) (any, error)
	segments []string
}

// call is one request on its way through a route.
type call struct {
	*http.Request
	*Handler
	caller *caller.Caller
	arg    string // the variable segment of the path
	body   []byte // of a POST; nil: an empty one
}

// Routes returns the table of all calls below a base.
func Routes(base string) []*Route {
	all := []*Route{
		{Method: http.MethodPost, Path: "/api-keys", Needs: caller.Write, Status: http.StatusCreated, serve: createKey},
		{Method: http.MethodGet, Path: "/api-keys", Status: http.StatusOK, serve: listKeys},
		{Method: http.MethodDelete, Path: "/api-keys/{id}", Needs: caller.Write, Status: http.StatusOK, serve: revokeKey},
		{Method: http.MethodGet, Path: "/usage", Status: http.StatusOK, serve: usage},
	}
	for _, rt := range all {
		rt.segments = strings.Split(base+rt.Path, "/")
	}
	return all
}

// at returns the routes with the path of a request, and the variable segment. It
// looks at the escaped path, so that the segment may hold anything, a slash too.
func (h *Handler) at(r *http.Request) (found []*Route, arg string) {
	if !strings.HasPrefix(r.URL.Path, h.o.Base+"/") { // as most of a site's requests
		return nil, ""
	}
	path := strings.Split(r.URL.EscapedPath(), "/")
	for _, rt := range h.routes {
		if a, ok := rt.matches(path); ok {
			found, arg = append(found, rt), a
		}
	}
	return found, arg
}

func (rt *Route) matches(path []string) (arg string, ok bool) {
	if len(path) != len(rt.segments) {
		return "", false
	}
	for i, want := range rt.segments {
		got, err := url.PathUnescape(path[i])
		switch {
		case err != nil:
			return "", false
		case want == "{id}":
			if arg = got; arg == "" || arg == "." || arg == ".." {
				return "", false
			}
		case got != want:
			return "", false
		}
	}
	return arg, true
}

// Methods returns the methods that are answered at the path of r; none where the
// path is somebody else's.
func (h *Handler) Methods(r *http.Request) []string {
	found, _ := h.at(r)
	return methodsOf(found)
}

func methodsOf(routes []*Route) (methods []string) {
	for _, rt := range routes {
		methods = append(methods, rt.Method)
		if rt.Method == http.MethodGet {
			methods = append(methods, http.MethodHead)
		}
	}
	slices.Sort(methods)
	return methods
}

// mine reports whether a key is one that a caller may know of here.
func (c *call) mine(userID, configID string) bool {
	return userID == c.caller.UserID && (c.o.Configs == nil || slices.Contains(c.o.Configs, configID))
}

// id returns the variable segment as the ID of a key. What cannot be an ID is not
// looked up: some stores fail on such text instead of not finding it.
func (c *call) id() (string, error) {
	if keyring.CheckUserID(c.arg) != nil {
		return "", errNoKey
	}
	return c.arg, nil
}
