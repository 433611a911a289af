package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring"
	"github.com/caddy-apikey/caddy-apikey/store"
)

func newChunked(url, body string) (*http.Request, error) {
	req, err := http.NewRequest("POST", url, io.MultiReader(strings.NewReader(body)))
	if err == nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return req, err
}

func TestUnknownPaths(t *testing.T) {
	a := newAPI(t)
	for _, path := range []string{
		"/apikey/", "/apikey/nosuch", "/apikey/keys/", "/apikey/keys//rotate", "/apikey/keys/a/b", "/apikey/Keys", "/apikey/owners/",
		"/apikey/owners/a/b", "/apikey/keys/a/rotate/", "/apikey/openapi", "/apikey//keys",
	} {
		a.send("GET", path, "").refused(t, 404, "NOT_FOUND", "")
	}
}

func TestWrongMethods(t *testing.T) {
	a := newAPI(t)
	for _, test := range []struct{ method, path, allow string }{
		{"DELETE", "/apikey/keys", "GET, HEAD, POST"},
		{"OPTIONS", "/apikey/keys", "GET, HEAD, POST"},
		{"POST", "/apikey/keys/x", "DELETE, GET, HEAD, PATCH"},
		{"PUT", "/apikey/keys/x", "DELETE, GET, HEAD, PATCH"},
		{"GET", "/apikey/keys/x/rotate", "POST"},
		{"GET", "/apikey/verify", "POST"},
		{"POST", "/apikey/owners", "GET, HEAD"},
		{"PATCH", "/apikey/owners/x", "DELETE, GET, HEAD, PUT"},
		{"TRACE", "/apikey/health", "GET, HEAD"},
	} {
		r := a.send(test.method, test.path, "")
		r.refused(t, 405, "METHOD_NOT_ALLOWED", "")
		if got := r.header.Get("Allow"); got != test.allow {
			t.Errorf("%s %s: Allow %q, want %q", test.method, test.path, got, test.allow)
		}
	}
	if allow := a.send("GET", "/apikey/nosuch", "").header["Allow"]; allow != nil {
		t.Errorf("Allow %v on a 404", allow)
	}
}

func TestHead(t *testing.T) {
	a := newAPI(t)
	id, _ := a.make(`{"userId":"u"}`)
	for _, path := range []string{"/apikey/keys", "/apikey/keys/" + id, "/apikey/owners", "/apikey/owners/u", "/apikey/health", "/apikey/openapi.json"} {
		get, head := a.send("GET", path, ""), a.send("HEAD", path, "")
		if head.status != 200 || len(head.body) != 0 || head.header.Get("Content-Length") != get.header.Get("Content-Length") {
			t.Errorf("HEAD %s: %d, %d bytes, %v", path, head.status, len(head.body), head.header)
		}
	}
}

func TestNothingIsCached(t *testing.T) {
	a := newAPI(t)
	created := a.send("POST", "/apikey/keys", `{"userId":"u","withSecret":true}`)
	id := created.object(t)["id"].(string)
	for name, r := range map[string]reply{
		"create": created,
		"rotate": a.send("POST", "/apikey/keys/"+id+"/rotate", ""),
		"list":   a.send("GET", "/apikey/keys", ""),
	} {
		if got := r.header.Get("Cache-Control"); got != "no-store" {
			t.Errorf("%s: Cache-Control %q", name, got)
		}
	}
}

// TestNoService is a running configuration without the app.
func TestNoService(t *testing.T) {
	a := newAPI(t)
	a.service = func() (*keyring.Service, error) { return nil, errors.New("no app") }
	for _, path := range []string{"/apikey/keys", "/apikey/owners/u"} {
		r := a.send("GET", path, "")
		r.refused(t, 503, "STORE_UNAVAILABLE", "")
		if r.header.Get("Retry-After") != "1" {
			t.Errorf("Retry-After %q", r.header.Get("Retry-After"))
		}
	}
	a.send("GET", "/apikey/openapi.json", "").want(t, 200)
	if m := a.send("GET", "/apikey/health", "").want(t, 503); m["status"] != "unavailable" || m["error"] != "no app" {
		t.Errorf("health: %v", m)
	}
}

// broken is a store that fails, or hangs.
type broken struct {
	store.Store
	err  error
	hang chan struct{}
}

