package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/internal/api/rest"
	"github.com/caddy-apikey/caddy-apikey/key"
)

const personSite = `{
	log default {
		format apikey_redact
	}
}

(people) {
	basic_auth {
		bob {$HASH}
		carol {$HASH}
		fay {$HASH}
	}
}

{$SITE} {
	route /basic/* {
		import people
		apikey_api {
			base /basic
			user {http.auth.user.id}
			grant read write files:read
			trusted_origins https://app.example.com http://localhost:3000
		}
	}
	route /sorted/* {
		apikey_api {
			base /sorted
			user {http.auth.user.id}
		}
		basic_auth {
			bob {$HASH}
		}
	}
	handle /ordered/* {
		apikey_api {
			base /ordered
			user {http.auth.user.id}
		}
		basic_auth {
			bob {$HASH}
		}
	}
	handle /forward/* {
		apikey_api {
			base /forward
			user {http.reverse_proxy.header.Remote-User}
		}
		forward_auth {$AUTH} {
			uri /verify
		}
	}
	route /optional/* {
		import people
		apikey {
			optional
		}
		apikey_api {
			base /optional
			user {http.auth.user.id}
		}
	}
	route /cookie/* {
		apikey_api {
			base /cookie
			from {cookie.key}
		}
	}
	route /gate/* {
		apikey {
			from {cookie.key}
		}
		apikey_api {
			base /gate
		}
	}
	route /vars/* {
		vars uid {query.u}
		apikey_api {
			base /vars
			user {vars.uid}
		}
	}
	route /refused/* {
		import people
		apikey
		respond ok
	}
	route /dear/* {
		apikey
		vars cost {query.cost}
		apikey {
			cost {vars.cost}
		}
		respond ok
	}
	route /alone/* {
		vars cost {query.cost}
		apikey {
			cost {vars.cost}
		}
		respond ok
	}
	route /nobody/* {
		apikey {
			session off
		}
		vars cost {query.cost}
		apikey {
			cost {vars.cost}
		}
		respond ok
	}
	handle_errors {
		import people
		apikey_api {
			base /refused
			user {http.auth.user.id}
		}
		apikey_api {
			base /dear
			user {http.auth.user.id}
		}
		apikey_api {
			base /alone
			user {http.auth.user.id}
		}
		apikey_api {
			base /nobody
			user {http.auth.user.id}
		}
		respond "error route" 418
	}
}
`

// verifier is a server as forward_auth asks it: who has the cookie is somebody.
func verifier(t *testing.T) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := r.Cookie("session")
		if err != nil {
			w.WriteHeader(http.StatusUnauthorized)
			io.WriteString(w, "sign in")
			return
		}
		if c.Value != "nobody" {
			w.Header().Set("Remote-User", c.Value)
		}
	}))
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

// TestPerson tries callers without a key.
func TestPerson(t *testing.T) {
	full(t)
	s := startGate(t, personSite, withEnv("HASH="+passwordHash, "AUTH="+verifier(t)))
	for name, test := range map[string]func(*testing.T, *server){
		"first key": personFirstKey, "authentications": personAuthentications, "key decides": personKeyDecides, "error routes": personErrorRoutes,
		"A8": personForged, "CORS": personCORS, "names": personNames,
	} {
		t.Run(name, func(t *testing.T) {
			s.t = t
			test(t, s)
		})
	}
	s.t = t
}

// personFirstKey makes a first key, which works, and is bounded by what is granted.
func personFirstKey(t *testing.T, s *server) {
	fay := signedIn("fay")
	r := s.call("GET", "/basic/usage", "", fay)
	if r.status != 200 || strings.TrimSpace(r.body) != `{"tier":"free","usage":{"today":0,"month":0},"limits":{"perDay":null,"perMinute":null}}` {
		t.Errorf("%d %s", r.status, r.body)
	}
	var made rest.Created
	s.call("POST", "/basic/api-keys", "", fay).into(t, &made)
	if fmt.Sprint(made.Permissions) != "[read write]" {
		t.Errorf("%+v", made)
	}
	s.call("POST", "/basic/api-keys", `{"permissions":["admin"]}`, fay).is(t, 403, "INSUFFICIENT_PERMISSIONS")
	s.call("GET", "/vars/usage", "", keyLine(made.Key)).is(t, 200, "")
	var list rest.Keys
	s.call("GET", "/basic/api-keys", "", fay).into(t, &list)
	if len(list.Keys) != 1 || list.Keys[0].ID != made.ID {
		t.Errorf("%+v", list)
	}
	// What people do is not counted; what their keys do is, unless it is free.
	s.call("POST", "/vars/api-keys", `{"name":5}`, keyLine(made.Key)).is(t, 400, "INVALID_FIELD")
	var u rest.Usage
	s.call("GET", "/basic/usage", "", fay).into(t, &u)
	if u.Usage.Today != 1 {
		t.Errorf("%+v", u)
	}
	s.call("DELETE", "/basic/api-keys/"+made.ID, "", signedIn("carol")).is(t, 404, "KEY_NOT_FOUND")
	s.call("DELETE", "/basic/api-keys/"+made.ID, "", fay).is(t, 200, "")
	s.call("GET", "/vars/usage", "", keyLine(made.Key)).is(t, 401, "KEY_DISABLED")
}

