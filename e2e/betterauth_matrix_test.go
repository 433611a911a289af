package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/internal/api/betterauth"
)

// betterAuthRoutes says of each call how it is made, and what it does for a caller
// who may make it. A route without an entry fails the test.
var betterAuthRoutes = map[string]struct {
	needs   string // as the contract has it, not as the table has it
	noIDs   bool
	nobody  string // the code for a request without an identity; empty: it is answered
	request func(id string) (query, body string)
	check   func(m *matrix, c *matrixCaller, r *reply, id string)
}{
	"POST /api-key/create": {"write", true, "UNAUTHORIZED_SESSION", func(string) (string, string) { return "", "{}" }, (*matrix).createdHere},
	"GET /api-key/get":     {"", false, "UNAUTHORIZED", inQuery, (*matrix).gotHere},
	"POST /api-key/update": {"write", false, "UNAUTHORIZED_SESSION", inBody, (*matrix).updatedHere},
	"POST /api-key/delete": {"write", false, "UNAUTHORIZED", inBody, (*matrix).deletedHere},
	"GET /api-key/list":    {"", true, "UNAUTHORIZED", func(string) (string, string) { return "", "" }, (*matrix).listedHere},
	"POST /api-key/verify": {"admin", true, "UNAUTHORIZED", func(string) (string, string) { return "", `{"key":"x"}` }, func(m *matrix, c *matrixCaller, r *reply, _ string) {
		if !strings.Contains(r.body, `"valid":false`) {
			m.t.Errorf("%s: %s", c.name, r.body)
		}
	}},
	"POST /api-key/delete-all-expired-api-keys": {"admin", true, "UNAUTHORIZED", func(string) (string, string) { return "", "{}" }, func(*matrix, *matrixCaller, *reply, string) {}},
	"GET /get-session":                          {"", true, "", func(string) (string, string) { return "", "" }, (*matrix).sessionHere},
}

func inQuery(id string) (string, string) { return "?id=" + url.QueryEscape(id), "" }

func inBody(id string) (string, string) {
	b, _ := json.Marshal(map[string]string{"keyId": id, "name": "renamed"})
	return "", string(b)
}

// TestA1_betterAuth calls every route of the dialect as every caller, with many forms
// of an ID.
func TestA1_betterAuth(t *testing.T) {
	full(t)
	site := strings.NewReplacer("apikey_api {\n\t\t\textended\n", "apikey_api {\n\t\t\tdialect better_auth\n\t\t\tbase /v1/auth\n",
		"apikey_api {\n", "apikey_api {\n\t\t\tdialect better_auth\n", "\t\t\textended\n", "").Replace(matrixSite)
	s := startGate(t, site, withTestClock(), withEnv("HASH="+passwordHash))
	m := &matrix{server: s}
	callers := matrixCallers(s)
	victim := s.create(map[string]any{"userId": "victim"}).ID
	for _, rt := range betterauth.Routes() {
		entry, ok := betterAuthRoutes[rt.Method+" "+rt.Path]
		if !ok {
			t.Errorf("%s %s has no entry in betterAuthRoutes", rt.Method, rt.Path)
			continue
		}
		if rt.Needs != entry.needs {
			t.Errorf("%s needs %q, want %q", rt.Path, rt.Needs, entry.needs)
		}
		for i := range callers {
			c := &callers[i]
			if entry.noIDs {
				m.callHere(rt, c, "", true)
				continue
			}
			ids := []string{"own", victim, "ffffffffffffffffffffffff", "", "\x00"}
			if c.status != 0 {
				ids = ids[:1] // no ID makes that better
			}
			for _, id := range ids {
				own := id == "own" && c.owner != "" && c.owner != "newcomer"
				if id == "own" {
					id = s.create(map[string]any{"userId": owner(c)}).ID
				}
				m.callHere(rt, c, id, own)
			}
		}
	}
	if m.cells < 400 {
		t.Errorf("only %d cells were tried", m.cells)
	}
}

// owner is who a key is made for that the caller would have; somebody else where the
// caller is nobody.
func owner(c *matrixCaller) string {
	if c.owner == "" || c.owner == "newcomer" {
		return "victim"
	}
	return c.owner
}

