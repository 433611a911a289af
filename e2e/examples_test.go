package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestExamples_pages: each folder in examples/ has a page in docs/how-to with the same
// name, whose first configuration is the file in the folder.
func TestExamples_pages(t *testing.T) {
	quick(t)
	pages := map[string]bool{}
	for _, page := range sources(t, "docs/how-to/*.md") {
		pages[strings.TrimSuffix(filepath.Base(page), ".md")] = true
	}
	for _, file := range sources(t, "examples/*/Caddyfile") {
		name := filepath.Base(filepath.Dir(file))
		if !pages[name] {
			t.Errorf("%s has no page in docs/how-to", file)
			continue
		}
		delete(pages, name)
		want := "```caddyfile\n" + readAll(t, source(t, file)) + "```\n"
		if !strings.Contains(readAll(t, source(t, "docs/how-to/"+name+".md")), want) {
			t.Errorf("docs/how-to/%s.md does not have the configuration of %s", name, file)
		}
	}
	for name := range pages {
		t.Errorf("docs/how-to/%s.md has no folder in examples", name)
	}
}

// startExample starts the configuration of an example in front of an upstream that
// remembers what it has seen.
func startExample(t *testing.T, name string, env ...string) (*server, *upstream) {
	t.Helper()
	up := startUpstream(t)
	caddyfile := readAll(t, source(t, "examples/"+name+"/Caddyfile"))
	caddyfile = strings.ReplaceAll(caddyfile, "{$SITE:http://localhost:8080}", "{$SITE}")
	return startGate(t, caddyfile, withEnv(append(env, "UPSTREAM="+up.Addr)...)), up
}

// exampleRow is a request to an example, and what reaches the upstream of it: the
// request line, which is empty where nothing may, and headers.
type exampleRow struct {
	name   string
	method string
	target string
	lines  []string
	status int
	uri    string
	header map[string]string
}

func checkExample(t *testing.T, s *server, up *upstream, rows []exampleRow) {
	t.Helper()
	for _, row := range rows {
		mark := t.Name() + row.name
		m := message{method: row.method, target: row.target, fields: fieldsOf(append(slices.Clone(row.lines), markHeader+": "+mark))}
		r := m.plain(t, s.URL)
		if r.status != row.status {
			t.Errorf("%s: %d %s, want %d", row.name, r.status, r.body, row.status)
		}
		got := up.of(mark)
		if len(got) != 1 {
			if row.uri != "" || len(got) > 1 {
				t.Errorf("%s: the upstream has seen %d requests", row.name, len(got))
			}
			continue
		}
		if got[0].URI != row.uri {
			t.Errorf("%s: the upstream has seen %s, want %q", row.name, got[0].URI, row.uri)
		}
		for name, want := range row.header {
			if v := strings.Join(got[0].Header.Values(name), "|"); v != want {
				t.Errorf("%s: %s: %q at the upstream, want %q", row.name, name, v, want)
			}
		}
	}
}

func bearer(k made) string { return "Authorization: Bearer " + k.Raw }

