package betterauth

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring"
	"github.com/caddy-apikey/caddy-apikey/ratelimit"
)

// Each test is named after the field that it is about.

// wantCreate is a body and what becomes of it: a code, or the value of a field.
type wantCreate struct {
	body   string
	status int    // 0: 200
	code   string // of an error
	value  any    // of the field
}

// creates tries bodies of create, with a key.
func creates(t *testing.T, field string, tests []wantCreate, settings ...setting) {
	t.Helper()
	a := newAPI(t, settings...)
	a.creates(as(a.mint(keyring.Draft{})), field, tests)
}

// creates tries bodies of create, as somebody.
func (a *rig) creates(who []string, field string, tests []wantCreate) {
	t := a.t
	t.Helper()
	for _, test := range tests {
		r := a.post("/api-key/create", test.body, who...)
		if test.code != "" {
			status := test.status
			if status == 0 {
				status = http.StatusBadRequest
			}
			t.Log(test.body)
			r.refuses(status, test.code)
			continue
		}
		if got := r.object()[field]; !same(got, test.value) {
			t.Errorf("%s: %s is %v, want %v", test.body, field, got, test.value)
		}
	}
}

func TestBetterAuth_name(t *testing.T) {
	long := strings.Repeat("ü", 32)
	creates(t, "name", []wantCreate{
		{body: `{"name":"my key"}`, value: "my key"},
		{body: `{"name":"a","name":"b"}`, value: "b"},
		{body: `{}`, value: nil},
		{body: `{"name":""}`, value: nil},
		{body: `{"name":"` + long + `"}`, value: long},
		{body: `{"name":"` + long + `x"}`, code: "INVALID_NAME_LENGTH"},
		{body: `{"name":"a\u0000b"}`, code: "VALIDATION_ERROR"},
		{body: `{"name":null}`, code: "VALIDATION_ERROR"},
		{body: `{"name":5}`, code: "VALIDATION_ERROR"},
	})
}

func TestBetterAuth_expiresIn(t *testing.T) {
	at := func(d time.Duration) string { return start.Add(d).Format("2006-01-02T15:04:05.000Z") }
	creates(t, "expiresAt", []wantCreate{
		{body: `{}`, value: at(48 * time.Hour)}, // the maximum of the configuration
		{body: `{"expiresIn":null}`, value: at(48 * time.Hour)},
		{body: `{"expiresIn":86400}`, value: at(24 * time.Hour)},
		{body: `{"expiresIn":8.64e4}`, value: at(24 * time.Hour)},
		{body: `{"expiresIn":86400.9}`, value: at(24 * time.Hour)},
		{body: `{"expiresIn":86399}`, code: "EXPIRES_IN_IS_TOO_SMALL"},
		{body: `{"expiresIn":172801}`, code: "EXPIRES_IN_IS_TOO_LARGE"},
		{body: `{"expiresIn":1e300}`, code: "EXPIRES_IN_IS_TOO_LARGE"},
		{body: `{"expiresIn":1e400}`, code: "VALIDATION_ERROR"},
		{body: `{"expiresIn":0}`, code: "VALIDATION_ERROR"},
		{body: `{"expiresIn":"86400"}`, code: "VALIDATION_ERROR"},
	}, rules(func(r *keyring.Rules) {
		r.Expiration.Min, r.Expiration.Max = 24*time.Hour.Milliseconds(), 48*time.Hour.Milliseconds()
	}))
}

func TestBetterAuth_prefix(t *testing.T) {
	creates(t, "prefix", []wantCreate{
		{body: `{}`, value: "ak_"},
		{body: `{"prefix":"my-app_"}`, value: "my-app_"},
		{body: `{"prefix":""}`, code: "VALIDATION_ERROR"},
		{body: `{"prefix":"a b"}`, code: "VALIDATION_ERROR"},
		{body: `{"prefix":"` + strings.Repeat("x", 33) + `"}`, code: "INVALID_PREFIX_LENGTH"},
		{body: `{"prefix":null}`, code: "VALIDATION_ERROR"},
	})
}

