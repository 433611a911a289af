package betterauth

import (
	"strings"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/keyring"
)

func TestBetterAuth_getSession(t *testing.T) {
	a := newAPI(t, config("quiet", func(r *keyring.Rules) { r.Session = false }))
	k := a.mint(keyring.Draft{})
	r := a.get("/get-session", append(as(k), "User-Agent", "test")...)
	want := `{"user":{"name":null,"email":null,"emailVerified":null,"image":null,"createdAt":null,"updatedAt":null,"id":"alice"},` +
		`"session":{"id":"` + k.Key.ID + `","token":"` + k.Key.ID + `","userId":"alice","userAgent":"test","ipAddress":null,` +
		`"createdAt":"2026-11-21T19:09:19.500Z","updatedAt":"2026-11-21T19:09:19.500Z","expiresAt":"2026-11-28T19:09:19.500Z"}}`
	if r.body != want {
		t.Errorf("got  %s\nwant %s", r.body, want)
	}
	if r.header.Get("Cache-Control") != "no-store" || r.header.Get("Pragma") != "no-cache" {
		t.Errorf("headers %v", r.header)
	}
	mortal := a.mint(keyring.Draft{ExpiresIn: keyring.Field[int64]{Set: true, Value: ptr(int64(10))}})
	if r := a.get("/get-session", as(mortal)...); !strings.Contains(r.body, `"expiresAt":"2026-11-21T19:09:29.500Z"`) {
		t.Errorf("the session outlives its key: %s", r.body)
	}
	for from, want := range map[string]string{"192.0.2.1": `"192.0.2.1"`, "::ffff:192.0.2.1": `"192.0.2.1"`, "2001:DB8::1": `"2001:db8::1"`, "": "null"} {
		if r := a.get("/get-session", append(person("bob"), "X-From", from)...); !strings.Contains(r.body, `"ipAddress":`+want) {
			t.Errorf("from %q: %s", from, r.body)
		}
	}
	if r := a.get("/get-session"); r.status != 200 || r.body != "null" {
		t.Errorf("nobody: %d %s", r.status, r.body)
	}
	if r := a.get("/get-session", person("bob")...); !strings.Contains(r.body, `"id":"bob"`) || !strings.Contains(r.body, `"token":null`) {
		t.Errorf("a person: %d %s", r.status, r.body)
	}
	quiet := a.mint(keyring.Draft{ConfigID: ptr("quiet")})
	a.get("/get-session", as(quiet)...).refuses(401, "INVALID_REFERENCE_ID_FROM_API_KEY")
	if a.withdrew != 1 {
		t.Error("a refused session is charged")
	}
	a.get("/api-key/list", as(quiet)...).object()
	a.get("/get-session", "X-Key", "short").refuses(401, "INVALID_API_KEY")
}
