package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/internal/api/rest"
)

const selfServiceSite = `{
	log default {
		format apikey_redact {
			headers X-Token
		}
	}
	apikey {
		tier free {
			limit 5/1m
			limit 1000/day
		}
		tier unlimited {
			permissions admin
		}
		default_tier unlimited
		config pub {
			prefix pub_
			session off
		}
	}
}

{$SITE} {
	log {
		format apikey_redact
	}
	handle /gated/* {
		apikey {
			secret required
		}
		respond "gated: {http.auth.user.id}"
	}
	handle /open/* {
		apikey {
			secret
		}
		respond "open: {http.auth.user.id}"
	}
	route /once/* {
		uri strip_prefix /once
		apikey
		apikey_api
	}
	route /thrice/* {
		uri strip_prefix /thrice
		apikey {
			cost 3
		}
		apikey_api
	}
	route /elsewhere/* {
		uri strip_prefix /elsewhere
		apikey {
			headers X-Token
			keep_key
		}
		apikey_api
	}
	route /pub/* {
		apikey_api {
			base /pub/v1/auth
			config pub
			message "Hello <you>"
		}
	}
	route /both/* {
		apikey_api {
			base /both
			config pub default
		}
	}
	route /query/* {
		apikey_api {
			base /query
			query key
		}
	}
	apikey_api
	apikey_api {
		dialect better_auth
	}
	respond "next: {method} {uri} {header.X-API-Key}"
}
`

// call sends a request with a JSON body to the site.
func (s *server) call(method, target, body string, lines ...string) *reply {
	s.t.Helper()
	return (&message{method: method, target: target, body: body, fields: fieldsOf(append(lines, "Content-Type: application/json"))}).plain(s.t, s.URL)
}

// into reads a body that must have exactly the fields of v.
func (r *reply) into(t testing.TB, v any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(r.body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		t.Fatalf("%v: %d %s", err, r.status, r.body)
	}
}

// is checks status and code.
func (r *reply) is(t testing.TB, status int, code string) {
	t.Helper()
	if r.status != status || r.code != code {
		t.Errorf("%d %s, want %d %s", r.status, r.body, status, code)
	}
}

func keyLine(raw string) string { return "X-API-Key: " + raw }

// rest makes a key over the API with another one.
func (s *server) rest(raw, body string) (c rest.Created) {
	s.t.Helper()
	r := s.call("POST", "/v1/auth/api-keys", body, keyLine(raw))
	r.into(s.t, &c)
	if r.status != http.StatusCreated {
		s.t.Fatalf("%d %s", r.status, r.body)
	}
	return c
}

var readWrite = map[string]any{"permissions": []string{"read", "write"}}

func with(fields map[string]any, more ...any) map[string]any {
	all := map[string]any{}
	for name, value := range fields {
		all[name] = value
	}
	for i := 0; i < len(more); i += 2 {
		all[more[i].(string)] = more[i+1]
	}
	return all
}

// TestSelfService goes through the life of keys that their holders make, on one
// server.
func TestSelfService(t *testing.T) {
	quick(t)
	s := startGate(t, selfServiceSite)
	for name, test := range map[string]func(*testing.T, *server){
		"secret": restSecret, "revocation": restRevocation, "charges": restCharges, "limits": restLimits, "handed on": restHandedOn,
		"configurations": restConfigs, "defaults of a tier": restTierDefaults, "bounds": restBounds, "S7": restSameBytes, "query": restQuery,
		"A7": restAdmin, "session": restSession,
	} {
		t.Run(name, func(t *testing.T) {
			s.t = t
			test(t, s)
		})
	}
	s.t = t
}

// restSecret opens a gate with what create answered, with and without the secret.
func restSecret(t *testing.T, s *server) {
	k := s.rest(s.create(with(readWrite, "userId", "sue")).Raw, "")
	for _, row := range []struct {
		target, secret string
		status         int
		code           string
	}{
		{"/gated/", k.Secret, 200, ""},
		{"/gated/", "", 401, "INVALID_SECRET"},
		{"/gated/", k.Secret + "x", 401, "INVALID_SECRET"},
		{"/gated/", k.Key, 401, "INVALID_SECRET"},
		{"/open/", k.Secret, 200, ""},
		{"/open/", "", 401, "INVALID_SECRET"},
	} {
		lines := []string{keyLine(k.Key)}
		if row.secret != "" {
			lines = append(lines, "X-API-Secret: "+row.secret)
		}
		r := s.get(row.target, lines...)
		r.is(t, row.status, row.code)
		if r.status == 200 && !strings.HasSuffix(r.body, ": sue") {
			t.Errorf("%s", r.body)
		}
	}
	// The API itself asks for no secret, and does not mind one.
	s.call("GET", "/v1/auth/usage", "", keyLine(k.Key)).is(t, 200, "")
	s.call("GET", "/v1/auth/usage", "", keyLine(k.Key), "X-API-Secret: "+k.Secret).is(t, 200, "")
	// Neither is shown again, anywhere.
	for _, target := range []string{"/v1/auth/api-keys", "/v1/auth/usage"} {
		if body := s.call("GET", target, "", keyLine(k.Key)).body; strings.Contains(body, k.Key) || strings.Contains(body, k.Secret) {
			t.Errorf("%s shows it again: %s", target, body)
		}
	}
}

