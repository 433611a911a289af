package e2e

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const configuredSite = `{
	apikey {
		OPTIONS
	}
}
{$SITE} {
	log {
		output file access.log
		format apikey_redact json
	}
	handle /pub* {
		apikey {
			config pub
			identity_header X-User {http.auth.user.id}
		}
		respond "WHO {http.request.header.X-User}"
	}
	handle /both* {
		apikey {
			config pub sec
		}
		respond "WHO"
	}
	handle /twice* {
		apikey /twice*
		route {
			apikey {
				config default
			}
			respond "WHO"
		}
	}
	handle {
		apikey {
			identity_header X-User {http.auth.user.id}
		}
		respond "WHO {http.request.header.X-User}"
	}
}
`

const who = `id={http.auth.user.id} key={http.auth.user.key_id} name={http.auth.user.key_name} tier={http.auth.user.tier} ` +
	`config={http.auth.user.config} permissions={http.auth.user.permissions} team={http.auth.user.metadata.team}`

func configured(options string) string {
	return strings.NewReplacer("OPTIONS", options, "WHO", who).Replace(configuredSite)
}

// carrying is the header line with a key.
func carrying(k made) string { return "X-API-Key: " + k.Raw }

const (
	pubConfig = `config pub {
			prefix pub_
			session off
			validate match ^pub_
			rate_limiting off
			start 9
			name_length 3 5
			expiration {
				max 1h
			}
		}`
	secConfig = `config sec {
			prefix sec_
			checksum off
			length 40
			rate_limit 2/1h
			require_name
		}`
	pubAndSec = pubConfig + "\n" + secConfig
)

// S7: a key of another configuration gets the bytes that an unknown one gets,
// whatever is wrong with it.
func TestS7_configs(t *testing.T) {
	full(t)
	s := startGate(t, configured(pubAndSec))
	own := s.create(map[string]any{"remaining": 5})
	off := s.create(map[string]any{"enabled": false})
	sec := s.create(map[string]any{"configId": "sec", "name": "x", "remaining": 5})
	pub := s.create(map[string]any{"configId": "pub"})
	unknown := s.get("/pub", carrying(made{Raw: "pub_" + strings.Repeat("a", 58) + "000000"}))
	if unknown.status != 401 || unknown.code != "INVALID_API_KEY" {
		t.Fatalf("unknown: %+v", unknown)
	}
	bytesOf := func(r *reply) string {
		h := r.header.Clone()
		h.Del("Date")
		return fmt.Sprint(r.status, h, r.body)
	}
	for name, k := range map[string]made{"default": own, "disabled": off, "sec": sec} {
		if r := s.get("/pub", carrying(k)); bytesOf(r) != bytesOf(unknown) {
			t.Errorf("%s: %s, want %s", name, bytesOf(r), bytesOf(unknown))
		}
	}
	// A later gate of another configuration: what the earlier one took is given back.
	if r := s.get("/twice", carrying(sec)); r.code != "INVALID_API_KEY" {
		t.Errorf("twice: %+v", r)
	}
	for path, want := range map[string][]int{"/": {200, 200, 200}, "/pub": {200, 401, 401}, "/both": {200, 200, 401}} {
		for i, k := range []made{pub, sec, own} {
			if r := s.get(path, carrying(k)); r.status != want[i] {
				t.Errorf("%s, key %d: %d %s", path, i, r.status, r.body)
			}
		}
	}
	if r := s.get("/twice", carrying(pub)); bytesOf(r) != bytesOf(unknown) {
		t.Errorf("twice: %s", bytesOf(r))
	}
	if r := s.get("/twice", carrying(own)); r.status != 200 {
		t.Errorf("twice: %+v", r)
	}
	if n := s.left(own.ID); n != 3 {
		t.Errorf("default has %d left", n)
	}
	if n, count := s.left(sec.ID), s.state(sec.ID).RequestCount; n != 3 || count != 2 {
		t.Errorf("sec has %d left, %d counted", n, count)
	}
}

