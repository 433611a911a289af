package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/internal/api/rest"
)

const lifeOfAKeySite = `{
	log default {
		format apikey_redact
	}
	apikey {
		expiration {
			max 2h
		}
		tier basic {
			permissions read
		}
		tier full {
			permissions read write admin
		}
		default_tier full
	}
}

{$SITE} {
	handle /gated {
		apikey
		respond "{http.auth.user.id}"
	}
	apikey_api
	apikey_api {
		dialect better_auth
	}
}
`

// keyObject are the members of a key that these tests look at.
type keyObject struct {
	ID           string     `json:"id"`
	Raw          string     `json:"key"`
	Enabled      bool       `json:"enabled"`
	DisabledBy   *string    `json:"disabledBy"`
	ExpiresAt    *time.Time `json:"expiresAt"`
	RotatedAt    *time.Time `json:"rotatedAt"`
	PreviousKeys []struct {
		Start       string     `json:"start"`
		Until       time.Time  `json:"until"`
		LastRequest *time.Time `json:"lastRequest"`
	} `json:"previousKeys"`
}

func (s *server) rotate(id string, in map[string]any) (k keyObject) {
	s.t.Helper()
	body := map[string]any{}
	maps.Copy(body, in)
	s.admin("POST", "/apikey/keys/"+id+"/rotate", body, http.StatusOK, &k)
	return k
}

func (s *server) object(id string) (k keyObject) {
	s.t.Helper()
	s.admin("GET", "/apikey/keys/"+id, nil, http.StatusOK, &k)
	return k
}

// near reports whether at is d after now, but for the time that a test may take.
func near(at *time.Time, d time.Duration) bool {
	return at != nil && time.Until(*at) <= d && time.Until(*at) > d-time.Minute
}

// TestQ28_leaked: of two replaced raw keys one leaks; the next rotation ends both, and
// so does end-grace.
func TestQ28_leaked(t *testing.T) {
	full(t)
	s := startGate(t, lifeOfAKeySite)
	first := s.create(nil)
	opens := func(raw string, status int) {
		t.Helper()
		if r := s.get("/gated", keyLine(raw)); r.status != status {
			t.Errorf("%s...: %d %s, want %d", raw[:6], r.status, r.code, status)
		}
	}
	week := map[string]any{"grace": 7 * 24 * 3600}
	second := s.rotate(first.ID, week)
	opens(first.Raw, 200)
	opens(second.Raw, 200)
	if p := second.PreviousKeys; len(p) != 1 || p[0].Start != first.Raw[:6] || !near(&p[0].Until, 7*24*time.Hour) || p[0].LastRequest != nil {
		t.Errorf("%+v", p)
	}
	if p := s.object(first.ID).PreviousKeys; len(p) != 1 || p[0].LastRequest == nil {
		t.Errorf("%+v", p)
	}

	third := s.rotate(first.ID, nil)
	opens(first.Raw, 401)
	opens(second.Raw, 401)
	opens(third.Raw, 200)
	if third.PreviousKeys == nil || len(third.PreviousKeys) != 0 {
		t.Errorf("%+v", third.PreviousKeys)
	}

	fourth := s.rotate(first.ID, week)
	fifth := s.rotate(first.ID, map[string]any{"grace": 3600})
	for _, p := range fifth.PreviousKeys {
		if !near(&p.Until, time.Hour) {
			t.Errorf("%+v", fifth.PreviousKeys)
		}
	}
	for _, raw := range []string{third.Raw, fourth.Raw, fifth.Raw} {
		opens(raw, 200)
	}
	var ended keyObject
	s.admin("POST", "/apikey/keys/"+first.ID+"/end-grace", nil, http.StatusOK, &ended)
	if len(ended.PreviousKeys) != 0 || ended.ID != first.ID {
		t.Errorf("%+v", ended)
	}
	opens(third.Raw, 401)
	opens(fourth.Raw, 401)
	opens(fifth.Raw, 200)
}

