package admin

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
)

// everything is all that the API shows: keys by ID and owners by name.
func (a *rig) everything() map[string]map[string]any {
	a.t.Helper()
	all := map[string]map[string]any{}
	for _, k := range a.send("GET", "/apikey/keys?limit=500", "").want(a.t, 200)["keys"].([]any) {
		k := k.(map[string]any)
		all["key "+k["id"].(string)] = k
	}
	for _, o := range a.send("GET", "/apikey/owners?limit=500", "").want(a.t, 200)["owners"].([]any) {
		o := o.(map[string]any)
		all["owner "+o["userId"].(string)] = o
	}
	return all
}

// sameAs compares everything with what is wanted.
func sameAs(t *testing.T, got, want map[string]map[string]any) {
	t.Helper()
	for id := range maps.Keys(got) {
		if want[id] == nil {
			t.Errorf("%s is there", id)
		}
	}
	for id, object := range want {
		if got[id] == nil {
			t.Errorf("%s is gone", id)
			continue
		}
		for field, w := range object {
			if g, w := must(json.Marshal(got[id][field])), must(json.Marshal(w)); string(g) != string(w) {
				t.Errorf("%s: %s is %s, want %s", id, field, g, w)
			}
		}
	}
}

const later = "2026-11-21T19:09:20.500Z" // a second after start

// TestWritesChangeOnlyTheirOwn compares all objects around each write.
func TestWritesChangeOnlyTheirOwn(t *testing.T) {
	full := `{"userId":"u","name":"n","expiresIn":60,"metadata":{"a":1,"b":2},"remaining":5,"refillAmount":9,"refillInterval":10000,
		"rateLimitMax":3,"rateLimitTimeWindow":10000000,"rateLimitAlgorithm":"token_bucket","permissions":["read"],"allowedIps":["10.0.0.0/8"]}`
	for _, test := range []struct{ method, path, body, object, change string }{
		{"PATCH", "/apikey/keys/ID", `{"name":null}`, "key ID", `{"name":null}`},
		{"PATCH", "/apikey/keys/ID", `{"name":"m"}`, "key ID", `{"name":"m"}`},
		{"PATCH", "/apikey/keys/ID", `{"metadata":{"c":3}}`, "key ID", `{"metadata":{"c":3}}`},
		{"PATCH", "/apikey/keys/ID", `{"metadata":null}`, "key ID", `{"metadata":null}`},
		{"PATCH", "/apikey/keys/ID", `{"expiresIn":null}`, "key ID", `{"expiresAt":null}`},
		{"PATCH", "/apikey/keys/ID", `{"expiresIn":120}`, "key ID", `{"expiresAt":"2026-11-21T19:11:20.500Z"}`},
		{"PATCH", "/apikey/keys/ID", `{"remaining":null}`, "key ID", `{"remaining":null}`},
		{"PATCH", "/apikey/keys/ID", `{"remaining":0}`, "key ID", `{"remaining":0,"state":"exhausted"}`},
		{"PATCH", "/apikey/keys/ID", `{"remainingDelta":-2}`, "key ID", `{"remaining":3}`},
		{"PATCH", "/apikey/keys/ID", `{"remainingDelta":2,"name":"m"}`, "key ID", `{"remaining":7,"name":"m"}`},
		{"PATCH", "/apikey/keys/ID", `{"refillAmount":null,"refillInterval":null}`, "key ID", `{"refillAmount":null,"refillInterval":null}`},
		{"PATCH", "/apikey/keys/ID", `{"refillAmount":8}`, "key ID", `{"refillAmount":8}`},
		{"PATCH", "/apikey/keys/ID", `{"rateLimitMax":null,"rateLimitTimeWindow":null}`, "key ID", `{"rateLimitMax":null,"rateLimitTimeWindow":null,"requestCount":0}`},
		{"PATCH", "/apikey/keys/ID", `{"rateLimitMax":7}`, "key ID", `{"rateLimitMax":7}`},
		{"PATCH", "/apikey/keys/ID", `{"rateLimitAlgorithm":null}`, "key ID", `{"rateLimitAlgorithm":"fixed_window"}`},
		{"PATCH", "/apikey/keys/ID", `{"rateLimitAlgorithm":"sliding_window"}`, "key ID", `{"rateLimitAlgorithm":"sliding_window"}`},
		{"PATCH", "/apikey/keys/ID", `{"rateLimitEnabled":false}`, "key ID", `{"rateLimitEnabled":false,"requestCount":0}`},
		{"PATCH", "/apikey/keys/ID", `{"permissions":null}`, "key ID", `{"permissions":null}`},
		{"PATCH", "/apikey/keys/ID", `{"permissions":[]}`, "key ID", `{"permissions":{}}`},
		{"PATCH", "/apikey/keys/ID", `{"permissions":{"files":["*"]}}`, "key ID", `{"permissions":{"files":["*"]}}`},
		{"PATCH", "/apikey/keys/ID", `{"allowedIps":null}`, "key ID", `{"allowedIps":null}`},
		{"PATCH", "/apikey/keys/ID", `{"allowedIps":["::1"]}`, "key ID", `{"allowedIps":["::1/128"]}`},
		{"PATCH", "/apikey/keys/ID", `{"enabled":false}`, "key ID", `{"enabled":false,"disabledBy":"operator","state":"disabled"}`},
		{"POST", "/apikey/keys/ID/rotate", ``, "key ID", `{"rotatedAt":"` + later + `"}`},
		{
			"POST", "/apikey/keys/ID/rotate", `{"grace":5,"withSecret":true}`, "key ID",
			`{"rotatedAt":"` + later + `","previousKeys":[{"start":"START","until":"2026-11-21T19:09:25.500Z","lastRequest":"2026-11-21T19:09:19.500Z"}]}`,
		},
		{"POST", "/apikey/keys/ID/rotate", `{"expiresIn":120}`, "key ID", `{"rotatedAt":"` + later + `","expiresAt":"2026-11-21T19:11:20.500Z"}`},
		{"PUT", "/apikey/owners/u", `{"enabled":false}`, "owner u", `{"enabled":false}`},
		{"DELETE", "/apikey/keys/ID", ``, "", `{"keyCount":1}`},
	} {
		t.Run(test.method+" "+test.body, func(t *testing.T) {
			a := newAPI(t)
			_, raw := a.make(`{"userId":"w","rateLimitMax":3,"rateLimitTimeWindow":10000,"remaining":5}`)
			must(a.Verify(t.Context(), VerifyKey{Key: raw}))
			a.make(full)
			id, raw := a.make(full)
			a.verify(`{"key":"` + raw + `"}`)
			must(a.PatchKey(t.Context(), id, PatchKey{Remaining: api.Some(int64(5))}))
			want := a.everything()
			a.sleep(time.Second)

			expand := func(s string) string { return replaceID(s, id) }
			if r := a.send(test.method, expand(test.path), test.body); r.status >= 300 {
				t.Fatalf("%d %s", r.status, r.body)
			}
			var change map[string]any
			if err := json.Unmarshal([]byte(strings.Replace(test.change, "START", raw[:6], 1)), &change); err != nil {
				t.Fatal(err)
			}
			got := a.everything()
			if test.object == "" {
				delete(want, "key "+id)
				maps.Copy(want["owner u"], change)
			} else {
				object := want[expand(test.object)]
				maps.Copy(object, change)
				object["updatedAt"] = later
				if test.method == "POST" {
					object["start"] = got["key "+id]["start"]
				}
				for _, other := range want {
					if test.method == "PUT" && other["id"] != nil && other["userId"] == "u" {
						other["state"] = "disabled" // because the owner is
					}
				}
			}
			sameAs(t, got, want)
		})
	}
}

