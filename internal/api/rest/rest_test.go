package rest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// TestA5_answers holds every answer against its picture, byte for byte, with what
// differs from call to call put aside. A field more is a failure.
func TestA5_answers(t *testing.T) {
	a := newAPI(t, func(s *keyring.Settings, _ *options) {
		s.Tiers = []keyring.Tier{{Name: "pro", Limits: []keyring.TierLimit{{Max: 1000, Unit: keyring.Day}, {Max: 10, Unit: 60_000}}}}
		s.DefaultTier = "pro"
	})
	id := a.create("").ID
	for _, row := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{
			"POST", "/api-keys", `{"name":"Production Key","permissions":["write","read"]}`, 201,
			`{"id":"ID","key":"ak_KEY","secret":"clsk_KEY","name":"Production Key","permissions":["read","write"],"tier":"pro",` +
				`"message":"Keep the key and the secret in a safe place: they are shown only once."}`,
		},
		{
			"GET", "/api-keys", "", 200,
			`{"keys":[{"_id":"ID","key":"ak_KEY...","name":"Default Key","permissions":["read","write"],"tier":"pro","enabled":true,"createdAt":"TIME"},` +
				`{"_id":"ID","key":"ak_KEY...","name":"Production Key","permissions":["read","write"],"tier":"pro","enabled":true,"createdAt":"TIME"}]}`,
		},
		{"DELETE", "/api-keys/" + id, "", 200, `{"success":true}`},
		{"GET", "/usage", "", 200, `{"tier":"pro","usage":{"today":0,"month":0},"limits":{"perDay":1000,"perMinute":10}}`},
		{"GET", "/usage/", "", 404, `{"error":"path not found","code":"NOT_FOUND"}`},
		{"POST", "/api-keys/" + id + "/rotate", "", 404, `{"error":"path not found","code":"NOT_FOUND"}`},
		{"PATCH", "/api-keys/" + id, "{}", 405, `{"error":"the method is not allowed here","code":"METHOD_NOT_ALLOWED"}`},
		{"PUT", "/usage", "", 405, `{"error":"the method is not allowed here","code":"METHOD_NOT_ALLOWED"}`},
		{"DELETE", "/api-keys/none", "", 404, `{"error":"key not found","code":"KEY_NOT_FOUND"}`},
		{"POST", "/api-keys", `{"tier":"pro"}`, 400, `{"error":"tier: is unknown","code":"INVALID_FIELD"}`},
		{"POST", "/api-keys", `{"permissions":["admin"]}`, 403, `{"error":"permissions: must be within those of the caller","code":"INSUFFICIENT_PERMISSIONS"}`},
	} {
		r := a.send(row.method, "/v1/auth"+row.path, row.body)
		if got := picture(r.body); r.status != row.status || got != row.want {
			t.Errorf("%s %s %s: %d\n%s\nwant %d\n%s", row.method, row.path, row.body, r.status, got, row.status, row.want)
		}
	}
	if a.canceled != 1 {
		t.Errorf("%d calls were taken back, want the 403", a.canceled)
	}
}

// picture puts aside what differs from call to call.
func picture(body string) string {
	body = regexp.MustCompile(`"(ak|clsk)_([0-9A-Za-z]{64}|[0-9A-Za-z]{48}|[0-9A-Za-z]{9}\.\.\.)"`).ReplaceAllStringFunc(body, func(s string) string {
		prefix, _, _ := strings.Cut(s, "_")
		if strings.HasSuffix(s, `..."`) {
			return prefix + `_KEY..."`
		}
		return prefix + `_KEY"`
	})
	body = regexp.MustCompile(`"2026-11-21T19:\d\d:\d\d\.\d{3}Z"`).ReplaceAllString(body, `"TIME"`)
	return strings.TrimSuffix(regexp.MustCompile(`"[0-9a-f]{24}"`).ReplaceAllString(body, `"ID"`), "\n")
}