// restRevocation revokes keys, which stops them at once, also the caller's own.
func restRevocation(t *testing.T, s *server) {
	parent := s.create(with(readWrite, "userId", "rex"))
	k := s.rest(parent.Raw, "")
	lines := []string{keyLine(k.Key), "X-API-Secret: " + k.Secret}
	s.get("/gated/", lines...).is(t, 200, "")
	for range 2 {
		r := s.call("DELETE", "/v1/auth/api-keys/"+k.ID, "", keyLine(parent.Raw))
		if strings.TrimSpace(r.body) != `{"success":true}` {
			t.Errorf("%d %s", r.status, r.body)
		}
		s.get("/gated/", lines...).is(t, 401, "KEY_DISABLED")
		s.call("GET", "/v1/auth/usage", "", keyLine(k.Key)).is(t, 401, "KEY_DISABLED")
	}
	var list rest.Keys
	s.call("GET", "/v1/auth/api-keys", "", keyLine(parent.Raw)).into(t, &list)
	if len(list.Keys) != 2 || list.Keys[0].ID != parent.ID || !list.Keys[0].Enabled || list.Keys[1].ID != k.ID || list.Keys[1].Enabled {
		t.Errorf("%+v", list.Keys)
	}
	s.call("DELETE", "/v1/auth/api-keys/"+parent.ID, "", keyLine(parent.Raw)).is(t, 200, "")
	s.call("DELETE", "/v1/auth/api-keys/"+parent.ID, "", keyLine(parent.Raw)).is(t, 401, "KEY_DISABLED")
}

// restCharges counts what calls cost: one use each, behind a gate too, and nothing
// where they are refused.
func restCharges(t *testing.T, s *server) {
	const credits = 100
	write := s.create(map[string]any{"userId": "cay", "permissions": []string{"write"}, "remaining": credits})
	read := s.create(map[string]any{"userId": "cay", "permissions": []string{"read"}, "remaining": credits})
	for _, row := range []struct {
		name, method, target string
		raw                  string
		body                 string
		status, cost         int
	}{
		{"a call", "POST", "/v1/auth/api-keys", write.Raw, `{"name":5}`, 400, 1},
		{"a free call", "GET", "/v1/auth/usage", read.Raw, "", 200, 0},
		{"behind a gate", "GET", "/once/v1/auth/usage", read.Raw, "", 200, 1},
		{"behind a dear gate", "GET", "/thrice/v1/auth/usage", read.Raw, "", 200, 3},
		{"not found", "DELETE", "/v1/auth/api-keys/none", write.Raw, "", 404, 0},
		{"unreadable", "POST", "/v1/auth/api-keys", write.Raw, "{", 400, 1},
		{"a permission missing", "POST", "/v1/auth/api-keys", read.Raw, "", 403, 0},
		{"a permission missing, behind a gate", "POST", "/once/v1/auth/api-keys", read.Raw, "", 403, 0},
		{"a permission missing, behind a dear gate", "DELETE", "/thrice/v1/auth/api-keys/none", read.Raw, "", 403, 0},
		{"limited credits, which make no key", "POST", "/v1/auth/api-keys", write.Raw, "", 403, 0},
		{"the same, behind a dear gate", "POST", "/thrice/v1/auth/api-keys", write.Raw, "", 403, 0},
		{"better_auth", "GET", "/api/auth/get-session", read.Raw, "", 200, 1},
		{"better_auth: a free call", "GET", "/api/auth/api-key/list", read.Raw, "", 200, 0},
		{"better_auth: not found", "POST", "/api/auth/api-key/delete", write.Raw, `{"keyId":"none"}`, 404, 0},
		{"better_auth: not found, when changed", "POST", "/api/auth/api-key/update", write.Raw, `{"keyId":"none"}`, 404, 1},
		{"better_auth: a wrong field", "POST", "/api/auth/api-key/update", write.Raw, `{"keyId":5}`, 400, 1},
		{"better_auth: a permission missing", "POST", "/api/auth/api-key/create", read.Raw, "{}", 403, 0},
		{"better_auth: limited credits, which make no key", "POST", "/api/auth/api-key/create", write.Raw, "{}", 403, 0},
		{"better_auth: somebody else", "POST", "/api/auth/api-key/create", write.Raw, `{"userId":"bob"}`, 401, 0},
		{"better_auth: no organization's", "GET", "/api/auth/api-key/list?organizationId=acme", read.Raw, "", 403, 0},
		{"a method that is not there", "PUT", "/v1/auth/usage", read.Raw, "", 405, 0},
		{"another path", "GET", "/v1/auth/none", read.Raw, "", 200, 0},
	} {
		id := map[string]string{read.Raw: read.ID, write.Raw: write.ID}[row.raw]
		before, uses := s.left(id), s.usesToday(id)
		r := s.call(row.method, row.target, row.body, keyLine(row.raw))
		if r.status != row.status {
			t.Errorf("%s: %d %s, want %d", row.name, r.status, r.body, row.status)
		}
		if got := before - s.left(id); got != int64(row.cost) {
			t.Errorf("%s costs %d, want %d", row.name, got, row.cost)
		}
		if row.cost > 0 {
			uses.Allowed++
		} else if (r.status == 401 || r.status == 403) && !strings.HasSuffix(row.target, "organizationId=acme") { // which is free
			uses.Denied++
		}
		if got := s.usesToday(id); got != uses {
			t.Errorf("%s: statistics have %+v, want %+v", row.name, got, uses)
		}
		if limits := r.header.Get("RateLimit"); row.cost > 0 && !strings.Contains(limits, fmt.Sprintf(`"credits";r=%d`, before-int64(row.cost))) {
			t.Errorf("%s: RateLimit %q", row.name, limits)
		}
	}
}

