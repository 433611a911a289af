// Package api is the kernel of the HTTP APIs: one table of routes for each, strict
// JSON, typed errors, an OpenAPI document made from the types of the routes, and the
// rules for browsers on other origins. It does not know Caddy.
//
// An API speaks a dialect. A dialect is a package beside this one: wire types, a
// table of [Route] values with their handlers, and a [Dialect] that says how an error
// reads. Its constructor returns an [API].
package api

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// Mount is what a configuration says about an API, whatever its dialect.
type Mount struct {
	// Base is the path in front of those of the routes, without a slash at its end.
	Base string
	// Keys returns the service that answers. It is asked on each request.
	Keys func() (*keyring.Service, error)
	// Configs are the configurations whose keys the API serves. Nil: all of them.
	Configs []string
	// Identify finds the caller. Nil: the API has no callers, as on Caddy's admin
	// endpoint, which decides itself who reaches it.
	Identify Identify
	// BodyTimeout is how long a body may take. 0: as long as the server lets it.
	BodyTimeout time.Duration
	// Origins are the rules for browsers. Nil: the API sends no CORS headers.
	Origins *Origins
	// Report receives the errors behind answers from 500 on. Nil: they are dropped.
	Report func(error)
}

// Dialect is how an API reads requests and words errors.
type Dialect struct {
	// Title and Description head the OpenAPI document; Version is that of the API.
	Title, Description, Version string
	// Body checks a body that has been read, and returns nil for one that counts as
	// empty. Default: [JSONBody].
	Body func(*http.Request, []byte) ([]byte, error)
	// BodyFirst refuses a body of a wrong type before it identifies the caller, and
	// charges nothing for a malformed one. By default a caller who may not make the call
	// learns that first, and a malformed body counts as a call.
	BodyFirst bool
	// Anonymous lets requests without any identity reach the handlers, with a nil
	// Caller. By default they are refused.
	Anonymous bool
	// ExtraParameters lets a query hold parameters that no field is named after, such
	// as the key itself.
	ExtraParameters bool
	// Owned are paths below the base that belong to the API with all that lies below
	// them: what is no route there is a 404. Elsewhere it is for the next handler.
	Owned []string
	// NoHead does not answer HEAD like GET.
	NoHead bool
	// DecodedPaths matches paths as they are decoded, where an escaped slash is one.
	// By default a variable segment may hold a slash.
	DecodedPaths bool
	// Error returns the body of an error, which it may change before it is written.
	// Nil is no body.
	Error func(*Call, *Error) any
	// ErrorBody is a value of the type that Error returns, for the OpenAPI document.
	ErrorBody any
}

// API serves the routes of one dialect. It implements http.Handler.
type API struct {
	Mount
	dialect  Dialect
	mux      *http.ServeMux
	methods  []string // of all routes, sorted
	document []byte

	takeTimeout time.Duration // a constant; less in tests
}

// New returns the API of a table of routes.
func New(m Mount, d Dialect, routes []*Route) *API {
	if m.Report == nil {
		m.Report = func(error) {}
	}
	if d.Body == nil {
		d.Body = JSONBody
	}
	a := &API{Mount: m, dialect: d, mux: http.NewServeMux(), document: document(m.Base, m.BodyTimeout > 0, d, routes), takeTimeout: takeTimeout}
	base := (&url.URL{Path: m.Base}).EscapedPath() // it may hold characters that mean something in a pattern
	for _, rt := range routes {
		a.mux.Handle(rt.Method+" "+base+rt.Path, rt)
		a.methods = append(a.methods, rt.Method)
		if rt.Method == http.MethodGet && !d.NoHead {
			a.methods = append(a.methods, http.MethodHead)
		}
	}
	slices.Sort(a.methods)
	a.methods = slices.Compact(a.methods)
	return a
}

// find returns the route of a method and a path, or nil where the API has none. A
// handler of the multiplexer's own, which would redirect to a cleaned path, is none.
func (a *API) find(method string, u *url.URL) *Route {
	if method == http.MethodHead && a.dialect.NoHead {
		return nil
	}
	h, _ := a.mux.Handler(&http.Request{Method: method, URL: u})
	rt, _ := h.(*Route)
	return rt
}

// methodsAt returns the methods that are answered at a path, or nil for none.
func (a *API) methodsAt(u *url.URL) (methods []string) {
	for _, method := range a.methods {
		if a.find(method, u) != nil {
			methods = append(methods, method)
		}
	}
	return methods
}

