package admin

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// verify sends a verification and returns the code, "" for a valid key, and details.
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
	if m["valid"] != false || m["key"] != nil || e["message"] == "" || len(e) != 3 || len(m) != 3 {
		a.t.Errorf("%v", m)
	}
	return e["code"].(string), e["details"], nil
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
				if code == "" && (object["key"] != nil || object["id"] == nil) {
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
		if k != nil {
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
