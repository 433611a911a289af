package betterauth

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/keyring"
	"github.com/caddy-apikey/caddy-apikey/store"
)

func TestBetterAuth_routes(t *testing.T) {
	a := newAPI(t)
	k := a.mint(keyring.Draft{})
	for _, rt := range routes {
		for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"} {
			if method == rt.method {
				continue
			}
			if r := a.send(method, rt.path, "", as(k)...); r.status != 404 || r.body != "" || r.header.Get("Content-Type") != "" {
				t.Errorf("%s %s: %d %q %v", method, rt.path, r.status, r.body, r.header)
			}
		}
		for _, path := range []string{rt.path + "/", rt.path + "%2F"} {
			for _, body := range []string{"", "{bad", strings.Repeat("x", api.MaxBody+1)} {
				if r := a.send(rt.method, path, body, append(as(k), "Content-Type", "text/plain")...); r.status != 404 || r.body != "" {
					t.Errorf("%s, %.5q: %d %q", path, body, r.status, r.body)
				}
			}
		}
	}
	for _, path := range []string{"", "/", "/ok", "/api-key", "/api-key/", "/API-KEY/list", "/api-key/lists", "/api-key/list//"} {
		if r := a.send("GET", path, "", as(k)...); r.body != "next handler" {
			t.Errorf("%s: %d %q", path, r.status, r.body)
		}
	}
}

func TestBetterAuth_body(t *testing.T) {
	a := newAPI(t)
	k := a.mint(keyring.Draft{})
	for body, want := range map[string]string{
		"":     "[body] Invalid input: expected object, received undefined",
		"null": "[body] Invalid input: expected object, received null",
		"[]":   "[body] Invalid input: expected object, received array",
		" 5":   "[body] Invalid input: expected object, received number",
		`"x"`:  "[body] Invalid input: expected object, received string",
		"true": "[body] Invalid input: expected object, received boolean",
		"{":    "Invalid JSON in request body",
		"{} x": "Invalid JSON in request body",
		" ":    "Invalid JSON in request body",
	} {
		if r := a.post("/api-key/create", body, as(k)...); r.status != 400 || !strings.Contains(r.body, `"message":"`+want+`"`) {
			t.Errorf("%q: %d %s", body, r.status, r.body)
		}
	}
	a.post("/api-key/create", `{"metadata":"`+strings.Repeat("x", api.MaxBody)+`"}`, as(k)...).refuses(413, "PAYLOAD_TOO_LARGE")
	if name := a.post("/api-key/create", "{\"name\":\"a\xffb\"}", as(k)...).object()["name"]; name != "a\uFFFDb" {
		t.Errorf("bytes that are no text become %q", name)
	}
	for _, types := range []string{"text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonx", "text/plain, application/json"} {
		a.send("POST", "/api-key/create", "{}", append(as(k), "Content-Type", types)...).refuses(415, "UNSUPPORTED_MEDIA_TYPE")
	}
	for _, types := range []string{"application/json; charset=utf-8", "Application/JSON"} {
		a.send("POST", "/api-key/create", "{}", append(as(k), "Content-Type", types)...).object()
	}
}

// A path that is a route once it is decoded is a route: it reaches nobody else with the
// key in it.
func TestBetterAuth_escapedPath(t *testing.T) {
	a := newAPI(t)
	k := a.mint(keyring.Draft{})
	for _, path := range []string{"/api-key%2Flist", "/api-key/%6cist"} {
		a.get(path, as(k)...).object()
	}
}

// The messages are those of the plugin, one after the other.
func TestBetterAuth_messages(t *testing.T) {
	a := newAPI(t)
	k := a.mint(keyring.Draft{})
	r := a.post("/api-key/create", `{"configId":[],"name":1,"expiresIn":"x","prefix":"ä","remaining":-1,"refillAmount":0,"permissions":{"b":1,"a":["x",null]}}`, as(k)...)
	want := `{"message":"[body.configId] Invalid input: expected string, received array; ` +
		`[body.name] Invalid input: expected string, received number; ` +
		`[body.expiresIn] Invalid input: expected number, received string; ` +
		`[body.prefix] Invalid prefix format, must be alphanumeric and contain only underscores and hyphens.; ` +
		`[body.remaining] Too small: expected number to be >=0; ` +
		`[body.refillAmount] Too small: expected number to be >=1; ` +
		`[body.permissions.b] Invalid input: expected array, received number; ` +
		`[body.permissions.a.1] Invalid input: expected string, received null","code":"VALIDATION_ERROR"}`
	if r.body != want {
		t.Errorf("got  %s\nwant %s", r.body, want)
	}
}