// TestA5_fields sends bodies of create: what is not in the document is refused, by
// name, and no value is repeated.
func TestA5_fields(t *testing.T) {
	a := newAPI(t)
	secret, _ := key.Random{}.Generate("ak_", 64, true)
	for _, row := range []struct{ body, code, contains string }{
		{`[]`, "BAD_REQUEST", "object"},
		{`null`, "BAD_REQUEST", "object"},
		{`"x"`, "BAD_REQUEST", "object"},
		{`{`, "BAD_REQUEST", "JSON"},
		{`{}{}`, "BAD_REQUEST", "JSON"},
		{`{"name":"a",}`, "BAD_REQUEST", "JSON"},
		{"{\"name\":\"\xff\"}", "INVALID_FIELD", "name"},
		{`{"name":"\ud800"}`, "INVALID_FIELD", "name"},
		{`{"name":"a","name":"a"}`, "INVALID_FIELD", "name: is given more than once"},
		{`{"Name":"a"}`, "INVALID_FIELD", "Name: is unknown"},
		{`{"name":1}`, "INVALID_FIELD", "name: must be a string"},
		{`{"name":["a"]}`, "INVALID_FIELD", "name: must be a string"},
		{`{"permissions":"read"}`, "INVALID_FIELD", "permissions: must be a list of read, write and admin"},
		{`{"permissions":{"api":["read"]}}`, "INVALID_FIELD", "permissions: must be"},
		{`{"permissions":["read",null]}`, "INVALID_FIELD", "permissions: must be"},
		{`{"permissions":[1]}`, "INVALID_FIELD", "permissions: must be"},
		{`{"permissions":["Read"]}`, "INVALID_FIELD", "permissions: must be"},
		{`{"permissions":["api:read"]}`, "INVALID_FIELD", "permissions: must be"},
		{`{"permissions":["*"]}`, "INVALID_FIELD", "permissions: must be"},
		{`{"permissions":["files:read"]}`, "INVALID_FIELD", "permissions: must be"},
		{`{"permissions":["read",]}`, "INVALID_FIELD", "permissions: must be"},
		{`{"` + secret + `":1}`, "BAD_REQUEST", "unknown"},
		{`{"name":"` + strings.Repeat("n", 33) + `"}`, keyring.InvalidNameLength, "name: must be 1 to 32"},
		{`{"name":""}`, keyring.InvalidNameLength, "name: must be 1 to 32"},
		{`{"name":"a\u0000b"}`, "INVALID_FIELD", "name"},
	} {
		r := a.send("POST", "/v1/auth/api-keys", row.body)
		r.refused(t, http.StatusBadRequest, row.code, row.contains)
		if strings.Contains(r.body, secret) {
			t.Errorf("%s is repeated", row.body)
		}
	}
	// Every field that a key has elsewhere, and some that it might have.
	for _, name := range []string{
		"id", "_id", "key", "secret", "tier", "enabled", "createdAt", "updatedAt", "userId", "user_id", "owner", "configId", "prefix", "start", "metadata", "expiresIn", "expiresAt",
		"remaining", "refillAmount", "refillInterval", "rateLimitEnabled", "rateLimitMax", "rateLimitTimeWindow", "rateLimitAlgorithm", "allowedIps", "withSecret",
		"hash", "secretHash", "limits", "admin", "referenceId", "organizationId", "__proto__", "constructor",
	} {
		for _, value := range []string{`null`, `"pro"`, `1`, `{}`} {
			a.send("POST", "/v1/auth/api-keys", `{"name":"a","`+name+`":`+value+`}`).refused(t, http.StatusBadRequest, "INVALID_FIELD", name)
		}
	}
	page, err := a.keys.List(context.Background(), store.List{Limit: 1})
	if err != nil || page.Total != 0 {
		t.Errorf("%d keys were made, %v", page.Total, err)
	}
}