// TestConfigs: keys of each configuration live by its rules, and a key of one with
// "session off" stands for nobody.
func TestConfigs(t *testing.T) {
	full(t)
	s := startGate(t, configured(pubAndSec))
	meta := map[string]any{"metadata": map[string]any{"team": "red"}, "userId": "nadia", "permissions": []string{"read"}}
	with := func(more map[string]any) made {
		maps.Copy(more, meta)
		return s.create(more)
	}
	pub := with(map[string]any{"configId": "pub", "name": "web", "rateLimitEnabled": true, "rateLimitMax": 1, "rateLimitTimeWindow": 60_000})
	own := with(map[string]any{"name": "web", "permissions": []string{"read"}})
	sec := s.create(map[string]any{"configId": "sec", "name": "x"})
	if !strings.HasPrefix(pub.Raw, "pub_") || len(pub.Raw) != 68 || !strings.HasPrefix(sec.Raw, "sec_") || len(sec.Raw) != 44 {
		t.Errorf("%q %q", pub.Raw, sec.Raw)
	}
	const nobody = "id= key= name= tier= config= permissions= team= "
	for range 3 { // its rate limit is not enforced
		for _, path := range []string{"/", "/pub"} {
			if r := s.get(path, carrying(pub), "X-User: mallory"); r.status != 200 || r.body != nobody || r.header.Get("RateLimit") != "" {
				t.Fatalf("%s: %+v", path, r)
			}
		}
	}
	if r := s.get("/", carrying(own)); r.body != "id=nadia key="+own.ID+" name=web tier= config=default permissions=api:read team=red nadia" {
		t.Errorf("default: %+v", r)
	}
	for _, want := range []int{200, 200, 429} {
		if r := s.get("/both", carrying(sec)); r.status != want {
			t.Errorf("sec: %d, want %d", r.status, want)
		}
	}
	// A key of another configuration is a second key all the same.
	for path, want := range map[string]int{"/": 400, "/pub": 400} {
		if r := s.get(path, carrying(pub), "Authorization: Bearer "+own.Raw); r.status != want {
			t.Errorf("%s with a Bearer: %+v", path, r)
		}
	}
	s.configsInLog(t, own)

	var shown struct{ Start, ConfigID string }
	s.admin("GET", "/apikey/keys/"+pub.ID, nil, 200, &shown)
	if shown.Start != pub.Raw[:9] || shown.ConfigID != "pub" {
		t.Errorf("%+v", shown)
	}
	type refusal struct{ Code, Field, Error string }
	for _, row := range []struct {
		method, path string
		body         map[string]any
		want         refusal
	}{
		{"POST", "", map[string]any{"userId": "u", "configId": "x"}, refusal{"NO_DEFAULT_API_KEY_CONFIGURATION_FOUND", "configId", `must be a configuration of this server: "default", "pub", "sec"`}},
		{"POST", "", map[string]any{"userId": "u", "configId": "sec"}, refusal{"NAME_REQUIRED", "name", "is required"}},
		{"POST", "", map[string]any{"userId": "u", "configId": "pub", "name": "ab"}, refusal{"INVALID_NAME_LENGTH", "name", "3 to 5"}},
		{"PATCH", "/" + pub.ID, map[string]any{"name": "abcdef"}, refusal{"INVALID_NAME_LENGTH", "name", "3 to 5"}},
		{"PATCH", "/" + pub.ID, map[string]any{"expiresIn": 3601}, refusal{"EXPIRES_IN_IS_TOO_LARGE", "expiresIn", "3600"}},
		{"PATCH", "/" + sec.ID, map[string]any{"name": nil}, refusal{"NAME_REQUIRED", "name", "is required"}},
		{"PATCH", "/" + sec.ID, map[string]any{"configId": "pub"}, refusal{"INVALID_FIELD", "configId", ""}},
	} {
		var got refusal
		s.admin(row.method, "/apikey/keys"+row.path, row.body, 400, &got)
		if got.Code != row.want.Code || got.Field != row.want.Field || !strings.Contains(got.Error, row.want.Error) {
			t.Errorf("%v: %+v", row.body, got)
		}
	}
	s.admin("PATCH", "/apikey/keys/"+own.ID, map[string]any{"name": "abcdef", "expiresIn": 3601}, 200, nil)

	next := made{}
	s.admin("POST", "/apikey/keys/"+sec.ID+"/rotate", nil, 200, &next)
	if len(next.Raw) != 44 || !strings.HasPrefix(next.Raw, "sec_") {
		t.Errorf("rotated: %q", next.Raw)
	}
	s.configsByCommand(t, pub, sec)
}