// personAuthentications puts other handlers in front.
func personAuthentications(t *testing.T, s *server) {
	ownerOf := func(r *reply) string {
		t.Helper()
		var made rest.Created
		r.into(t, &made)
		var k struct{ UserID string }
		s.admin("GET", "/apikey/keys/"+made.ID, nil, 200, &k)
		return k.UserID
	}
	for _, row := range []struct {
		name, target string
		lines        []string
		status       int
		owner        string
	}{
		{"basic_auth", "/basic/api-keys", []string{signedIn("carol")}, 201, "carol"},
		{"basic_auth, no password", "/basic/api-keys", nil, 401, ""},
		{"behind, by the order of directives", "/ordered/api-keys", []string{signedIn("bob")}, 201, "bob"},
		{"in front, as written", "/sorted/api-keys", []string{signedIn("bob")}, 401, ""},
		{"forward_auth", "/forward/api-keys", []string{"Cookie: session=frank"}, 201, "frank"},
		{"forward_auth, no session", "/forward/api-keys", nil, 401, ""},
		{"forward_auth, no session, a forged answer", "/forward/api-keys", []string{"Remote-User: frank"}, 401, ""},
		{"forward_auth, nobody", "/forward/api-keys", []string{"Cookie: session=nobody", "Remote-User: frank"}, 401, ""},
		{"forward_auth, a forged header beside", "/forward/api-keys", []string{"Cookie: session=frank", "Remote-User: mallory"}, 201, "frank"},
		{"a token of a JWT plugin", "/vars/api-keys?u=jane", []string{"Authorization: Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJqYW5lIn0.sig"}, 201, "jane"},
		{"a token, and nobody known", "/vars/api-keys", []string{"Authorization: Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJqYW5lIn0.sig"}, 401, ""},
		{"behind an optional gate", "/optional/api-keys", []string{signedIn("bob")}, 201, "bob"},
	} {
		r := s.call("POST", row.target, "", row.lines...)
		if r.status != row.status {
			t.Errorf("%s: %d %s, want %d", row.name, r.status, r.body, row.status)
		} else if row.owner != "" {
			if got := ownerOf(r); got != row.owner {
				t.Errorf("%s: a key of %s, want %s", row.name, got, row.owner)
			}
		}
	}
}

// personKeyDecides presents keys beside a person.
func personKeyDecides(t *testing.T, s *server) {
	alice := s.create(map[string]any{"userId": "alice", "permissions": []string{"read"}})
	unknown, err := key.Random{}.Generate("ak_", key.DefaultLength, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name, method, target string
		lines                []string
		status               int
		code                 string
	}{
		{"a good key", "GET", "/basic/usage", []string{signedIn("bob"), keyLine(alice.Raw)}, 200, ""},
		{"a key that may less", "POST", "/basic/api-keys", []string{signedIn("bob"), keyLine(alice.Raw)}, 403, "INSUFFICIENT_PERMISSIONS"},
		{"a key that may less, found by a gate", "POST", "/optional/api-keys", []string{signedIn("bob"), keyLine(alice.Raw)}, 403, "INSUFFICIENT_PERMISSIONS"},
		{"an unknown key", "GET", "/basic/usage", []string{signedIn("bob"), keyLine(unknown)}, 401, "INVALID_API_KEY"},
		{"no key at all", "GET", "/basic/usage", []string{signedIn("bob"), keyLine("!")}, 401, "INVALID_API_KEY"},
		{"an unknown Bearer key", "GET", "/vars/usage?u=jane", []string{"Authorization: Bearer " + unknown}, 401, "INVALID_API_KEY"},
		{"a mistyped Bearer key", "GET", "/vars/usage?u=jane", []string{"Authorization: Bearer " + unknown[:50]}, 401, "INVALID_API_KEY"},
		{"a token beside a key", "GET", "/vars/usage?u=jane", []string{"Authorization: Bearer a.b.c", keyLine(alice.Raw)}, 200, ""},
	} {
		r := s.call(row.method, row.target, "", row.lines...)
		if r.status != row.status || r.code != row.code {
			t.Errorf("%s: %d %s, want %d %s", row.name, r.status, r.body, row.status, row.code)
		}
	}
	var list rest.Keys
	s.call("GET", "/basic/api-keys", "", signedIn("bob"), keyLine(alice.Raw)).into(t, &list)
	if len(list.Keys) != 1 || list.Keys[0].ID != alice.ID {
		t.Errorf("the keys of somebody else: %+v", list)
	}
}

