package betterauth

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// updates tries changes of a key; % in a body is its ID.
func updates(t *testing.T, field string, tests []wantCreate, settings ...setting) {
	t.Helper()
	a := newAPI(t, settings...)
	for _, test := range tests {
		k := a.mint(keyring.Draft{Name: ptr("old")})
		r := a.post("/api-key/update", strings.Replace(test.body, "{", `{"keyId":"`+k.Key.ID+`",`, 1), as(k)...)
		if test.code != "" {
			t.Log(test.body)
			r.refuses(400, test.code)
			continue
		}
		if got := r.object()[field]; !same(got, test.value) {
			t.Errorf("%s: %s is %v, want %v", test.body, field, got, test.value)
		}
	}
}

func TestBetterAuth_keyId(t *testing.T) {
	a := newAPI(t)
	k, other := a.mint(keyring.Draft{}), a.mint(keyring.Draft{UserID: "bob"})
	for _, path := range []string{"/api-key/update", "/api-key/delete"} {
		a.post(path, `{"name":"x"}`, as(k)...).refuses(400, "VALIDATION_ERROR")
		a.post(path, `{"keyId":5,"name":"x"}`, as(k)...).refuses(400, "VALIDATION_ERROR")
		a.post(path, `{"keyId":"x","name":"x"}`, as(k)...).refuses(404, "KEY_NOT_FOUND")
		a.post(path, `{"keyId":"`+other.Key.ID+`","name":"x"}`, as(k)...).refuses(404, "KEY_NOT_FOUND")
	}
	if name := a.get("/api-key/get?id="+other.Key.ID, as(other)...).object()["name"]; name != nil {
		t.Errorf("somebody else's key is now called %v", name)
	}
}

func TestBetterAuth_enabled(t *testing.T) {
	updates(t, "enabled", []wantCreate{
		{body: `{"enabled":false}`, value: false},
		{body: `{"enabled":true}`, value: true},
		{body: `{"enabled":null}`, code: "VALIDATION_ERROR"},
		{body: `{"enabled":1}`, code: "VALIDATION_ERROR"},
	})
}

func TestBetterAuth_update_name(t *testing.T) {
	updates(t, "name", []wantCreate{
		{body: `{"name":"new"}`, value: "new"},
		{body: `{"name":""}`, code: "INVALID_NAME_LENGTH"},
		{body: `{"name":"` + strings.Repeat("x", 33) + `"}`, code: "INVALID_NAME_LENGTH"},
		{body: `{"name":null}`, code: "VALIDATION_ERROR"},
	})
}

func TestBetterAuth_update_expiresIn(t *testing.T) {
	updates(t, "expiresAt", []wantCreate{
		{body: `{"expiresIn":60}`, value: "2026-11-21T19:10:19.500Z"},
		{body: `{"expiresIn":null}`, value: nil},
		{body: `{"expiresIn":0}`, code: "VALIDATION_ERROR"},
	})
	updates(t, "expiresAt", []wantCreate{
		{body: `{"expiresIn":60}`, code: "KEY_DISABLED_EXPIRATION"},
		{body: `{"expiresIn":null}`, code: "KEY_DISABLED_EXPIRATION"},
	}, rules(func(r *keyring.Rules) { r.Expiration.Fixed = true }))
}

func TestBetterAuth_update_metadata(t *testing.T) {
	updates(t, "metadata", []wantCreate{
		{body: `{"metadata":{"a":1}}`, value: map[string]any{"a": 1.0}},
		{body: `{"metadata":null}`, value: nil},
		{body: `{"metadata":[]}`, code: "INVALID_METADATA_TYPE"},
	})
	updates(t, "name", []wantCreate{
		{body: `{"metadata":{"a":1}}`, code: "NO_VALUES_TO_UPDATE"},
		{body: `{"metadata":{"a":1},"name":"new"}`, value: "new"},
	}, rules(func(r *keyring.Rules) { r.Metadata = false }))
}

func TestBetterAuth_update_nothing(t *testing.T) {
	updates(t, "", []wantCreate{{body: `{"surprise":1}`, code: "NO_VALUES_TO_UPDATE"}})
}

// A refused change leaves nothing behind.
func TestBetterAuth_update_whole_or_not_at_all(t *testing.T) {
	a := newAPI(t)
	k := a.mint(keyring.Draft{Name: ptr("old")})
	a.post("/api-key/update", `{"keyId":"`+k.Key.ID+`","name":"new","enabled":false,"metadata":5}`, as(k)...).refuses(400, "INVALID_METADATA_TYPE")
	got := a.get("/api-key/get?id="+k.Key.ID, as(k)...).object()
	if got["name"] != "old" || got["enabled"] != true {
		t.Errorf("it is now %v", got)
	}
}

func TestBetterAuth_delete(t *testing.T) {
	a := newAPI(t)
	k, gone := a.mint(keyring.Draft{}), a.mint(keyring.Draft{})
	if r := a.post("/api-key/delete", `{"keyId":"`+gone.Key.ID+`"}`, as(k)...); r.status != 200 || r.body != `{"success":true}` {
		t.Errorf("got %d %s", r.status, r.body)
	}
	a.post("/api-key/delete", `{"keyId":"`+gone.Key.ID+`"}`, as(k)...).refuses(404, "KEY_NOT_FOUND")
	a.get("/api-key/list", as(gone)...).refuses(401, "INVALID_API_KEY")
}

