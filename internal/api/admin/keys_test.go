package admin

import (
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

func TestCreateSaysLittle(t *testing.T) {
	a := newAPI(t)
	r := a.send("POST", "/apikey/keys", `{"userId":"alice"}`)
	m := r.want(t, 201)
	raw := m["key"].(string)
	want := fmt.Sprintf(`{"id":%q,"configId":"default","name":null,"start":%q,"prefix":"ak_","userId":"alice","enabled":true,`+
		`"disabledBy":null,"state":"active","permissions":null,"metadata":null,"tier":null,"remaining":null,"refillAmount":null,"refillInterval":null,"lastRefillAt":null,`+
		`"rateLimitEnabled":true,"rateLimitMax":null,"rateLimitTimeWindow":null,"rateLimitAlgorithm":"fixed_window","requestCount":0,`+
		`"lastRequest":null,"allowedIps":null,"expiresAt":null,"createdAt":"2026-11-21T19:09:19.500Z","updatedAt":"2026-11-21T19:09:19.500Z",`+
		`"rotatedAt":null,"previousKeys":[],"key":%q}`+"\n", m["id"], raw[:6], raw)
	if string(r.body) != want {
		t.Errorf("got  %s\nwant %s", r.body, want)
	}
	if !regexp.MustCompile(`^ak_[0-9A-Za-z]{64}$`).MatchString(raw) || !regexp.MustCompile(`^[0-9a-f]{24}$`).MatchString(m["id"].(string)) {
		t.Errorf("key %q, id %q", raw, m["id"])
	}
}

func TestCreateSaysAll(t *testing.T) {
	a := newAPI(t)
	metadata := `{"z":1,"a":[1e400,"<b>\u2028"],"n":null,"deep":{"k":"é"}}`
	body := `{"userId":"bob","configId":"default","name":"CI","prefix":"ci_","expiresIn":60,"metadata":` + metadata + `,
		"remaining":100,"refillAmount":200,"refillInterval":3600000,"rateLimitEnabled":false,"rateLimitMax":5,"rateLimitTimeWindow":1000,
		"rateLimitAlgorithm":"token_bucket","permissions":["files:read","files:write","read"],"allowedIps":["192.0.2.7","2001:db8::/32","10.1.2.3/8"],
		"enabled":false,"withSecret":true}`
	r := a.send("POST", "/apikey/keys", body)
	m := r.want(t, 201)
	for name, want := range map[string]string{
		"name": `"CI"`, "prefix": `"ci_"`, "start": `"` + m["key"].(string)[:6] + `"`, "userId": `"bob"`, "enabled": "false",
		"expiresAt": `"2026-11-21T19:10:19.500Z"`, "remaining": "100", "refillAmount": "200", "refillInterval": "3600000", // T5: s, ms
		"rateLimitEnabled": "false", "rateLimitMax": "5", "rateLimitTimeWindow": "1000", "rateLimitAlgorithm": `"token_bucket"`,
		"permissions": `{"api":["read"],"files":["read","write"]}`, "allowedIps": `["192.0.2.7/32","2001:db8::/32","10.0.0.0/8"]`,
	} {
		if got := must(json.Marshal(m[name])); string(got) != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
	if !strings.Contains(string(r.body), `"metadata":`+metadata+`,`) {
		t.Errorf("metadata is not what was sent: %s", r.body)
	}
	if s, _ := m["secret"].(string); !strings.HasPrefix(s, "clsk_") {
		t.Errorf("secret %q", s)
	}
	get := a.send("GET", "/apikey/keys/"+m["id"].(string), "")
	shown := get.want(t, 200)
	for _, once := range []string{"key", "secret"} {
		if _, has := shown[once]; has {
			t.Errorf("%s is shown again", once)
		}
		delete(m, once)
	}
	if a, b := must(json.Marshal(m)), must(json.Marshal(shown)); string(a) != string(b) {
		t.Errorf("created %s\nshown   %s", a, b)
	}
}

// TestRules: the rules of the configuration bind here too, with the codes of
// the reference.
func TestRules(t *testing.T) {
	a := newAPI(t, func(r *keyring.Rules) {
		r.RequireName = true
		r.Expiration.Min, r.Expiration.Max = 60_000, 3_600_000
	})
	id, _ := a.make(`{"userId":"u","name":"n"}`)
	for _, test := range []struct{ body, code, field string }{
		{`"name":null`, "NAME_REQUIRED", "name"},
		{`"name":""`, "INVALID_NAME_LENGTH", "name"},
		{`"name":"` + strings.Repeat("é", 33) + `"`, "INVALID_NAME_LENGTH", "name"},
		{`"name":"a\r\nb"`, "INVALID_FIELD", "name"},
		{`"name":"n","expiresIn":59`, "EXPIRES_IN_IS_TOO_SMALL", "expiresIn"},
		{`"name":"n","expiresIn":3601`, "EXPIRES_IN_IS_TOO_LARGE", "expiresIn"},
		{`"name":"n","metadata":[]`, "INVALID_METADATA_TYPE", "metadata"},
		{`"name":"n","refillAmount":1`, "REFILL_AMOUNT_AND_INTERVAL_REQUIRED", "refillInterval"},
		{`"name":"n","refillInterval":1`, "REFILL_INTERVAL_AND_AMOUNT_REQUIRED", "refillAmount"},
		{`"name":"n","rateLimitMax":1`, "INVALID_FIELD", "rateLimitTimeWindow"},
		{`"name":"n","permissions":["*"]`, "INVALID_FIELD", "permissions"},
		{`"name":"n","allowedIps":["10.0.0.0/33"]`, "INVALID_FIELD", "allowedIps"},
	} {
		a.send("POST", "/apikey/keys", `{"userId":"u",`+test.body+`}`).refused(t, 400, test.code, test.field)
		a.send("PATCH", "/apikey/keys/"+id, `{`+test.body+`}`).refused(t, 400, test.code, test.field)
	}
	a.send("POST", "/apikey/keys", `{"userId":"u","name":"n","prefix":"`+strings.Repeat("p", 33)+`"}`).refused(t, 400, "INVALID_PREFIX_LENGTH", "prefix")
	a.send("POST", "/apikey/keys", `{"userId":"u","name":"n","configId":"x"}`).refused(t, 400, "NO_DEFAULT_API_KEY_CONFIGURATION_FOUND", "configId")
	a.send("POST", "/apikey/keys", `{"userId":"u","name":"n","prefix":"a b"}`).refused(t, 400, "INVALID_FIELD", "prefix")
	for _, userID := range []string{"", ".", "..", "a\\u0000b", strings.Repeat("é", 256)} {
		a.send("POST", "/apikey/keys", `{"name":"n","userId":"`+userID+`"}`).refused(t, 400, "INVALID_FIELD", "userId")
	}
	a.make(`{"name":"n","userId":"` + strings.Repeat("é", 255) + `"}`)
}

// TestDataStaysData: what people write is shown as it is (S9).
func TestDataStaysData(t *testing.T) {
	a := newAPI(t)
	for _, name := range []string{"{env.HOME}", "=cmd()", "<img onerror=x>", "\u202egnp.exe\u200f", "a\u2028b", "%00%0d%0a", "';--", "日本語 🔑", `"\/`, "&<>"} {
		quoted := string(must(api.Marshal(name)))
		r := a.send("POST", "/apikey/keys", `{"userId":"u","name":`+quoted+`}`)
		m := r.want(t, 201)
		got := must(a.Key(t.Context(), m["id"].(string)))
		if m["name"] != name || *got.Value.Name != name {
			t.Errorf("sent %q, got %q and %q", name, m["name"], *got.Value.Name)
		}
		if strings.Contains(name, "<") && !strings.Contains(string(r.body), name) {
			t.Errorf("%q is escaped in %s", name, r.body)
		}
	}
	for _, name := range []string{`a\r\nb`, `a\u0000`, `\u001b[31m`, `a\u0085`, `\ud83d`, `\udc00\ud800`, "\xc3("} {
		a.send("POST", "/apikey/keys", `{"userId":"u","name":"`+name+`"}`).refused(t, 400, "INVALID_FIELD", "name")
	}
	if r := a.send("POST", "/apikey/keys", `{"userId":"u","name":"\ud83d\udd11 \ufffd"}`).want(t, 201); r["name"] != "🔑 \ufffd" {
		t.Errorf("name %q", r["name"])
	}
}

func TestPatchRefuses(t *testing.T) {
	a := newAPI(t)
	id, _ := a.make(`{"userId":"u","rateLimitMax":3,"rateLimitTimeWindow":1000,"remaining":1,"refillAmount":1,"refillInterval":1}`)
	path := "/apikey/keys/" + id
	a.send("PATCH", path, `{}`).refused(t, 400, "NO_VALUES_TO_UPDATE", "")
	a.send("PATCH", path, ``).refused(t, 400, "BAD_REQUEST", "")
	for _, name := range []string{"configId", "prefix", "withSecret", "id", "start", "key", "secret", "requestCount", "lastRequest", "createdAt", "updatedAt", "expiresAt", "tier", "lastRefillAt"} {
		r := a.send("PATCH", path, `{"`+name+`":null}`)
		r.refused(t, 400, "INVALID_FIELD", name)
		if !strings.Contains(string(r.body), "cannot be changed") {
			t.Errorf("%s", r.body)
		}
	}
	for _, name := range []string{"userId", "enabled", "rateLimitEnabled", "remainingDelta"} {
		a.send("PATCH", path, `{"`+name+`":null}`).refused(t, 400, "INVALID_FIELD", name)
	}
	a.send("PATCH", path, `{"rateLimitMax":null,"rateLimitTimeWindow":0}`).refused(t, 400, "INVALID_FIELD", "rateLimitTimeWindow")
	a.send("PATCH", path, `{"refillInterval":null}`).refused(t, 400, "REFILL_AMOUNT_AND_INTERVAL_REQUIRED", "refillInterval")
	a.send("PATCH", "/apikey/keys/nosuch", `{"enabled":false}`).refused(t, 404, "KEY_NOT_FOUND", "")
}

func TestMissingKeys(t *testing.T) {
	a := newAPI(t)
	for _, id := range []string{"nosuch", "%2E%2E", "a%2Fb", "%00", "%ff", strings.Repeat("x", 300), "%F0%9F%94%91", "delete-expired"} {
		a.send("GET", "/apikey/keys/"+id, "").refused(t, 404, "KEY_NOT_FOUND", "")
		a.send("DELETE", "/apikey/keys/"+id, "").refused(t, 404, "KEY_NOT_FOUND", "")
		a.send("POST", "/apikey/keys/"+id+"/rotate", "").refused(t, 404, "KEY_NOT_FOUND", "")
	}
	id, _ := a.make(`{"userId":"u"}`)
	if err := a.DeleteKey(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if e := apiErr(t, a.DeleteKey(t.Context(), id)); e.Status != 404 || e.Code != "KEY_NOT_FOUND" {
		t.Errorf("%+v", e)
	}
}

func TestRotate(t *testing.T) {
	a := newAPI(t)
	created := must(a.CreateKey(t.Context(), CreateKey{UserID: "u", Remaining: ptr(int64(100)), Prefix: ptr("ci_"), WithSecret: ptr(true)})).Value
	raws := []string{created.Raw}
	last := created
	for range 6 {
		last = must(a.RotateKey(t.Context(), created.ID, RotateKey{Grace: ptr(int64(60))})).Value
		raws = append(raws, last.Raw)
	}
	if last.ID != created.ID || *last.Remaining != 100 || last.Secret != "" || !strings.HasPrefix(last.Raw, "ci_") {
		t.Errorf("%+v", last)
	}
	valid := func() (n []int) {
		for i, raw := range raws {
			if must(a.Verify(t.Context(), VerifyKey{Key: raw, Secret: &created.Secret, DryRun: ptr(true)})).Value.Valid {
				n = append(n, i)
			}
		}
		return n
	}
	if got := valid(); !slices.Equal(got, []int{1, 2, 3, 4, 5, 6}) { // five replaced ones and the present one
		t.Errorf("valid: %v", got)
	}
	a.sleep(time.Minute)
	if got := valid(); !slices.Equal(got, []int{6}) {
		t.Errorf("valid after the grace: %v", got)
	}
	raws = append(raws, a.send("POST", "/apikey/keys/"+created.ID+"/rotate", "").want(t, 200)["key"].(string))
	if got := valid(); !slices.Equal(got, []int{7}) {
		t.Errorf("valid after a rotation without grace: %v", got)
	}
	if m := a.send("POST", "/apikey/keys/"+created.ID+"/rotate", `{"withSecret":true}`).want(t, 200); m["secret"] == nil || m["secret"] == created.Secret {
		t.Errorf("secret %v", m["secret"])
	}
	for _, grace := range []int64{key.MaxCount, 251_000_000_000_000} {
		e := apiErr(t, second(a.RotateKey(t.Context(), created.ID, RotateKey{Grace: &grace})))
		if e.Status != 400 || e.Field != "grace" {
			t.Errorf("grace %d: %+v", grace, e)
		}
	}
}

// TestQ28: no replaced raw key outlives the grace of the last rotation, the key shows
// those that work, and end-grace ends them.
func TestQ28(t *testing.T) {
	a := newAPI(t)
	created := must(a.CreateKey(t.Context(), CreateKey{UserID: "u"})).Value
	raws := []string{created.Raw}
	rotate := func(grace int64) Key {
		t.Helper()
		issued := must(a.RotateKey(t.Context(), created.ID, RotateKey{Grace: &grace})).Value
		raws = append(raws, issued.Raw)
		return issued.Key
	}
	wantValid := func(want ...int) {
		t.Helper()
		var valid []int
		for i, raw := range raws {
			if must(a.Verify(t.Context(), VerifyKey{Key: raw, DryRun: ptr(true)})).Value.Valid {
				valid = append(valid, i)
			}
		}
		if !slices.Equal(valid, want) {
			t.Errorf("%v are valid, want %v", valid, want)
		}
	}
	wantPrevious := func(k Key, want ...PreviousKey) {
		t.Helper()
		if !reflect.DeepEqual(k.PreviousKeys, append([]PreviousKey{}, want...)) {
			t.Errorf("previous keys %s, want %s", asJSON(t, k.PreviousKeys), asJSON(t, want))
		}
		if shown := must(a.Key(t.Context(), k.ID)).Value; !reflect.DeepEqual(shown.PreviousKeys, k.PreviousKeys) {
			t.Errorf("shown are %s", asJSON(t, shown.PreviousKeys))
		}
	}
	previous := func(i int, until string, last ...string) PreviousKey {
		p := PreviousKey{Start: ptr(raws[i][:6]), Until: timeAt(t, until)}
		if last != nil {
			p.LastRequest = ptr(timeAt(t, last[0]))
		}
		return p
	}
	a.verify(`{"key":"` + raws[0] + `"}`)
	a.sleep(time.Second)

	wantPrevious(rotate(7*24*3600), previous(0, "2026-11-28T19:09:20.500Z", "2026-11-21T19:09:19.500Z"))
	a.sleep(time.Second)
	a.verify(`{"key":"` + raws[0] + `"}`)
	wantPrevious(rotate(3600),
		previous(0, "2026-11-21T20:09:21.500Z", "2026-11-21T19:09:21.500Z"), previous(1, "2026-11-21T20:09:21.500Z"))
	k := rotate(7200)
	wantPrevious(k, previous(0, "2026-11-21T20:09:21.500Z", "2026-11-21T19:09:21.500Z"),
		previous(1, "2026-11-21T20:09:21.500Z"), previous(2, "2026-11-21T21:09:21.500Z"))
	if k.RotatedAt == nil || *k.RotatedAt != timeAt(t, "2026-11-21T19:09:21.500Z") {
		t.Errorf("rotated at %v", k.RotatedAt)
	}
	wantValid(0, 1, 2, 3)
	a.sleep(time.Hour)
	wantValid(2, 3)
	wantPrevious(must(a.Key(t.Context(), created.ID)).Value, previous(2, "2026-11-21T21:09:21.500Z"))

	for range 2 { // also where there is none left
		wantPrevious(must(a.EndGrace(t.Context(), created.ID)).Value)
		wantValid(3)
	}
	rotate(3600)
	wantValid(3, 4)
	wantPrevious(rotate(0))
	wantValid(5)
	if e := apiErr(t, second(a.EndGrace(t.Context(), "nosuch"))); e.Status != 404 || e.Code != "KEY_NOT_FOUND" {
		t.Errorf("%+v", e)
	}
}

// TestQ31: a rotation may give the key more time, by the rules of its configuration.
func TestQ31(t *testing.T) {
	a := newAPI(t)
	created := must(a.CreateKey(t.Context(), CreateKey{UserID: "u", ExpiresIn: ptr(int64(2 * 24 * 3600))})).Value
	kept := must(a.RotateKey(t.Context(), created.ID, RotateKey{})).Value
	if *kept.ExpiresAt != *created.ExpiresAt {
		t.Errorf("expires at %v", kept.ExpiresAt)
	}
	a.sleep(time.Second)
	longer := must(a.RotateKey(t.Context(), created.ID, RotateKey{ExpiresIn: ptr(int64(3600))})).Value
	if *longer.ExpiresAt != timeAt(t, "2026-11-21T20:09:20.500Z") {
		t.Errorf("expires at %v", longer.ExpiresAt)
	}
	a.send("POST", "/apikey/keys/"+created.ID+"/rotate", `{"expiresIn":0}`).refused(t, 400, "INVALID_FIELD", "expiresIn")
	a.send("POST", "/apikey/keys/"+created.ID+"/rotate", `{"expiresIn":9007199254740991}`).refused(t, 400, "EXPIRES_IN_IS_TOO_LARGE", "expiresIn")
	if shown := must(a.Key(t.Context(), created.ID)).Value; *shown.ExpiresAt != *longer.ExpiresAt || *shown.RotatedAt != *longer.RotatedAt {
		t.Error("a refused rotation has changed the key")
	}
}

func timeAt(t *testing.T, text string) api.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return api.TimeOf(at.UnixMilli())
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := api.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestDeleteExpired(t *testing.T) {
	a := newAPI(t)
	for _, body := range []string{`{"userId":"u"}`, `{"userId":"u","expiresIn":1}`, `{"userId":"u","expiresIn":2}`, `{"userId":"u","expiresIn":3}`} {
		a.make(body)
	}
	a.sleep(2 * time.Second)
	if n := must(a.DeleteExpired(t.Context())); n.Value.Deleted != 2 || string(n.Raw) != "{\"deleted\":2}\n" {
		t.Errorf("%s", n.Raw)
	}
	if m := a.send("POST", "/apikey/keys/delete-expired", `{}`).want(t, 200); fmt.Sprint(m["deleted"]) != "0" {
		t.Errorf("%v", m)
	}
	a.send("POST", "/apikey/keys/delete-expired", `{"all":true}`).refused(t, 400, "INVALID_FIELD", "all")
}