// configsInLog looks for owners in the access log: only a session has a user. The
// field apikey names the owner of every key.
func (s *server) configsInLog(t testing.TB, own made) {
	t.Helper()
	var log []string
	eventually(t, "the access log has all requests", func() bool {
		b, err := os.ReadFile(filepath.Join(s.Dir, "access.log"))
		log = strings.Split(strings.TrimSpace(string(b)), "\n")
		return err == nil && len(log) >= 10
	})
	named := 0
	for _, line := range log {
		var entry map[string]any
		decode(t, line, &entry)
		delete(entry, "apikey")
		if entry["user_id"] == "nadia" {
			named++
		} else if strings.Contains(fmt.Sprint(entry), "nadia") {
			t.Errorf("the log has a user: %s", line)
		}
	}
	if named != 1 {
		t.Errorf("%d requests of nadia in the log, want that of %s", named, own.ID)
	}
}

// configsByCommand makes, finds and checks keys on the command line.
func (s *server) configsByCommand(t testing.TB, pub, sec made) {
	t.Helper()
	if out := s.ok("list", "--config-id", "pub"); !strings.Contains(out, pub.ID) || strings.Contains(out, sec.ID) {
		t.Errorf("list: %s", out)
	}
	if out := s.ok("show", pub.ID); !strings.Contains(out, "Configuration:  pub") {
		t.Errorf("show: %s", out)
	}
	if raw := s.newKey("--owner", "bob", "--config-id", "pub"); !strings.HasPrefix(raw, "pub_") {
		t.Errorf("create: %q", raw)
	}
	if r := s.run("apikey", "create", "--owner", "bob", "--config-id", "x"); r.code != 1 || !strings.Contains(r.stderr, `"default", "pub", "sec"`) {
		t.Errorf("create: %+v", r)
	}
	for id, code := range map[string]int{"pub": 0, "default": 1, "sec": 1, "x": 1} {
		if r := s.runWith(pub.Raw+"\n", "apikey", "verify", "--config-id", id); r.code != code {
			t.Errorf("verify %s: %+v", id, r)
		}
	}
}

