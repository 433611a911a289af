package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/internal/api/rest"
	"github.com/caddy-apikey/caddy-apikey/key"
)

// passwordHash is bcrypt of "password", at its lowest cost.
const passwordHash = "$2a$04$Nlah0BDtEbvXgQg6Z5pNvejchqGIZIkYF3y9AQ/bou5h.42gu6pV."

// signedIn is the header line of somebody who has the password.
func signedIn(user string) string {
	return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":password"))
}

const matrixSite = `{
	log default {
		format apikey_redact
	}
}

(people) {
	basic_auth {
		bob {$HASH}
		newcomer {$HASH}
		blocked {$HASH}
	}
}

{$SITE} {
	handle /person/* {
		import people
		apikey_api {
			base /person/v1/auth
			user {http.auth.user.id}
			extended
		}
	}
	handle /reader/* {
		import people
		apikey_api {
			base /reader/v1/auth
			user {http.auth.user.id}
			grant read
			extended
		}
	}
	handle {
		apikey_api {
			extended
		}
		respond "next handler"
	}
}
`

// matrixCaller is somebody who calls, and what becomes of it.
type matrixCaller struct {
	name  string
	base  string // of the API
	lines []string
	owner string
	acts  string // what the caller may do; with a refusal, nothing
	// status and code of the refusal, whatever is called; 0: none.
	status int
	code   string
	poor   bool // refused for want of credits only: what is free can be called
}

// refused reports whether the caller may not make a call at all.
func (c *matrixCaller) refused(free bool) bool { return c.status != 0 && !(c.poor && free) }

func (c *matrixCaller) may(action string) bool {
	return action == "" || slices.Contains(strings.Fields(c.acts), action) || strings.Contains(c.acts, "admin")
}

