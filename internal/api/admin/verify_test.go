package admin

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// verify sends a verification and returns the code, "" for a valid key, and details.
// The object is that of the key, nil for an unknown one.
func (a *rig) verify(body string) (code string, details any, object map[string]any) {
	a.t.Helper()
	m := a.send("POST", "/apikey/verify", body).want(a.t, 200)
	if m["valid"] == true {
		if m["error"] != nil {
			a.t.Errorf("valid with %v", m["error"])
		}
		return "", nil, m["key"].(map[string]any)
	}
	e := m["error"].(map[string]any)
	if m["valid"] != false || e["message"] == "" || len(e) != 3 || len(m) != 3 {
		a.t.Errorf("%v", m)
	}
	object, _ = m["key"].(map[string]any)
	return e["code"].(string), e["details"], object
}

func TestVerifyOutcomes(t *testing.T) {
	a := newAPI(t)
	made := must(a.CreateKey(t.Context(), CreateKey{UserID: "u", WithSecret: ptr(true)})).Value
	_, plain := a.make(`{"userId":"u","permissions":{"files":["read"]},"allowedIps":["192.0.2.0/24"]}`)
	_, disabled := a.make(`{"userId":"u","enabled":false}`)
	_, expired := a.make(`{"userId":"u","expiresIn":1}`)
	_, empty := a.make(`{"userId":"u","remaining":0}`)
	_, refilled := a.make(`{"userId":"u","remaining":0,"refillAmount":1,"refillInterval":10500}`)
	a.sleep(time.Second)
	for _, test := range []struct{ name, raw, more, code, details string }{
		{"valid", plain, ``, "", ""},
		{"no secret asked for", made.Raw, ``, "", ""},
		{"secret", made.Raw, `,"secret":"` + made.Secret + `"`, "", ""},
		{"wrong secret", made.Raw, `,"secret":"` + made.Secret + `x"`, "INVALID_SECRET", "null"},
		{"empty secret", made.Raw, `,"secret":""`, "INVALID_SECRET", "null"},
		{"secret for a key without", plain, `,"secret":"x"`, "INVALID_SECRET", "null"},
		{"null secret", made.Raw, `,"secret":null`, "", ""},
		{"malformed", "x", ``, "INVALID_API_KEY", "null"},
		{"empty", "", ``, "INVALID_API_KEY", "null"},
		{"newline", `ak_\n`, ``, "INVALID_API_KEY", "null"},
		{"too long", strings.Repeat("x", 513), ``, "INVALID_API_KEY", "null"},
		{"truncated", plain[:60], ``, "INVALID_API_KEY", "null"},
		{"of no record", "ak_" + strings.Repeat("x", 64), ``, "INVALID_API_KEY", "null"},
		{"disabled", disabled, ``, "KEY_DISABLED", "null"},
		{"expired", expired, ``, "KEY_EXPIRED", "null"},
		{"permission", plain, `,"permissions":{"files":["read"]}`, "", ""},
		{"permission list", plain, `,"permissions":["files:read"]`, "", ""},
		{"no permission asked for", plain, `,"permissions":{}`, "", ""},
		{"lacking permission", plain, `,"permissions":["files:read","files:write"]`, "INSUFFICIENT_PERMISSIONS", "null"},
		{"bare permission", plain, `,"permissions":["read"]`, "INSUFFICIENT_PERMISSIONS", "null"},
		{"wildcard asked for", plain, `,"permissions":["files:*"]`, "INSUFFICIENT_PERMISSIONS", "null"},
		{"address", plain, `,"ip":"192.0.2.9"`, "", ""},
		{"mapped address", plain, `,"ip":"::ffff:192.0.2.9"`, "", ""},
		{"other address", plain, `,"ip":"192.0.3.9"`, "IP_NOT_ALLOWED", "null"},
		{"any address", made.Raw, `,"ip":"2001:db8::1"`, "", ""},
		{"configuration", plain, `,"configId":"default"`, "", ""},
		{"other configuration", plain, `,"configId":"x"`, "INVALID_API_KEY", "null"},
		{"other configuration, disabled", disabled, `,"configId":"x"`, "INVALID_API_KEY", "null"},
		{"no credits", empty, ``, "USAGE_EXCEEDED", "null"},
		{"cost 0", empty, `,"cost":0`, "", ""},
		{"refill to come", refilled, ``, "USAGE_EXCEEDED", `{"retryAfter":10}`},
		{"refill never enough", refilled, `,"cost":2`, "USAGE_EXCEEDED", "null"},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, dry := range []string{`,"dryRun":true`, ``} {
				code, details, object := a.verify(`{"key":"` + test.raw + `"` + test.more + dry + `}`)
				if code != test.code || code != "" && string(must(json.Marshal(details))) != test.details {
					t.Errorf("code %q, details %v", code, details)
				}
				if known := strings.HasPrefix(test.raw, "ak_") && test.name != "of no record" && len(test.raw) == len(plain); (object["id"] != nil) != known || object["key"] != nil {
					t.Errorf("key object %v", object)
				}
			}
		})
	}
}