// TestRest_name tries the field "name" of create.
func TestRest_name(t *testing.T) {
	a := newAPI(t)
	for body, want := range map[string]string{
		``: "Default Key", ` `: "Default Key", `{}`: "Default Key", `{"name":null}`: "Default Key",
		`{"name":"Production Key"}`: "Production Key", `{"name":"<b>&é"}`: "<b>&é", `{"name":"\ufffd"}`: "\uFFFD",
	} {
		if got := a.create(body).Name; got != want {
			t.Errorf("%s: %q, want %q", body, got, want)
		}
	}
	a = newAPI(t, func(s *keyring.Settings, _ *options) { s.Rules.RequireName = true })
	a.send("POST", "/v1/auth/api-keys", "").refused(t, 400, keyring.NameRequired, "name")
	a.send("POST", "/v1/auth/api-keys", "{}").refused(t, 400, keyring.NameRequired, "name")
	if got := a.create(`{"name":"mine"}`).Name; got != "mine" {
		t.Errorf("%q", got)
	}
	// A rule that forbids the default: the key has no name, and is called so all the same.
	a = newAPI(t, func(s *keyring.Settings, _ *options) { s.Rules.NameLength = keyring.Range{Min: 1, Max: 5} })
	if got := a.create("").Name; got != "Default Key" {
		t.Errorf("%q", got)
	}
	a.send("POST", "/v1/auth/api-keys", `{"name":"longer"}`).refused(t, 400, keyring.InvalidNameLength, "name: must be 1 to 5")
}

// TestRest_permissions tries the field "permissions" of create, for callers with
// every set of actions that may create.
func TestRest_permissions(t *testing.T) {
	sets := [][]string{{"read"}, {"write"}, {"admin"}, {"read", "write"}, {"read", "admin"}, {"write", "admin"}, {"read", "write", "admin"}}
	a := newAPI(t)
	for _, mine := range sets {
		a.as("alice", mine...)
		has := func(action string) bool { return slices.Contains(mine, action) || slices.Contains(mine, "admin") }
		if !has("write") {
			a.send("POST", "/v1/auth/api-keys", "").refused(t, 403, "INSUFFICIENT_PERMISSIONS", "")
			continue
		}
		usual := []string{}
		for _, action := range []string{"read", "write"} {
			if has(action) {
				usual = append(usual, action)
			}
		}
		for _, body := range []string{``, `{}`, `{"permissions":null}`} {
			if got := a.create(body).Permissions; !slices.Equal(got, usual) {
				t.Errorf("%v makes %s: %v, want %v", mine, body, got, usual)
			}
		}
		for _, wanted := range append(sets, []string{}, []string{"write", "read", "write"}) {
			body, _ := json.Marshal(map[string]any{"permissions": wanted})
			if slices.ContainsFunc(wanted, func(action string) bool { return !has(action) }) {
				a.send("POST", "/v1/auth/api-keys", string(body)).refused(t, 403, "INSUFFICIENT_PERMISSIONS", "permissions")
				continue
			}
			want := slices.DeleteFunc([]string{"read", "write", "admin"}, func(action string) bool { return !slices.Contains(wanted, action) })
			if got := a.create(string(body)).Permissions; !slices.Equal(got, want) {
				t.Errorf("%v makes %s: %v, want %v", mine, body, got, want)
			}
		}
	}
}

// TestRest_message tries the option message.
func TestRest_message(t *testing.T) {
	a := newAPI(t, func(_ *keyring.Settings, o *options) { o.Message = "请妥善保存 secret,它只会显示一次。" })
	if got := a.create("").Message; got != "请妥善保存 secret,它只会显示一次。" {
		t.Error(got)
	}
}

// TestRest_tier shows "free" where no tier is configured, and the owner's where
// some are.
func TestRest_tier(t *testing.T) {
	a := newAPI(t)
	if got := a.create("").Tier; got != "free" {
		t.Errorf("created: %s", got)
	}
	a = newAPI(t, func(s *keyring.Settings, _ *options) {
		s.Tiers = []keyring.Tier{{Name: "basic"}, {Name: "enterprise", Limits: []keyring.TierLimit{{Max: 7, Unit: keyring.Day}}}}
		s.DefaultTier = "basic"
	})
	if got := a.create("").Tier; got != "basic" {
		t.Errorf("created: %s", got)
	}
	if _, err := a.keys.As(keyring.Actor{Kind: keyring.ActorOperator}).PutOwner(context.Background(), "alice", keyring.OwnerPatch{Tier: keyring.Field[string]{Set: true, Value: ptr("enterprise")}}); err != nil {
		t.Fatal(err)
	}
	var list Keys
	a.send("GET", "/v1/auth/api-keys", "").into(t, &list)
	var u Usage
	a.send("GET", "/v1/auth/usage", "").into(t, &u)
	if got := a.create("").Tier; got != "enterprise" || list.Keys[0].Tier != "enterprise" || u.Tier != "enterprise" {
		t.Errorf("created %s, listed %s, used %s", got, list.Keys[0].Tier, u.Tier)
	}
	if u.Limits.PerDay == nil || *u.Limits.PerDay != 7 || u.Limits.PerMinute != nil {
		t.Errorf("limits %+v", u.Limits)
	}
}

