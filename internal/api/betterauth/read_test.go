package betterauth

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// shelf has the keys b, a, (without name) and c of alice, made in this order, and one
// of somebody else.
func shelf(t *testing.T) (*rig, keyring.Issued) {
	t.Helper()
	a := newAPI(t)
	b := a.mint(keyring.Draft{Name: ptr("b")})
	for _, d := range []keyring.Draft{
		{Name: ptr("a"), Remaining: ptr(int64(7))},
		{Remaining: ptr(int64(3))},
		{Name: ptr("c"), Prefix: ptr("zz_")},
		{UserID: "bob", Name: ptr("not hers")},
	} {
		a.sleep(time.Millisecond)
		a.mint(d)
	}
	return a, b
}

// lists tries queries of list.
func lists(t *testing.T, tests map[string]string) {
	t.Helper()
	a, k := shelf(t)
	for query, want := range tests {
		r := a.get("/api-key/list?"+query, as(k)...)
		if r.status != 200 {
			t.Log(query)
			r.refuses(400, want)
			continue
		}
		if names, _ := json.Marshal(r.names()); string(names) != want {
			t.Errorf("%s: got %s, want %s", query, names, want)
		}
	}
}

func TestBetterAuth_limit(t *testing.T) {
	lists(t, map[string]string{
		"limit=2": `["b","a"]`, "limit=0": `[]`, "limit=": `[]`, "limit=99": `["b","a",null,"c"]`, "limit=1e0": `["b"]`, "limit=0x2": `["b","a"]`,
		"limit=9007199254740991": `["b","a",null,"c"]`,
		"limit=x":                "VALIDATION_ERROR", "limit=-1": "VALIDATION_ERROR", "limit=1.5": "VALIDATION_ERROR",
		"limit=9007199254740992": "VALIDATION_ERROR", "limit=1&limit=1": "VALIDATION_ERROR", "limit=1_0": "VALIDATION_ERROR",
		"limit=Infinity": "VALIDATION_ERROR", "limit=NaN": "VALIDATION_ERROR",
	})
}

func TestBetterAuth_offset(t *testing.T) {
	lists(t, map[string]string{
		"offset=3": `["c"]`, "offset=4": `[]`, "offset=99": `[]`, "offset=9007199254740991": `[]`, "offset=1&limit=1": `["a"]`,
		"offset=x": "VALIDATION_ERROR",
	})
}

func TestBetterAuth_sortBy(t *testing.T) {
	tests := map[string]string{
		"sortBy=name": `[null,"a","b","c"]`, "sortBy=": `["b","a",null,"c"]`, "sortBy=remaining": `["b","c",null,"a"]`,
		"sortBy=prefix": `["b","a",null,"c"]`, "sortBy=createdAt": `["b","a",null,"c"]`, "sortBy=enabled": `["b","a",null,"c"]`,
		"sortBy=nothing": "VALIDATION_ERROR", "sortBy=key": "VALIDATION_ERROR", "sortBy=metadata": "VALIDATION_ERROR", "sortBy=a&sortBy=b": "VALIDATION_ERROR",
	}
	for field := range orders {
		if _, ok := tests["sortBy="+field]; !ok {
			a, k := shelf(t)
			if n := len(a.get("/api-key/list?sortBy="+field, as(k)...).names()); n != 4 {
				t.Errorf("%s: %d keys", field, n)
			}
		}
	}
	lists(t, tests)
}

func TestBetterAuth_sortDirection(t *testing.T) {
	lists(t, map[string]string{
		"sortBy=name&sortDirection=desc": `["c","b","a",null]`, "sortBy=name&sortDirection=asc": `[null,"a","b","c"]`,
		"sortDirection=desc": `["b","a",null,"c"]`, "sortBy=name&sortDirection=DESC": "VALIDATION_ERROR", "sortDirection=": "VALIDATION_ERROR",
	})
}

