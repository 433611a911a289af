package api

import (
	"net/http"
	"net/url"
	"reflect"
	"strings"

	"github.com/caddy-apikey/caddy-apikey/keyring"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// Route is one call of an API. Requests are decoded by the types of its Endpoint,
// and the OpenAPI document is made from them.
type Route struct {
	// Method and Path are how it is called. Path is below the base; a segment such
	// as {id} is variable.
	Method, Path string
	// Name and Summary describe it in the OpenAPI document. A route without a name
	// is not documented.
	Name, Summary string
	// Needs is the action on the resource "api" that the caller must have, empty for
	// none.
	Needs string
	// Free takes nothing of the caller's key and is in no statistics: it has a budget of
	// its own, so that who drains a key keeps nobody from ending it.
	Free bool
	// Ends returns the ID of the key that the call ends, for a free route. Who ends their
	// own key needs no budget, which others may have drained: there is no second time.
	Ends func(*Call) string
	// Status is that of a success.
	Status int
	// Header is set on a success, beside what all answers have.
	Header map[string]string
	// Public needs neither a caller nor a running service.
	Public bool
	// OptionalBody lets the body be empty.
	OptionalBody bool
	// AnyBody calls the endpoint also for a body that cannot be read, which is then nil.
	AnyBody bool
	// MaxBody is the longest body. Default: [MaxBody].
	MaxBody int64
	// Conflict says that the answer may be a 409.
	Conflict bool
	// Stream describes the lines of an answer that is a Stream.
	Stream string
	// File is the Content-Type of an answer that is a File.
	File string
	// Unavailable is a value of the type of the body of a 503. Default: Dialect.ErrorBody.
	Unavailable any

	Endpoint
}

// Endpoint is the function behind a route, with its types.
type Endpoint struct {
	query, body, answer reflect.Type // noneType where there is none
	serve               func(*Call) (any, error)
}

// None is an answer without a body.
type None struct{}

var noneType = reflect.TypeFor[None]()

// Plain is an endpoint without query and body.
func Plain[A any](f func(*Call) (A, error)) Endpoint {
	return endpoint(func(c *Call, _, _ None) (A, error) { return f(c) })
}

// WithQuery is an endpoint whose query is decoded into Q.
func WithQuery[Q, A any](f func(*Call, Q) (A, error)) Endpoint {
	return endpoint(func(c *Call, query Q, _ None) (A, error) { return f(c, query) })
}

// WithBody is an endpoint whose body is decoded into B.
func WithBody[B, A any](f func(*Call, B) (A, error)) Endpoint {
	return endpoint(func(c *Call, _ None, body B) (A, error) { return f(c, body) })
}

func endpoint[Q, B, A any](f func(*Call, Q, B) (A, error)) Endpoint {
	answer := reflect.TypeFor[A]()
	if l, ok := any(*new(A)).(list); ok {
		answer = l.answer()
	}
	return Endpoint{reflect.TypeFor[Q](), reflect.TypeFor[B](), answer, func(c *Call) (any, error) {
		var query Q
		if err := decodeQuery(c.URL.RawQuery, &query, c.api.dialect.ExtraParameters); err != nil {
			return nil, err
		}
		var body B
		if c.Body != nil || reflect.TypeFor[B]() != noneType && !c.Route.OptionalBody {
			if err := DecodeBody(c.Body, &body); err != nil {
				return nil, err
			}
		}
		return f(c, query, body)
	}}
}

// Undecoded is an endpoint of a dialect with rules of its own for fields: it reads
// query and body itself.
func Undecoded(f func(*Call) (any, error)) Endpoint { return Endpoint{serve: f} }

// takesBody reports whether the body is read. One that no field would hold is read
// too, so that it is refused instead of ignored.
func (rt *Route) takesBody() bool {
	switch rt.body {
	case nil: // undecoded
		return rt.Method == http.MethodPost && !rt.Public
	case noneType:
		return rt.OptionalBody
	}
	return true
}

// ServeHTTP makes a route a handler that the multiplexer can find. It is never called:
// the API that found the route serves it.
func (rt *Route) ServeHTTP(http.ResponseWriter, *http.Request) {}

// variable returns the name of the variable segment, or "".
func (rt *Route) variable() string {
	_, rest, _ := strings.Cut(rt.Path, "{")
	name, _, _ := strings.Cut(rest, "}")
	return name
}

// Call is one request on its way through a route.
type Call struct {
	*http.Request
	// Route is nil where none was found.
	Route *Route
	// Keys is nil on a public route.
	Keys *keyring.Service
	// Caller is nil on an API without callers, and where a dialect lets requests
	// without an identity pass.
	Caller *Caller
	// Body is what was sent, or nil.
	Body []byte

	api     *API
	upload  upload
	missing *Refusal // of a request without an identity, which the dialect lets pass
}

// Arg returns the variable segment of the path, which may hold anything, a slash too.
func (c *Call) Arg() string {
	before, _, _ := strings.Cut(c.Route.Path, "{")
	n := strings.Count(c.api.Base+before, "/")
	arg, _ := url.PathUnescape(strings.Split(c.URL.EscapedPath(), "/")[n]) // the route was found by it
	return arg
}

// ID returns the variable segment as the ID of a key. What cannot be an ID is not
// looked up: some stores fail on such text instead of not finding it.
func (c *Call) ID() (string, error) {
	id := c.Arg()
	if keyring.CheckUserID(id) != nil {
		return "", store.ErrNotFound
	}
	return id, nil
}

// Self is what a caller who holds a key may send for its ID.
const Self = "self"

// KeyID returns the ID that a call is about where id was sent.
func (c *Call) KeyID(id string) string {
	if id == Self && c.Caller != nil && c.Caller.Decision != nil {
		return c.Caller.Decision.Key().ID
	}
	return id
}

// endsOwnKey reports whether the call ends the key that makes it.
func (c *Call) endsOwnKey() bool {
	return c.Route.Ends != nil && c.Caller.Decision != nil && c.KeyID(c.Route.Ends(c)) == c.Caller.Decision.Key().ID
}

// pattern names the route in errors that are reported, without what was sent.
func (c *Call) pattern() string {
	if c.Route == nil {
		return "(no route)"
	}
	return c.Route.Path
}