// Who calls is asked after the body is read, and before its fields are looked at.
func TestBetterAuth_order(t *testing.T) {
	a := newAPI(t)
	k := a.mint(keyring.Draft{Remaining: ptr(int64(2))})
	header := append(as(k), "Content-Type", "text/plain")
	a.send("POST", "/api-key/update", "{}", header...).refuses(415, "UNSUPPORTED_MEDIA_TYPE")
	a.post("/api-key/update", "{", as(k)...).refuses(400, "BAD_REQUEST")
	if len(a.needed) != 0 {
		t.Errorf("a body that cannot be read is charged: %q", a.needed)
	}
	a.post("/api-key/update", `{"keyId":5}`, as(k)...).refuses(400, "VALIDATION_ERROR")
	a.post("/api-key/update", `{"keyId":5}`, as(k)...).refuses(400, "VALIDATION_ERROR")
	a.post("/api-key/update", `{"keyId":5}`, as(k)...).refuses(429, "USAGE_EXCEEDED")
	a.get("/api-key/list?limit=x", as(k)...).refuses(400, "VALIDATION_ERROR")
	if want := []string{api.Write, api.Write, ""}; !slices.Equal(a.needed, want) {
		t.Errorf("asked for %q", a.needed)
	}
}

func TestBetterAuth_origin(t *testing.T) {
	a := newAPI(t)
	foreign := append(person("alice"), "X-Foreign", "1")
	a.post("/api-key/create", "{}", append(foreign, "Origin", "https://evil.example")...).refuses(403, "INVALID_ORIGIN")
	a.post("/api-key/create", "{}", append(foreign, "Origin", "null")...).refuses(403, "MISSING_OR_NULL_ORIGIN")
	a.post("/api-key/create", "{}", foreign...).refuses(403, "MISSING_OR_NULL_ORIGIN")
	if names := a.get("/api-key/list", person("alice")...).names(); len(names) != 0 {
		t.Errorf("it made %v", names)
	}
}

// A refusal of a key is told in the words of the plugin.
func TestBetterAuth_refusals(t *testing.T) {
	for outcome, want := range map[keyring.Outcome]string{
		keyring.Invalid:       `{"message":"Invalid API key.","code":"INVALID_API_KEY"}`,
		keyring.Expired:       `{"message":"API Key has expired","code":"KEY_EXPIRED"}`,
		keyring.RateLimited:   `{"message":"Rate limit exceeded.","code":"RATE_LIMITED","details":{"tryAgainIn":1234}}`,
		keyring.UsageExceeded: `{"message":"API Key has reached its usage limit","code":"USAGE_EXCEEDED","details":{"tryAgainIn":1234}}`,
		keyring.Ambiguous:     `{"message":"The request carries more than one API key.","code":"AMBIGUOUS_API_KEY"}`,
		keyring.Unavailable:   `{"message":"API keys cannot be checked at the moment.","code":"STORE_UNAVAILABLE"}`,
	} {
		body := refused(&api.Call{}, keyring.Decision{Outcome: outcome, Wait: 1234, Waitable: true})
		if b, _ := api.Marshal(body); string(b) != want {
			t.Errorf("%s, want %s", b, want)
		}
	}
}

// What the store fails at is a 503 that says when to come back.
func TestBetterAuth_failures(t *testing.T) {
	a := newAPI(t)
	k := a.mint(keyring.Draft{})
	if err := a.engine.Close(); err != nil {
		t.Fatal(err)
	}
	r := a.get("/api-key/list", person("alice")...)
	r.refuses(503, "STORE_UNAVAILABLE")
	if r.header.Get("Retry-After") == "" || len(a.reported) != 1 || !errors.Is(a.reported[0], store.ErrClosed) {
		t.Errorf("%v, reported %v", r.header, a.reported)
	}
	a.get("/api-key/list", as(k)...).refuses(503, "STORE_UNAVAILABLE")
	// What nobody foresaw says no more than that.
	e := fail(500, api.CodeInternal, "secret of the inside")
	if b, _ := api.Marshal(errorOf(&api.Call{}, e)); e.Status != 500 || strings.Contains(string(b), "inside") {
		t.Errorf("%d %s", e.Status, b)
	}
}

// A 401 says how to present oneself, and nothing else does.
func TestBetterAuth_challenge(t *testing.T) {
	a := newAPI(t)
	k := a.mint(keyring.Draft{})
	for path, header := range map[string][]string{"/api-key/list": nil, "/api-key/get?id=x": {"X-Key", "x"}} {
		if r := a.get(path, header...); r.status != 401 || r.header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: %d %v", path, r.status, r.header)
		}
	}
	for _, r := range []reply{a.get("/get-session"), a.get("/api-key/list?limit=x"), a.get("/api-key/list", as(k)...)} {
		if h := r.header.Get("WWW-Authenticate"); h != "" {
			t.Errorf("%d has a challenge: %s", r.status, h)
		}
	}
}