// TestRest_key shows what a list tells of keys made with different rules.
func TestRest_key(t *testing.T) {
	for _, row := range []struct {
		name    string
		rules   func(*keyring.Rules)
		pattern string
	}{
		{"default", func(*keyring.Rules) {}, `^ak_[0-9A-Za-z]{9}\.\.\.$`},
		{"the document's prefix", func(r *keyring.Rules) { r.Prefix = "claw_" }, `^claw_[0-9A-Za-z]{7}\.\.\.$`},
		{"a long prefix", func(r *keyring.Rules) { r.Prefix = "a_very_long_prefix_" }, `^a_very_long_\.\.\.$`},
		{"start off", func(r *keyring.Rules) { r.Start = 0 }, `^ak_\.\.\.$`},
		{"start off, no prefix", func(r *keyring.Rules) { r.Start, r.Prefix = 0, "" }, `^\.\.\.$`},
	} {
		a := newAPI(t, func(s *keyring.Settings, _ *options) { row.rules(&s.Rules) })
		made := a.create("")
		var list Keys
		a.send("GET", "/v1/auth/api-keys", "").into(t, &list)
		got := list.Keys[0].Key
		if !regexp.MustCompile(row.pattern).MatchString(got) || !strings.HasPrefix(made.Key, strings.TrimSuffix(got, "...")) {
			t.Errorf("%s: %s is shown as %s", row.name, made.Key, got)
		}
	}
}

