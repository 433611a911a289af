package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/keyring"
	"github.com/caddy-apikey/caddy-apikey/store/sqlite"
)

// start is the moment at which the clock of every test stands at first. It has
// milliseconds that end with zeros, which must be written all the same.
var start = time.Date(2026, 11, 21, 19, 9, 19, 500_000_000, time.UTC)

// rig is the handler over HTTP, with a real store and a clock of its own.
type rig struct {
	*Client
	t       testing.TB
	engine  *keyring.Engine
	set     *keyring.Settings
	rules   *keyring.Rules
	service func() (*keyring.Service, error) // may be replaced

	mu       sync.Mutex
	time     time.Time
	reported []error
}

func newAPI(t testing.TB, change ...func(*keyring.Rules)) *rig {
	t.Helper()
	opener, err := sqlite.New(sqlite.Options{Path: filepath.Join(t.TempDir(), "keys.db")})
	if err != nil {
		t.Fatal(err)
	}
	a := &rig{t: t, time: start}
	engine := keyring.New(opener, a.now, a.report)
	a.engine = engine
	if err := engine.Open(context.Background()); err != nil {
		t.Fatal(err)
	}
	settings := &keyring.Settings{Rules: keyring.DefaultRules()}
	for _, c := range change {
		c(&settings.Rules)
	}
	a.set, a.rules = settings, &settings.Rules
	svc := keyring.NewService(engine, settings)
	a.service = func() (*keyring.Service, error) { return svc, nil }
	handler := New(func() (*keyring.Service, error) { return a.service() }, Info{Version: "v1.2.3", Report: a.report})
	srv := httptest.NewServer(handler)
	a.Client = &Client{HTTP: srv.Client(), Base: srv.URL}
	t.Cleanup(func() {
		srv.Close()
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

func (a *rig) now() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.time
}

func (a *rig) sleep(d time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.time = a.time.Add(d)
}

func (a *rig) report(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.reported = append(a.reported, err)
}

// reply is an answer as it came.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// send sends a body as it is.
func (a *rig) send(method, path, body string, header ...string) reply {
	a.t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequest(method, a.Base+path, r)
	if err != nil {
		a.t.Fatal(err)
	}
	if body != "" && header == nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := a.HTTP.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, b}
}

// object reads a body that must be one JSON object.
func (r reply) object(t testing.TB) map[string]any {
	t.Helper()
	var m map[string]any
	d := json.NewDecoder(bytes.NewReader(r.body))
	d.UseNumber()
	if err := d.Decode(&m); err != nil {
		t.Fatalf("body %q: %v", r.body, err)
	}
	return m
}

// want checks the status, and returns the object.
func (r reply) want(t testing.TB, status int) map[string]any {
	t.Helper()
	if r.status != status {
		t.Fatalf("status %d, want %d: %s", r.status, status, r.body)
	}
	return r.object(t)
}

// refused checks that an answer is the error that is wanted, and well made.
func (r reply) refused(t testing.TB, status int, code, field string) {
	t.Helper()
	m := r.object(t)
	got, _ := m["field"].(string)
	if r.status != status || m["code"] != code || got != field {
		t.Errorf("got %d %v, field %q; want %d %s, field %q: %s", r.status, m["code"], got, status, code, field, r.body)
	}
	if s, _ := m["error"].(string); s == "" {
		t.Errorf("no sentence in %s", r.body)
	}
	names := slices.Sorted(maps.Keys(m))
	if _, has := m["field"]; has && got == "" || !slices.Equal(names, []string{"code", "error", "field"}) && !slices.Equal(names, []string{"code", "error"}) {
		t.Errorf("members %v", names)
	}
	if ct := r.header.Get("Content-Type"); ct != "application/json" {
		t.Errorf("Content-Type %q", ct)
	}
}

// make makes a key from a body.
func (a *rig) make(body string) (id, raw string) {
	a.t.Helper()
	m := a.send("POST", "/apikey/keys", body).want(a.t, 201)
	return m["id"].(string), m["key"].(string)
}

// must drops the error of a call that has to succeed.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// apiErr returns an APIError, or fails.
func apiErr(t testing.TB, err error) *APIError {
	t.Helper()
	var e *APIError
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want an APIError", err)
	}
	return e
}

func ptr[T any](v T) *T { return &v }

func replaceID(s, id string) string { return strings.ReplaceAll(s, "ID", id) }
