package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestQ17_recipe serves error pages from a folder of their own, and from the folder
// that the gate protects, which is told at the start.
func TestQ17_recipe(t *testing.T) {
	full(t)
	dir := t.TempDir()
	for name, text := range map[string]string{
		"site/report.txt": "protected", "site/401.html": "protected 401", "errors/401.html": "no key", "errors/403.html": "no", "errors/429.html": "slow down",
	} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const warning = "handle_errors serves what a gate protects"
	good := strings.ReplaceAll(recipe(t, "Show error pages"), "/srv/", dir+"/")
	s := startGate(t, good)
	k := s.create(map[string]any{"rateLimitMax": 1, "rateLimitTimeWindow": 3_600_000})
	ask := func(s *server, target string, status int, body string, lines ...string) {
		t.Helper()
		if r := s.get(target, lines...); r.status != status || r.body != body {
			t.Errorf("%s: got %d %q, want %d %q", target, r.status, r.body, status, body)
		}
	}
	for _, target := range []string{"/report.txt", "/401.html", "/", "/../site/report.txt", "/..%2fsite/report.txt", "/site/report.txt", "//report.txt", "/none"} {
		ask(s, target, 401, "no key")
	}
	ask(s, "/report.txt", 200, "protected", "X-API-Key: "+k.Raw)
	ask(s, "/report.txt", 429, "slow down", "X-API-Key: "+k.Raw)
	if strings.Contains(s.Log(), warning) {
		t.Error("a warning about the recipe")
	}

	for name, bad := range map[string]string{
		"rewrite":     strings.Replace(good, "\t\troot "+dir+"/errors\n", "", 1),
		"file_server": strings.NewReplacer("\t\troot "+dir+"/errors\n", "", "\t\trewrite * /{err.status_code}.html\n", "").Replace(good),
	} {
		s := startGate(t, bad)
		awaitLog(t, s, warning)
		for _, want := range []string{`"roots":["` + dir + `/site"]`, "respond", "root", "apikey"} {
			if !strings.Contains(s.Log(), want) {
				t.Errorf("%s: the warning lacks %s", name, want)
			}
		}
	}
}

// TestQ17_gateInErrorRoute: the remedy that the warning names, a gate in the error route,
// answers with the refusal that led there, and not for want of the key that the first gate
// has removed.
func TestQ17_gateInErrorRoute(t *testing.T) {
	full(t)
	s := startGate(t, `{
	log default {
		format apikey_redact
	}
}

{$SITE} {
	apikey files:read
	respond protected
	handle_errors {
		apikey
		respond protected
	}
}
`)
	read := []string{"files:read"}
	limited := s.create(map[string]any{"permissions": read, "rateLimitMax": 1, "rateLimitTimeWindow": 3_600_000})
	s.get("/", keyLine(limited.Raw)).is(t, 200, "")
	r := s.get("/", keyLine(limited.Raw))
	r.is(t, 429, "RATE_LIMITED")
	if r.header.Get("Retry-After") == "" || r.header.Get("RateLimit") == "" || r.header.Get("Www-Authenticate") != "" {
		t.Errorf("%v", r.header)
	}
	s.get("/", keyLine(s.create(nil).Raw)).is(t, 403, "INSUFFICIENT_PERMISSIONS")
	off := s.create(map[string]any{"enabled": false, "permissions": read})
	s.get("/", keyLine(off.Raw)).is(t, 401, "KEY_DISABLED")
	s.get("/", keyLine(limited.Raw[:40])).is(t, 401, "INVALID_API_KEY")
	s.get("/").is(t, 401, "MISSING_API_KEY")
	if st := s.state(limited.ID); st.RequestCount != 1 {
		t.Errorf("%d requests are counted", st.RequestCount)
	}
}

