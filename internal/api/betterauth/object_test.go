package betterauth

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/keyring"
)

func same(a, b any) bool { return reflect.DeepEqual(a, b) }

// The key object, field by field as the document lists them. The rows that a client
// cannot set are tried here.
func TestBetterAuth_key_object(t *testing.T) {
	a := newAPI(t)
	caller := a.mint(keyring.Draft{})
	k := a.mint(keyring.Draft{
		Name: ptr("all"), Prefix: ptr("all_"), ExpiresIn: keyring.Field[int64]{Set: true, Value: ptr(int64(1000))}, Attributes: keyring.Attributes{Metadata: keyring.Field[json.RawMessage]{Set: true, Value: ptr(json.RawMessage(`{"b":1,"a":"<&>"}`))}},
		Remaining: ptr(int64(2)), RefillAmount: ptr(int64(3)), RefillInterval: ptr(int64(1000)),
		RateLimitMax: ptr(int64(100)), RateLimitTimeWindow: ptr(int64(60000)),
	})
	a.sleep(1500 * time.Millisecond)
	a.get("/get-session", as(k)...).object()
	a.sleep(time.Millisecond)
	a.post("/api-key/update", `{"keyId":"`+k.Key.ID+`","name":"renamed"}`, as(caller)...).object()
	got := a.get("/api-key/get?id="+k.Key.ID, as(caller)...)
	want := `{"configId":"default","name":"renamed","start":"` + k.Raw[:6] + `","referenceId":"alice","prefix":"all_",` +
		`"refillInterval":1000,"refillAmount":3,"lastRefillAt":"2026-11-21T19:09:20.500Z","enabled":true,` +
		`"rateLimitEnabled":true,"rateLimitTimeWindow":60000,"rateLimitMax":100,"requestCount":1,"remaining":2,` +
		`"lastRequest":"2026-11-21T19:09:21.000Z","expiresAt":"2026-11-21T19:25:59.500Z",` +
		`"createdAt":"2026-11-21T19:09:19.500Z","updatedAt":"2026-11-21T19:09:21.001Z",` +
		`"permissions":{"api":["read","write"]},"metadata":{"b":1,"a":"<&>"},"id":"` + k.Key.ID + `"}`
	if got.body != want {
		t.Errorf("got  %s\nwant %s", got.body, want)
	}
}

// objectRow tries one field of the object of a new key.
func objectRow(t *testing.T, field string, want any) {
	t.Helper()
	a := newAPI(t)
	if got := a.post("/api-key/create", "{}", as(a.mint(keyring.Draft{}))...).object()[field]; !same(got, want) {
		t.Errorf("%s is %v, want %v", field, got, want)
	}
}

func TestBetterAuth_id(t *testing.T) {
	a := newAPI(t)
	k := a.mint(keyring.Draft{})
	made := a.post("/api-key/create", "{}", as(k)...).object()
	if found := a.get("/api-key/get?id="+made["id"].(string), as(k)...).object(); found["id"] != made["id"] {
		t.Errorf("found %v", found["id"])
	}
	a.get("/api-key/get?id=", as(k)...).refuses(404, "KEY_NOT_FOUND")
	a.get("/api-key/get?id="+strings.Repeat("x", 300), as(k)...).refuses(404, "KEY_NOT_FOUND")
	a.get("/api-key/get?id=%00", as(k)...).refuses(404, "KEY_NOT_FOUND")
	a.get("/api-key/get", as(k)...).refuses(400, "VALIDATION_ERROR")
	a.get("/api-key/get?id=a&id=b", as(k)...).refuses(400, "VALIDATION_ERROR")
}

// The raw key stands in the answer to create, and in no other.
func TestBetterAuth_key(t *testing.T) {
	a := newAPI(t)
	k := a.mint(keyring.Draft{})
	made := a.post("/api-key/create", `{"name":"new"}`, as(k)...)
	raw, id := made.object()["key"].(string), made.object()["id"].(string)
	if made.header.Get("Cache-Control") != "no-store" {
		t.Error("the answer with the raw key may be kept")
	}
	if names := a.get("/api-key/list", "X-Key", raw).names(); len(names) != 2 {
		t.Errorf("the new key does not work: %v", names)
	}
	for _, r := range []reply{
		a.get("/api-key/get?id="+id, as(k)...), a.get("/api-key/list", as(k)...), a.get("/get-session", "X-Key", raw),
		a.post("/api-key/update", `{"keyId":"`+id+`","name":"x"}`, as(k)...),
	} {
		r.object()
		if strings.Contains(r.body, raw) || strings.Contains(r.body, `"key":`) {
			t.Errorf("the raw key comes back: %s", r.body)
		}
	}
}

func TestBetterAuth_start(t *testing.T) {
	a := newAPI(t)
	made := a.post("/api-key/create", "{}", as(a.mint(keyring.Draft{}))...).object()
	if made["start"] != made["key"].(string)[:6] {
		t.Errorf("start %v of %v", made["start"], made["key"])
	}
}

func TestBetterAuth_referenceId(t *testing.T)  { objectRow(t, "referenceId", "alice") }
func TestBetterAuth_lastRefillAt(t *testing.T) { objectRow(t, "lastRefillAt", nil) }
func TestBetterAuth_requestCount(t *testing.T) { objectRow(t, "requestCount", 0.0) }
func TestBetterAuth_lastRequest(t *testing.T)  { objectRow(t, "lastRequest", nil) }
func TestBetterAuth_expiresAt(t *testing.T)    { objectRow(t, "expiresAt", nil) }
func TestBetterAuth_createdAt(t *testing.T)    { objectRow(t, "createdAt", "2026-11-21T19:09:19.500Z") }

func TestBetterAuth_updatedAt(t *testing.T) { objectRow(t, "updatedAt", "2026-11-21T19:09:19.500Z") }