// personErrorRoutes puts the API where a gate has refused a key, and removed it: the
// person must not be asked then.
func personErrorRoutes(t *testing.T, s *server) {
	k := s.create(map[string]any{"userId": "erin", "permissions": []string{"read"}})
	bob := signedIn("bob")
	for _, row := range []struct {
		name, target string
		lines        []string
		status       int
		code         string
	}{
		{"a bad key", "/refused/usage", []string{bob, keyLine("x")}, 401, "INVALID_API_KEY"},
		{"two bad keys", "/refused/usage", []string{bob, keyLine("x"), keyLine("y")}, 401, "INVALID_API_KEY"},
		{"two keys", "/refused/usage", []string{bob, keyLine(k.Raw), keyLine(testKey("ak_", 64))}, 400, "AMBIGUOUS_API_KEY"},
		{"no key", "/refused/usage", []string{bob}, 200, ""},
		{"a cost that cannot be told", "/dear/usage?cost=x", []string{bob, keyLine(k.Raw)}, 401, "MISSING_API_KEY"},
		{"the same, at the first gate", "/alone/usage?cost=x", []string{bob, keyLine(k.Raw)}, 401, "MISSING_API_KEY"},
		{"the same, behind a gate without a session", "/nobody/usage?cost=x", []string{bob, keyLine(k.Raw)}, 401, "MISSING_API_KEY"},
		{"no key, and a cost that cannot be told", "/alone/usage?cost=x", []string{bob}, 200, ""},
	} {
		if r := s.call("GET", row.target, "", row.lines...); r.status != row.status || r.code != row.code {
			t.Errorf("%s: %d %s, want %d %s", row.name, r.status, r.body, row.status, row.code)
		}
	}
	before := s.countKeys()
	s.call("POST", "/alone/api-keys?cost=x", "", bob, keyLine(k.Raw)).is(t, 401, "MISSING_API_KEY")
	if after := s.countKeys(); after != before {
		t.Errorf("%v are %v now", before, after)
	}
}

// personNames gives people names that no owner can have.
func personNames(t *testing.T, s *server) {
	for u, status := range map[string]int{
		"": 401, ".": 401, "..": 401, "%0a": 401, "a%00": 401, "%ff": 401, strings.Repeat("a", 256): 401,
		strings.Repeat("a", 255): 200, "%F0%9F%92%A9": 200, "a+b": 200, "a%2Fb": 200, "%7Benv.HOME%7D": 200,
	} {
		if r := s.call("GET", "/vars/usage?u="+u, ""); r.status != status {
			t.Errorf("%.20s: %d %s, want %d", u, r.status, r.body, status)
		}
	}
	awaitLog(t, s, "is not a valid owner")
}