// signIn is an identity provider: who sends the cookie is signed in.
func signIn(t *testing.T, header string) string {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := r.Cookie("session")
		if err != nil {
			http.Error(w, "sign in first", http.StatusUnauthorized)
			return
		}
		w.Header().Set(header, c.Value)
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

func TestQ21_exampleProtectASite(t *testing.T) {
	full(t)
	s, up := startExample(t, "protect-a-site")
	k := s.create(nil)
	forged := "X-User-Id: root"
	checkExample(t, s, up, []exampleRow{
		{name: "open", target: "/health", lines: []string{forged}, status: 200, uri: "/health", header: map[string]string{"X-User-Id": ""}},
		{name: "open, with a query", target: "/health?x=1", status: 200, uri: "/health?x=1"},
		{name: "protected", target: "/users/bob", status: 401},
		{name: "with a key", target: "/users/bob", lines: []string{bearer(k), forged}, status: 200, uri: "/users/bob", header: map[string]string{"X-User-Id": "alice", "Authorization": ""}},
		{name: "another spelling of the open path", target: "/users/bob%2f..%2f..%2fhealth", status: 200, uri: "/health"},
		{name: "dots", target: "/health/../users/bob", status: 401},
		{name: "below the open path", target: "/health/x", status: 401},
		{name: "two slashes", target: "//users/bob", status: 401},
		{name: "underscores", target: "/users/bob", lines: []string{bearer(k), "X_User_Id: root"}, status: 200, uri: "/users/bob", header: map[string]string{"X-User-Id": "alice", "X_user_id": ""}},
	})
}

func TestExample_sellAnAPI(t *testing.T) {
	full(t)
	s, up := startExample(t, "sell-an-api", "SIGN_IN="+signIn(t, "X-Auth-Request-User"))
	jane := "Cookie: session=jane"
	s.call("POST", "/v1/auth/api-keys", "", "X-Auth-Request-User: jane").is(t, 401, "")
	r := s.call("POST", "/v1/auth/api-keys", `{"name":"laptop"}`, jane)
	r.is(t, 201, "")
	var k made
	r.into(t, &struct {
		*made
		Name, Tier, Message string
		Permissions         []string
	}{made: &k})
	checkExample(t, s, up, []exampleRow{
		{name: "the API", target: "/v1/things", lines: []string{bearer(k), "X-Plan: pro"}, status: 200, uri: "/v1/things", header: map[string]string{"X-User-Id": "jane", "X-Plan": "free"}},
		{name: "signed in is no key", target: "/v1/things", lines: []string{jane}, status: 401},
	})
	for range 9 {
		s.get("/v1/things", bearer(k))
	}
	s.get("/v1/things", bearer(k)).is(t, 429, "RATE_LIMITED")
	s.admin("PUT", "/apikey/owners/jane", map[string]any{"tier": "pro"}, 200, nil)
	s.call("GET", "/v1/auth/usage", "", bearer(k)).is(t, 200, "")
	checkExample(t, s, up, []exampleRow{
		{name: "after an upgrade", target: "/v1/things", lines: []string{bearer(k)}, status: 200, uri: "/v1/things", header: map[string]string{"X-Plan": "pro"}},
	})
}

func TestExample_platformTeam(t *testing.T) {
	full(t)
	s, up := startExample(t, "platform-team")
	ci := s.create(map[string]any{"userId": "ci", "configId": "ci"})
	reader := s.create(map[string]any{"userId": "billing", "permissions": []string{"orders:read"}})
	writer := s.create(map[string]any{"userId": "shop", "permissions": []string{"orders:read", "orders:write", "deploy:run"}})
	if !strings.HasPrefix(ci.Raw, "ci_") {
		t.Errorf("a key of CI is %.5s…", ci.Raw)
	}
	checkExample(t, s, up, []exampleRow{
		{name: "deploy", method: "POST", target: "/deploy/web", lines: []string{bearer(ci)}, status: 200, uri: "/deploy/web", header: map[string]string{"X-Service": "ci"}},
		{name: "deploy, with a service's key", method: "POST", target: "/deploy/web", lines: []string{bearer(writer)}, status: 401},
		{name: "deploy, an encoded slash", method: "POST", target: "/deploy%2fweb", lines: []string{bearer(ci)}, status: 400},
		{name: "deploy, without a path below", method: "POST", target: "/deploy", lines: []string{bearer(writer)}, status: 401},
		{name: "deploy, other letters", method: "POST", target: "/Deploy/web", lines: []string{bearer(writer)}, status: 401},
		{name: "deploy, in the query", target: "/orders?next=/deploy/..%2fx//", lines: []string{bearer(reader)}, status: 200, uri: "/orders?next=/deploy/..%2fx//"},
		{name: "orders, with a key of CI", target: "/orders", lines: []string{bearer(ci)}, status: 401},
		{name: "read", target: "/orders", lines: []string{bearer(reader), "X-Service: shop"}, status: 200, uri: "/orders", header: map[string]string{"X-Service": "billing"}},
		{name: "write", method: "POST", target: "/orders", lines: []string{bearer(writer)}, status: 200, uri: "/orders"},
		{name: "write, reading only", method: "DELETE", target: "/orders/1", lines: []string{bearer(reader)}, status: 403},
		{name: "an odd method", method: "PROPFIND", target: "/orders", lines: []string{bearer(reader)}, status: 403},
	})
}

// ambiguous are ways to write a path that is below one prefix to Caddy, and below another
// to who forwards or reads it differently.
func ambiguous(shown, hidden string) (targets []string) {
	for _, dots := range []string{"/..", "/%2e%2e", "/.%2E", "%2f..", "%2F%2e%2e", "\\..", "%5c.."} {
		for _, slash := range []string{"/", "%2f", "%2F", "//", "%5c"} {
			targets = append(targets, shown+dots+slash+strings.TrimPrefix(hidden, "/"))
		}
	}
	return append(targets, "/"+hidden, "/."+hidden, "/%2e"+hidden, shown+"/x/../.."+hidden, hidden+"/..", hidden+"/.", hidden+"/%2e%2e?x=1", hidden+"//x")
}

// TestQ21_examplesByPath sends such paths to the examples in which the path decides which
// gate a request meets. None reaches the application.
func TestQ21_examplesByPath(t *testing.T) {
	full(t)
	for name, paths := range map[string][]string{
		"platform-team": {"/orders", "/deploy/x"}, "openai-compatible": {"/metrics", "/v1/x"}, "from-better-auth": {"/private", "/api/auth/x"},
	} {
		t.Run(name, func(t *testing.T) {
			app := startUpstream(t)
			s, up := startExample(t, name, "SIGN_IN="+app.Addr)
			keys := []string{"", bearer(s.create(map[string]any{"permissions": []string{"*:*"}}))}
			if name == "platform-team" {
				keys = append(keys, bearer(s.create(map[string]any{"configId": "ci"})))
			}
			for i, target := range append(ambiguous(paths[0], paths[1]), ambiguous(paths[1], paths[0])...) {
				for j, line := range keys {
					mark := fmt.Sprint(name, i, "-", j)
					m := message{method: "POST", target: target, fields: fieldsOf([]string{markHeader + ": " + mark})}
					if line != "" {
						m.fields = append(m.fields, fieldsOf([]string{line})...)
					}
					if r := m.plain(t, s.URL); r.status != 400 || len(up.of(mark))+len(app.of(mark)) > 0 {
						t.Errorf("%s: status %d, %d requests at the application", target, r.status, len(up.of(mark))+len(app.of(mark)))
					}
				}
			}
		})
	}
}

func TestExample_openAICompatible(t *testing.T) {
	full(t)
	s, up := startExample(t, "openai-compatible")
	k := s.create(map[string]any{"remaining": 3})
	checkExample(t, s, up, []exampleRow{
		{name: "the OpenAI client", method: "POST", target: "/v1/chat/completions", lines: []string{bearer(k)}, status: 200, uri: "/v1/chat/completions", header: map[string]string{"Authorization": ""}},
		{name: "with another provider's key too", method: "POST", target: "/v1/chat/completions", lines: []string{bearer(k), keyLine(foreignKey)}, status: 200, uri: "/v1/chat/completions", header: map[string]string{"X-Api-Key": ""}},
		{name: "Azure's client", method: "POST", target: "/v1/chat/completions", lines: []string{"api-key: " + k.Raw}, status: 200, uri: "/v1/chat/completions"},
		{name: "no credits left", method: "POST", target: "/v1/chat/completions", lines: []string{bearer(k)}, status: 429},
		{name: "no key", target: "/api/tags", status: 401},
		{name: "another path", target: "/metrics", lines: []string{bearer(k)}, status: 404},
		{name: "another path, another spelling", target: "/v1/../metrics", lines: []string{bearer(k)}, status: 400},
	})
}

func TestExample_keyOrPassword(t *testing.T) {
	full(t)
	s, up := startExample(t, "key-or-password", "HASH="+passwordHash)
	k := s.create(map[string]any{"remaining": 10})
	forged := "X-User-Id: root"
	checkExample(t, s, up, []exampleRow{
		{name: "key", target: "/", lines: []string{bearer(k), forged}, status: 200, uri: "/", header: map[string]string{"X-User-Id": "alice"}},
		{name: "password", target: "/", lines: []string{signedIn("bob"), forged}, status: 200, uri: "/", header: map[string]string{"X-User-Id": "bob"}},
		{name: "wrong password", target: "/", lines: []string{basicAuth("bob", "x"), forged}, status: 401},
		{name: "password and key", target: "/", lines: []string{signedIn("bob"), keyLine(k.Raw)}, status: 200, uri: "/", header: map[string]string{"X-User-Id": "bob"}},
		{name: "nothing", target: "/", lines: []string{forged}, status: 401},
		{name: "key, and the header dropped", target: "/", lines: []string{bearer(k), "Connection: X-User-Id"}, status: 200, uri: "/", header: map[string]string{"X-User-Id": "alice"}},
		{name: "password, and the header dropped", target: "/", lines: []string{signedIn("bob"), forged, "Connection: close, x-user-id"}, status: 200, uri: "/", header: map[string]string{"X-User-Id": "bob"}},
		{name: "password, the scheme in lower case", target: "/", lines: []string{strings.Replace(signedIn("bob"), "Basic", "basic", 1)}, status: 200, uri: "/", header: map[string]string{"X-User-Id": "bob"}},
	})
	if left := s.left(k.ID); left != 8 {
		t.Errorf("%d credits are left, want 8", left)
	}
	// Nor does a trailer bring it.
	for i, line := range []string{bearer(k), signedIn("bob")} {
		mark := fmt.Sprint("trailer", i)
		m := message{method: "POST", target: "/", body: "x", fields: fieldsOf([]string{line, markHeader + ": " + mark}), trailer: []field{{"X-User-Id", "admin"}}}
		m.plain(t, s.URL)
		for _, got := range up.of(mark) {
			if got.has("admin") {
				t.Errorf("%s: a trailer reaches the application: %v %v", line[:20], got.Header, got.Trailer)
			}
		}
	}
}

func TestQ18_exampleBrowsers(t *testing.T) {
	full(t)
	s, up := startExample(t, "browsers")
	k := s.create(map[string]any{"remaining": 1})
	const app = "https://app.example.com"
	allowed := func(r *reply) string { return strings.Join(r.header.Values("Access-Control-Allow-Origin"), "|") }
	preflight := s.call("OPTIONS", "/things", "", "Origin: "+app, "Access-Control-Request-Method: POST")
	if preflight.status != 204 || allowed(preflight) != app || preflight.header.Get("Access-Control-Allow-Methods") == "" {
		t.Errorf("preflight: %d %v", preflight.status, preflight.header)
	}
	up.answer = func(w http.ResponseWriter, _ *http.Request, _ int) {
		w.Header().Set("Access-Control-Allow-Origin", app) // an application that does this itself
		w.WriteHeader(200)
	}
	for _, row := range []struct {
		name   string
		lines  []string
		status int
		want   string
	}{
		{"let in", []string{bearer(k), "Origin: " + app}, 200, app},
		{"no credits", []string{bearer(k), "Origin: " + app}, 429, app},
		{"no key", []string{"Origin: " + app}, 401, app},
		{"another origin", []string{"Origin: https://evil.example"}, 401, ""},
		{"OPTIONS that is no preflight", []string{"Origin: " + app}, 401, app},
	} {
		method := "GET"
		if strings.HasPrefix(row.name, "OPTIONS") {
			method = "OPTIONS"
		}
		r := s.call(method, "/things", "", row.lines...)
		if r.status != row.status || allowed(r) != row.want {
			t.Errorf("%s: %d, allowed %q, want %d and %q", row.name, r.status, allowed(r), row.status, row.want)
		}
	}
}

func TestQ22_exampleBehindALoadBalancer(t *testing.T) {
	full(t)
	s, up := startExample(t, "behind-a-load-balancer", "BALANCERS=127.0.0.1/32")
	k := s.create(map[string]any{"allowedIps": []string{"192.0.2.0/24"}})
	checkExample(t, s, up, []exampleRow{
		{name: "an allowed client", target: "/", lines: []string{bearer(k), "X-Forwarded-For: 192.0.2.7"}, status: 200, uri: "/"},
		{name: "another client", target: "/", lines: []string{bearer(k), "X-Forwarded-For: 198.51.100.7"}, status: 403},
		{name: "a forged left end", target: "/", lines: []string{bearer(k), "X-Forwarded-For: 192.0.2.7, 198.51.100.7"}, status: 403},
		{name: "the balancer itself", target: "/", lines: []string{bearer(k)}, status: 403},
	})
	// Without a balancer in front, nobody's word counts.
	s, up = startExample(t, "behind-a-load-balancer", "BALANCERS=10.0.0.0/8")
	k = s.create(map[string]any{"allowedIps": []string{"192.0.2.0/24"}})
	checkExample(t, s, up, []exampleRow{
		{name: "forged", target: "/", lines: []string{bearer(k), "X-Forwarded-For: 192.0.2.7"}, status: 403},
	})
}

func TestExample_leaveBasicAuth(t *testing.T) {
	full(t)
	s, up := startExample(t, "leave-basic-auth", "HASH="+passwordHash)
	k := s.create(nil)
	checkExample(t, s, up, []exampleRow{
		{name: "the old password", target: "/", lines: []string{signedIn("bob"), "X-User-Id: root"}, status: 200, uri: "/", header: map[string]string{"X-User-Id": "bob"}},
		{name: "a key", target: "/", lines: []string{bearer(k), "X-User-Id: root"}, status: 200, uri: "/", header: map[string]string{"X-User-Id": "alice"}},
		{name: "a key as the password", target: "/", lines: []string{basicAuth("bob", k.Raw)}, status: 200, uri: "/", header: map[string]string{"X-User-Id": "alice"}},
		{name: "a wrong password", target: "/", lines: []string{basicAuth("bob", "x")}, status: 401},
		{name: "the scheme in lower case", target: "/", lines: []string{strings.Replace(signedIn("bob"), "Basic", "basic", 1)}, status: 200, uri: "/", header: map[string]string{"X-User-Id": "bob"}},
		{name: "the header dropped", target: "/", lines: []string{bearer(k), "Connection: X-User-Id"}, status: 200, uri: "/", header: map[string]string{"X-User-Id": "alice"}},
		{name: "the header dropped, password", target: "/", lines: []string{signedIn("bob"), "Connection: X-User-Id"}, status: 200, uri: "/", header: map[string]string{"X-User-Id": "bob"}},
		{name: "nothing", target: "/", lines: []string{"X-User-Id: root"}, status: 401},
		{name: "a bad key", target: "/", lines: []string{"Authorization: Bearer " + k.Raw[:30]}, status: 401},
	})
}

func TestExample_fromBetterAuth(t *testing.T) {
	full(t)
	s, up := startExample(t, "from-better-auth", "SIGN_IN="+signIn(t, "X-User-Id"))
	r := s.call("POST", "/api/auth/api-key/create", `{"name":"laptop"}`, "Cookie: session=jane", "Origin: "+s.URL)
	r.is(t, 200, "")
	var k struct{ Key string }
	if err := json.Unmarshal([]byte(r.body), &k); err != nil || k.Key == "" {
		t.Fatalf("%v %s", err, r.body)
	}
	checkExample(t, s, up, []exampleRow{
		{name: "the key opens the site", target: "/", lines: []string{"X-API-Key: " + k.Key, "X-User-Id: root"}, status: 200, uri: "/", header: map[string]string{"X-User-Id": "jane"}},
		{name: "a session does not", target: "/", lines: []string{"Cookie: session=jane"}, status: 401},
	})
	s.call("GET", "/api/auth/api-key/list", "", "X-User-Id: jane").is(t, 401, "")
	// Signing in and out are the application's, and a call that is not spelled right is none.
	app := startUpstream(t)
	s, _ = startExample(t, "from-better-auth", "SIGN_IN="+app.Addr)
	checkExample(t, s, app, []exampleRow{
		{name: "sign in", method: "POST", target: "/api/auth/sign-in/email", lines: []string{"X-User-Id: root"}, status: 200, uri: "/api/auth/sign-in/email", header: map[string]string{"X-User-Id": ""}},
		{name: "sign out", method: "POST", target: "/api/auth/sign-out", status: 200, uri: "/api/auth/sign-out"},
		{name: "session", target: "/api/auth/get-session", status: 200, uri: "/api/auth/get-session"},
	})
	for _, target := range []string{"/api/auth/api-key/Delete", "/API/auth/api-key/delete", "/api/auth/api-key/remove"} {
		if r := s.call("POST", target, `{"keyId":"x"}`, "X-API-Key: x"); r.status != 404 {
			t.Errorf("%s: status %d", target, r.status)
		}
	}
}

// TestExample_keyLeaked ends a leaked key in the steps of the page.
func TestExample_keyLeaked(t *testing.T) {
	full(t)
	s, up := startExample(t, "a-key-leaked")
	k := s.create(map[string]any{"name": "laptop"})
	checkExample(t, s, up, []exampleRow{{name: "before", target: "/", lines: []string{bearer(k)}, status: 200, uri: "/"}})
	if r := s.runWith(k.Raw+"\n", "apikey", "verify", "--dry-run"); r.code != 0 || !strings.Contains(r.stdout, k.ID) {
		t.Errorf("verify does not say whose it is: %+v", r)
	}
	// Its owner ends a key with itself, also when the thief has used all of it, and nothing
	// that is not quite that call looks like it.
	empty := s.create(map[string]any{"remaining": 0, "permissions": []string{"read", "write"}})
	for _, target := range []string{"//v1/auth/api-keys/self", "/v1/auth//api-keys/self", "/v1/AUTH/api-keys/self", "/v1/auth/api-key/self"} {
		if r := s.call("DELETE", target, "", bearer(empty)); r.status != 404 {
			t.Errorf("%s: status %d", target, r.status)
		}
	}
	s.call("GET", "/v1/auth/usage", "", bearer(empty)).is(t, 200, "")
	s.call("DELETE", "/v1/auth/api-keys/self", "", bearer(empty)).is(t, 200, "")
	s.get("/", bearer(empty)).is(t, 401, "KEY_DISABLED")
	// Whoever finds a key ends it, and the answer to anything else is the same.
	found := s.create(nil)
	for _, raw := range []string{found.Raw, found.Raw, "ak_nobody"} {
		if r := s.call("POST", "/.well-known/apikey/leak", fmt.Sprintf(`{"key":%q}`, raw)); r.status != 202 || r.body != "" {
			t.Errorf("a report: %d %s", r.status, r.body)
		}
	}
	s.get("/", bearer(found)).is(t, 401, "KEY_DISABLED")
	if strings.Contains(s.Log(), "reports of leaked keys do not arrive") {
		t.Error("a warning about the recipe")
	}
	r := s.run("apikey", "rotate", k.ID)
	fresh := strings.TrimSpace(r.stdout)
	checkExample(t, s, up, []exampleRow{
		{name: "the leaked key", target: "/", lines: []string{bearer(k)}, status: 401},
		{name: "the new one", target: "/", lines: []string{"Authorization: Bearer " + fresh}, status: 200, uri: "/"},
	})
}

// TestExample_rotateWithoutRefusals rotates a key under a load of more than 5,000 requests a
// second, as the page says: not one request is refused.
func TestExample_rotateWithoutRefusals(t *testing.T) {
	full(t)
	caddyfile := readAll(t, source(t, "examples/rotate/Caddyfile"))
	s := startGate(t, strings.NewReplacer("{$SITE:http://localhost:8080}", "{$SITE}", "reverse_proxy {$UPSTREAM:localhost:9000}", "respond ok").Replace(caddyfile))
	id := s.create(nil)
	var current atomic.Pointer[string]
	current.Store(&id.Raw)
	const clients = 32
	var sent, refused atomic.Int64
	stop, done := make(chan struct{}), make(chan struct{}, clients)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}}
	for range clients {
		go func() {
			defer func() { done <- struct{}{} }()
			for {
				select {
				case <-stop:
					return
				default:
				}
				req, _ := http.NewRequest("GET", s.URL, nil)
				req.Header.Set("X-API-Key", *current.Load())
				resp, err := client.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				io.Copy(io.Discard, resp.Body) // so that the connection is used again
				resp.Body.Close()
				sent.Add(1)
				if resp.StatusCode != 200 {
					refused.Add(1)
					t.Errorf("request %d: %s", sent.Load(), resp.Status)
				}
			}
		}()
	}
	begin := time.Now()
	for range times(5, 20) {
		before := sent.Load()
		eventually(t, "requests go on", func() bool { return sent.Load() > before+2500 })
		r := s.run("apikey", "rotate", id.ID, "--grace", "1h")
		fresh := strings.TrimSpace(r.stdout)
		if r.code != 0 || fresh == "" {
			t.Fatalf("rotate: %+v", r)
		}
		before = sent.Load()
		eventually(t, "requests with the old key go on", func() bool { return sent.Load() > before+2500 })
		current.Store(&fresh)
	}
	close(stop)
	for range clients {
		<-done
	}
	if refused.Load() > 0 {
		t.Errorf("%d of %d requests were refused", refused.Load(), sent.Load())
	}
	t.Logf("%d requests, %.0f a second", sent.Load(), float64(sent.Load())/time.Since(begin).Seconds())
}

