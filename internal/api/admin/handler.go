package admin

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/caddy-apikey/caddy-apikey/internal/strictjson"
	"github.com/caddy-apikey/caddy-apikey/keyring"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// Info is what the handler cannot know by itself.
type Info struct {
	// Version is the version of the plugin.
	Version string
	// Report gets the errors behind answers from 500 on. Default: they are dropped.
	Report func(error)
}

// New returns the handler of all paths below /apikey/. service is asked on each
// request, so that the answer comes from the configuration that is then in use.
func New(service func() (*keyring.Service, error), info Info) http.Handler {
	if info.Report == nil {
		info.Report = func(error) {}
	}
	s := &server{service: service, info: info, routes: routes()}
	s.document = document(s.routes, info.Version)
	return s
}

type server struct {
	service  func() (*keyring.Service, error)
	info     Info
	routes   []*route
	document json.RawMessage
}

// call is one request on its way through a route.
type call struct {
	*http.Request
	server *server
	svc    *keyring.Service // nil where the route is static
	arg    string           // the variable segment of the path
}

// ServeHTTP implements http.Handler.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rt, arg, err := s.match(r)
	if err != nil {
		s.write(w, err.status, err.body, http.Header{"Allow": err.allow})
		return
	}
	answer, ferr := s.run(w, r, rt, arg)
	body, streamed := answer.(stream)
	switch {
	case ferr != nil:
		s.fail(w, r, rt, ferr)
	case answer == nil:
		w.WriteHeader(rt.status)
	case streamed:
		s.stream(w, r, rt, body)
	default:
		s.write(w, rt.status, answer, nil)
	}
}

// stream answers with what is written while it is read.
func (s *server) stream(w http.ResponseWriter, r *http.Request, rt *route, body stream) {
	private(w.Header(), streamType)
	began, err := body.send(w)
	switch {
	case err == nil:
	case !began:
		s.fail(w, r, rt, err)
	default:
		if r.Context().Err() == nil {
			s.info.Report(fmt.Errorf("admin API: %s broke off: %w", rt.name, err))
		}
		panic(http.ErrAbortHandler) // so that nobody takes the half for the whole
	}
}

// run decodes the request and calls the route.
func (s *server) run(w http.ResponseWriter, r *http.Request, rt *route, arg string) (any, error) {
	c := &call{Request: r, server: s, arg: arg}
	if !rt.static {
		var err error
		if c.svc, err = s.service(); err != nil {
			return nil, unavailable(err)
		}
	}
	query := reflect.New(rt.query).Elem()
	if err := decodeQuery(r.URL.RawQuery, query, rt.queryFields); err != nil {
		return nil, err
	}
	body := reflect.New(rt.body).Elem()
	if rt.body != noneType || rt.mayBeEmpty {
		raw, err := readBody(w, r, cmp.Or(rt.maxBody, strictjson.MaxBody))
		if err != nil {
			return nil, err
		}
		if raw != nil || !rt.mayBeEmpty {
			if err := decodeBody(raw, body, rt.bodyFields); err != nil {
				return nil, err
			}
		}
	}
	return rt.serve(c, query.Interface(), body.Interface())
}

// mismatch is a request that no route takes.
type mismatch struct {
	failure
	allow []string // methods that would do; nil where the path is wrong
}

// match finds the route of a request. It looks at the escaped path, so that a
// variable segment may hold anything, a slash too.
func (s *server) match(r *http.Request) (*route, string, *mismatch) {
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	path := strings.Split(r.URL.EscapedPath(), "/")
	var allow []string
	for _, rt := range s.routes {
		arg, ok := rt.matches(path)
		if !ok {
			continue
		}
		if rt.method == method {
			return rt, arg, nil
		}
		allow = append(allow, rt.method)
		if rt.method == http.MethodGet {
			allow = append(allow, http.MethodHead)
		}
	}
	if allow == nil {
		return nil, "", &mismatch{failure: *fail(http.StatusNotFound, codeNotFound, "there is no such path")}
	}
	slices.Sort(allow)
	return nil, "", &mismatch{
		*fail(http.StatusMethodNotAllowed, codeMethodNotAllowed, "the method is not allowed here"),
		[]string{strings.Join(slices.Compact(allow), ", ")},
	}
}

// fail answers with an error.
func (s *server) fail(w http.ResponseWriter, r *http.Request, rt *route, err error) {
	f := failureOf(err, rt.missing())
	if f.cause != nil && r.Context().Err() == nil { // what a caller who left has cancelled is no failure
		s.info.Report(fmt.Errorf("admin API: %s: %w", rt.name, f.cause))
	}
	header := http.Header{}
	if f.status == http.StatusServiceUnavailable {
		header.Set("Retry-After", "1")
	}
	var body any = f.body
	if rt.unhealthy && f.status == http.StatusServiceUnavailable {
		body = Unhealthy{Status: "unavailable", Version: s.info.Version, Error: f.body}
	}
	s.write(w, f.status, body, header)
}

// write sends JSON. All of it is nobody else's business, so none is cached.
func (s *server) write(w http.ResponseWriter, status int, body any, header http.Header) {
	b, err := strictjson.MarshalLine(body)
	if err != nil {
		s.info.Report(fmt.Errorf("admin API: writing an answer: %w", err))
		status, b = http.StatusInternalServerError, []byte(`{"error":"the answer cannot be written","code":"INTERNAL"}`)
	}
	h := w.Header()
	for name, values := range header {
		if values != nil {
			h[name] = values
		}
	}
	private(h, "application/json")
	h.Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	w.Write(b) // who has left needs no answer
}

func private(h http.Header, contentType string) {
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
}

// id returns the variable segment as the ID of a key. What cannot be an ID is
// not looked up: some stores fail on such text instead of not finding it.
func (c *call) id() (string, error) {
	if keyring.CheckUserID(c.arg) != nil {
		return "", fmt.Errorf("key: %w", store.ErrNotFound)
	}
	return c.arg, nil
}

// owner returns the variable segment as the name of an owner.
func (c *call) owner() (string, error) {
	var bad *keyring.FieldError
	if err := keyring.CheckUserID(c.arg); errors.As(err, &bad) {
		return "", fieldFailure(bad)
	}
	return c.arg, nil
}