// TestRest_keys lists all keys of the owner, those of an operator's making too, the
// oldest first, over several pages of the store.
func TestRest_keys(t *testing.T) {
	a := newAPI(t)
	const many = pageSize + 3
	var want []string
	for i := range many {
		d := keyring.Draft{UserID: "alice"}
		if i%2 == 0 {
			d.UserID = "bob"
		}
		made, err := a.keys.As(keyring.Actor{Kind: keyring.ActorOperator}).Create(context.Background(), d)
		if err != nil {
			t.Fatal(err)
		}
		if d.UserID == "alice" {
			want = append(want, made.Key.ID)
		}
	}
	for range many {
		want = append(want, a.create("").ID)
	}
	var list Keys
	a.send("GET", "/v1/auth/api-keys", "").into(t, &list)
	var got []string
	for _, k := range list.Keys {
		got = append(got, k.ID)
		if k.Name != "Default Key" {
			t.Fatalf("name %q", k.Name)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d keys are listed, want %d", len(got), len(want))
	}
	a.as("nobody", "read")
	if r := a.send("GET", "/v1/auth/api-keys", ""); picture(r.body) != `{"keys":[]}` {
		t.Errorf("%d %s", r.status, r.body)
	}
}

// TestRest_secret opens what create has answered.
func TestRest_secret(t *testing.T) {
	a := newAPI(t, func(s *keyring.Settings, _ *options) { s.Rules.SecretPrefix = "clsk_" })
	made := a.create("")
	if !strings.HasPrefix(made.Secret, "clsk_") {
		t.Errorf("%s", made.Secret)
	}
	for secret, want := range map[string]keyring.Outcome{made.Secret: keyring.Allowed, "": keyring.InvalidSecret, made.Key: keyring.InvalidSecret} {
		d, err := a.keys.Verify(context.Background(), made.Key, &keyring.Request{RequireSecret: true, Secret: secret})
		if err != nil || d.Outcome != want {
			t.Errorf("%q: %v %v", secret, d.Outcome.Code(), err)
		}
	}
}

// TestRest_enabled shows which keys work, whoever has disabled them.
func TestRest_enabled(t *testing.T) {
	a := newAPI(t)
	first, second := a.create(""), a.create("")
	enabled := func() string {
		var list Keys
		a.send("GET", "/v1/auth/api-keys", "").into(t, &list)
		return fmt.Sprint(list.Keys[0].Enabled, list.Keys[1].Enabled)
	}
	if got := enabled(); got != "true true" {
		t.Error(got)
	}
	a.send("DELETE", "/v1/auth/api-keys/"+first.ID, "")
	if got := enabled(); got != "false true" {
		t.Error(got)
	}
	no := false
	if _, err := a.keys.As(keyring.Actor{Kind: keyring.ActorOperator}).Update(context.Background(), second.ID, keyring.Patch{Enabled: keyring.Field[bool]{Set: true, Value: &no}}); err != nil {
		t.Fatal(err)
	}
	if got := enabled(); got != "false false" {
		t.Error(got)
	}
}

// TestRest_createdAt writes times to the millisecond, in UTC.
func TestRest_createdAt(t *testing.T) {
	a := newAPI(t)
	a.create("")
	a.later.Store((24 * time.Hour).Milliseconds())
	a.create("")
	var list struct{ Keys []struct{ CreatedAt string } }
	if err := json.Unmarshal([]byte(a.send("GET", "/v1/auth/api-keys", "").body), &list); err != nil {
		t.Fatal(err)
	}
	for i, day := range []string{"2026-11-21", "2026-11-22"} {
		got := list.Keys[i].CreatedAt
		if at, err := time.Parse("2006-01-02T15:04:05.000Z", got); err != nil || at.Format(time.DateOnly) != day {
			t.Errorf("%s: %v", got, err)
		}
	}
}

// TestRest_usage counts the uses of all keys of the owner on calendar days and in
// calendar months.
func TestRest_usage(t *testing.T) {
	a := newAPI(t)
	first, second := a.create(""), a.create("")
	use := func(times int, raw string) {
		t.Helper()
		for range times {
			if d, err := a.keys.Verify(context.Background(), raw, &keyring.Request{Cost: 1}); err != nil || d.Outcome != keyring.Allowed {
				t.Fatalf("%v %v", d.Outcome.Code(), err)
			}
		}
	}
	for _, row := range []struct {
		days         int // since the start
		today, month int64
	}{
		{0, 3, 3}, {1, 3, 6}, {9, 3, 9}, {10, 3, 3}, {11, 3, 6},
	} {
		a.later.Store((time.Duration(row.days) * 24 * time.Hour).Milliseconds())
		use(2, first.Key)
		use(1, second.Key)
		var u Usage
		r := a.send("GET", "/v1/auth/usage", "")
		r.into(t, &u)
		if u.Usage != (UsageSums{row.today, row.month}) {
			t.Errorf("after %d days: %s", row.days, r.body)
		}
	}
	a.as("nobody", "read")
	if r := a.send("GET", "/v1/auth/usage", ""); picture(r.body) != `{"tier":"free","usage":{"today":0,"month":0},"limits":{"perDay":null,"perMinute":null}}` {
		t.Errorf("%s", r.body)
	}
}

// TestRest_actions shows the permissions of keys that an operator has made.
func TestRest_actions(t *testing.T) {
	for _, row := range []struct {
		permissions key.Permissions
		want        string
	}{
		{nil, ""},
		{key.Permissions{"files": {"read"}}, ""},
		{key.Permissions{"api": {"admin", "write"}, "files": {"read"}}, "write admin"},
		{key.Permissions{"api": {"*"}}, "read write admin"},
		{key.Permissions{"*": {"*"}}, "read write admin"},
		{key.Permissions{"api": {"zip", "read", "export"}}, "read export zip"},
		{key.Permissions{"api": {"zip", "*"}}, "read write admin zip"},
	} {
		if got := strings.Join(actionsOf(row.permissions), " "); got != row.want {
			t.Errorf("%v: %s, want %s", row.permissions, got, row.want)
		}
	}
	if actionsOf(nil) == nil {
		t.Error("no permissions are written as null")
	}
}

// TestRest_id tries IDs of DELETE: what is not the caller's is not there.
func TestRest_id(t *testing.T) {
	a := newAPI(t)
	a.as("bob", "write")
	other := a.create("").ID
	a.as("alice", "write")
	own := a.create("").ID
	for _, id := range []string{
		other, "000000000000000000000000", "x", own + "x", own[:23], "%00", "%ff", "%F0%9F%92%A9", "a%2Fb", "%2e%2e%2f", strings.Repeat("a", 300), "%20", own + "%20", "*",
		strings.ToUpper(own) + "A", "%25", "'%20or%201=1",
	} {
		a.send("DELETE", "/v1/auth/api-keys/"+id, "").refused(t, 404, "KEY_NOT_FOUND", "")
	}
	for _, id := range []string{own, own, fmt.Sprintf("%%%x", own[0]) + own[1:]} {
		if r := a.send("DELETE", "/v1/auth/api-keys/"+id, ""); r.status != 200 || picture(r.body) != `{"success":true}` {
			t.Errorf("%s: %d %s", id, r.status, r.body)
		}
	}
	for id, want := range map[string]bool{own: false, other: true} {
		if info, err := a.keys.Get(context.Background(), id); err != nil || info.Key.Enabled != want {
			t.Errorf("%s: enabled %v, want %v (%v)", id, info.Key.Enabled, want, err)
		}
	}
}

// TestRest_paths says which requests are for the API.
func TestRest_paths(t *testing.T) {
	a := newAPI(t)
	for path, want := range map[string]string{
		"/v1/auth/api-keys": "GET HEAD POST", "/v1/auth/api-keys?x=1": "GET HEAD POST", "/v1/auth/%61pi-keys": "GET HEAD POST",
		"/v1/auth/api-keys/x": "DELETE", "/v1/auth/api-keys/x%2Fy": "DELETE", "/v1/auth/usage": "GET HEAD",
		"/": "", "/v1/auth": "", "/v1/auth/": "", "/v1/auth/api-keys/": "", "/v1/auth/api-keys/x/": "", "/v1/auth/api-keys/x/y": "", "/v1/auth//api-keys": "",
		"//v1/auth/api-keys": "", "/v1/auth/api-keys/.": "", "/v1/auth/api-keys/..": "", "/v1/auth/api-keys/%2e%2e": "", "/v1/auth/x/../api-keys": "", "/v1%2Fauth/api-keys": "",
		"/V1/auth/api-keys": "", "/v1/auth/API-KEYS": "", "/v1/auth/usage/x": "", "/x/v1/auth/usage": "", "/v1/authusage": "", "/v1/auth/usage;x": "",
	} {
		r, err := http.NewRequest("GET", path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(a.Methods(r), " "); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	root := New(api.Mount{}, Options{})
	if got := root.Methods(httptest.NewRequest("GET", "/usage", nil)); got == nil {
		t.Error("a base of / does not work")
	}
}

// TestRest_configGone makes keys with one whose configuration is configured no more.
// It would get keys of "default", which may open what it cannot.
func TestRest_configGone(t *testing.T) {
	a := newAPI(t)
	gone := keyring.DefaultRules()
	gone.ConfigID = "gone"
	before := keyring.NewService(a.engine, &keyring.Settings{Rules: keyring.DefaultRules(), Configs: []keyring.Rules{gone}})
	k, err := before.As(keyring.Actor{Kind: keyring.ActorOperator}).Create(context.Background(), keyring.Draft{UserID: "alice", ConfigID: &gone.ConfigID, Permissions: key.Permissions{"api": {"write"}}})
	if err != nil {
		t.Fatal(err)
	}
	d, err := a.keys.Verify(context.Background(), k.Raw, &keyring.Request{})
	if err != nil || d.Outcome != keyring.Allowed {
		t.Fatal(d.Outcome, err)
	}
	a.caller.Decision, a.caller.Scope = &d, a.keys.ScopeOf(&d)
	a.send("POST", "/v1/auth/api-keys", "").refused(t, 403, "INSUFFICIENT_PERMISSIONS", "configId")
}

// TestRest_openAPI reads the document, which needs no key: it holds every route.
func TestRest_openAPI(t *testing.T) {
	a := newAPI(t, extended)
	a.refused = &api.Refusal{Decision: keyring.Decision{Outcome: keyring.Missing}}
	r := a.send("GET", "/v1/auth/api-keys/openapi.json", "")
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			OperationID string
			Responses   map[string]any
		}
	}
	if err := json.Unmarshal([]byte(r.body), &doc); err != nil || r.status != 200 || doc.OpenAPI != "3.1.0" {
		t.Fatalf("%d %v %s", r.status, err, r.body)
	}
	for _, rt := range Routes(true) {
		op := doc.Paths["/v1/auth"+rt.Path][strings.ToLower(rt.Method)]
		if op.OperationID != rt.Name || op.Responses[fmt.Sprint(rt.Status)] == nil {
			t.Errorf("%s is not documented: %+v", rt.Name, op)
		}
	}
}

// TestRest_status405 tries all methods on all paths: those of the table are
// answered, others get a 405 that names those that are.
func TestRest_status405(t *testing.T) {
	a := newAPI(t)
	for _, path := range []string{"/api-keys", "/api-keys/x", "/usage"} {
		allowed := a.Methods(httptest.NewRequest("GET", "/v1/auth"+path, nil))
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get"} {
			r := a.send(method, "/v1/auth"+path, "")
			if got := r.status != http.StatusMethodNotAllowed; got != slices.Contains(allowed, method) {
				t.Errorf("%s %s: %d", method, path, r.status)
			}
			if allow := r.header.Get("Allow"); r.status == 405 && allow != strings.Join(allowed, ", ") {
				t.Errorf("%s %s: Allow %q", method, path, allow)
			}
		}
	}
}