// TestQ29_selfService: a replaced raw key in its grace reads, and makes, changes, ends
// and deletes nothing, in both dialects.
func TestQ29_selfService(t *testing.T) {
	full(t)
	s := startGate(t, lifeOfAKeySite)
	admin := map[string]any{"permissions": []string{"admin"}}
	k, other := s.create(admin), s.create(admin)
	expired := s.create(map[string]any{"expiresIn": 1})
	next := s.rotate(k.ID, map[string]any{"grace": 3600})
	eventually(t, "a key has expired", func() bool { return s.get("/gated", carrying(expired)).code == "KEY_EXPIRED" })
	type call struct{ method, path, body string }
	changes := []call{
		{"POST", "/v1/auth/api-keys", `{}`},
		{"DELETE", "/v1/auth/api-keys/" + other.ID, ``},
		{"DELETE", "/v1/auth/api-keys/" + k.ID, ``},
		{"POST", "/api/auth/api-key/create", `{}`},
		{"POST", "/api/auth/api-key/update", fmt.Sprintf(`{"keyId":%q,"name":"mine"}`, k.ID)},
		{"POST", "/api/auth/api-key/update", fmt.Sprintf(`{"keyId":%q,"enabled":false}`, other.ID)},
		{"POST", "/api/auth/api-key/delete-all-expired-api-keys", `{}`},
		{"POST", "/api/auth/api-key/delete", fmt.Sprintf(`{"keyId":%q}`, other.ID)},
	}
	reads := []call{
		{"GET", "/v1/auth/api-keys", ``},
		{"GET", "/v1/auth/usage", ``},
		{"GET", "/api/auth/api-key/get?id=" + k.ID, ``},
		{"GET", "/api/auth/api-key/list", ``},
		{"POST", "/api/auth/api-key/verify", fmt.Sprintf(`{"key":%q}`, k.Raw)},
		{"GET", "/api/auth/get-session", ``},
	}
	everything := func() string {
		var list struct{ Keys []map[string]any }
		s.admin("GET", "/apikey/keys", nil, http.StatusOK, &list)
		for _, k := range list.Keys {
			delete(k, "lastRequest")
			delete(k, "previousKeys")
		}
		text, err := json.Marshal(list.Keys)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	before := everything()
	for _, c := range changes {
		if r := s.call(c.method, c.path, c.body, keyLine(k.Raw)); r.status != 403 || r.code != "INSUFFICIENT_PERMISSIONS" {
			t.Errorf("%s %s with the replaced raw key: %d %s", c.method, c.path, r.status, r.body)
		}
		if after := everything(); after != before {
			t.Errorf("%s %s has changed\n%s\ninto\n%s", c.method, c.path, before, after)
		}
	}
	for _, c := range reads {
		if r := s.call(c.method, c.path, c.body, keyLine(k.Raw)); r.status != 200 {
			t.Errorf("%s %s with the replaced raw key: %d %s", c.method, c.path, r.status, r.body)
		}
	}
	for _, c := range append(reads, changes[0], changes[3], changes[4], changes[6], changes[7]) {
		if r := s.call(c.method, c.path, c.body, keyLine(next.Raw)); r.status >= 300 {
			t.Errorf("%s %s with the present raw key: %d %s", c.method, c.path, r.status, r.body)
		}
	}
}

// TestQ30_selfService: where there is a maximum, self-service makes no key that never
// ends, and an operator may.
func TestQ30_selfService(t *testing.T) {
	full(t)
	s := startGate(t, lifeOfAKeySite)
	k := s.create(map[string]any{"permissions": []string{"admin"}})
	if at := s.object(k.ID).ExpiresAt; at != nil {
		t.Errorf("a key that an operator makes ends at %v", at)
	}
	var made rest.Created
	r := s.call("POST", "/v1/auth/api-keys", `{}`, keyLine(k.Raw))
	r.into(t, &made)
	if at := s.object(made.ID).ExpiresAt; !near(at, 2*time.Hour) {
		t.Errorf("a key made in self-service ends at %v", at)
	}
	var id string
	for _, body := range []string{`{}`, `{"expiresIn":null}`, `{"expiresIn":7200}`} {
		var made struct{ ID string }
		decode(t, s.call("POST", "/api/auth/api-key/create", body, keyLine(k.Raw)).body, &made)
		if id = made.ID; !near(s.object(id).ExpiresAt, 2*time.Hour) {
			t.Errorf("create %s: ends at %v", body, s.object(id).ExpiresAt)
		}
	}
	s.call("POST", "/api/auth/api-key/create", `{"expiresIn":7201}`, keyLine(k.Raw)).is(t, 400, "EXPIRES_IN_IS_TOO_LARGE")

	update := func(members string) *reply {
		return s.call("POST", "/api/auth/api-key/update", fmt.Sprintf(`{"keyId":%q,%s}`, id, members), keyLine(k.Raw))
	}
	for _, c := range []struct {
		members string
		want    time.Duration
	}{
		{`"expiresIn":60`, time.Minute},
		{`"name":"n"`, time.Minute},
		{`"expiresIn":null`, 2 * time.Hour},
	} {
		if r := update(c.members); r.status != 200 || !near(s.object(id).ExpiresAt, c.want) {
			t.Errorf("update %s: %d, ends at %v, want %v", c.members, r.status, s.object(id).ExpiresAt, c.want)
		}
	}
	update(`"expiresIn":7201`).is(t, 400, "EXPIRES_IN_IS_TOO_LARGE")
	s.admin("PATCH", "/apikey/keys/"+id, map[string]any{"expiresIn": 7201}, 400, nil)
	s.admin("POST", "/apikey/keys/"+id+"/rotate", map[string]any{"expiresIn": 7201}, 400, nil)
	s.admin("PATCH", "/apikey/keys/"+id, map[string]any{"expiresIn": nil}, 200, nil)
	if at := s.object(id).ExpiresAt; at != nil {
		t.Errorf("an operator cannot leave a key without an end: %v", at)
	}
}

// TestQ31_command: a rotation says that the key ends soon all the same, and can give
// it more time.
func TestQ31_command(t *testing.T) {
	full(t)
	c := startCLI(t)
	id := c.json("create", "--owner", "alice", "--expires-in", "2d")["id"].(string)
	kept := c.exits(0, "rotate", id)
	if !strings.Contains(kept.stderr, "Warning: the key still expires at ") || strings.Contains(kept.stdout, "Warning") {
		t.Errorf("stdout %q, stderr %q", kept.stdout, kept.stderr)
	}
	longer := c.exits(0, "rotate", id, "--expires-in", "90d", "--grace", "1h")
	if strings.Contains(longer.stderr, "Warning") || !near(c.s.object(id).ExpiresAt, 90*24*time.Hour) {
		t.Errorf("stderr %q, ends at %v", longer.stderr, c.s.object(id).ExpiresAt)
	}
	if r := c.exits(0, "rotate", id, "--expires-in", "1d", "--json"); strings.Contains(r.stderr, "Warning") {
		t.Errorf("stderr with --json: %q", r.stderr)
	}
	never := c.json("create", "--owner", "alice")["id"].(string)
	if r := c.exits(0, "rotate", never); strings.Contains(r.stderr, "Warning") {
		t.Errorf("a key that never ends: %q", r.stderr)
	}
	c.exits(2, "rotate", id, "--expires-in", "soon")
}

// TestQ28_command: "show" shows the replaced raw keys that still work, and "end-grace"
// ends them.
func TestQ28_command(t *testing.T) {
	full(t)
	c := startCLI(t)
	made := c.json("create", "--owner", "alice")
	id, raw := made["id"].(string), made["key"].(string)
	c.exits(0, "rotate", id, "--grace", "1h")
	line := func() string {
		for text := range strings.Lines(c.exits(0, "show", id).stdout) {
			if rest, ok := strings.CutPrefix(text, "Previous keys:"); ok {
				return strings.TrimSpace(rest)
			}
		}
		t.Fatal("show does not tell of previous keys")
		return ""
	}
	if got := line(); !strings.HasPrefix(got, raw[:6]+"... until 20") || !strings.HasSuffix(got, ", last used never") {
		t.Errorf("show: %q", got)
	}
	c.wants("status in grace", c.status(raw, ""), 200)
	c.exits(0, "end-grace", id)
	c.wants("status after end-grace", c.status(raw, ""), 401)
	if got := line(); got != "-" {
		t.Errorf("show: %q", got)
	}
	c.exits(1, "end-grace", strings.Repeat("0", 24))
	c.exits(2, "end-grace")
}

// TestQ34_selfService: who has the permission to write makes no key that may do more
// than the owner's tier allows.
func TestQ34_selfService(t *testing.T) {
	full(t)
	s := startGate(t, lifeOfAKeySite)
	k := s.create(map[string]any{"permissions": []string{"admin"}})
	before := s.rest(k.Raw, `{"permissions":["read","write"]}`)
	s.admin("PUT", "/apikey/owners/alice", map[string]any{"tier": "basic"}, 200, nil)
	for _, permissions := range []string{`["write"]`, `["read","write"]`, `["admin"]`} {
		s.call("POST", "/v1/auth/api-keys", `{"permissions":`+permissions+`}`, keyLine(k.Raw)).is(t, 403, "INSUFFICIENT_PERMISSIONS")
	}
	for _, body := range []string{``, `{}`, `{"permissions":["read"]}`} {
		if made := s.rest(k.Raw, body); strings.Join(made.Permissions, " ") != "read" {
			t.Errorf("%s: %v", body, made.Permissions)
		}
	}
	var made struct {
		Permissions map[string][]string
	}
	decode(t, s.call("POST", "/api/auth/api-key/create", `{}`, keyLine(k.Raw)).body, &made)
	if got := fmt.Sprint(made.Permissions); got != "map[api:[read]]" {
		t.Errorf("better_auth: %s", got)
	}
	s.rest(before.Key, `{}`) // what was granted before the downgrade stays
}

// TestDisabledBy_selfService: an owner enables what the owner has disabled, and
// nothing else.
func TestDisabledBy_selfService(t *testing.T) {
	full(t)
	s := startGate(t, lifeOfAKeySite)
	k := s.create(map[string]any{"permissions": []string{"admin"}})
	made := s.rest(k.Raw, `{}`)
	wants := func(by string) {
		t.Helper()
		got := s.object(made.ID)
		if got.Enabled != (by == "") || got.DisabledBy == nil != (by == "") || by != "" && *got.DisabledBy != by {
			t.Errorf("%+v, want it disabled by %q", got, by)
		}
	}
	enable := func(on bool) *reply {
		return s.call("POST", "/api/auth/api-key/update", fmt.Sprintf(`{"keyId":%q,"enabled":%v}`, made.ID, on), keyLine(k.Raw))
	}
	s.call("DELETE", "/v1/auth/api-keys/"+made.ID, "", keyLine(k.Raw)).is(t, 200, "")
	wants("owner")
	enable(true).is(t, 200, "")
	wants("")
	enable(false).is(t, 200, "")
	wants("owner")
	s.admin("PATCH", "/apikey/keys/"+made.ID, map[string]any{"enabled": false}, 200, nil)
	wants("operator")
	enable(true).is(t, 403, "INSUFFICIENT_PERMISSIONS")
	enable(false).is(t, 200, "")
	s.call("DELETE", "/v1/auth/api-keys/"+made.ID, "", keyLine(k.Raw)).is(t, 200, "")
	wants("operator")
	if r := s.run("apikey", "enable", made.ID); r.code != 0 {
		t.Errorf("%+v", r)
	}
	wants("")
	if r := s.run("apikey", "revoke", made.ID); r.code != 0 {
		t.Errorf("%+v", r)
	}
	wants("operator")
}