// All keys are listed and counted, however many there are.
func TestBetterAuth_total(t *testing.T) {
	a := newAPI(t)
	var k keyring.Issued
	for i := range listPage + 3 {
		k = a.mint(keyring.Draft{Name: ptr(fmt.Sprint(i))})
	}
	all := a.get("/api-key/list", as(k)...)
	if total := all.object()["total"]; total != float64(listPage+3) || len(all.names()) != listPage+3 {
		t.Errorf("%d keys, total %v", len(all.names()), total)
	}
	last := a.get(fmt.Sprintf("/api-key/list?offset=%d&limit=5", listPage+2), as(k)...)
	if m := last.object(); m["total"] != float64(listPage+3) || m["offset"] != float64(listPage+2) || m["limit"] != 5.0 || len(last.names()) != 1 {
		t.Errorf("the last page: %v", m)
	}
	if strings.Contains(all.body, `"limit"`) || strings.Contains(all.body, `"offset"`) {
		t.Error("limit and offset stand there though nobody asked")
	}
}

func TestBetterAuth_verify(t *testing.T) {
	a := newAPI(t, config("second", func(*keyring.Rules) {}))
	admin := a.mint(keyring.Draft{UserID: "root", Permissions: key.Permissions{"api": {"admin"}}})
	verify := func(body string) reply { return a.post("/api-key/verify", body, as(admin)...) }
	invalid := func(body, code string) {
		t.Helper()
		r := verify(body)
		if m := r.object(); m["valid"] != false || m["key"] != nil || m["error"].(map[string]any)["code"] != code {
			t.Errorf("%s: got %s, want %s", body, r.body, code)
		}
	}
	k := a.mint(keyring.Draft{Permissions: key.Permissions{"files": {"read", "write"}}})
	ask := func(rest string) string { return `{"key":"` + k.Raw + `"` + rest + `}` }

	m := verify(ask(`,"permissions":{"files":["read","write"]}`)).object()
	if m["valid"] != true || m["error"] != nil || m["key"].(map[string]any)["lastRequest"] != "2026-11-21T19:09:19.500Z" {
		t.Errorf("got %v", m)
	}
	invalid(ask(`,"permissions":{"files":["read","delete"]}`), "INSUFFICIENT_PERMISSIONS")
	invalid(ask(`,"permissions":{"toString":["read"]}`), "INSUFFICIENT_PERMISSIONS")
	invalid(ask(`,"permissions":{}`), "INSUFFICIENT_PERMISSIONS")
	invalid(ask(`,"permissions":{"files":[]}`), "INSUFFICIENT_PERMISSIONS")
	invalid(ask(`,"configId":"second"`), "INVALID_API_KEY")
	invalid(ask(`,"configId":"nowhere"`), "INVALID_API_KEY")
	invalid(`{"key":""}`, "INVALID_API_KEY")
	verify(`{}`).refuses(400, "VALIDATION_ERROR")
	verify(ask(`,"permissions":{"files":["read",5]}`)).refuses(400, "VALIDATION_ERROR")

	a.post("/api-key/verify", ask("")).refuses(401, "UNAUTHORIZED")
	a.post("/api-key/verify", ask(""), as(k)...).refuses(403, "INSUFFICIENT_PERMISSIONS")
	a.post("/api-key/verify", ask(""), person("alice")...).refuses(403, "INSUFFICIENT_PERMISSIONS")
}

// A mount that is about some configurations judges their keys only.
func TestBetterAuth_verify_of_a_mount(t *testing.T) {
	a := newAPI(t, config("second", func(*keyring.Rules) {}), mount(func(o *options) { o.Configs = []string{"default"} }))
	admin := a.mint(keyring.Draft{Permissions: key.Permissions{"api": {"admin"}}})
	k := a.mint(keyring.Draft{ConfigID: ptr("second")})
	for _, rest := range []string{"", `,"configId":"second"`, `,"configId":"default"`} {
		if m := a.post("/api-key/verify", `{"key":"`+k.Raw+`"`+rest+`}`, as(admin)...).object(); m["valid"] != false {
			t.Errorf("%s: %v", rest, m)
		}
	}
}