// callHere makes one call.
func (m *matrix) callHere(rt betterauth.Route, c *matrixCaller, id string, own bool) {
	m.t.Helper()
	m.cells++
	entry := betterAuthRoutes[rt.Method+" "+rt.Path]
	query, body := entry.request(id)
	before := m.all()
	lines := c.lines
	if rt.Method == http.MethodPost {
		lines = append(slices.Clone(lines), "Content-Type: application/json")
	}
	r := (&message{method: rt.Method, target: c.base + rt.Path + query, fields: fieldsOf(lines), body: body}).plain(m.t, m.URL)
	at := fmt.Sprintf("%s %s %q as %s", rt.Method, rt.Path, id, c.name)

	status, code := http.StatusOK, ""
	switch {
	case c.code == "MISSING_API_KEY":
		if code = entry.nobody; code != "" {
			status = http.StatusUnauthorized
		}
	case c.name == "a disabled person":
		status, code = http.StatusUnauthorized, "USER_BANNED"
	case c.refused(rt.Free):
		status, code = c.status, c.code
	case !c.may(entry.needs):
		status, code = http.StatusForbidden, "INSUFFICIENT_PERMISSIONS"
	case !own:
		status, code = http.StatusNotFound, "KEY_NOT_FOUND"
	}
	if r.status != status || r.code != code {
		m.t.Errorf("%s: %d %s, want %d %s", at, r.status, r.body, status, code)
		return
	}
	if challenge := r.header.Get("WWW-Authenticate"); (challenge != "") != (status == 401) {
		m.t.Errorf("%s: WWW-Authenticate %q", at, challenge)
	}
	if c.status != 401 || c.code != "" { // that answer is basic_auth's
		if got := r.header.Get("Cache-Control"); got != "no-store" {
			m.t.Errorf("%s: Cache-Control %q", at, got)
		}
	}
	switch {
	case status == http.StatusOK && c.owner != "":
		entry.check(m, c, r, id)
	case status == http.StatusNotFound:
		m.same(at, before, true)
	default:
		m.same(at, before, false)
	}
}

func (m *matrix) createdHere(c *matrixCaller, r *reply, _ string) {
	m.t.Helper()
	var made struct{ ID, ReferenceID string }
	if err := json.Unmarshal([]byte(r.body), &made); err != nil {
		m.t.Fatal(err)
	}
	if k := m.find(made.ID); k.UserID != c.owner || made.ReferenceID != c.owner || len(k.Permissions) != 0 {
		m.t.Errorf("%s made %+v", c.name, k)
	}
}

func (m *matrix) gotHere(c *matrixCaller, r *reply, id string) {
	m.t.Helper()
	if !strings.Contains(r.body, `"referenceId":"`+c.owner+`"`) || !strings.Contains(r.body, `"id":"`+id+`"`) {
		m.t.Errorf("%s got %s", c.name, r.body)
	}
}

func (m *matrix) updatedHere(c *matrixCaller, r *reply, id string) {
	m.t.Helper()
	m.gotHere(c, r, id)
	if !strings.Contains(r.body, `"name":"renamed"`) {
		m.t.Errorf("%s changed %s", c.name, r.body)
	}
}

func (m *matrix) deletedHere(c *matrixCaller, _ *reply, id string) {
	m.t.Helper()
	if slices.ContainsFunc(m.all(), func(k matrixKey) bool { return k.ID == id }) {
		m.t.Errorf("%s deleted a key that is still there", c.name)
	}
}

func (m *matrix) listedHere(c *matrixCaller, r *reply, _ string) {
	m.t.Helper()
	var list struct {
		APIKeys []struct{ ID, ReferenceID string }
		Total   int
	}
	if err := json.Unmarshal([]byte(r.body), &list); err != nil {
		m.t.Fatal(err)
	}
	want := 0
	for _, k := range m.all() {
		if k.UserID == c.owner {
			want++
		}
	}
	if len(list.APIKeys) != want || list.Total != want {
		m.t.Errorf("%s lists %d of %d, want %d", c.name, len(list.APIKeys), list.Total, want)
	}
	for _, k := range list.APIKeys {
		if k.ReferenceID != c.owner {
			m.t.Errorf("%s lists a key of %s", c.name, k.ReferenceID)
		}
	}
}

func (m *matrix) sessionHere(c *matrixCaller, r *reply, _ string) {
	m.t.Helper()
	if !strings.Contains(r.body, `"userId":"`+c.owner+`"`) {
		m.t.Errorf("%s is %s", c.name, r.body)
	}
}