// TestRest_contentType tries what a body may be, apart from its fields.
func TestRest_contentType(t *testing.T) {
	a := newAPI(t)
	fit := `{"name":"a"` + strings.Repeat(" ", 64<<10-12) + `}`
	for _, row := range []struct {
		name, body, contentType string
		status                  int
		code                    string
	}{
		{"as large as allowed", fit, "application/json", 201, ""},
		{"a byte too large", fit + " ", "application/json", 413, "PAYLOAD_TOO_LARGE"},
		{"a form", "name=a", "application/x-www-form-urlencoded", 415, "UNSUPPORTED_MEDIA_TYPE"},
		{"text", "{}", "text/plain", 415, "UNSUPPORTED_MEDIA_TYPE"},
		{"another charset", "{}", "application/json; charset=latin1", 415, "UNSUPPORTED_MEDIA_TYPE"},
		{"UTF-8", "{}", "application/json; charset=UTF-8", 201, ""},
		{"like JSON", "{}", "application/jsonx", 415, "UNSUPPORTED_MEDIA_TYPE"},
		{"no body, a form", "", "application/x-www-form-urlencoded", 201, ""},
	} {
		r := a.send("POST", "/v1/auth/api-keys", row.body, "Content-Type", row.contentType)
		if row.code != "" {
			r.refused(t, row.status, row.code, "")
		} else if r.status != row.status {
			t.Errorf("%s: %d %s", row.name, r.status, r.body)
		}
	}
}