// usesToday returns what a key was used for today.
func (s *server) usesToday(id string) (u struct{ Allowed, Limited, Denied int64 }) {
	s.t.Helper()
	var usage struct {
		Days []struct{ Allowed, Limited, Denied int64 }
	}
	s.admin("GET", "/apikey/keys/"+id+"/usage?days=1", nil, 200, &usage)
	return usage.Days[0]
}

// restLimits meets the limits of the key and of the tier, and sees the usage.
func restLimits(t *testing.T, s *server) {
	s.admin("PUT", "/apikey/owners/lee", map[string]any{"tier": "free"}, 200, nil)
	k, other := s.create(with(readWrite, "userId", "lee")), s.create(with(readWrite, "userId", "lee"))
	for i := range 5 {
		s.get("/open/", keyLine(other.Raw)).is(t, 200, "")
		var u rest.Usage
		r := s.call("GET", "/v1/auth/usage", "", keyLine(k.Raw))
		r.into(t, &u)
		day, minute := int64(1000), int64(5)
		if want := int64(i + 1); u.Tier != "free" || u.Usage != (rest.UsageSums{Today: want, Month: want}) || *u.Limits.PerDay != day || *u.Limits.PerMinute != minute {
			t.Errorf("%s", r.body)
		}
	}
	r := s.call("POST", "/v1/auth/api-keys", "", keyLine(k.Raw))
	r.is(t, 429, "RATE_LIMITED")
	if wait := secondsOf(t, r.header.Get("Retry-After")).Seconds(); wait < 50 || wait > 60 {
		t.Errorf("Retry-After %s", r.header.Get("Retry-After"))
	}
	if !strings.Contains(r.header.Get("RateLimit"), `"minute";r=0`) {
		t.Errorf("RateLimit %q", r.header.Get("RateLimit"))
	}
}

// restHandedOn sends what is not for the API: the next handler sees all of it.
func restHandedOn(t *testing.T, s *server) {
	k := s.create(readWrite)
	for target, want := range map[string]string{
		"/v1/auth/other?x=1": "next: GET /v1/auth/other?x=1 " + k.Raw,
		"/api/auth/usage":    "next: GET /api/auth/usage " + k.Raw,
	} {
		r := s.get(target, keyLine(k.Raw))
		if r.status != 200 || r.body != want || r.header.Get("Cache-Control") != "" {
			t.Errorf("%s: %d %q %v", target, r.status, r.body, r.header)
		}
	}
	if st := s.state(k.ID); st.LastRequest != nil {
		t.Error("the key was used")
	}
	if r := (&message{method: "HEAD", target: "/v1/auth/usage", fields: fieldsOf([]string{keyLine(k.Raw)})}).plain(t, s.URL); r.status != 200 || r.body != "" {
		t.Errorf("HEAD: %d %q", r.status, r.body)
	}
}