// TestQ45_example runs what the units of the example run, several nights, restores with the
// configuration of the example, and has systemd check the units.
func TestQ45_example(t *testing.T) {
	full(t)
	dir := t.TempDir()
	db := filepath.Join(dir, "store", "apikey.db")
	s, up := startExample(t, "backup", "DATABASE="+db)
	page := readAll(t, source(t, "docs/how-to/backup.md"))
	var units []string
	for _, file := range []string{"caddy-apikey-backup.service", "caddy-apikey-backup.timer"} {
		text := readAll(t, source(t, "examples/backup/"+file))
		if !strings.Contains(page, "`"+file+"`:\n\n```ini\n"+text+"```\n") {
			t.Errorf("docs/how-to/backup.md does not have %s", file)
		}
		text = strings.NewReplacer("/usr/bin/caddy", buildCaddy(t), "%S", dir).Replace(text)
		units = append(units, filepath.Join(dir, file))
		if err := os.WriteFile(units[len(units)-1], []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, rest, _ := strings.Cut(readAll(t, units[0]), "ExecStart=")
	line, _, _ := strings.Cut(rest, "\n")
	args := strings.Fields(line)[1:]
	if err := os.Mkdir(filepath.Join(dir, "caddy-apikey-backup"), 0o700); err != nil {
		t.Fatal(err)
	}
	k := s.create(nil)
	for night := range 16 {
		if r := s.run(args...); r.code != 0 {
			t.Fatalf("night %d: %+v", night, r)
		}
	}
	if files := filesIn(t, filepath.Dir(args[2])); len(files) != 15 { // the last one, and 14 before it
		t.Errorf("files: %v", files)
	}
	s.stop(syscall.SIGTERM)
	if r := s.run("apikey", "restore", args[2], "--config", s.file(), "--yes"); r.code != 0 || !strings.Contains(r.stdout, db) {
		t.Errorf("%+v", r)
	}
	s.start()
	checkExample(t, s, up, []exampleRow{
		{name: "with a key", target: "/", lines: []string{bearer(k), "X-User-Id: root"}, status: 200, uri: "/", header: map[string]string{"X-User-Id": "alice"}},
		{name: "without", target: "/", status: 401},
	})
	analyze := tool(t, "systemd-analyze")
	if out, err := exec.Command(analyze, append([]string{"verify"}, units...)...).CombinedOutput(); err != nil || len(out) > 0 { //nolint:gosec // a test's own files
		t.Errorf("systemd-analyze: %v: %s", err, out)
	}
}
