package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

const optionsSite = `{
	log default {
		format apikey_redact
	}
}

(who) {
	respond "id={http.auth.user.id} key={http.auth.user.key_id} name={http.auth.user.key_name} tier={http.auth.user.tier} config={http.auth.user.config} permissions={http.auth.user.permissions} plan={http.auth.user.metadata.plan} level={http.auth.user.metadata.level} none={http.auth.user.metadata.none} code={http.apikey.error.code}"
}

{$SITE} {
	log
	handle /who/* {
		apikey
		import who
	}
	handle /optional/* {
		apikey {
			optional
		}
		import who
	}
	handle /optional-proxy/* {
		apikey {
			optional
			query key
		}
		reverse_proxy {$UPSTREAM}
	}
	handle /headers/* {
		apikey {
			headers X-One X-Two
			headers X-Three
		}
		reverse_proxy {$UPSTREAM}
	}
	handle /bearer-off/* {
		apikey {
			bearer off
		}
		reverse_proxy {$UPSTREAM}
	}
	handle /query/* {
		apikey {
			query key
		}
		rewrite * /rewritten{uri}
		reverse_proxy {$UPSTREAM} {
			header_up X-Orig {http.request.orig_uri}
			header_up X-Orig-Query {http.request.orig_uri.query}
			header_up X-Uri {uri}
		}
	}
	handle /query-error/* {
		apikey {
			query key
		}
		error 418
	}
	handle /from-header/* {
		apikey {
			from {header.x-token}
		}
		reverse_proxy {$UPSTREAM}
	}
	handle /from-authorization/* {
		apikey {
			from {header.authorization}
		}
		reverse_proxy {$UPSTREAM}
	}
	handle /from-cookie/* {
		apikey {
			from {cookie.key}
		}
		reverse_proxy {$UPSTREAM}
	}
	handle /from-query/* {
		apikey {
			from {query.key}
		}
		reverse_proxy {$UPSTREAM}
	}
	handle /from-path/* {
		apikey {
			from {http.request.uri.path.1}
		}
		respond ok
	}
	handle /require/* {
		apikey files:read {
			require files:write api:admin
			require read
		}
		respond ok
	}
	handle /any/* {
		apikey {
			require_any files:read files:write
			require_any a:b c:d
		}
		respond ok
	}
	handle /cost/* {
		vars cost {header.X-Cost}
		apikey {
			cost {vars.cost}
		}
		respond ok
	}
	handle /cost-3/* {
		apikey {
			cost 3
		}
		respond ok
	}
	handle /cost-0/* {
		apikey {
			cost 0
		}
		respond ok
	}
	handle /secret/* {
		apikey {
			secret
		}
		reverse_proxy {$UPSTREAM}
	}
	handle /secret-required/* {
		apikey {
			secret required
		}
		reverse_proxy {$UPSTREAM}
	}
	handle /secret-twice/* {
		route {
			apikey {
				secret
			}
			apikey {
				secret required
			}
			reverse_proxy {$UPSTREAM}
		}
	}
	handle /keep/* {
		apikey {
			keep_key
			query key
			secret
		}
		reverse_proxy {$UPSTREAM}
	}
	handle /session-off/* {
		apikey {
			session off
		}
		import who
	}
	handle /identity/* {
		apikey {
			identity_header X-User-Id {http.auth.user.id}
			identity_header X-All "{http.auth.user.key_name};{http.auth.user.metadata.text}"
		}
		reverse_proxy {$UPSTREAM}
	}
	handle /basic-before/* {
		route {
			basic_auth {
				basil {$HASH}
			}
			apikey
			import who
		}
	}
	handle /basic-before-session-off/* {
		route {
			basic_auth {
				basil {$HASH}
			}
			apikey {
				session off
			}
			import who
		}
	}
	handle /basic-before-optional/* {
		route {
			basic_auth {
				basil {$HASH}
			}
			apikey {
				optional
			}
			import who
		}
	}
	handle /basic-after/* {
		apikey
		basic_auth {
			basil {$HASH}
		}
		import who
	}
	handle /rate-draft/* {
		apikey {
			rate_headers draft
		}
		respond ok
	}
	handle /rate-draft-11/* {
		apikey {
			rate_headers draft-11
		}
		respond ok
	}
	handle /rate-legacy/* {
		apikey {
			rate_headers legacy
		}
		respond ok
	}
	handle /rate-both/* {
		apikey {
			rate_headers both
		}
		respond ok
	}
	handle /rate-off/* {
		apikey {
			rate_headers off
		}
		respond ok
	}
	handle /rate-twice/* {
		route {
			apikey {
				rate_headers both
			}
			apikey {
				cost 4
				rate_headers off
			}
			respond ok
		}
	}
	handle_errors 418 {
		reverse_proxy {$UPSTREAM} {
			header_up X-Orig {http.request.orig_uri}
			header_up X-Uri {uri}
		}
	}
}
`