// matrixCallers makes all sorts of callers. Those of alice all share an owner.
func matrixCallers(s *server) []matrixCaller {
	s.t.Helper()
	limited := map[string]any{"rateLimitMax": 1_000_000, "rateLimitTimeWindow": 3_600_000}
	create := func(owner string, permissions ...string) made {
		fields := map[string]any{"userId": owner, "permissions": permissions}
		for name, value := range limited {
			fields[name] = value
		}
		return s.create(fields)
	}
	header := func(raw string) []string { return []string{"X-API-Key: " + raw} }

	revoked, expired, disabled := create("alice", "admin"), create("alice", "admin"), create("blocked", "admin")
	s.admin("PATCH", "/apikey/keys/"+revoked.ID, map[string]any{"enabled": false}, 200, nil)
	s.admin("PATCH", "/apikey/keys/"+expired.ID, map[string]any{"expiresIn": 1}, 200, nil)
	s.admin("PUT", "/apikey/owners/blocked", map[string]any{"enabled": false}, 200, nil)
	s.setClock(2 * time.Second)
	deleted := create("alice", "admin")
	s.admin("DELETE", "/apikey/keys/"+deleted.ID, nil, 204, nil)
	elsewhere := s.create(map[string]any{"permissions": []string{"admin"}, "allowedIps": []string{"192.0.2.1"}})
	poor := s.create(map[string]any{"permissions": []string{"admin"}, "remaining": 0})
	good := create("alice", "read", "write")
	unknown, err := key.Random{}.Generate("ak_", key.DefaultLength, true)
	if err != nil {
		s.t.Fatal(err)
	}
	mistyped := good.Raw[:len(good.Raw)-1] + string("01"[(good.Raw[len(good.Raw)-1]&1)^1])
	if key.ChecksumFits(mistyped) {
		mistyped = good.Raw[:len(good.Raw)-1] + "_"
	}
	const rest, person, reader = "/v1/auth", "/person/v1/auth", "/reader/v1/auth"
	return []matrixCaller{
		{"nobody", rest, nil, "", "", 401, "MISSING_API_KEY", false},
		{"an empty key", rest, header(""), "", "", 401, "MISSING_API_KEY", false},
		{"a secret alone", rest, []string{"X-API-Secret: clsk_x"}, "", "", 401, "MISSING_API_KEY", false},
		{"an unknown key", rest, header(unknown), "", "", 401, "INVALID_API_KEY", false},
		{"no key at all", rest, header("x y"), "", "", 401, "INVALID_API_KEY", false},
		{"a mistyped key", rest, header(mistyped), "", "", 401, "INVALID_API_KEY", false},
		{"a truncated key", rest, header(good.Raw[:len(good.Raw)-1]), "", "", 401, "INVALID_API_KEY", false},
		{"a deleted key", rest, header(deleted.Raw), "", "", 401, "INVALID_API_KEY", false},
		{"a revoked key", rest, header(revoked.Raw), "", "", 401, "KEY_DISABLED", false},
		{"an expired key", rest, header(expired.Raw), "", "", 401, "KEY_EXPIRED", false},
		{"a key of a disabled owner", rest, header(disabled.Raw), "", "", 401, "KEY_DISABLED", false},
		{"a key from elsewhere", rest, header(elsewhere.Raw), "", "", 403, "IP_NOT_ALLOWED", false},
		{"a key without credits", rest, header(poor.Raw), "alice", "admin", 429, "USAGE_EXCEEDED", true},
		{"two keys", rest, append(header(good.Raw), "Authorization: Bearer "+create("alice", "admin").Raw), "", "", 400, "AMBIGUOUS_API_KEY", false},
		{"a person, where none is known", rest, []string{signedIn("bob")}, "", "", 401, "MISSING_API_KEY", false},
		{"a header that says who calls", rest, []string{"X-User-Id: alice", "Remote-User: alice"}, "", "", 401, "MISSING_API_KEY", false},
		{"a person without a good password", person, []string{signedIn("bob") + "x"}, "", "", 401, "", false},
		{"a disabled person", person, []string{signedIn("blocked")}, "", "", 401, "KEY_DISABLED", false},
		{"a person with a bad key", person, append(header(unknown), signedIn("bob")), "", "", 401, "INVALID_API_KEY", false},
		{"a person with a revoked key", person, append(header(revoked.Raw), signedIn("bob")), "", "", 401, "KEY_DISABLED", false},

		{"a key that may do nothing", rest, header(create("alice").Raw), "alice", "", 0, "", false},
		{"a key for files", rest, header(create("alice", "files:write", "files:admin").Raw), "alice", "", 0, "", false},
		{"a read key", rest, header(create("alice", "read").Raw), "alice", "read", 0, "", false},
		{"a write key", rest, header(create("alice", "write").Raw), "alice", "write", 0, "", false},
		{"a read and write key", rest, header(good.Raw), "alice", "read write", 0, "", false},
		{"an admin key", rest, header(create("alice", "admin").Raw), "alice", "admin", 0, "", false},
		{"a key for all of api", rest, header(create("alice", "api:*").Raw), "alice", "admin", 0, "", false},
		{"a key for everything", rest, header(create("alice", "*:*").Raw), "alice", "admin", 0, "", false},
		{"another owner's key", rest, header(create("mallory", "admin").Raw), "mallory", "admin", 0, "", false},
		{"a Bearer key", rest, []string{"Authorization: bearer " + good.Raw}, "alice", "read write", 0, "", false},
		{"a person", person, []string{signedIn("bob")}, "bob", "read write", 0, "", false},
		{"a person without keys", person, []string{signedIn("newcomer")}, "newcomer", "read write", 0, "", false},
		{"a person who may read", reader, []string{signedIn("bob")}, "bob", "read", 0, "", false},
		{"a person with a read key", person, append(header(create("alice", "read").Raw), signedIn("bob")), "alice", "read", 0, "", false},
		{"a reader with a write key", reader, append(header(good.Raw), signedIn("bob")), "alice", "read write", 0, "", false},
	}
}

// matrixIDs are the forms of an ID, made for a caller; good: the caller's own.
func matrixIDs(own, other string) []struct {
	name, id string
	good     bool
} {
	return []struct {
		name, id string
		good     bool
	}{
		{"own", own, true},
		{"own, encoded", fmt.Sprintf("%%%x%s", own[0], own[1:]), true},
		{"another owner's", other, false},
		{"another owner's, encoded", fmt.Sprintf("%%%X%s", other[0], other[1:]), false},
		{"unknown", "ffffffffffffffffffffffff", false},
		{"malformed", "x", false},
		{"too long", strings.Repeat("a", 300), false},
		{"NUL", "%00", false},
		{"not UTF-8", "%ff", false},
		{"with a slash", "..%2F" + own, false},
	}
}