func TestVerifyCounts(t *testing.T) {
	a := newAPI(t)
	_, raw := a.make(`{"userId":"u","remaining":10,"rateLimitMax":5,"rateLimitTimeWindow":1500}`)
	step := func(more, want string) {
		t.Helper()
		code, details, k := a.verify(`{"key":"` + raw + `"` + more + `}`)
		got := fmt.Sprint(code, details)
		if code == "" {
			got = fmt.Sprintf("%v %v %v", k["remaining"], k["requestCount"], k["lastRequest"])
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", more, got, want)
		}
	}
	step(`,"dryRun":true`, "10 0 <nil>")
	step(`,"dryRun":true,"configId":"default"`, "10 0 <nil>")
	step(``, "9 1 2026-11-21T19:09:19.500Z")
	step(`,"configId":"other"`, "INVALID_API_KEY<nil>")
	step(`,"configId":"default"`, "8 2 2026-11-21T19:09:19.500Z")
	a.sleep(time.Millisecond)
	step(`,"cost":3`, "5 5 2026-11-21T19:09:19.501Z")
	step(``, "RATE_LIMITEDmap[retryAfter:2]") // 1499 ms, rounded up
	step(`,"cost":6`, "RATE_LIMITED<nil>")    // never fits
	step(`,"dryRun":true`, "RATE_LIMITEDmap[retryAfter:2]")
	step(`,"cost":0`, "5 5 2026-11-21T19:09:19.501Z")
	a.sleep(1498 * time.Millisecond)
	step(``, "RATE_LIMITEDmap[retryAfter:1]")
	a.sleep(time.Millisecond)
	step(``, "4 1 2026-11-21T19:09:21.000Z")
}

func TestVerifyRefusesBodies(t *testing.T) {
	a := newAPI(t)
	a.send("POST", "/apikey/verify", `{}`).refused(t, 400, "INVALID_FIELD", "key")
	a.send("POST", "/apikey/verify", `{"key":null}`).refused(t, 400, "INVALID_FIELD", "key")
	a.send("POST", "/apikey/verify", `{"key":"k","ip":"192.0.2.0/24"}`).refused(t, 400, "INVALID_FIELD", "ip")
	a.send("POST", "/apikey/verify", `{"key":"k","KEY":"k"}`).refused(t, 400, "INVALID_FIELD", "KEY")
	a.send("POST", "/apikey/verify", `{"key":"k","permissions":["a b"]}`).refused(t, 400, "INVALID_FIELD", "permissions")
}

// TestQ19_whose: an operator learns whose key was presented, whatever the outcome. Only
// an unknown key has none.
func TestQ19_whose(t *testing.T) {
	a := newAPI(t)
	set := keyring.Settings{Rules: keyring.DefaultRules(), Configs: []keyring.Rules{keyring.DefaultRules(), keyring.DefaultRules()}}
	set.Configs[0].ConfigID, set.Configs[1].ConfigID = "pub", "own"
	set.Configs[1].Validators = []key.Validator{prefixed("own_")}
	a.service = func() (*keyring.Service, error) { return keyring.NewService(a.engine, &set), nil }
	for _, test := range []struct{ name, make, ask, code string }{
		{"disabled", `"enabled":false`, ``, "KEY_DISABLED"},
		{"expired", `"expiresIn":1`, ``, "KEY_EXPIRED"},
		{"address", `"allowedIps":["192.0.2.1"]`, `,"ip":"192.0.2.2"`, "IP_NOT_ALLOWED"},
		{"secret", `"withSecret":true`, `,"secret":"x"`, "INVALID_SECRET"},
		{"permission", ``, `,"permissions":["a:b"]`, "INSUFFICIENT_PERMISSIONS"},
		{"credits", `"remaining":0`, ``, "USAGE_EXCEEDED"},
		{"rate limit", `"rateLimitMax":1,"rateLimitTimeWindow":1000`, `,"cost":2`, "RATE_LIMITED"},
		{"another configuration", ``, `,"configId":"pub"`, "INVALID_API_KEY"},
		{"another configuration, whose validators refuse it", ``, `,"configId":"own"`, "INVALID_API_KEY"},
		{"no such configuration", ``, `,"configId":"none"`, "INVALID_API_KEY"},
	} {
		t.Run(test.name, func(t *testing.T) {
			owner := `{"userId":"of ` + test.name + `"`
			if test.make != "" {
				owner += "," + test.make
			}
			id, raw := a.make(owner + `}`)
			a.sleep(time.Second)
			before := a.send("GET", "/apikey/keys/"+id, "").want(t, 200)
			for _, dry := range []string{`,"dryRun":true`, ``} {
				code, _, k := a.verify(`{"key":"` + raw + `"` + test.ask + dry + `}`)
				if code != test.code || k["id"] != id || k["userId"] != "of "+test.name {
					t.Errorf("%s: key %v", code, k)
				}
				if !reflect.DeepEqual(k, before) {
					t.Errorf("the refusal changed the key: %v, before %v", k, before)
				}
			}
		})
	}
	id, raw := a.make(`{"userId":"u","configId":"own","prefix":"own_"}`)
	set.Configs[1].Validators[0] = prefixed("new_")
	if code, _, k := a.verify(`{"key":"` + raw + `"}`); code != "INVALID_API_KEY" || k["id"] != id {
		t.Errorf("a key that its validators refuse by now: %s %v", code, k)
	}
	id, raw = a.make(`{"userId":"u"}`)
	a.send("POST", "/apikey/keys/"+id+"/rotate", `{}`).want(t, 200)
	for _, unknown := range []string{raw, raw[:60], "x", ""} {
		if code, _, k := a.verify(`{"key":"` + unknown + `"}`); code != "INVALID_API_KEY" || k != nil {
			t.Errorf("%q: %s %v", unknown, code, k)
		}
	}
}

// prefixed accepts raw keys that begin with it.
type prefixed string

func (p prefixed) Valid(raw string) bool { return strings.HasPrefix(raw, string(p)) }