func TestBetterAuth_metadata(t *testing.T) {
	creates(t, "metadata", []wantCreate{
		{body: `{}`, value: nil},
		{body: `{"metadata":null}`, value: nil},
		{body: `{"metadata":{"plan":"pro","n":[1,null]}}`, value: map[string]any{"plan": "pro", "n": []any{1.0, nil}}},
		{body: `{"metadata":[1]}`, code: "INVALID_METADATA_TYPE"},
		{body: `{"metadata":"text"}`, code: "INVALID_METADATA_TYPE"},
		{body: `{"metadata":false}`, code: "INVALID_METADATA_TYPE"},
		{body: `{"metadata":{"a":"` + strings.Repeat("x", 16<<10) + `"}}`, code: "VALIDATION_ERROR"},
	})
	creates(t, "metadata", []wantCreate{
		{body: `{"metadata":{}}`, code: "METADATA_DISABLED"},
		{body: `{"metadata":null}`, value: nil},
	}, rules(func(r *keyring.Rules) { r.Metadata = false }))
}

// What a key may do and how often is for the operator to say.
func serverOnlyIn(t *testing.T, field string, right, wrong string) {
	t.Helper()
	a := newAPI(t)
	k := a.mint(keyring.Draft{Permissions: key.Permissions{"api": {"admin"}}})
	create, update := `{"`+field+`":%}`, `{"keyId":"`+k.Key.ID+`","`+field+`":%}`
	for path, body := range map[string]string{"/api-key/create": create, "/api-key/update": update} {
		a.post(path, strings.Replace(body, "%", right, 1), as(k)...).refuses(400, "SERVER_ONLY_PROPERTY")
		a.post(path, strings.Replace(body, "%", wrong, 1), as(k)...).refuses(400, "VALIDATION_ERROR")
	}
	// Before anybody is known to call, in one of the two.
	a.post("/api-key/create", strings.Replace(create, "%", right, 1)).refuses(400, "SERVER_ONLY_PROPERTY")
	a.post("/api-key/update", strings.Replace(update, "%", right, 1)).refuses(401, "UNAUTHORIZED_SESSION")
}

func TestBetterAuth_remaining(t *testing.T) {
	serverOnlyIn(t, "remaining", "5", "-1")
	creates(t, "remaining", []wantCreate{{body: `{"remaining":null}`, value: nil}})
}

func TestBetterAuth_refillAmount(t *testing.T) { serverOnlyIn(t, "refillAmount", "5", `"5"`) }

func TestBetterAuth_refillInterval(t *testing.T) { serverOnlyIn(t, "refillInterval", "5", "null") }

func TestBetterAuth_rateLimitTimeWindow(t *testing.T) {
	serverOnlyIn(t, "rateLimitTimeWindow", "5", "null")
}

func TestBetterAuth_rateLimitMax(t *testing.T) { serverOnlyIn(t, "rateLimitMax", "5", `"5"`) }

func TestBetterAuth_rateLimitEnabled(t *testing.T) {
	serverOnlyIn(t, "rateLimitEnabled", "false", "0")
}

func TestBetterAuth_permissions(t *testing.T) {
	serverOnlyIn(t, "permissions", `{"files":["read"]}`, `{"files":"read"}`)
	// A new key has what the configuration gives, within what its maker has.
	give := rules(func(r *keyring.Rules) { r.Permissions = key.Permissions{"files": {"read", "write"}} })
	a := newAPI(t, give)
	k := a.mint(keyring.Draft{Permissions: key.Permissions{"api": {"write"}, "files": {"read"}}})
	if got := a.post("/api-key/create", "{}", as(k)...).object()["permissions"]; !same(got, map[string]any{"files": []any{"read"}}) {
		t.Errorf("permissions %v", got)
	}
}