// matrixRoutes says of each call what it does for a caller who may make it. A
// route without an entry fails the test.
var matrixRoutes = map[string]struct {
	needs string // as the contract has it, not as the table has it
	check func(m *matrix, c *matrixCaller, r *reply, target string)
}{
	"POST /api-keys":        {"write", (*matrix).created},
	"GET /api-keys":         {"", (*matrix).listed},
	"DELETE /api-keys/{id}": {"write", (*matrix).revoked},
	"GET /usage":            {"", (*matrix).used},
	"PATCH /api-keys/{id}":  {"write", (*matrix).updated},

	"POST /api-keys/{id}/rotate": {"write", (*matrix).rotated},
}

// matrix is the state of a run.
type matrix struct {
	*server
	cells int
}

// TestA1_rest calls every route as every caller with every form of an ID. Callers
// see and change keys of their own owner only, and who is refused changes nothing,
// of nobody.
func TestA1_rest(t *testing.T) {
	full(t)
	s := startGate(t, matrixSite, withTestClock(), withEnv("HASH="+passwordHash))
	m := &matrix{server: s}
	callers := matrixCallers(s)
	owners := map[string]string{}
	for _, owner := range []string{"alice", "bob", "mallory", "newcomer", "victim", "blocked"} {
		if owner != "newcomer" {
			// Its limit is as tight as those of its owner's other keys, which may rotate it.
			owners[owner] = s.create(map[string]any{"userId": owner, "rateLimitMax": 1, "rateLimitTimeWindow": 3_600_000}).ID
		}
	}
	for _, rt := range rest.Routes(true) {
		if rt.Public {
			continue // TestRest_openAPI
		}
		name := rt.Method + " " + rt.Path
		entry, ok := matrixRoutes[name]
		if !ok {
			t.Errorf("%s has no entry in matrixRoutes", name)
			continue
		}
		if rt.Needs != entry.needs {
			t.Errorf("%s needs %q, want %q", name, rt.Needs, entry.needs)
		}
		for i := range callers {
			c := &callers[i]
			own := owners[c.owner]
			if own == "" {
				own = owners["alice"] // somebody else's for who has none
			}
			if !strings.Contains(rt.Path, "{id}") {
				m.cell(rt, c, "", false)
				continue
			}
			for _, id := range matrixIDs(own, owners["victim"]) {
				m.cell(rt, c, id.id, id.good && owners[c.owner] != "")
			}
		}
	}
	if m.cells < 300 {
		t.Errorf("only %d cells were tried", m.cells)
	}
}

// cell makes one call.
func (m *matrix) cell(rt *api.Route, c *matrixCaller, id string, own bool) {
	m.t.Helper()
	m.cells++
	name := rt.Method + " " + rt.Path
	entry := matrixRoutes[name]
	before := m.all()
	target := c.base + strings.ReplaceAll(rt.Path, "{id}", id)
	body := ""
	if rt.Method == "PATCH" {
		body = `{"name":"renamed"}`
	}
	r := (&message{method: rt.Method, target: target, body: body, fields: fieldsOf(append(c.lines, "Content-Type: application/json"))}).plain(m.t, m.URL)
	at := fmt.Sprintf("%s %s as %s", rt.Method, target, c.name)

	status, code := rt.Status, ""
	switch {
	case c.refused(rt.Free):
		status, code = c.status, c.code
	case !c.may(entry.needs):
		status, code = http.StatusForbidden, "INSUFFICIENT_PERMISSIONS"
	case strings.Contains(rt.Path, "{id}") && !own:
		status, code = http.StatusNotFound, "KEY_NOT_FOUND"
	}
	if r.status != status || r.code != code {
		m.t.Errorf("%s: %d %s, want %d %s", at, r.status, r.body, status, code)
		return
	}
	basicAuth := status == 401 && code == ""
	if h := r.header; !basicAuth && (h.Get("Cache-Control") != "no-store" || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Content-Type") != "application/json") {
		m.t.Errorf("%s: %v", at, h)
	}
	if challenge := r.header.Get("WWW-Authenticate"); (challenge != "") != (status == 401) {
		m.t.Errorf("%s: WWW-Authenticate %q", at, challenge)
	}
	switch {
	case status == rt.Status:
		entry.check(m, c, r, id)
	case status == http.StatusNotFound:
		m.same(at, before, true)
	default:
		m.same(at, before, false)
	}
}