func TestBetterAuth_deleteAllExpired(t *testing.T) {
	const path = "/api-key/delete-all-expired-api-keys"
	a := newAPI(t)
	admin := a.mint(keyring.Draft{UserID: "root", Permissions: key.Permissions{"api": {"admin"}}})
	writer := a.mint(keyring.Draft{})
	gone := a.mint(keyring.Draft{UserID: "bob", ExpiresIn: keyring.Field[int64]{Set: true, Value: ptr(int64(10))}})
	later := a.mint(keyring.Draft{UserID: "bob", ExpiresIn: keyring.Field[int64]{Set: true, Value: ptr(int64(30))}})
	never := a.mint(keyring.Draft{UserID: "bob"})
	a.sleep(20 * time.Second)

	a.post(path, "{}").refuses(401, "UNAUTHORIZED")
	a.post(path, "{}", as(writer)...).refuses(403, "INSUFFICIENT_PERMISSIONS")
	a.post(path, "{}", as(gone)...).refuses(401, "KEY_EXPIRED")
	if r := a.post(path, "", as(admin)...); r.body != `{"success":true,"error":null}` {
		t.Errorf("got %d %s", r.status, r.body)
	}
	a.get("/api-key/list", as(gone)...).refuses(401, "INVALID_API_KEY")
	a.get("/api-key/list", as(later)...).object()
	a.get("/api-key/list", as(never)...).object()
}

// Who has only read may look, and nothing else.
func TestBetterAuth_actions(t *testing.T) {
	a := newAPI(t)
	reader, none := a.mint(keyring.Draft{Permissions: key.Permissions{"api": {"read"}}}), a.mint(keyring.Draft{Permissions: key.Permissions{}})
	admin := a.mint(keyring.Draft{Permissions: key.Permissions{"api": {"admin"}}})
	for _, k := range []keyring.Issued{reader, none} {
		a.get("/api-key/list", as(k)...).object()
		a.get("/api-key/get?id="+k.Key.ID, as(k)...).object()
		a.get("/get-session", as(k)...).object()
		a.post("/api-key/create", "{}", as(k)...).refuses(403, "INSUFFICIENT_PERMISSIONS")
		a.post("/api-key/update", `{"keyId":"`+k.Key.ID+`","name":"x"}`, as(k)...).refuses(403, "INSUFFICIENT_PERMISSIONS")
		a.post("/api-key/delete", `{"keyId":"`+k.Key.ID+`"}`, as(k)...).refuses(403, "INSUFFICIENT_PERMISSIONS")
	}
	a.post("/api-key/create", "{}", as(admin)...).object()
	a.post("/api-key/create", "{}", person("alice")...).object()
}

// A key that can do more than the caller's stays as it was switched off, or as it
// ended, and may be renamed and switched off.
func TestBetterAuth_update_stronger(t *testing.T) {
	a := newAPI(t)
	k := a.mint(keyring.Draft{Permissions: key.Permissions{"api": {"write"}}})
	strong := a.mint(keyring.Draft{Permissions: key.Permissions{"api": {"admin"}}, ExpiresIn: keyring.Field[int64]{Set: true, Value: ptr(int64(60))}})
	update := func(fields string) reply {
		return a.post("/api-key/update", `{"keyId":"`+strong.Key.ID+`",`+fields+`}`, as(k)...)
	}
	update(`"name":"mine","enabled":false`).object()
	update(`"enabled":true`).refuses(403, "INSUFFICIENT_PERMISSIONS")
	update(`"expiresIn":3600`).refuses(403, "INSUFFICIENT_PERMISSIONS")
	update(`"expiresIn":null`).refuses(403, "INSUFFICIENT_PERMISSIONS")
	update(`"expiresIn":30`).object()
	a.sleep(time.Minute)
	update(`"expiresIn":60`).refuses(403, "INSUFFICIENT_PERMISSIONS")
	if got := update(`"name":"still mine"`).object(); got["enabled"] != false || got["expiresAt"] != "2026-11-21T19:09:49.500Z" {
		t.Errorf("it was changed all the same: %v", got)
	}
}

// A key that an operator gives to somebody else while its owner deletes it is deleted
// before that, or not at all.
func TestBetterAuth_delete_given_away(t *testing.T) {
	a := newAPI(t)
	for range 50 {
		k := a.mint(keyring.Draft{})
		given := make(chan error, 1)
		go func() {
			_, err := a.keys.As(keyring.Actor{Kind: keyring.ActorOperator}).Update(context.Background(), k.Key.ID, keyring.Patch{UserID: keyring.Field[string]{Set: true, Value: ptr("bob")}})
			given <- err
		}()
		r := a.post("/api-key/delete", `{"keyId":"`+k.Key.ID+`"}`, person("alice")...)
		if err := <-given; (r.status == 200) == (err == nil) || r.status != 200 && r.status != 404 {
			t.Fatalf("delete: %d %s, update: %v", r.status, r.body, err)
		}
	}
}
