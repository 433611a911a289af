package betterauth

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring"
	"github.com/caddy-apikey/caddy-apikey/store/sqlite"
)

// start is the moment at which the clock of every test stands at first.
var start = time.Date(2026, 11, 21, 19, 9, 19, 500_000_000, time.UTC)

// rig is the handler over HTTP, with a real store, a clock of its own, and a way to
// say who calls.
type rig struct {
	t      testing.TB
	keys   *keyring.Service
	engine *keyring.Engine
	srv    *httptest.Server

	mu       sync.Mutex
	time     time.Time
	reported []error

	needed   []string // actions that were asked for, in order
	withdrew int
}

// options are what an API is made with.
type options struct {
	api.Mount
	Options
}

// setting changes what an API is made with.
type setting func(*keyring.Settings, *options)

func rules(change func(*keyring.Rules)) setting {
	return func(s *keyring.Settings, _ *options) { change(&s.Rules) }
}

// config adds a configuration.
func config(id string, change func(*keyring.Rules)) setting {
	return func(s *keyring.Settings, _ *options) {
		r := keyring.DefaultRules()
		r.ConfigID = id
		change(&r)
		s.Configs = append(s.Configs, r)
	}
}

func mount(change func(*options)) setting {
	return func(_ *keyring.Settings, o *options) { change(o) }
}

func newAPI(t testing.TB, settings ...setting) *rig {
	t.Helper()
	opener, err := sqlite.New(sqlite.Options{Path: filepath.Join(t.TempDir(), "keys.db")})
	if err != nil {
		t.Fatal(err)
	}
	a := &rig{t: t, time: start}
	engine := keyring.New(opener, a.now, a.report)
	if err := engine.Open(context.Background()); err != nil {
		t.Fatal(err)
	}
	set := &keyring.Settings{Rules: keyring.DefaultRules()}
	o := options{api.Mount{Base: "/api/auth", Identify: a.identify, Report: a.report}, Options{Now: a.now}}
	for _, change := range settings {
		change(set, &o)
	}
	if o.Organization != nil {
		set.Organizations = o.Organization.Configs
	}
	a.engine, a.keys = engine, keyring.NewService(engine, set)
	o.Keys = func() (*keyring.Service, error) { return a.keys, nil }
	h := New(o.Mount, o.Options)
	a.srv = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !h.Handle(w, r) {
			io.WriteString(w, "next handler")
		}
	}))
	t.Cleanup(func() {
		a.srv.Close()
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

// identify knows keys by X-Key, and people by X-Person, X-Organization and X-Role.
func (a *rig) identify(_ http.ResponseWriter, r *http.Request, ask api.Ask) (*api.Caller, error) {
	if !ask.Look {
		a.needed = append(a.needed, ask.Needs)
	}
	if r.Header.Get("X-Foreign") != "" {
		return nil, api.ErrCrossOrigin
	}
	if raw := r.Header.Get("X-Key"); raw != "" {
		return a.identifyKey(r, raw, ask)
	}
	name := r.Header.Get("X-Person")
	if name == "" {
		return nil, &api.Refusal{Decision: keyring.Decision{Outcome: keyring.Missing}, Challenges: []string{"Bearer"}}
	}
	may := key.Permissions{"api": {"read", "write"}}
	return &api.Caller{
		UserID: name, ClientIP: clientIP(r), Permissions: may, Scope: &keyring.Scope{Permissions: may}, Cancel: func(keyring.Outcome) {},
		Organization: r.Header.Get("X-Organization"), Role: r.Header.Get("X-Role"),
	}, nil
}

// clientIP is the address that a test says it calls from.
func clientIP(r *http.Request) netip.Addr {
	ip, _ := netip.ParseAddr(r.Header.Get("X-From"))
	return ip
}

func (a *rig) identifyKey(r *http.Request, raw string, ask api.Ask) (*api.Caller, error) {
	q := &keyring.Request{Cost: 1, DryRun: ask.Look, RecordOnly: ask.Free}
	if ask.Needs != "" {
		q.RequireAny = [][]key.Permission{api.Needs(ask.Needs)}
	}
	d, err := a.keys.Verify(r.Context(), raw, q)
	if err != nil || d.Outcome != keyring.Allowed {
		return nil, &api.Refusal{Decision: d, Challenges: []string{`Bearer error="invalid_token"`}}
	}
	return &api.Caller{
		UserID: d.Key().UserID, Permissions: d.Key().Permissions, Decision: &d, Session: d.Session(), Scope: a.keys.ScopeOf(&d),
		Cancel: func(keyring.Outcome) { a.withdrew++ },
	}, nil
}

// mint makes a key as an operator does. It may change keys unless the draft says
// what it may do.
func (a *rig) mint(d keyring.Draft) keyring.Issued {
	a.t.Helper()
	if d.UserID == "" {
		d.UserID = "alice"
	}
	if d.Permissions == nil {
		d.Permissions = key.Permissions{"api": {"read", "write"}}
	}
	made, err := a.keys.As(keyring.Actor{Kind: keyring.ActorOperator}).Create(context.Background(), d)
	if err != nil {
		a.t.Fatal(err)
	}
	return made
}

// as are the headers of who holds a key.
func as(k keyring.Issued) []string { return []string{"X-Key", k.Raw} }

// person are the headers of somebody who is signed in.
func person(name string) []string { return []string{"X-Person", name} }

// member are those of somebody who acts for an organization.
func member(name, organization, role string) []string {
	return []string{"X-Person", name, "X-Organization", organization, "X-Role", role}
}

// reply is an answer.
type reply struct {
	t      testing.TB
	status int
	header http.Header
	body   string
}

func (a *rig) get(path string, header ...string) reply {
	a.t.Helper()
	return a.send(http.MethodGet, path, "", header...)
}

func (a *rig) post(path, body string, header ...string) reply {
	a.t.Helper()
	return a.send(http.MethodPost, path, body, append([]string{"Content-Type", "application/json"}, header...)...)
}

func (a *rig) send(method, path, body string, header ...string) reply {
	a.t.Helper()
	req, err := http.NewRequest(method, a.srv.URL+"/api/auth"+path, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := a.srv.Client().Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	return reply{a.t, resp.StatusCode, resp.Header, strings.TrimSuffix(string(b), "\n")}
}

// object returns the body of an answer that must be a success.
func (r reply) object() map[string]any {
	r.t.Helper()
	if r.status != http.StatusOK {
		r.t.Fatalf("status %d: %s", r.status, r.body)
	}
	var m map[string]any
	if err := json.Unmarshal([]byte(r.body), &m); err != nil {
		r.t.Fatalf("%v: %s", err, r.body)
	}
	return m
}

// refuses checks an answer that must be an error.
func (r reply) refuses(status int, code string) {
	r.t.Helper()
	var body struct{ Message, Code string }
	if err := json.Unmarshal([]byte(r.body), &body); err != nil || body.Message == "" || r.status != status || body.Code != code {
		r.t.Errorf("got %d %s, want %d %s", r.status, r.body, status, code)
	}
}

// names returns the names of a list of keys.
func (r reply) names() []any {
	r.t.Helper()
	list := []any{}
	for _, k := range r.object()["apiKeys"].([]any) {
		list = append(list, k.(map[string]any)["name"])
	}
	return list
}

func ptr[T any](v T) *T { return &v }