// matrixKey is what the operator sees of a key.
type matrixKey struct {
	ID           string              `json:"id"`
	UserID       string              `json:"userId"`
	Enabled      bool                `json:"enabled"`
	Permissions  map[string][]string `json:"permissions"`
	RequestCount int64               `json:"requestCount"`
	LastRequest  *string             `json:"lastRequest"`
	Remaining    *int64              `json:"remaining"`
}

func (m *matrix) all() (keys []matrixKey) {
	m.t.Helper()
	path := "/apikey/keys?limit=500"
	for {
		var page struct {
			Keys       []matrixKey
			NextCursor *string
		}
		m.admin("GET", path, nil, 200, &page)
		keys = append(keys, page.Keys...)
		if page.NextCursor == nil {
			return keys
		}
		path = "/apikey/keys?limit=500&cursor=" + *page.NextCursor
	}
}

// same checks that no key has changed, but for having been used.
func (m *matrix) same(at string, before []matrixKey, used bool) {
	m.t.Helper()
	text := func(keys []matrixKey) string {
		keys = slices.Clone(keys)
		if used {
			for i := range keys {
				keys[i].RequestCount, keys[i].LastRequest = 0, nil
			}
		}
		b, _ := json.Marshal(keys)
		return string(b)
	}
	if text(before) != text(m.all()) {
		m.t.Errorf("%s: it was refused, and has changed something", at)
	}
}

func (m *matrix) find(id string) *matrixKey {
	m.t.Helper()
	var k matrixKey
	m.admin("GET", "/apikey/keys/"+id, nil, 200, &k)
	return &k
}

func (m *matrix) created(c *matrixCaller, r *reply, _ string) {
	m.t.Helper()
	var made rest.Created
	if err := json.Unmarshal([]byte(r.body), &made); err != nil {
		m.t.Fatal(err)
	}
	k := m.find(made.ID)
	if k.UserID != c.owner {
		m.t.Errorf("%s made a key of %s", c.name, k.UserID)
	}
	for resource, actions := range k.Permissions {
		for _, action := range actions {
			if resource != "api" || !c.may(action) || action == "admin" {
				m.t.Errorf("%s made a key that may %s:%s", c.name, resource, action)
			}
		}
	}
}

func (m *matrix) listed(c *matrixCaller, r *reply, _ string) {
	m.t.Helper()
	var list rest.Keys
	if err := json.Unmarshal([]byte(r.body), &list); err != nil {
		m.t.Fatal(err)
	}
	var got, want []string
	for _, k := range list.Keys {
		got = append(got, k.ID)
	}
	for _, k := range m.all() {
		if k.UserID == c.owner {
			want = append(want, k.ID)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		m.t.Errorf("%s lists %v, want %v", c.name, got, want)
	}
}

func (m *matrix) revoked(c *matrixCaller, _ *reply, id string) {
	m.t.Helper()
	if k := m.find(id); k.Enabled || k.UserID != c.owner {
		m.t.Errorf("%s has revoked %+v", c.name, k)
	}
	m.admin("PATCH", "/apikey/keys/"+id, map[string]any{"enabled": true}, 200, nil)
}

func (m *matrix) updated(c *matrixCaller, r *reply, id string) {
	m.t.Helper()
	if k := m.find(id); k.UserID != c.owner || !strings.Contains(r.body, `"_id":"`+k.ID+`"`) || !strings.Contains(r.body, `"name":"renamed"`) {
		m.t.Errorf("%s has renamed %+v: %s", c.name, k, r.body)
	}
}

func (m *matrix) rotated(c *matrixCaller, r *reply, id string) {
	m.t.Helper()
	var made rest.Rotated
	r.into(m.t, &made)
	if k := m.find(id); k.UserID != c.owner || made.ID != k.ID || !key.ChecksumFits(made.Key) {
		m.t.Errorf("%s has rotated %+v: %s", c.name, k, r.body)
	}
}

func (m *matrix) used(c *matrixCaller, r *reply, _ string) {
	m.t.Helper()
	var u rest.Usage
	if err := json.Unmarshal([]byte(r.body), &u); err != nil {
		m.t.Fatal(err)
	}
	var want struct{ Usage rest.UsageSums }
	if c.owner != "newcomer" {
		m.admin("GET", "/apikey/owners/"+c.owner+"/usage", nil, 200, &want)
	}
	if u.Usage != want.Usage {
		m.t.Errorf("%s has used %+v, want %+v", c.name, u.Usage, want.Usage)
	}
}