// personForged sends what the pages of others could make a browser send.
func personForged(t *testing.T, s *server) {
	k := s.create(map[string]any{"userId": "dan", "permissions": []string{"admin"}})
	bob := s.create(map[string]any{"userId": "bob"})
	host := "Origin: " + s.URL
	for _, who := range []struct {
		name, base, line, own string
		ambient               bool
	}{
		{"a person", "/basic", signedIn("bob"), bob.ID, true},
		{"a cookie", "/cookie", "Cookie: key=" + k.Raw, k.ID, true},
		{"a cookie that a gate has taken", "/gate", "Cookie: key=" + k.Raw, k.ID, true},
		{"a header", "/vars", keyLine(k.Raw), k.ID, false},
	} {
		for _, row := range []struct {
			name   string
			lines  []string
			status int // 0: it passes
			code   string
		}{
			{"no browser", []string{"Content-Type: application/json"}, 0, ""},
			{"with a charset", []string{"Content-Type: application/json; charset=utf-8"}, 0, ""},
			{"the site itself", []string{"Content-Type: application/json", "Sec-Fetch-Site: same-origin", host}, 0, ""},
			{"a person at the keyboard", []string{"Content-Type: application/json", "Sec-Fetch-Site: none"}, 0, ""},
			{"an old browser, the site itself", []string{"Content-Type: application/json", host}, 0, ""},
			{"another site", []string{"Content-Type: application/json", "Sec-Fetch-Site: cross-site", "Origin: https://evil.example"}, 403, "CROSS_ORIGIN"},
			{"another host of the site", []string{"Content-Type: application/json", "Sec-Fetch-Site: same-site"}, 403, "CROSS_ORIGIN"},
			{"an old browser, another site", []string{"Content-Type: application/json", "Origin: https://evil.example"}, 403, "CROSS_ORIGIN"},
			{"no origin", []string{"Content-Type: application/json", "Origin: null"}, 403, "CROSS_ORIGIN"},
			{"almost trusted", []string{"Content-Type: application/json", "Origin: https://app.example.com.evil.example"}, 403, "CROSS_ORIGIN"},
			{"almost trusted, another scheme", []string{"Content-Type: application/json", "Sec-Fetch-Site: cross-site", "Origin: http://app.example.com"}, 403, "CROSS_ORIGIN"},
			{"a form", []string{"Content-Type: application/x-www-form-urlencoded"}, 415, "UNSUPPORTED_MEDIA_TYPE"},
			{"a form with text", []string{"Content-Type: text/plain"}, 415, "UNSUPPORTED_MEDIA_TYPE"},
			{"a form with files", []string{"Content-Type: multipart/form-data; boundary=x"}, 415, "UNSUPPORTED_MEDIA_TYPE"},
			{"no type", nil, 415, "UNSUPPORTED_MEDIA_TYPE"},
			{"two types", []string{"Content-Type: application/json", "Content-Type: text/plain"}, 415, "UNSUPPORTED_MEDIA_TYPE"},
			{"hidden behind a parameter", []string{"Content-Type: text/plain; application/json"}, 415, "UNSUPPORTED_MEDIA_TYPE"},
		} {
			for method, target := range map[string]string{"POST": "/api-keys", "DELETE": "/api-keys/" + who.own} {
				before := s.countKeys()
				r := (&message{method: method, target: who.base + target, fields: fieldsOf(append(row.lines, who.line))}).plain(t, s.URL)
				want, passes := row.status, row.status == 0 || !who.ambient
				if passes {
					want = map[string]int{"POST": 201, "DELETE": 200}[method]
				}
				if r.status != want || !passes && r.code != row.code {
					t.Errorf("%s, %s, %s: %d %s, want %d %s", method, who.name, row.name, r.status, r.body, want, row.code)
				}
				if after := s.countKeys(); !passes && after != before {
					t.Errorf("%s, %s, %s: %v are %v now", method, who.name, row.name, before, after)
				}
				s.admin("PATCH", "/apikey/keys/"+who.own, map[string]any{"enabled": true}, 200, nil)
			}
		}
		r := (&message{target: who.base + "/usage", fields: fieldsOf([]string{who.line, "Sec-Fetch-Site: cross-site", "Origin: https://evil.example"})}).plain(t, s.URL)
		if r.status != 200 || r.header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s reads: %d %v", who.name, r.status, r.header)
		}
	}
}

// countKeys returns how many keys there are, and how many of them work.
func (s *server) countKeys() (n [2]int) {
	s.t.Helper()
	for i, query := range []string{"", "&enabled=true"} {
		var list struct{ Total int }
		s.admin("GET", "/apikey/keys?limit=1"+query, nil, 200, &list)
		n[i] = list.Total
	}
	return n
}