// TestQ18_recipe sends what a browser sends to an application with CORS headers of its
// own, and reads what a page could read.
func TestQ18_recipe(t *testing.T) {
	full(t)
	const app, admin, hostile = "https://app.example.com", "https://admin.example.com", "https://evil.example"
	up := startUpstream(t)
	up.answer = func(w http.ResponseWriter, r *http.Request, _ int) {
		if origin := r.Header.Get("Origin"); origin == app || origin == admin {
			w.Header().Set("Access-Control-Allow-Origin", origin)
			w.Header().Set("Access-Control-Expose-Headers", "X-Own")
		}
		if r.Method == http.MethodOptions {
			w.Header().Set("Access-Control-Allow-Headers", "X-API-Key")
			w.WriteHeader(http.StatusNoContent)
		}
	}
	text := recipe(t, "Let browsers read refusals")
	several := recipe(t, "Let browsers of several origins read refusals")
	for name, variant := range map[string]struct {
		caddyfile string
		origins   map[string]string // what a refusal allows
	}{
		"one origin":      {text, map[string]string{app: app, hostile: app, "": app}},
		"several origins": {several, map[string]string{app: app, admin: admin, hostile: "", "null": "", "": ""}},
	} {
		t.Run(name, func(t *testing.T) {
			s := startGate(t, variant.caddyfile, withEnv("UPSTREAM="+up.Addr))
			dead := startGate(t, variant.caddyfile, withEnv("UPSTREAM=127.0.0.1:9"))
			k, off := s.create(nil), s.create(map[string]any{"enabled": false})
			limited := s.create(map[string]any{"rateLimitMax": 1, "rateLimitTimeWindow": 3_600_000})
			s.get("/", "X-API-Key: "+limited.Raw)
			far := s.create(map[string]any{"allowedIps": []string{"192.0.2.1"}})
			known := dead.create(nil)
			for origin, allowed := range variant.origins {
				for _, row := range []struct {
					s      *server
					raw    string
					status int
				}{
					{s, "", 401}, {s, "x", 401}, {s, off.Raw, 401}, {s, limited.Raw, 429}, {s, far.Raw, 403}, {s, k.Raw, 200}, {dead, known.Raw, 502}, {dead, "", 401},
				} {
					m := message{target: "/"}
					if origin != "" {
						m.fields = append(m.fields, field{"Origin", origin})
					}
					if row.raw != "" {
						m.fields = append(m.fields, field{"X-API-Key", row.raw})
					}
					r := m.plain(t, row.s.URL)
					if r.status != row.status {
						t.Errorf("%s: status %d, want %d", origin, r.status, row.status)
					}
					want, exposed := allowed, "RateLimit, RateLimit-Policy, Retry-After"
					if row.status == 200 && (origin == app || origin == admin) {
						want, exposed = origin, "X-Own" // the application's
					}
					lines := r.header.Values("Access-Control-Allow-Origin")
					if got := strings.Join(lines, ","); got != want {
						t.Errorf("%s, %d: Access-Control-Allow-Origin %q, want %q", origin, r.status, got, want)
					}
					if got := strings.Join(r.header.Values("Access-Control-Expose-Headers"), "|"); got != exposed {
						t.Errorf("%s, %d: Access-Control-Expose-Headers %q, want %q", origin, r.status, got, exposed)
					}
					if r.status == 429 && (r.header.Get("Retry-After") == "" || r.header.Get("RateLimit") == "") {
						t.Errorf("429 without %v", r.header)
					}
					if len(variant.origins) > 3 && !strings.Contains(strings.Join(r.header.Values("Vary"), ","), "Origin") {
						t.Errorf("%s, %d: Vary %q", origin, r.status, r.header.Values("Vary"))
					}
				}
			}
			m := message{method: "OPTIONS", target: "/", fields: []field{
				{"Origin", app}, {"Access-Control-Request-Method", "GET"}, {"Access-Control-Request-Headers", "x-api-key"},
			}}
			r := m.plain(t, s.URL)
			if lines := r.header.Values("Access-Control-Allow-Origin"); r.status != 204 || len(lines) != 1 || lines[0] != app || r.header.Get("Access-Control-Allow-Headers") != "X-API-Key" {
				t.Errorf("preflight: %d %v", r.status, r.header)
			}
		})
	}
}

