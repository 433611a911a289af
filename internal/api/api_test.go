package api

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/keyring"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// plainErrors is a dialect that writes errors as they are.
var plainErrors = Dialect{Error: func(_ *Call, e *Error) any { return map[string]string{"code": e.Code, "message": e.Message} }}

func noKeys() (*keyring.Service, error) { return nil, nil }

// TestFailures: what the store fails at is a 503 that says when to come back, what
// nobody foresaw is a 500. Neither tells the reason, both are reported, and the caller
// pays for neither a refusal nor for a store that is away.
func TestFailures(t *testing.T) {
	for _, row := range []struct {
		err       error
		status    int
		canceled []keyring.Outcome
		reported  bool
	}{
		{fmt.Errorf("reading: %w", store.ErrUnavailable), 503, []keyring.Outcome{keyring.Unavailable}, true},
		{store.ErrClosed, 503, []keyring.Outcome{keyring.Unavailable}, true},
		{errors.New("secret of the inside"), 500, nil, true},
		{store.ErrNotFound, 404, nil, false},
		{store.ErrExists, 409, nil, false},
		{store.ErrCursor, 400, nil, false},
		{keyring.ErrTooFewCredits, 409, nil, false},
		{Invalid("name", "must be shorter"), 400, nil, false},
		{&keyring.ScopeError{Field: "permissions", Message: "must be within those of the caller"}, 403, []keyring.Outcome{keyring.Forbidden}, false},
	} {
		var reported []error
		var canceled []keyring.Outcome
		a := New(Mount{
			Base: "/base", Keys: noKeys, Report: func(err error) { reported = append(reported, err) },
			Identify: func(http.ResponseWriter, *http.Request, Ask) (*Caller, error) {
				return &Caller{Cancel: func(o keyring.Outcome) { canceled = append(canceled, o) }}, nil
			},
		}, plainErrors, []*Route{{Method: "GET", Path: "/keys/{id}", Status: 200, Conflict: true, Endpoint: Plain(func(*Call) (None, error) { return None{}, row.err })}})
		w := httptest.NewRecorder()
		a.ServeHTTP(w, httptest.NewRequest("GET", "/base/keys/canary", nil))
		if w.Code != row.status || strings.Contains(w.Body.String(), "inside") || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%v: %d %s %v", row.err, w.Code, w.Body, w.Header())
		}
		if !slices.Equal(canceled, row.canceled) {
			t.Errorf("%v: takes back %v", row.err, canceled)
		}
		if (len(reported) == 1 && errors.Is(reported[0], row.err) && !strings.Contains(reported[0].Error(), "canary")) != row.reported {
			t.Errorf("%v: reported %v", row.err, reported)
		}
		if got := w.Header().Get("Retry-After"); (got == "1") != (row.status == 503) {
			t.Errorf("%v: Retry-After %q", row.err, got)
		}
	}
}

// TestRouting finds routes by method and escaped path, and hands on what is none.
func TestRouting(t *testing.T) {
	got := ""
	echo := func(name string) Endpoint {
		return Plain(func(c *Call) (None, error) { got = name + " " + c.Arg(); return None{}, nil })
	}
	a := New(Mount{Base: "/a b", Keys: noKeys}, plainErrors, []*Route{
		{Method: "GET", Path: "/keys", Status: 204, Endpoint: Plain(func(*Call) (None, error) { got = "list"; return None{}, nil })},
		{Method: "GET", Path: "/keys/{id}", Status: 204, Endpoint: echo("get")},
		{Method: "POST", Path: "/keys/fixed", Status: 204, Endpoint: Plain(func(*Call) (None, error) { got = "fixed"; return None{}, nil })},
		{Method: "GET", Path: "/keys/{id}/usage", Status: 204, Endpoint: echo("usage")},
	})
	for _, row := range []struct{ method, path, want string }{
		{"GET", "/a%20b/keys", "list"},
		{"HEAD", "/a%20b/keys", "list"},
		{"POST", "/a%20b/keys", "405 GET, HEAD"},
		{"GET", "/a%20b/%6beys", "list"},
		{"GET", "/a%20b/keys/x", "get x"},
		{"GET", "/a%20b/keys/x%2Fy", "get x/y"},
		{"GET", "/a%20b/keys/%2F", "get /"},
		{"GET", "/a%20b/keys/%2f%2f", "get //"},
		{"GET", "/a%20b/keys/%252F", "get %2F"},
		{"GET", "/a%20b/keys/fixed", "get fixed"},
		{"POST", "/a%20b/keys/fixed", "fixed"},
		{"PUT", "/a%20b/keys/fixed", "405 GET, HEAD, POST"},
		{"GET", "/a%20b/keys/%2F/usage", "usage /"},
		{"GET", "/a%20b/keys/%F0%9F%94%91/usage", "usage 🔑"},
		{"GET", "/a%20b/keys/%2e%2e", ""},
		{"GET", "/a%20b/keys/", ""},
		{"GET", "/a%20b//keys", ""},
		{"GET", "/a%20b/x/../keys", ""},
		{"GET", "/a%20b", ""},
		{"GET", "/keys", ""},
		{"GET", "/a%20b%2Fkeys", ""},
	} {
		got = ""
		w := httptest.NewRecorder()
		if !a.Handle(w, httptest.NewRequest(row.method, row.path, nil)) {
			got = ""
		} else if w.Code == 405 {
			got = "405 " + w.Header().Get("Allow")
		}
		if got != row.want {
			t.Errorf("%s %s: %q, want %q", row.method, row.path, got, row.want)
		}
	}
}