// restConfigs keeps to the configurations that an API is about.
func restConfigs(t *testing.T, s *server) {
	own := s.create(with(readWrite, "userId", "con"))
	pub := s.create(with(readWrite, "userId", "con", "configId", "pub"))
	configOf := func(id string) string {
		var k struct{ ConfigID string }
		s.admin("GET", "/apikey/keys/"+id, nil, 200, &k)
		return k.ConfigID
	}
	create := func(base string, k made) (c rest.Created) {
		t.Helper()
		r := s.call("POST", base+"/api-keys", "", keyLine(k.Raw))
		r.into(t, &c)
		return c
	}
	s.call("GET", "/pub/v1/auth/usage", "", keyLine(own.Raw)).is(t, 401, "INVALID_API_KEY")
	byPub := create("/pub/v1/auth", pub)
	if !strings.HasPrefix(byPub.Key, "pub_") || configOf(byPub.ID) != "pub" || byPub.Message != "Hello <you>" {
		t.Errorf("%+v", byPub)
	}
	// A key makes keys of its own configuration: others might open more.
	if c := create("/v1/auth", pub); configOf(c.ID) != "pub" {
		t.Errorf("%+v", c)
	}
	if c := create("/both", own); configOf(c.ID) != "default" {
		t.Errorf("%+v", c)
	}
	count := func(base, raw string) int {
		var list rest.Keys
		s.call("GET", base+"/api-keys", "", keyLine(raw)).into(t, &list)
		return len(list.Keys)
	}
	for base, want := range map[string]int{"/pub/v1/auth": 3, "/both": 5, "/v1/auth": 5} {
		if got := count(base, pub.Raw); got != want {
			t.Errorf("%s lists %d keys, want %d", base, got, want)
		}
	}
	s.call("DELETE", "/pub/v1/auth/api-keys/"+own.ID, "", keyLine(pub.Raw)).is(t, 404, "KEY_NOT_FOUND")
	s.call("DELETE", "/both/api-keys/"+own.ID, "", keyLine(pub.Raw)).is(t, 200, "")
}

// restTierDefaults gives a new key what its maker has, not what the tier gives keys
// that an operator makes.
func restTierDefaults(t *testing.T, s *server) {
	k := s.create(map[string]any{"userId": "tia", "permissions": []string{"write"}})
	if c := s.rest(k.Raw, ""); !slices.Equal(c.Permissions, []string{"write"}) {
		t.Errorf("%+v", c)
	}
	// One that an operator makes: it shows that the tier would give more.
	var made struct{ Permissions map[string][]string }
	s.admin("POST", "/apikey/keys", map[string]any{"userId": "tia"}, 201, &made)
	if !slices.Equal(made.Permissions["api"], []string{"admin"}) {
		t.Errorf("%v", made.Permissions)
	}
}

// restBounds makes a key with one that is bounded in every way.
func restBounds(t *testing.T, s *server) {
	parent := s.create(map[string]any{
		"userId": "bo", "permissions": []string{"write", "files:*"}, "expiresIn": 100_000, "allowedIps": []string{"127.0.0.0/8", "::1"},
		"rateLimitMax": 1000, "rateLimitTimeWindow": 60_000, "rateLimitAlgorithm": "token_bucket",
	})
	child := s.rest(parent.Raw, `{"name":"child"}`)
	var was, is map[string]any
	s.admin("GET", "/apikey/keys/"+parent.ID, nil, 200, &was)
	s.admin("GET", "/apikey/keys/"+child.ID, nil, 200, &is)
	for _, name := range []string{"userId", "configId", "expiresAt", "allowedIps", "rateLimitEnabled", "rateLimitMax", "rateLimitTimeWindow", "rateLimitAlgorithm"} {
		if fmt.Sprint(was[name]) != fmt.Sprint(is[name]) {
			t.Errorf("%s: %v, of the parent %v", name, is[name], was[name])
		}
	}
	if fmt.Sprint(is["permissions"]) != "map[api:[write]]" || is["name"] != "child" {
		t.Errorf("%v", is)
	}
}