// TestRest_status500 has the store fail, in both ways, under every call. The
// reason is reported, and not told.
func TestRest_status500(t *testing.T) {
	a := newAPI(t, extended)
	id := a.create("").ID
	for _, row := range []struct {
		fail   error
		status int
		code   string
	}{
		{errors.New("canary: broken"), 500, "INTERNAL"},
		{fmt.Errorf("canary: %w", store.ErrUnavailable), 503, "STORE_UNAVAILABLE"},
		{store.ErrClosed, 503, "STORE_UNAVAILABLE"},
	} {
		a.store.fail = row.fail
		for _, rt := range Routes(true) {
			if rt.Public {
				continue
			}
			a.reported, a.canceled = nil, 0
			r := a.send(rt.Method, "/v1/auth"+strings.ReplaceAll(rt.Path, "{id}", id), "{}")
			r.refused(t, row.status, row.code, "")
			if strings.Contains(r.body, "canary") {
				t.Errorf("%s %s tells the reason: %s", rt.Method, rt.Path, r.body)
			}
			if (a.canceled == 1) != (row.status == 503) {
				t.Errorf("%s %s: %d was taken back %d times", rt.Method, rt.Path, r.status, a.canceled)
			}
			if got := r.header.Get("Retry-After"); (got != "") != (row.status == 503) {
				t.Errorf("%s %s: Retry-After %q with %d", rt.Method, rt.Path, got, r.status)
			}
			if len(a.reported) != 1 || !errors.Is(a.reported[0], row.fail) || !strings.Contains(a.reported[0].Error(), rt.Path) {
				t.Errorf("%s %s reports %v", rt.Method, rt.Path, a.reported)
			}
		}
	}
}