func TestBetterAuth_userId(t *testing.T) {
	a := newAPI(t)
	k := a.mint(keyring.Draft{})
	for _, user := range []string{`"alice"`, `"bob"`, `5`, `null`, `""`} {
		a.post("/api-key/create", `{"userId":`+user+`}`, as(k)...).refuses(401, "UNAUTHORIZED_SESSION")
	}
	update := func(user string) reply {
		return a.post("/api-key/update", `{"keyId":"`+k.Key.ID+`","name":"x","userId":`+user+`}`, as(k)...)
	}
	update(`"bob"`).refuses(401, "UNAUTHORIZED_SESSION")
	update(`null`).refuses(401, "UNAUTHORIZED_SESSION")
	update(`{}`).refuses(401, "UNAUTHORIZED_SESSION")
	if owner := update(`"alice"`).object()["referenceId"]; owner != "alice" {
		t.Errorf("the key belongs to %v", owner)
	}
}

// secondAndThird are configurations beside "default".
var secondAndThird = []setting{
	config("second", func(r *keyring.Rules) { r.Prefix = "second_" }),
	config("third", func(r *keyring.Rules) {}),
}

func TestBetterAuth_configId(t *testing.T) {
	newAPI(t, secondAndThird...).creates(person("alice"), "configId", []wantCreate{
		{body: `{"configId":"second"}`, value: "second"},
		{body: `{"configId":"nowhere"}`, value: "default"},
		{body: `{"configId":""}`, value: "default"},
		{body: `{"configId":5}`, code: "VALIDATION_ERROR"},
	})
	// A mount is about some of them, the first of which is its default.
	some := mount(func(o *options) { o.Configs = []string{"second", "third"} })
	newAPI(t, append(secondAndThird, some)...).creates(person("alice"), "configId", []wantCreate{
		{body: `{}`, value: "second"},
		{body: `{"configId":"third"}`, value: "third"},
		{body: `{"configId":"default"}`, value: "second"},
	})
}

// A key makes keys of its own configuration, and of no other.
func TestBetterAuth_configId_of_the_maker(t *testing.T) {
	for _, some := range []setting{mount(func(*options) {}), mount(func(o *options) { o.Configs = []string{"default", "second", "third"} })} {
		a := newAPI(t, append(secondAndThird, some)...)
		a.creates(as(a.mint(keyring.Draft{ConfigID: ptr("second")})), "configId", []wantCreate{
			{body: `{}`, value: "second"},
			{body: `{"configId":null}`, code: "VALIDATION_ERROR"},
			{body: `{"configId":""}`, value: "second"},
			{body: `{"configId":"nowhere"}`, value: "second"},
			{body: `{"configId":"second"}`, value: "second"},
			{body: `{"configId":"third"}`, status: 403, code: "INSUFFICIENT_PERMISSIONS"},
			{body: `{"configId":"default"}`, status: 403, code: "INSUFFICIENT_PERMISSIONS"},
		})
		a.creates(as(a.mint(keyring.Draft{})), "configId", []wantCreate{
			{body: `{}`, value: "default"},
			{body: `{"configId":"default"}`, value: "default"},
			{body: `{"configId":"second"}`, status: 403, code: "INSUFFICIENT_PERMISSIONS"},
		})
	}
}