// restSameBytes compares the answers to keys that are none.
func restSameBytes(t *testing.T, s *server) {
	k := s.create(readWrite)
	deleted := s.create(nil)
	s.admin("DELETE", "/apikey/keys/"+deleted.ID, nil, 204, nil)
	mistyped := k.Raw[:len(k.Raw)-1] + "_"
	for _, route := range rest.Routes(false) {
		if route.Public {
			continue
		}
		target := strings.ReplaceAll(route.Path, "{id}", k.ID)
		first := ""
		for _, raw := range []string{deleted.Raw, "x", mistyped, k.Raw[:20], k.Raw + "0", k.Raw + k.Raw, strings.Repeat("a", 600), "ключ", "%00", "a b"} {
			r := s.call(route.Method, "/v1/auth"+target, "", keyLine(raw))
			r.header.Del("Date")
			text := fmt.Sprint(r.status, r.header, r.body)
			if first == "" {
				first = text
				r.is(t, 401, "INVALID_API_KEY")
			}
			if text != first {
				t.Errorf("%s %s, %.20q:\n%s\nanother:\n%s", route.Method, target, raw, text, first)
			}
		}
	}
}

// restQuery finds keys where this API is told to look, and there only.
func restQuery(t *testing.T, s *server) {
	k := s.create(readWrite)
	s.call("GET", "/query/usage?key="+k.Raw, "").is(t, 200, "")
	s.call("GET", "/v1/auth/usage?key="+k.Raw, "").is(t, 401, "MISSING_API_KEY")
	s.call("GET", "/query/usage?key="+k.Raw, "", keyLine(k.Raw)).is(t, 200, "")
	other := s.create(with(readWrite, "userId", "other"))
	s.call("GET", "/query/usage?key="+k.Raw, "", keyLine(other.Raw)).is(t, 400, "AMBIGUOUS_API_KEY")
	// A gate looks elsewhere: a second key is a second key.
	s.call("GET", "/elsewhere/v1/auth/usage", "", "X-Token: "+k.Raw).is(t, 200, "")
	before := s.usesToday(k.ID)
	s.call("GET", "/elsewhere/v1/auth/usage", "", "X-Token: "+k.Raw, keyLine(other.Raw)).is(t, 400, "AMBIGUOUS_API_KEY")
	if got := s.usesToday(k.ID); got != before {
		t.Errorf("refused for two keys, statistics have %+v, before %+v", got, before)
	}
}

// restAdmin calls Caddy's admin endpoint with a key: it opens nothing there, and is
// not even looked at.
func restAdmin(t *testing.T, s *server) {
	k := s.create(with(map[string]any{"permissions": []string{"admin", "*:*"}}, "userId", "ada", "remaining", 10))
	for _, row := range []struct {
		target string
		lines  []string
		status int
	}{
		{"/apikey/keys", nil, 200},
		{"/apikey/keys", []string{"Origin: https://evil.example"}, 403},
		{"/apikey/keys", []string{"Sec-Fetch-Mode: cors"}, 403},
		{"/apikey/keys", []string{"Host: evil.example"}, 403},
		{"/apikey/owners", []string{"Origin: null"}, 400},
		{"/config/", []string{"Origin: https://evil.example"}, 403},
		{"/v1/auth/usage", nil, 404},
	} {
		for _, lines := range [][]string{nil, {keyLine(k.Raw)}, {"Authorization: Bearer " + k.Raw}, {keyLine("nonsense")}} {
			m := &message{target: row.target, fields: fieldsOf(append(lines, row.lines...)), noHost: slices.Contains(row.lines, "Host: evil.example")}
			if r := m.plain(t, s.Admin); r.status != row.status {
				t.Errorf("%s %v with %d credentials: %d %s, want %d", row.target, row.lines, len(lines), r.status, r.body, row.status)
			}
		}
	}
	if left := s.left(k.ID); left != 10 {
		t.Errorf("the key was charged: %d are left", left)
	}
}

// restSession names the caller in the access log, unless the configuration opens no
// sessions, and prints neither what was presented nor what was made.
func restSession(t *testing.T, s *server) {
	k := s.create(with(readWrite, "userId", "sess-default"))
	made := s.rest(k.Raw, "")
	awaitLog(t, s, `"user_id":"sess-default"`)
	pub := s.create(with(readWrite, "userId", "sess-pub", "configId", "pub"))
	s.call("GET", "/v1/auth/usage?mark=sess-pub", "", keyLine(pub.Raw)).is(t, 200, "")
	awaitLog(t, s, "mark=sess-pub")
	log := s.Log()
	if strings.Contains(log, `"user_id":"sess-pub"`) {
		t.Error("a key whose configuration opens no sessions stands for its owner")
	}
	for _, secret := range []string{k.Raw, pub.Raw, made.Key, made.Secret} {
		if strings.Contains(log, secret) || strings.Contains(log, secret[10:]) {
			t.Error("a key or a secret stands in the log")
		}
	}
}