// TestRest_refusals writes every refusal of a caller.
func TestRest_refusals(t *testing.T) {
	a := newAPI(t)
	for o := keyring.Missing; o < keyring.NumOutcomes; o++ {
		a.refused = &api.Refusal{Decision: keyring.Decision{Outcome: o, Wait: 1001, Waitable: o.Status() == 429}, Challenges: []string{"Bearer"}}
		w := httptest.NewRecorder()
		a.Handle(w, httptest.NewRequest("GET", "/v1/auth/usage", nil))
		reply{w.Code, w.Header(), w.Body.String()}.refused(t, o.Status(), o.Code(), "")
		if got := w.Header().Get("WWW-Authenticate"); (got == "Bearer") != (w.Code == 401) {
			t.Errorf("%s: WWW-Authenticate %q", o.Code(), got)
		}
		if got := w.Header().Get("Retry-After"); (got == "2") != (w.Code == 429) {
			t.Errorf("%s: Retry-After %q", o.Code(), got)
		}
	}
	for _, row := range []struct {
		err    error
		status int
		code   string
	}{
		{api.ErrCrossOrigin, 403, "CROSS_ORIGIN"},
		{api.ErrMediaType, 415, "UNSUPPORTED_MEDIA_TYPE"},
	} {
		a.refused = row.err
		w := httptest.NewRecorder()
		a.Handle(w, httptest.NewRequest("GET", "/v1/auth/usage", nil))
		reply{w.Code, w.Header(), w.Body.String()}.refused(t, row.status, row.code, "")
	}
}

// TestA11_self refuses an owner one key more than max_keys, until one is revoked.
func TestA11_self(t *testing.T) {
	a := newAPI(t, func(s *keyring.Settings, _ *options) { s.Rules.MaxKeys = 1 })
	made := a.create("")
	a.send("POST", "/v1/auth/api-keys", "").refused(t, 403, "KEY_LIMIT_REACHED", "")
	if r := a.send("DELETE", "/v1/auth/api-keys/"+made.ID, ""); r.status != 200 {
		t.Fatalf("revoked: %d %s", r.status, r.body)
	}
	a.create("")
}

// FuzzCreate sends any body: it is created as it was asked for, or refused with a
// sentence, and never fails.
func FuzzCreate(f *testing.F) {
	for _, body := range []string{``, `{}`, `{"name":"a"}`, `{"permissions":["read"]}`, `{"name":"\ud83d\ude00","permissions":[]}`, `{"name":null}`, `{"a":01}`, `{"name":"a","name":"b"}`} {
		f.Add(body)
	}
	a := newAPI(f, func(s *keyring.Settings, _ *options) { s.Rules.MaxKeys = 0 })
	f.Fuzz(func(t *testing.T, body string) {
		a.t = t
		r := a.send("POST", "/v1/auth/api-keys", body)
		switch r.status {
		case 201:
			var in struct {
				Name        *string
				Permissions []string
			}
			if strings.TrimSpace(body) != "" {
				if err := json.Unmarshal([]byte(body), &in); err != nil {
					t.Fatalf("%q was taken: %v", body, err)
				}
			}
			var made Created
			r.into(t, &made)
			if in.Name != nil && made.Name != *in.Name || in.Permissions != nil && len(made.Permissions) > len(in.Permissions) {
				t.Fatalf("%q made %+v", body, made)
			}
		case 400, 403, 413, 415:
		default:
			t.Fatalf("%q: %d %s", body, r.status, r.body)
		}
	})
}