// TestOptions walks through the options of the gate.
func TestOptions(t *testing.T) {
	full(t)
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	up := startUpstream(t)
	s := startGate(t, optionsSite, withEnv("UPSTREAM="+up.Addr, "HASH="+string(hash)))
	full := s.create(map[string]any{
		"userId": "alice", "name": "laptop", "metadata": map[string]any{"plan": "pro", "level": 7, "text": "a\r\nX-Evil: 1\x00é"},
		"permissions": []string{"files:read", "files:write", "admin", "read", "a:b"}, "withSecret": true,
	})
	bare := s.create(map[string]any{"userId": "bob"})
	star := s.create(map[string]any{"userId": "root", "permissions": []string{"*:*"}})
	files := s.create(map[string]any{"userId": "carol", "permissions": []string{"files:*"}})
	const basic = "Authorization: Basic YmFzaWw6c2VjcmV0"
	x := func(k made) string { return "X-API-Key: " + k.Raw }
	who := func(k made, id, rest string) string {
		return fmt.Sprintf("id=%s key=%s %s", id, k.ID, rest)
	}
	const (
		ofFull = "name=laptop tier= config=default permissions=api:admin api:read a:b files:read files:write plan=pro level=7 none= code="
		ofBare = "name= tier= config=default permissions= plan= level= none= code="
		nobody = "id= key= name= tier= config= permissions= plan= level= none= code="
	)
	sorted := func(s string) string {
		return strings.Replace(s, "api:admin api:read a:b", "a:b api:admin api:read", 1)
	}
	for _, row := range []struct {
		target string
		lines  []string
		status int
		want   string // the body of a 200, else the code
	}{
		{"/who/", []string{x(full)}, 200, who(full, "alice", sorted(ofFull))},
		{"/who/", []string{x(bare)}, 200, who(bare, "bob", ofBare)},
		{"/optional/", []string{x(bare)}, 200, who(bare, "bob", ofBare)},
		{"/optional/", nil, 200, nobody},
		{"/optional/", []string{"X-API-Key: nonsense"}, 401, "INVALID_API_KEY"},
		{"/optional/", []string{x(bare), x(full)}, 400, "AMBIGUOUS_API_KEY"},
		{"/session-off/", []string{x(full)}, 200, nobody},
		{"/headers/", []string{"x-one: " + full.Raw}, 200, "upstream"},
		{"/headers/", []string{"X-Three: " + full.Raw}, 200, "upstream"},
		{"/headers/", []string{"Authorization: Bearer " + full.Raw}, 200, "upstream"},
		{"/headers/", []string{x(full)}, 401, "MISSING_API_KEY"},
		{"/headers/", []string{"X-One: " + full.Raw, "X-Two: " + full.Raw}, 200, "upstream"},
		{"/headers/", []string{"X-One: " + full.Raw, "X-Two: " + bare.Raw}, 400, "AMBIGUOUS_API_KEY"},
		{"/bearer-off/", []string{x(full)}, 200, "upstream"},
		{"/bearer-off/", []string{"Authorization: Bearer " + full.Raw}, 401, "MISSING_API_KEY"},
		{"/from-header/", []string{"X-Token: " + full.Raw}, 200, "upstream"},
		{"/from-header/", []string{"X-Token: " + full.Raw, "X-Token: " + bare.Raw}, 400, "AMBIGUOUS_API_KEY"},
		{"/from-header/", []string{x(full)}, 401, "MISSING_API_KEY"},
		{"/from-authorization/", []string{"Authorization: " + full.Raw}, 200, "upstream"},
		{"/from-authorization/", []string{"Authorization: Bearer " + full.Raw}, 401, "INVALID_API_KEY"},
		{"/from-cookie/", []string{"Cookie: key=" + full.Raw}, 200, "upstream"},
		{"/from-query/?a=1&key=" + full.Raw, nil, 200, "upstream"},
		{"/from-query/?key=" + full.Raw + "&key=" + bare.Raw, nil, 400, "AMBIGUOUS_API_KEY"},
		{"/from-path/" + full.Raw, nil, 200, "ok"},
		{"/from-path/", nil, 401, "MISSING_API_KEY"},
		{"/require/", []string{x(full)}, 200, "ok"},
		{"/require/", []string{x(star)}, 200, "ok"},
		{"/require/", []string{x(files)}, 403, "INSUFFICIENT_PERMISSIONS"},
		{"/require/", []string{x(bare)}, 403, "INSUFFICIENT_PERMISSIONS"},
		{"/any/", []string{x(full)}, 200, "ok"},
		{"/any/", []string{x(star)}, 200, "ok"},
		{"/any/", []string{x(files)}, 403, "INSUFFICIENT_PERMISSIONS"},
		{"/secret/", []string{x(full), "X-API-Secret: " + full.Secret}, 200, "upstream"},
		{"/secret/", []string{x(full)}, 401, "INVALID_SECRET"},
		{"/secret/", []string{x(full), "X-API-Secret: "}, 401, "INVALID_SECRET"},
		{"/secret/", []string{x(full), "X-API-Secret: " + full.Secret + "x"}, 401, "INVALID_SECRET"},
		{"/secret/", []string{x(full), "X-API-Secret: " + full.Secret, "X-API-Secret: " + full.Secret}, 401, "INVALID_SECRET"},
		{"/secret/", []string{x(full), "X-API-Secret: " + full.Raw}, 401, "INVALID_SECRET"},
		{"/secret/", []string{x(bare)}, 200, "upstream"},
		{"/secret-required/", []string{x(bare)}, 401, "INVALID_SECRET"},
		{"/secret-required/", []string{x(full), "X-API-Secret: " + full.Secret}, 200, "upstream"},
		{"/secret-twice/", []string{x(full), "X-API-Secret: " + full.Secret}, 200, "upstream"},
		{"/secret-twice/", []string{x(bare)}, 401, "INVALID_SECRET"},
		{"/basic-before/", []string{basic, x(full)}, 200, who(full, "alice", sorted(ofFull))},
		{"/basic-before/", []string{x(full)}, 401, ""},
		{"/basic-before/", []string{basic}, 401, "MISSING_API_KEY"},
		{"/basic-before-session-off/", []string{basic, x(full)}, 200, strings.Replace(nobody, "id=", "id=basil", 1)},
		{"/basic-before-optional/", []string{basic}, 200, strings.Replace(nobody, "id=", "id=basil", 1)},
		{"/basic-after/", []string{basic, x(full)}, 200, who(full, "basil", sorted(ofFull))},
		{"/basic-after/", []string{basic}, 401, "MISSING_API_KEY"},
		{"/basic-after/", []string{x(full)}, 401, ""},
	} {
		r := s.get(row.target, row.lines...)
		got := r.code
		if r.status == 200 {
			got = r.body
		}
		if r.status != row.status || got != row.want {
			t.Errorf("%.30s %.200q:\n%d %s, want\n%d %s", row.target, row.lines, r.status, got, row.status, row.want)
		}
	}
	for _, list := range up.seen {
		for i := range list {
			if list[i].has(full.Raw) || list[i].has(full.Secret) {
				t.Errorf("the upstream has seen a key or a secret: %v", list[i])
			}
		}
	}
	t.Run("removal", func(t *testing.T) { removal(t, s, up, full) })
	t.Run("cost", func(t *testing.T) { costs(t, s) })
	t.Run("rate headers", func(t *testing.T) { rateHeaders(t, s) })
	t.Run("access log", func(t *testing.T) {
		awaitLog(t, s, `"user_id":"alice"`)
		if strings.Contains(s.Log(), full.Raw) || strings.Contains(s.Log(), full.Secret) {
			t.Error("the key stands in the log")
		}
	})
}