// A key whose configuration is configured no more makes none, of no configuration.
func TestBetterAuth_configId_that_is_gone(t *testing.T) {
	a := newAPI(t)
	gone := keyring.DefaultRules()
	gone.ConfigID = "gone"
	before := keyring.NewService(a.engine, &keyring.Settings{Rules: keyring.DefaultRules(), Configs: []keyring.Rules{gone}})
	k, err := before.As(keyring.Actor{Kind: keyring.ActorOperator}).Create(context.Background(), keyring.Draft{UserID: "alice", ConfigID: ptr("gone"), Permissions: key.Permissions{"api": {"write"}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range []string{`{}`, `{"configId":"gone"}`, `{"configId":"default"}`} {
		a.post("/api-key/create", body, as(k)...).refuses(403, "INSUFFICIENT_PERMISSIONS")
	}
}

func TestBetterAuth_configId_of_a_key(t *testing.T) {
	a := newAPI(t, config("second", func(*keyring.Rules) {}), mount(func(o *options) { o.Configs = []string{"default"} }))
	k, hidden := a.mint(keyring.Draft{}), a.mint(keyring.Draft{ConfigID: ptr("second")})
	for _, query := range []string{"", "&configId=second", "&configId=nowhere"} {
		a.get("/api-key/get?id="+hidden.Key.ID+query, as(k)...).refuses(404, "KEY_NOT_FOUND")
	}
	if total := a.get("/api-key/list", as(k)...).object()["total"]; total != 1.0 {
		t.Errorf("%v keys are listed", total)
	}
	if got := a.get("/api-key/list?configId=second", as(k)...).object()["total"]; got != 0.0 {
		t.Errorf("%v keys are listed", got)
	}
}

// The first of several problems is the one that is reported.
func TestBetterAuth_order_of_checks(t *testing.T) {
	short := rules(func(r *keyring.Rules) { r.Expiration.Min = 1000 * 1000; r.NameLength.Max = 3; r.PrefixLength.Max = 3 })
	creates(t, "", []wantCreate{
		{body: `{"name":"long","prefix":"long","expiresIn":1,"metadata":5}`, code: "INVALID_METADATA_TYPE"},
		{body: `{"name":"long","prefix":"long","expiresIn":1}`, code: "EXPIRES_IN_IS_TOO_SMALL"},
		{body: `{"name":"long","prefix":"long"}`, code: "INVALID_PREFIX_LENGTH"},
		{body: `{"name":"long"}`, code: "INVALID_NAME_LENGTH"},
		{body: `{"name":"long","remaining":1,"userId":"x"}`, code: "SERVER_ONLY_PROPERTY"},
		{body: `{"name":"long","userId":"x"}`, status: 401, code: "UNAUTHORIZED_SESSION"},
	}, short)
}

func TestBetterAuth_bounds(t *testing.T) {
	a := newAPI(t)
	metered := a.mint(keyring.Draft{Remaining: ptr(int64(100))})
	a.post("/api-key/create", "{}", as(metered)...).refuses(403, "INSUFFICIENT_PERMISSIONS")

	mortal := a.mint(keyring.Draft{ExpiresIn: keyring.Field[int64]{Set: true, Value: ptr(int64(1000))}})
	a.post("/api-key/create", `{"expiresIn":1001}`, as(mortal)...).refuses(403, "INSUFFICIENT_PERMISSIONS")
	if got := a.post("/api-key/create", "{}", as(mortal)...).object()["expiresAt"]; got != "2026-11-21T19:25:59.500Z" {
		t.Errorf("without a wish, the key ends at %v", got)
	}
	a.post("/api-key/update", `{"keyId":"`+mortal.Key.ID+`","expiresIn":null}`, as(mortal)...).refuses(403, "INSUFFICIENT_PERMISSIONS")

	limited := a.mint(keyring.Draft{RateLimitMax: ptr(int64(9)), RateLimitTimeWindow: ptr(int64(60000))})
	made := a.post("/api-key/create", "{}", as(limited)...).object()
	if made["rateLimitMax"] != 9.0 || made["rateLimitTimeWindow"] != 60000.0 {
		t.Errorf("the limit of its maker is lost: %v", made)
	}
}

// TestBetterAuth_rateLimit takes defaults from the configuration.
func TestBetterAuth_rateLimit(t *testing.T) {
	limit := &ratelimit.Policy{Max: 10, Window: 86400000}
	creates(t, "rateLimitMax", []wantCreate{{body: "{}", value: 10.0}}, rules(func(r *keyring.Rules) { r.RateLimit = limit }))
	creates(t, "rateLimitTimeWindow", []wantCreate{{body: "{}", value: 86400000.0}}, rules(func(r *keyring.Rules) { r.RateLimit = limit }))
	creates(t, "rateLimitEnabled", []wantCreate{{body: "{}", value: false}}, rules(func(r *keyring.Rules) { r.RateLimiting = false }))
}
