package api

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

func TestMay(t *testing.T) {
	for _, row := range []struct {
		p    key.Permissions
		may  []string
		more []string // that can be granted
	}{
		{nil, nil, nil},
		{key.Permissions{"files": {"*"}}, nil, nil},
		{key.Permissions{"api": {"read"}}, []string{Read}, []string{Read}},
		{key.Permissions{"api": {"write", "other"}}, []string{Write}, []string{Write}},
		{key.Permissions{"api": {"admin"}}, []string{Read, Write, Admin}, []string{Read, Write, Admin}},
		{key.Permissions{"api": {"*"}}, []string{Read, Write, Admin}, []string{Read, Write, Admin}},
		{key.Permissions{"*": {"*"}}, []string{Read, Write, Admin}, []string{Read, Write, Admin}},
	} {
		for _, action := range []string{Read, Write, Admin} {
			c := Caller{Permissions: row.p}
			if got := c.May(action); got != slices.Contains(row.may, action) {
				t.Errorf("%v may %s: %v", row.p, action, got)
			}
			one := key.Permission{Resource: key.DefaultResource, Action: action}
			if got := Grantable(row.p).Allows(one); got != slices.Contains(row.more, action) {
				t.Errorf("%v may grant %s: %v", row.p, action, got)
			}
		}
		if Grantable(row.p).Allows(key.Permission{Resource: "other", Action: "x"}) != row.p.Allows(key.Permission{Resource: "other", Action: "x"}) {
			t.Errorf("%v may grant what is no action of the API", row.p)
		}
	}
}

// TestRefusal_headers refuses callers: a 401 has a challenge, and Retry-After is rounded up.
func TestRefusal_headers(t *testing.T) {
	for _, row := range []struct {
		d         keyring.Decision
		challenge string
		after     string
	}{
		{keyring.Decision{Outcome: keyring.Invalid}, `Bearer error="invalid_token"`, ""},
		{keyring.Decision{Outcome: keyring.Forbidden}, "", ""},
		{keyring.Decision{Outcome: keyring.RateLimited, Waitable: true}, "", "1"},
		{keyring.Decision{Outcome: keyring.RateLimited, Waitable: true, Wait: 1000}, "", "1"},
		{keyring.Decision{Outcome: keyring.RateLimited, Waitable: true, Wait: 1001}, "", "2"},
		{keyring.Decision{Outcome: keyring.UsageExceeded, Wait: 1001}, "", ""},
		{keyring.Refusal(keyring.Unavailable), "", "1"},
	} {
		refusal := &Refusal{Decision: row.d, Challenges: []string{`Bearer error="invalid_token"`}}
		a := New(Mount{
			Keys:     func() (*keyring.Service, error) { return nil, nil },
			Identify: func(http.ResponseWriter, *http.Request, Ask) (*Caller, error) { return nil, refusal },
		}, Dialect{Error: func(*Call, *Error) any { return nil }}, []*Route{{Method: "GET", Path: "/x", Endpoint: Plain(func(*Call) (None, error) {
			t.Error("the refused call was made")
			return None{}, nil
		})}})
		w := httptest.NewRecorder()
		a.ServeHTTP(w, httptest.NewRequest("GET", "/x", nil))
		h := w.Header()
		if w.Code != row.d.Outcome.Status() {
			t.Errorf("status %d for %v", w.Code, row.d.Outcome.Code())
		}
		if h.Get("WWW-Authenticate") != row.challenge || h.Get("Retry-After") != row.after {
			t.Errorf("%+v: %v", row.d.Outcome, h)
		}
	}
}

func TestRefused(t *testing.T) {
	for status, want := range map[int][]keyring.Outcome{
		200: nil, 201: nil, 400: nil, 404: nil, 413: nil, 500: nil,
		401: {keyring.Forbidden}, 403: {keyring.Forbidden}, 503: {keyring.Unavailable},
	} {
		var got []keyring.Outcome
		(&Caller{Cancel: func(o keyring.Outcome) { got = append(got, o) }}).Refused(status)
		if !slices.Equal(got, want) {
			t.Errorf("%d takes back %v, want %v", status, got, want)
		}
	}
}