// personCORS calls from pages of other origins.
func personCORS(t *testing.T, s *server) {
	const app = "https://app.example.com"
	preflight := "Access-Control-Request-Method: POST"
	for _, row := range []struct {
		name, method, target string
		lines                []string
		status               int
		origin, methods      string // that are allowed
		vary                 bool
	}{
		{"asks beforehand", "OPTIONS", "/basic/api-keys", []string{"Origin: " + app, preflight}, 204, app, "GET, HEAD, POST", true},
		{"another one asks beforehand", "OPTIONS", "/basic/api-keys/x", []string{"Origin: http://localhost:3000", preflight}, 204, "http://localhost:3000", "DELETE", true},
		{"asks without saying what for", "OPTIONS", "/basic/api-keys", []string{"Origin: " + app}, 405, app, "", true},
		{"a stranger asks beforehand", "OPTIONS", "/basic/api-keys", []string{"Origin: https://evil.example", preflight}, 405, "", "", true},
		{"null asks beforehand", "OPTIONS", "/basic/api-keys", []string{"Origin: null", preflight}, 405, "", "", true},
		{"two origins", "OPTIONS", "/basic/api-keys", []string{"Origin: " + app + ", https://evil.example", preflight}, 405, "", "", true},
		{"reads", "GET", "/basic/usage", []string{"Origin: " + app, signedIn("bob")}, 200, app, "", true},
		{"is refused", "GET", "/basic/usage", []string{"Origin: " + app, keyLine("x"), signedIn("bob")}, 401, app, "", true},
		{"makes a key", "POST", "/basic/api-keys", []string{"Origin: " + app, "Sec-Fetch-Site: cross-site", signedIn("bob")}, 201, app, "", true},
		{"the site itself", "GET", "/basic/usage", []string{signedIn("bob")}, 200, "", "", true},
		{"nobody is trusted", "GET", "/cookie/usage", []string{"Origin: " + app}, 401, "", "", false},
		{"nobody is trusted, asks beforehand", "OPTIONS", "/cookie/usage", []string{"Origin: " + app, preflight}, 405, "", "", false},
	} {
		lines := row.lines
		if row.method == "OPTIONS" {
			// basic_auth stands in front: a browser's question carries no password, so
			// whoever wants CORS lets it pass. Here it is answered by who asks with one.
			lines = append(lines, signedIn("bob"))
		}
		r := s.call(row.method, row.target, "", lines...)
		h := r.header
		if r.status != row.status || h.Get("Access-Control-Allow-Origin") != row.origin || h.Get("Access-Control-Allow-Methods") != row.methods ||
			(h.Get("Access-Control-Allow-Credentials") == "true") != (row.origin != "") || (h.Get("Vary") == "Origin") != row.vary {
			t.Errorf("%s: %d %v %s", row.name, r.status, h, r.body)
		}
		if allowed := h.Get("Access-Control-Allow-Headers"); (allowed == "content-type, authorization, x-api-key") != (r.status == 204) {
			t.Errorf("%s: headers %q", row.name, allowed)
		}
		if exposed := h.Get("Access-Control-Expose-Headers"); (exposed == "RateLimit, RateLimit-Policy, Retry-After") != (row.origin != "" && r.status != 204) {
			t.Errorf("%s: exposes %q", row.name, exposed)
		}
	}
}

// TestF5_selfService takes the database away: callers hear that it is away, and
// never that they are nobody.
func TestF5_selfService(t *testing.T) {
	full(t)
	db := filepath.Join(t.TempDir(), "a.db")
	s := startGate(t, fmt.Sprintf(`{
	apikey {
		store sqlite %s
	}
}

{$SITE} {
	handle /person/* {
		basic_auth {
			bob {$HASH}
		}
		apikey_api {
			base /person
			user {http.auth.user.id}
		}
	}
	handle {
		apikey_api
	}
}
`, db), withEnv("HASH="+passwordHash))
	plain := s.create(readWrite)
	counted := s.create(map[string]any{"remaining": 9})
	s.call("GET", "/v1/auth/usage", "", keyLine(plain.Raw)).is(t, 200, "")
	s.call("GET", "/v1/auth/usage", "", keyLine(counted.Raw)).is(t, 200, "")
	s.call("GET", "/person/usage", "", signedIn("bob")).is(t, 200, "")
	if err := os.Rename(db, db+".away"); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ method, target, line string }{
		{"POST", "/v1/auth/api-keys", keyLine(plain.Raw)},
		{"DELETE", "/v1/auth/api-keys/" + counted.ID, keyLine(plain.Raw)},
		{"POST", "/person/api-keys", signedIn("bob")},
	} {
		r := s.call(row.method, row.target, "", row.line)
		r.is(t, 503, "STORE_UNAVAILABLE")
		if r.header.Get("Retry-After") != "1" || strings.Contains(r.body, db) {
			t.Errorf("%s %s: %v %s", row.method, row.target, r.header, r.body)
		}
	}
}