// TestConfigReload: changed, removed and new configurations hold for the next
// request, and counts outlive all of it.
func TestConfigReload(t *testing.T) {
	full(t)
	s := startGate(t, configured(pubAndSec))
	pub := s.create(map[string]any{
		"configId": "pub", "remaining": 50, "rateLimitEnabled": true, "rateLimitMax": 2, "rateLimitTimeWindow": 3_600_000,
	})
	sec := s.create(map[string]any{"configId": "sec", "name": "x", "remaining": 50})
	want := func(step, path string, k made, status int, body string) {
		t.Helper()
		if r := s.get(path, carrying(k)); r.status != status || !strings.Contains(r.body, body) {
			t.Fatalf("%s: %d %s, want %d %s", step, r.status, r.body, status, body)
		}
	}
	want("sec", "/", sec, 200, "config=sec")
	for range 3 {
		want("session off", "/", pub, 200, "id= ")
	}
	s.reload(configured(strings.NewReplacer("session off", "session on", "rate_limiting off", "rate_limiting on").Replace(pubAndSec)))
	want("session on", "/", pub, 200, "id=alice ")
	want("limits on", "/", pub, 200, "config=pub")
	want("limits on", "/", pub, 429, "RATE_LIMITED")
	s.reload(configured(strings.Replace(pubAndSec, "^pub_", "^pub_[^"+pub.Raw[4:5]+"]", 1)))
	want("a validator", "/", pub, 401, "INVALID_API_KEY")
	want("a validator", "/pub", pub, 401, "INVALID_API_KEY")
	want("a validator of others", "/", sec, 200, "config=sec")
	want("a validator of others", "/", sec, 429, "RATE_LIMITED")

	// Gone: its keys live by the rules of default, but stand for nobody, and its
	// gates are gone with it.
	gone := strings.NewReplacer("config pub sec", "config sec", "config pub\n", "config default\n").Replace(configured(secConfig))
	s.reload(gone)
	want("gone", "/", pub, 429, "RATE_LIMITED")
	want("gone", "/pub", pub, 401, "INVALID_API_KEY")
	var shown struct{ Start, ConfigID string }
	s.admin("GET", "/apikey/keys/"+pub.ID, nil, 200, &shown)
	if shown.Start != pub.Raw[:6] || shown.ConfigID != "pub" {
		t.Errorf("%+v", shown)
	}
	s.admin("PATCH", "/apikey/keys/"+pub.ID, map[string]any{"name": "longer than five", "rateLimitEnabled": false}, 200, nil)
	want("gone, unlimited", "/", pub, 200, "id= ") // no session, as before
	if n := strings.Count(s.Log(), "the configuration of a key does not exist; using the rules of another one"); n != 1 {
		t.Errorf("%d warnings", n)
	}
	s.reload(configured(pubAndSec))
	want("back", "/pub", pub, 200, "id= ")
	if n := s.left(pub.ID); n != 50-3-2-1-1 {
		t.Errorf("%d credits are left", n)
	}
	if n := s.left(sec.ID); n != 48 {
		t.Errorf("%d credits are left", n)
	}

	// A gate of a configuration that is gone is an error, and what runs goes on.
	bad := s.file()
	if err := os.WriteFile(bad, []byte(gone+"\nhttp://other.example {\n\tapikey {\n\t\tconfig pub\n\t}\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := s.run("reload", "--config", bad); r.code == 0 || !strings.Contains(strings.ReplaceAll(r.stderr, `\`, ""), `there is no configuration "pub": it must be one of "default", "sec"`) {
		t.Errorf("%d %s", r.code, r.stderr)
	}
	want("after a bad reload", "/pub", pub, 200, "id= ")
}

// TestT2_configKeep: expired keys stay as long as their own configuration says.
func TestT2_configKeep(t *testing.T) {
	full(t)
	s := startGate(t, configured(`expiration {
			keep forever
		}
		config pub {
			prefix pub_
			expiration {
				keep 1h
			}
		}
		config sec {
			expiration {
				keep 2d
			}
		}`), withTestClock())
	keys := map[string]made{}
	for _, id := range []string{"default", "pub", "sec"} {
		keys[id] = s.create(map[string]any{"configId": id, "expiresIn": 60})
	}
	codes := func() string {
		var list []string
		for id, k := range keys {
			list = append(list, id+" "+s.get("/", carrying(k)).code)
		}
		slices.Sort(list)
		return strings.Join(list, ", ")
	}
	// The server must have seen for an hour that a key is expired, so time goes on.
	clock := 2 * time.Hour
	const want = "default KEY_EXPIRED, pub INVALID_API_KEY, sec KEY_EXPIRED"
	eventually(t, want, func() bool {
		clock += time.Minute
		s.setClock(clock)
		return codes() == want
	})
	s.admin("GET", "/apikey/keys/"+keys["default"].ID, nil, http.StatusOK, nil)
	s.admin("GET", "/apikey/keys/"+keys["pub"].ID, nil, http.StatusNotFound, nil)
}
