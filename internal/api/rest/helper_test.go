package rest

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring"
	"github.com/caddy-apikey/caddy-apikey/store"
	"github.com/caddy-apikey/caddy-apikey/store/sqlite"
)

// start is the moment at which the clock of every test begins. It goes on by a
// millisecond with each look at it.
var start = time.Date(2026, 11, 21, 19, 9, 19, 500_000_000, time.UTC)

// rig is the handler with a real store, and a caller that tests choose. How callers
// are found is tried in the root package, with the real one.
type rig struct {
	*api.API
	t        testing.TB
	keys     *keyring.Service
	store    *brokenStore
	engine   *keyring.Engine
	caller   *api.Caller
	refused  error // instead of the caller
	canceled int

	looks atomic.Int64
	later atomic.Int64 // milliseconds by which a test has set the clock on

	mu       sync.Mutex
	reported []error
}

// brokenStore fails where a test says so.
type brokenStore struct {
	store.Store
	fail error
}

func (s *brokenStore) Create(ctx context.Context, k *key.Key, c key.Credits, limit store.KeyLimit, note store.Note) (store.Change, error) {
	if s.fail != nil {
		return store.Change{}, s.fail
	}
	return s.Store.Create(ctx, k, c, limit, note)
}

func (s *brokenStore) List(ctx context.Context, q store.List) (store.Page, error) {
	if s.fail != nil {
		return store.Page{}, s.fail
	}
	return s.Store.List(ctx, q)
}

func (s *brokenStore) Update(ctx context.Context, id string, change func(*store.Entry) error, note store.Note) (store.Change, error) {
	if s.fail != nil {
		return store.Change{}, s.fail
	}
	return s.Store.Update(ctx, id, change, note)
}

func (s *brokenStore) Usage(ctx context.Context, of store.Subject, first, last int32) ([]store.DayUses, error) {
	if s.fail != nil {
		return nil, s.fail
	}
	return s.Store.Usage(ctx, of, first, last)
}

// opener opens a brokenStore.
type opener struct {
	store.Opener
	*brokenStore
}

func (o opener) Open(ctx context.Context) (store.Store, error) {
	var err error
	o.Store, err = o.Opener.Open(ctx)
	return o.brokenStore, err
}

// options are what an API is made with.
type options struct {
	api.Mount
	Options
}

func newAPI(t testing.TB, change ...func(*keyring.Settings, *options)) *rig {
	t.Helper()
	file, err := sqlite.New(sqlite.Options{Path: filepath.Join(t.TempDir(), "keys.db")})
	if err != nil {
		t.Fatal(err)
	}
	a := &rig{t: t, store: new(brokenStore)}
	a.engine = keyring.New(opener{file, a.store}, func() time.Time { return start.Add(time.Duration(a.looks.Add(1)+a.later.Load()) * time.Millisecond) }, a.report)
	if err := a.engine.Open(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.engine.Close(); err != nil {
			t.Error(err)
		}
	})
	settings := &keyring.Settings{Rules: keyring.DefaultRules()}
	o := options{Mount: api.Mount{Base: "/v1/auth", Identify: a.identify, Report: a.report}}
	for _, c := range change {
		c(settings, &o)
	}
	a.keys = keyring.NewService(a.engine, settings)
	o.Keys = func() (*keyring.Service, error) { return a.keys, nil }
	a.API = New(o.Mount, o.Options)
	a.as("alice", "read", "write")
	return a
}

func (a *rig) report(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.reported = append(a.reported, err)
}

// as makes somebody the caller.
func (a *rig) as(userID string, actions ...string) {
	p := key.Permissions{key.DefaultResource: actions}
	a.caller = &api.Caller{
		UserID: userID, Permissions: p, Scope: &keyring.Scope{Permissions: api.Grantable(p)},
		Cancel: func(keyring.Outcome) { a.canceled++ },
	}
}

func (a *rig) identify(_ http.ResponseWriter, _ *http.Request, ask api.Ask) (*api.Caller, error) {
	if a.refused != nil {
		return nil, a.refused
	}
	if ask.Needs != "" && !a.caller.May(ask.Needs) {
		return nil, &api.Refusal{Decision: keyring.Decision{Outcome: keyring.Forbidden}}
	}
	return a.caller, nil
}

// reply is an answer as it came.
type reply struct {
	status int
	header http.Header
	body   string
}

func (a *rig) send(method, path, body string, lines ...string) reply {
	a.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(lines); i += 2 {
		r.Header.Set(lines[i], lines[i+1])
	}
	w := httptest.NewRecorder()
	if !a.Handle(w, r) {
		a.t.Fatalf("%s %s is for somebody else", method, path)
	}
	return reply{w.Code, w.Header(), w.Body.String()}
}

// create makes a key over the API.
func (a *rig) create(body string) (c Created) {
	a.t.Helper()
	r := a.send("POST", "/v1/auth/api-keys", body)
	if r.status != http.StatusCreated {
		a.t.Fatalf("%s: %d %s", body, r.status, r.body)
	}
	r.into(a.t, &c)
	return c
}

// into reads a body that must have exactly the fields of v.
func (r reply) into(t testing.TB, v any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(r.body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		t.Fatalf("%v in %s", err, r.body)
	}
}

// refused checks that an answer is the error that is wanted, and well made.
func (r reply) refused(t testing.TB, status int, code, contains string) {
	t.Helper()
	var e Error
	r.into(t, &e)
	if r.status != status || e.Code != code || e.Message == "" || !strings.Contains(e.Message, contains) {
		t.Errorf("got %d %s, want %d %s with %q", r.status, r.body, status, code, contains)
	}
	if ct := r.header.Get("Content-Type"); ct != "application/json" {
		t.Errorf("Content-Type %q", ct)
	}
}

func ptr[T any](v T) *T { return &v }