// A reason stays the same however often it is asked for, and a refusal takes nothing.
func TestBetterAuth_verify_reasons_stay(t *testing.T) {
	a := newAPI(t)
	admin := a.mint(keyring.Draft{Permissions: key.Permissions{"api": {"admin"}}})
	code := func(k keyring.Issued) string {
		e := a.post("/api-key/verify", `{"key":"`+k.Raw+`"}`, as(admin)...).object()["error"]
		if e == nil {
			return ""
		}
		return e.(map[string]any)["code"].(string)
	}
	no := false
	for want, k := range map[string]keyring.Issued{
		"USAGE_EXCEEDED": a.mint(keyring.Draft{Remaining: ptr(int64(0))}),
		"KEY_DISABLED":   a.mint(keyring.Draft{Enabled: &no}),
		"KEY_EXPIRED":    a.mint(keyring.Draft{ExpiresIn: keyring.Field[int64]{Set: true, Value: ptr(int64(1))}}),
	} {
		a.sleep(2 * time.Second)
		for range 3 {
			if got := code(k); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		}
	}
	k := a.mint(keyring.Draft{RateLimitMax: ptr(int64(2)), RateLimitTimeWindow: ptr(int64(1000)), Remaining: ptr(int64(10))})
	for i, want := range []string{"", "", "RATE_LIMITED", "RATE_LIMITED"} {
		if got := code(k); got != want {
			t.Errorf("%d: got %q, want %q", i, got, want)
		}
	}
	if r := a.get("/api-key/get?id="+k.Key.ID, as(admin)...).object()["remaining"]; r != 8.0 {
		t.Errorf("%v credits remain", r)
	}
}

// firstWrite calls a function before the first piece of an answer.
type firstWrite struct {
	http.ResponseWriter
	call func()
}

func (w *firstWrite) Write(p []byte) (int, error) {
	if w.call != nil {
		w.call()
		w.call = nil
	}
	return w.ResponseWriter.Write(p)
}

// TestBetterAuth_listMeanwhile: a key that goes to another owner, or is deleted, while a
// sorted list is written is not in the rest of it.
func TestBetterAuth_listMeanwhile(t *testing.T) {
	a := newAPI(t)
	var keys []keyring.Issued
	for i := range 20 {
		keys = append(keys, a.mint(keyring.Draft{
			Name: new(fmt.Sprintf("key %02d", i)), Attributes: keyring.Attributes{Metadata: api.Some(json.RawMessage(`{"m":"` + strings.Repeat("x", 8000) + `"}`))},
		}))
	}
	operator := a.keys.As(keyring.Actor{Kind: keyring.ActorOperator})
	rec := httptest.NewRecorder()
	w := &firstWrite{rec, func() {
		if _, err := operator.Update(t.Context(), keys[18].Key.ID, keyring.Patch{UserID: api.Some("bob")}); err != nil {
			t.Error(err)
		}
		if err := operator.Delete(t.Context(), keys[19].Key.ID); err != nil {
			t.Error(err)
		}
	}}
	r := httptest.NewRequest("GET", "/api/auth/api-key/list?sortBy=name", nil)
	r.Header.Set("X-Key", keys[0].Raw)
	a.srv.Config.Handler.ServeHTTP(w, r)
	var got struct {
		APIKeys []struct{ ID, ReferenceID string }
		Total   int
	}
	if err := json.Unmarshal(rec.Body.Bytes(), &got); err != nil || w.call != nil {
		t.Fatalf("%v: %.100s", err, rec.Body)
	}
	if len(got.APIKeys) != 18 || got.APIKeys[17].ID != keys[17].Key.ID {
		t.Errorf("%d keys", len(got.APIKeys))
	}
}