// TestQ23_CostRecipe spells the dear path in many ways, and counts what was paid. What could mean
// another path to the application does not reach it.
func TestQ23_CostRecipe(t *testing.T) {
	full(t)
	up := startUpstream(t)
	up.answer = func(w http.ResponseWriter, r *http.Request, _ int) {
		if strings.Contains(r.RequestURI, "fail") {
			w.WriteHeader(http.StatusBadGateway)
		}
	}
	s := startGate(t, recipe(t, "Charge more for some paths"), withEnv("UPSTREAM="+up.Addr))
	const credits = 1000
	for target, cost := range map[string]int64{
		"/v1/images/cat": 10, "/v1/images/a/b": 10, "/v1/images/": 10, "/v1/images": 10, "/V1/Images/cat": 10, "/v1/%69mages/cat": 10, "/v1/images/cat?x=/v1/chat": 10,
		"/v1/chat": 1, "/v1/imagesx": 1, "/v1/chat?x=/v1//images/../cat": 1, "/v1/..images": 1, "/": 1,
		"/v1/images/fail": 0, "/v1/fail": 0, // refunded
	} {
		k := s.create(map[string]any{"remaining": credits})
		r := s.get(target, "X-API-Key: "+k.Raw, markHeader+": "+target)
		if took := credits - s.left(k.ID); took != cost || len(up.of(target)) != 1 {
			t.Errorf("%s: status %d, %d credits, want %d", target, r.status, took, cost)
		}
	}
	k := s.create(map[string]any{"remaining": credits})
	for i, target := range append(ambiguous("/v1/images", "/v1/chat"), ambiguous("/v1/chat", "/v1/images/cat")...) {
		mark := fmt.Sprint("ambiguous", i)
		if r := s.get(target, "X-API-Key: "+k.Raw, markHeader+": "+mark); r.status != 400 || len(up.of(mark)) > 0 {
			t.Errorf("%s: status %d, %d requests at the application", target, r.status, len(up.of(mark)))
		}
	}
	if left := s.left(k.ID); left != credits {
		t.Errorf("paths that are refused took %d credits", credits-left)
	}
	for _, remaining := range []int64{0, 1, 9} { // too few for an image: nothing is taken
		k := s.create(map[string]any{"remaining": remaining})
		if r := s.get("/v1/images/cat", "X-API-Key: "+k.Raw); r.status != 429 || s.left(k.ID) != remaining {
			t.Errorf("with %d credits: status %d, %d left", remaining, r.status, s.left(k.ID))
		}
	}
}

// TestQ11_queryRedirect shows what the reference says of keys in the query: a redirect of
// a later handler loses them.
func TestQ11_queryRedirect(t *testing.T) {
	full(t)
	reference, err := os.ReadFile(source(t, "docs/caddyfile.md"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(reference), "with `query` in front of `file_server`, `/docs?api_key=…` leads to `/docs/` without the key, and that is a 401") {
		t.Error("the reference does not say so")
	}
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "docs"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "docs", "index.html"), []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := startGate(t, `{
	log default {
		format apikey_redact
	}
}

{$SITE} {
	apikey {
		query api_key
	}
	root {$ROOT}
	file_server
}
`, withEnv("ROOT="+root))
	k := s.create(nil).Raw
	if r := s.get("/docs/?api_key=" + k); r.status != 200 {
		t.Errorf("status %d", r.status)
	}
	r := s.get("/docs?api_key=" + k)
	location := r.header.Get("Location")
	if r.status != 308 || strings.Contains(location, k) {
		t.Errorf("status %d, Location %q", r.status, location)
	}
	if r := s.get("/docs/"); r.status != 401 {
		t.Errorf("status %d after the redirect", r.status)
	}
}

// TestQ21_RecipesByPath does so with the recipes in which the path decides which gate a
// request meets.
func TestQ21_RecipesByPath(t *testing.T) {
	full(t)
	for _, heading := range []string{"Named configurations", "Paths that mean two things"} {
		t.Run(heading, func(t *testing.T) {
			up := startUpstream(t)
			s := startGate(t, recipe(t, heading), withEnv("UPSTREAM="+up.Addr))
			fields := map[string]any{"name": "x", "permissions": []string{"catalog:read"}}
			if heading == "Named configurations" {
				fields["configId"] = "pub"
			}
			k := s.create(fields).Raw
			for i, target := range append(ambiguous("/private", "/catalog/x"), ambiguous("/catalog/x", "/private")...) {
				mark := fmt.Sprint("path", i)
				m := message{method: "POST", target: target, fields: fieldsOf([]string{keyLine(k), markHeader + ": " + mark})}
				if r := m.plain(t, s.URL); r.status != 400 || len(up.of(mark)) > 0 {
					t.Errorf("%s: status %d, %d requests at the application", target, r.status, len(up.of(mark)))
				}
			}
			for target, status := range map[string]int{"/catalog/x": 200, "/catalog/..x?a=/../": 200, "/private": 0, "/catalog": 0} {
				r := s.get(target, keyLine(k))
				if status != 0 && r.status != status || status == 0 && r.status == 200 {
					t.Errorf("%s: status %d", target, r.status)
				}
			}
		})
	}
}