// awaitLog waits until the server has logged text.
func awaitLog(t *testing.T, s *server, text string) {
	t.Helper()
	for deadline := time.Now().Add(testTimeout); !strings.Contains(s.Log(), text); <-time.After(pollEvery) {
		if time.Now().After(deadline) {
			t.Fatalf("%s is not in the log", text)
		}
	}
}

// removal checks what the upstream sees of a request with a key.
func removal(t *testing.T, s *server, up *upstream, k made) {
	for i, row := range []struct {
		target string
		lines  []string
		uri    string
		header map[string]string // what must have arrived, by name
	}{
		{
			"/query/p?a=%20+1&key=" + k.Raw + "&b=%zz&c", nil, "/rewritten/query/p?a=%20+1&b=%zz&c",
			map[string]string{"X-Orig": "/query/p?a=%20+1&b=%zz&c", "X-Orig-Query": "a=%20+1&b=%zz&c", "X-Uri": "/rewritten/query/p?a=%20+1&b=%zz&c"},
		},
		{"/query/p?key=" + k.Raw, nil, "/rewritten/query/p", map[string]string{"X-Orig": "/query/p"}},
		{"/query/p?key=&%6Bey=" + k.Raw, nil, "/rewritten/query/p?key=", nil},
		{"/query/p?key=", []string{"X-API-Key: " + k.Raw}, "/rewritten/query/p?key", map[string]string{"X-Api-Key": ""}},
		{"/query-error/p?key=" + k.Raw + "&z=1", nil, "/query-error/p?z=1", map[string]string{"X-Orig": "/query-error/p?z=1", "X-Uri": "/query-error/p?z=1"}},
		{"/from-query/?a=1&key=" + k.Raw, nil, "/from-query/?a=1", nil},
		{"/from-cookie/", []string{`Cookie: a="x y"; KEY=` + k.Raw + "; b=,1"}, "/from-cookie/", map[string]string{"Cookie": `a="x y"; b=,1`}},
		{"/from-cookie/", []string{"Cookie: key=" + k.Raw}, "/from-cookie/", map[string]string{"Cookie": ""}},
		{"/headers/", []string{"X-Two: " + k.Raw, "X-API-Key: x"}, "/headers/", map[string]string{"X-Two": "", "X-Api-Key": "x"}},
		{"/headers/", []string{"X-Two: " + k.Raw, "Authorization: Bearer x.y"}, "/headers/", map[string]string{"Authorization": "Bearer x.y"}},
		{"/bearer-off/", []string{"X-API-Key: " + k.Raw, "Authorization: Bearer x"}, "/bearer-off/", map[string]string{"Authorization": "Bearer x"}},
		{"/secret/", []string{"X-API-Key: " + k.Raw, "X-API-Secret: " + k.Secret}, "/secret/", map[string]string{"X-Api-Secret": ""}},
		{"/keep/", []string{"X-API-Key: " + k.Raw, "X-API-Secret: " + k.Secret}, "/keep/", map[string]string{"X-Api-Secret": k.Secret, "X-Api-Key": k.Raw}},
		{"/keep/?key=" + k.Raw, []string{"X-API-Secret: " + k.Secret}, "/keep/?key=" + k.Raw, nil},
		{"/identity/", []string{"X-API-Key: " + k.Raw, "X-User-Id: x"}, "/identity/", map[string]string{"X-User-Id": "alice", "X-All": "", "X-Evil": ""}},
		{"/optional-proxy/?a=1&key=", nil, "/optional-proxy/?a=1&key=", nil},
	} {
		mark := fmt.Sprint("removal", i)
		r := s.get(row.target, append(row.lines, markHeader+": "+mark)...)
		got := up.of(mark)
		if r.status != 200 || len(got) != 1 {
			t.Errorf("%.30s: %d %s, %d at the upstream", row.target, r.status, r.code, len(got))
			continue
		}
		if got[0].URI != row.uri {
			t.Errorf("%.30s: the upstream has seen %s, want %s", row.target, got[0].URI, row.uri)
		}
		for name, want := range row.header {
			if v := strings.Join(got[0].Header.Values(name), "|"); v != want {
				t.Errorf("%.30s: the upstream has seen %s %q, want %q", row.target, name, v, want)
			}
		}
		if !strings.HasPrefix(row.target, "/keep/") && got[0].has(k.Raw) {
			t.Errorf("%.30s: the upstream has seen the key: %v", row.target, got[0])
		}
	}
}