func (b broken) Identity() string                          { return "broken" }
func (b broken) Open(context.Context) (store.Store, error) { return b, nil }
func (b broken) Close() error                              { return nil }
func (b broken) Subscribe(func([]store.Change)) func()     { return func() {} }
func (b broken) ReportSpending(store.Spending)             {}

func (b broken) ForfeitLeases(context.Context, string, store.ForfeitNote) (int64, error) {
	return 0, nil
}
func (b broken) EachHash(context.Context, func(key.Hash)) error   { return b.err }
func (b broken) HasPlainKeys(context.Context) (bool, error)       { return false, nil }
func (b broken) Get(context.Context, string) (store.Entry, error) { return store.Entry{}, b.err }
func (b broken) Find(context.Context, key.Hash) (store.Entry, error) {
	return store.Entry{}, b.err
}

func (b broken) Create(context.Context, *key.Key, key.Credits, store.KeyLimit, store.Note) (store.Change, error) {
	return store.Change{}, b.err
}

func (b broken) Health(context.Context) (store.Status, error) {
	if b.hang != nil {
		<-b.hang
	}
	return store.Status{}, b.err
}

func (a *rig) breakStore(b store.Opener) {
	// What the background work says of the store is not what the calls report.
	engine := keyring.New(b, a.now, func(error) {})
	if err := engine.Open(context.Background()); err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { engine.Close() })
	svc := keyring.NewService(engine, &keyring.Settings{Rules: *a.rules})
	a.service = func() (*keyring.Service, error) { return svc, nil }
}

func TestBrokenStore(t *testing.T) {
	raw := must(key.Random{}.Generate("ak_", 64, true))
	for _, test := range []struct {
		name     string
		err      error
		status   int
		code     string
		reported int
	}{
		{"unavailable", fmt.Errorf("%w: disk is full", store.ErrUnavailable), 503, "STORE_UNAVAILABLE", 1},
		{"closed", store.ErrClosed, 503, "STORE_UNAVAILABLE", 1},
		{"exists", store.ErrExists, 409, "KEY_EXISTS", 0},
		{"unexpected", errors.New(marker), 500, "INTERNAL", 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := newAPI(t)
			a.breakStore(broken{err: test.err})
			r := a.send("POST", "/apikey/keys", `{"userId":"u"}`)
			r.refused(t, test.status, test.code, "")
			if len(a.reported) != test.reported {
				t.Errorf("reported %v", a.reported)
			}
			if strings.Contains(string(r.body), marker) {
				t.Errorf("an inner error is shown: %s", r.body)
			}
			if (r.header.Get("Retry-After") == "1") != (test.status == 503) {
				t.Errorf("Retry-After %q", r.header.Get("Retry-After"))
			}
			if test.status >= 500 {
				a.send("POST", "/apikey/verify", `{"key":"`+raw+`"}`).want(t, test.status)
			}
		})
	}
}

func TestHealth(t *testing.T) {
	a := newAPI(t)
	a.make(`{"userId":"u"}`)
	h := must(a.Health(t.Context())).Value
	if h.Status != "ok" || h.Version != "v1.2.3" || h.Keys != 1 || h.Store.Kind != "sqlite" || h.Store.Version == "" || h.Store.Schema < 1 || h.Degraded == nil || len(h.Degraded) > 0 {
		t.Errorf("%+v", h)
	}
	hang := make(chan struct{})
	a.breakStore(broken{hang: hang})
	t.Cleanup(func() { close(hang) }) // before the engine is closed
	began := time.Now()
	_, err := a.Health(t.Context())
	if took := time.Since(began); took < 200*time.Millisecond || took > 2*time.Second {
		t.Errorf("took %v", took)
	}
	if e := apiErr(t, err); e.Status != 503 || e.Code != "STORE_UNAVAILABLE" {
		t.Errorf("%+v", e)
	}
	a.breakStore(broken{err: store.ErrUnavailable})
	if e := apiErr(t, second(a.Health(t.Context()))); e.Status != 503 {
		t.Errorf("%+v", e)
	}
}

var errStore = fmt.Errorf("%w: disk is full", store.ErrUnavailable)

func second[T any](_ T, err error) error { return err }