// routable returns a URL that the multiplexer matches as the dialect wants. Left alone,
// the multiplexer takes a segment that is nothing but an escaped slash, which may be the
// name of an owner, for a trailing slash.
func (a *API) routable(u *url.URL) *url.URL {
	if a.dialect.DecodedPaths {
		return &url.URL{Path: u.Path}
	}
	escaped := u.EscapedPath()
	if !strings.Contains(escaped, "/%2") {
		return u
	}
	segments := strings.Split(escaped, "/")
	for i, s := range segments {
		if strings.EqualFold(s, "%2f") {
			segments[i] = "-"
		}
	}
	escaped = strings.Join(segments, "/")
	decoded, err := url.PathUnescape(escaped)
	if err != nil {
		return u
	}
	return &url.URL{Path: decoded, RawPath: escaped}
}

// Methods returns the methods that are answered at the path of a request, or nil
// where the request is not for the API.
func (a *API) Methods(r *http.Request) []string {
	if !strings.HasPrefix(r.URL.Path, a.Base+"/") || hasDotSegment(r.URL.EscapedPath()) {
		return nil
	}
	return a.methodsAt(a.routable(r.URL))
}

// Serves reports whether a decoded path is one of the API's own.
func (a *API) Serves(decoded string) bool {
	return a.owns(decoded) || a.methodsAt(&url.URL{Path: decoded}) != nil
}

// hasDotSegment reports whether a path has a segment that a server behind might
// resolve as "." or "..", in its escaped form. The multiplexer knows the plain one.
func hasDotSegment(escaped string) bool {
	return strings.Contains(escaped, "%2") && slices.ContainsFunc(strings.Split(escaped, "/"), func(segment string) bool {
		s, err := url.PathUnescape(segment)
		return err != nil || s == "." || s == ".."
	})
}

// Handle answers a request that is for the API, and reports whether it was.
func (a *API) Handle(w http.ResponseWriter, r *http.Request) bool {
	methods := a.Methods(r)
	if methods == nil && !a.owns(r.URL.Path) {
		return false
	}
	w.Header().Set("Cache-Control", "no-store")
	switch {
	case a.Origins != nil && a.Origins.serve(w, r, methods):
	case methods == nil: // also where only the multiplexer would see a route
		a.fail(w, &Call{Request: r, api: a, upload: a.uploadOf(w, r)}, noRoute(nil))
	default:
		a.ServeHTTP(w, r)
	}
	return true
}

// owns reports whether a decoded path belongs to the API, whether or not there is a
// route for it. That includes what only matchers of Caddy, or an application, take for
// such a path: with doubled slashes, dots, or other letters. A call that is spelled so must
// not look like a success of what is behind.
func (a *API) owns(decoded string) bool {
	return a.ownsExactly(decoded, a.Base) || a.ownsExactly(strings.ToLower(path.Clean(decoded)), strings.ToLower(a.Base))
}

func (a *API) ownsExactly(decoded, base string) bool {
	below, ok := strings.CutPrefix(decoded, base)
	return ok && slices.ContainsFunc(a.dialect.Owned, func(owned string) bool {
		rest, ok := strings.CutPrefix(below, owned)
		return ok && (rest == "" || rest[0] == '/')
	})
}

// ServeHTTP answers every request: with an error where there is no route for it.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u := a.routable(r.URL)
	c := &Call{Request: r, Route: a.find(r.Method, u), api: a, upload: a.uploadOf(w, r)}
	if c.Route == nil {
		a.fail(w, c, noRoute(a.methodsAt(u)))
		return
	}
	answer, err := a.run(w, c)
	if err != nil {
		a.fail(w, c, err)
		return
	}
	c.upload.leave(false)
	for name, value := range c.Route.Header {
		w.Header().Set(name, value)
	}
	switch answer := answer.(type) {
	case None:
		w.WriteHeader(c.Route.Status)
	case File:
		a.file(w, c, answer)
	case Stream:
		a.stream(w, c, StreamType, answer)
	case list:
		a.stream(w, c, "application/json", answer.write)
	default:
		a.write(w, c.Route.Status, answer)
	}
}

// run takes a request through the checks to its route. The caller is looked at before
// the body is read, and judged after it: one who sends it slowly is judged by what
// holds when it ends.
func (a *API) run(w http.ResponseWriter, c *Call) (any, error) {
	rt := c.Route
	var err error
	if !rt.Public {
		if c.Keys, err = a.Keys(); err != nil {
			return nil, Unavailable(err)
		}
	}
	asked := a.Identify != nil && !rt.Public
	var bodyErr error
	if rt.takesBody() {
		if bodyErr, err = a.read(w, c, asked); err != nil {
			return nil, err
		}
	}
	if asked {
		if err := a.identify(w, c, Ask{Needs: rt.Needs, Free: rt.Free}); err != nil {
			return nil, err
		}
	}
	if bodyErr != nil && !rt.AnyBody {
		return nil, bodyErr
	}
	if bodyErr != nil {
		c.upload.drain()
	}
	if rt.Free && c.Caller != nil && c.Caller.Spend != nil && !c.endsOwnKey() {
		if err := c.Caller.Spend(); err != nil {
			return nil, err
		}
	}
	return rt.serve(c)
}