func costs(t *testing.T, s *server) {
	for _, row := range []struct {
		target, cost string
		status       int
		took         int64
	}{
		{"/cost-3/", "", 200, 3},
		{"/cost-0/", "", 200, 0},
		{"/cost/", "7", 200, 7},
		{"/cost/", "0", 200, 0},
		{"/cost/", "", 500, 0},
		{"/cost/", "-1", 500, 0},
		{"/cost/", "1.5", 500, 0},
		{"/cost/", "1e3", 500, 0},
		{"/cost/", "0x10", 500, 0},
		{"/cost/", "canary-cost", 500, 0},
		{"/cost/", "9007199254740992", 500, 0},
		{"/cost/", "99999999999999999999", 500, 0},
		{"/cost/", "51", 429, 0},
	} {
		k := s.create(map[string]any{"remaining": 50, "rateLimitMax": 1000, "rateLimitTimeWindow": 3_600_000})
		r := s.get(row.target, "X-API-Key: "+k.Raw, "X-Cost: "+row.cost)
		st := s.state(k.ID)
		if r.status != row.status || 50-*st.Remaining != row.took || st.RequestCount != row.took {
			t.Errorf("%s cost %q: status %d, took %d and %d, want %d, %d", row.target, row.cost, r.status, 50-*st.Remaining, st.RequestCount, row.status, row.took)
		}
	}
	awaitLog(t, s, "must be an integer from 0")
	if strings.Contains(s.Log(), `on","value`) || strings.Contains(s.Log(), `"error":"canary-cost`) {
		t.Error("the value of the cost stands in the log")
	}
	// Without a good key nobody learns about the cost.
	if r := s.get("/cost/", "X-Cost: x", "X-API-Key: nonsense"); r.code != "INVALID_API_KEY" {
		t.Errorf("bad key and bad cost: %d %s", r.status, r.code)
	}
	if r := s.get("/cost/", "X-Cost: x"); r.code != "MISSING_API_KEY" {
		t.Errorf("no key and bad cost: %d %s", r.status, r.code)
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func rateHeaders(t *testing.T, s *server) {
	names := []string{"RateLimit", "RateLimit-Policy", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"}
	for path, want := range map[string]string{
		"/who/": "11000", "/rate-draft/": "11000", "/rate-draft-11/": "11000", "/rate-legacy/": "00110", "/rate-both/": "11110", "/rate-off/": "00000",
	} {
		k := s.create(map[string]any{"remaining": 2, "rateLimitMax": 5, "rateLimitTimeWindow": 3_600_000})
		began := time.Now()
		for i := range 4 { // the last two are refused
			r := s.get(path, "X-API-Key: "+k.Raw)
			passed := int64(time.Since(began).Seconds()) + 1
			if (i < 2) != (r.status == 200) {
				t.Errorf("%s: request %d: status %d", path, i, r.status)
			}
			got := ""
			for _, name := range names {
				got += fmt.Sprint(len(r.header.Values(name)))
			}
			if got != want {
				t.Errorf("%s: request %d: headers %s, want %s: %v", path, i, got, want, r.header)
			}
			left, keyLeft := int64(max(0, 1-i)), int64(max(3, 4-i))
			if want[0] == '1' {
				all := ratesOf(t, r.header)
				if c := all["credits"]; c.q != 2 || c.w != 0 || c.r != left || c.t != 0 {
					t.Errorf("%s: request %d: credits %+v", path, i, c)
				}
				if c := all["key"]; c.q != 5 || c.w != 3600 || c.r != keyLeft || c.t < 3600-passed || c.t > 3600 {
					t.Errorf("%s: request %d: key %+v", path, i, c)
				}
			}
			if want[2] == '1' && (r.header.Get(names[2]) != "2" || r.header.Get(names[3]) != fmt.Sprint(left)) {
				t.Errorf("%s: request %d: %v", path, i, r.header)
			}
		}
	}
	huge := s.create(map[string]any{"rateLimitMax": int64(1)<<53 - 1, "rateLimitTimeWindow": int64(1)<<53 - 1})
	const maxInteger = 999_999_999_999_999 // of a structured field (RFC 9651, 3.3.1)
	c := ratesOf(t, s.get("/who/", "X-API-Key: "+huge.Raw).header)["key"]
	if c.q != maxInteger || c.r != maxInteger {
		t.Errorf("huge limit: %+v", c)
	}
	none := s.create(nil)
	if h := s.get("/rate-both/", "X-API-Key: "+none.Raw).header; h.Get("RateLimit") != "" || h.Get("X-RateLimit-Limit") != "" {
		t.Errorf("headers without a limit: %v", h)
	}
	// A second gate takes more: what the first has written would promise too much.
	k := s.create(map[string]any{"rateLimitMax": 10, "rateLimitTimeWindow": 3_600_000})
	r := s.get("/rate-twice/", "X-API-Key: "+k.Raw)
	if got := ratesOf(t, r.header)["key"].r; got != 6 || r.header.Get("X-RateLimit-Remaining") != "6" {
		t.Errorf("two gates: %d and %s left, want 6", got, r.header.Get("X-RateLimit-Remaining"))
	}
}