// TestMovesToAnotherOwner: the owners' key counts follow, and a new owner is made.
func TestMovesToAnotherOwner(t *testing.T) {
	a := newAPI(t)
	id, _ := a.make(`{"userId":"u"}`)
	a.make(`{"userId":"u"}`)
	want := a.everything()
	a.sleep(time.Second)
	must(a.PatchKey(t.Context(), id, PatchKey{UserID: api.Some("v")}))
	maps.Copy(want["key "+id], map[string]any{"userId": "v", "updatedAt": later})
	want["owner u"]["keyCount"] = 1
	want["owner v"] = map[string]any{"userId": "v", "tier": nil, "enabled": true, "keyCount": 1, "createdAt": later, "updatedAt": later}
	sameAs(t, a.everything(), want)
}

// TestRefusedWritesChangeNothing: not even updatedAt.
func TestRefusedWritesChangeNothing(t *testing.T) {
	a := newAPI(t)
	id, raw := a.make(`{"userId":"u","name":"n","remaining":1,"expiresIn":60}`)
	want := a.everything()
	a.sleep(time.Second)
	for _, call := range []struct{ method, path, body string }{
		{"PATCH", "/apikey/keys/ID", `{"name":"m","remainingDelta":-2}`},
		{"PATCH", "/apikey/keys/ID", `{"name":"m","remaining":-1}`},
		{"PATCH", "/apikey/keys/ID", `{"name":"m","nosuch":1}`},
		{"PATCH", "/apikey/keys/ID", `{"name":"m"} x`},
		{"PATCH", "/apikey/keys/ID", `{"name":"m","userId":"."}`},
		{"PATCH", "/apikey/keys/ID", `{"userId":"v","refillAmount":1}`},
		{"POST", "/apikey/keys", `{"userId":"x","name":"m","rateLimitMax":1}`},
		{"POST", "/apikey/keys/ID/rotate", `{"grace":-1}`},
		{"POST", "/apikey/keys/ID/rotate", `{"expiresIn":0}`},
		{"POST", "/apikey/keys/ID/end-grace", ``},
		{"POST", "/apikey/keys/delete-expired", `{"x":1}`},
		{"PUT", "/apikey/owners/u", `{"enabled":false,"tier":"x"}`},
		{"PUT", "/apikey/owners/x", `{"nosuch":false}`},
		{"DELETE", "/apikey/keys/ID?force=1", ``},
		{"DELETE", "/apikey/owners/u?force=1", ``},
		{"POST", "/apikey/verify", `{"key":"` + raw + `","cost":2}`},
		{"POST", "/apikey/verify", `{"key":"` + raw + `","dryRun":true}`},
	} {
		a.send(call.method, replaceID(call.path, id), call.body)
	}
	sameAs(t, a.everything(), want)
}