// read reads the body. bad is what is wrong with it, which a caller learns who may make
// the call.
func (a *API) read(w http.ResponseWriter, c *Call, asked bool) (bad, err error) {
	if a.dialect.BodyFirst {
		if _, err := a.dialect.Body(c.Request, nil); err != nil {
			return nil, err
		}
	}
	if asked && !c.upload.read {
		if err := a.identify(w, c, Ask{Needs: c.Route.Needs, Free: c.Route.Free, Look: true}); err != nil {
			return nil, err
		}
		if c.missing != nil {
			c.upload.timeout = min(c.upload.timeout, strangerTimeout)
		}
		c.Caller = nil
	}
	c.Body, err = c.upload.all(cmp.Or(c.Route.MaxBody, MaxBody))
	switch {
	case err == nil:
		c.Body, err = a.dialect.Body(c.Request, c.Body)
	case err == errTimeout && c.missing != nil:
		err = c.missing
	}
	if a.dialect.BodyFirst {
		return nil, err
	}
	return err, nil
}

// identify finds the caller.
func (a *API) identify(w http.ResponseWriter, c *Call, ask Ask) (err error) {
	c.Caller, err = a.Identify(w, c.Request, ask)
	if refusal, ok := err.(*Refusal); ok && a.dialect.Anonymous && refusal.Outcome == keyring.Missing {
		c.missing = refusal
		return nil
	}
	return err
}

// denied tells of a call that was refused for who made it.
func (a *API) denied(c *Call, e *Error) keyring.Denied {
	d := keyring.Denied{Code: e.Code, Call: c.Method + " " + a.Base + c.pattern()}
	if e.Refused != nil {
		d.By = e.Refused.By
	}
	if d.By.Kind == "" && c.Caller != nil {
		d.By = c.Caller.Actor(nil)
	}
	return d
}

// fail answers with an error.
func (a *API) fail(w http.ResponseWriter, c *Call, err error) {
	e := errorOf(err, c.Route)
	if e.Cause != nil && c.Context().Err() == nil { // a caller who left has cancelled the call
		a.Report(fmt.Errorf("%s %s: %w", c.Method, c.pattern(), e.Cause))
	}
	if c.Caller != nil {
		c.Caller.Refused(e.Status)
	}
	if a.Identify != nil && c.Keys != nil && (e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden) {
		c.Keys.Denied(a.denied(c, e))
	}
	c.upload.leave(true)
	body := a.dialect.Error(c, e)
	h := w.Header()
	if e.Status == http.StatusMethodNotAllowed {
		h.Set("Allow", strings.Join(e.allow, ", "))
	}
	if e.Status == http.StatusUnauthorized {
		challenges := []string{"Bearer"}
		if r := cmp.Or(e.Refused, c.missing); r != nil && r.Challenges != nil {
			challenges = r.Challenges
		}
		h["Www-Authenticate"] = challenges
	}
	if e.Wait > 0 {
		h.Set("Retry-After", strconv.FormatInt(Seconds(e.Wait), 10))
	}
	if body == nil {
		w.WriteHeader(e.Status)
		return
	}
	a.write(w, e.Status, body)
}

// write sends JSON.
func (a *API) write(w http.ResponseWriter, status int, body any) {
	b, err := MarshalLine(body)
	if err != nil {
		a.Report(fmt.Errorf("writing an answer: %w", err))
		status, b = http.StatusInternalServerError, []byte(`{"error":"the answer cannot be written","code":"INTERNAL"}`)
	}
	h := w.Header()
	private(h, status, "application/json")
	h.Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	w.Write(b) // a caller who has left needs no answer
}

// private sets the headers of every answer. None is cached: it is the caller's only.
func private(h http.Header, status int, contentType string) {
	if status != http.StatusUnauthorized { // an earlier handler may have set one
		h.Del("WWW-Authenticate")
	}
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
}

// Seconds rounds milliseconds up, so that a client that waits for so long has waited
// long enough.
func Seconds(ms int64) int64 { return max(1, (ms+999)/1000) }
