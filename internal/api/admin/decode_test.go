package admin

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
)

// marker stands in sent values; no answer may hold it.
const marker = "SENTVALUE"

// badValues are JSON values, good for nothing but what okFor says.
var badValues = []string{
	"-1", "0", "1e400", "NaN", "9007199254740992", "9223372036854775807", "92233720368547758070", `"5"`, "1.5", "5e0", "1.0",
	"-0", "+1", "01", "0x1", "Infinity", "true", "null", "[]", "{}", `"` + marker + `"`, `["` + marker + `"]`, `{"` + marker + `":1}`,
	"[null]", `{"files":null}`, `{"files":"read"}`, `{"a":1,"a":2}`, `"\ud800"`, "\"\xff\"", `""`,
}

// okFor are the bad values that a field takes after all.
var okFor = map[string][]string{
	"string":      {`"5"`, `"` + marker + `"`},
	"count":       {"0"},
	"bool":        {"true"},
	"metadata":    {"{}", `{"` + marker + `":1}`, `{"files":null}`, `{"files":"read"}`},
	"permissions": {"[]", "{}", `["` + marker + `"]`},
	"text":        {`"5"`, `"` + marker + `"`, `""`},
	"tier":        {},
}

var createFields = map[string]string{
	"userId": "string", "configId": "", "name": "string", "prefix": "string", "expiresIn": "", "metadata": "metadata",
	"remaining": "count", "refillAmount": "", "refillInterval": "", "rateLimitEnabled": "bool", "rateLimitMax": "",
	"rateLimitTimeWindow": "", "rateLimitAlgorithm": "", "permissions": "permissions", "allowedIps": "", "enabled": "bool",
	"withSecret": "bool",
}

// checkFields sends each bad value in each field.
func checkFields(t *testing.T, a *rig, fields map[string]string, nullOK func(name string) bool, method, path string, others map[string]string) {
	for name, kind := range fields {
		for _, value := range badValues {
			ok := slices.Contains(okFor[kind], value) || value == "null" && nullOK(name)
			members := map[string]string{}
			maps.Copy(members, others)
			members[name] = value
			var body []string
			for n, v := range members {
				body = append(body, fmt.Sprintf("%q:%s", n, v))
			}
			slices.SortFunc(body, func(a, b string) int { return strings.Compare(b, a) })
			r := a.send(method, path, "{"+strings.Join(body, ",")+"}")
			if ok {
				if r.status >= 300 {
					t.Errorf("%s = %s: %d %s", name, value, r.status, r.body)
				}
				continue
			}
			m := r.object(t)
			if r.status != 400 || m["field"] != name {
				t.Errorf("%s = %s: %d %s", name, value, r.status, r.body)
			}
			if strings.Contains(string(r.body), marker) {
				t.Errorf("%s = %s is repeated: %s", name, value, r.body)
			}
		}
	}
}

func TestK10_BadValuesInCreate(t *testing.T) {
	a := newAPI(t)
	checkFields(t, a, createFields, func(n string) bool { return n != "userId" }, "POST", "/apikey/keys", map[string]string{"userId": `"u"`})
}

func TestK10_BadValuesInPatch(t *testing.T) {
	a := newAPI(t)
	fields := maps.Clone(createFields)
	for _, name := range []string{"configId", "prefix", "withSecret"} {
		delete(fields, name)
	}
	// Without limits, so that null clears nothing that another field needs.
	id, _ := a.make(`{"userId":"u"}`)
	notNull := []string{"userId", "enabled", "rateLimitEnabled"}
	checkFields(t, a, fields, func(n string) bool { return !slices.Contains(notNull, n) }, "PATCH", "/apikey/keys/"+id, nil)
}

func TestK10_BadValuesElsewhere(t *testing.T) {
	a := newAPI(t)
	id, _ := a.make(`{"userId":"u"}`)
	yes := func(string) bool { return true }
	checkFields(t, a, map[string]string{"grace": "count", "withSecret": "bool", "expiresIn": ""}, yes, "POST", "/apikey/keys/"+id+"/rotate", nil)
	checkFields(t, a, map[string]string{
		"key": "text", "secret": "text", "permissions": "permissions", "cost": "count", "dryRun": "bool", "ip": "", "configId": "text",
	}, func(n string) bool { return n != "key" }, "POST", "/apikey/verify", map[string]string{"key": `"k"`})
	checkFields(t, a, map[string]string{"tier": "tier", "enabled": "bool"}, func(n string) bool { return n == "tier" }, "PUT", "/apikey/owners/u", nil)
}

func TestK10_RemainingDelta(t *testing.T) {
	a := newAPI(t)
	id, _ := a.make(`{"userId":"u","remaining":5}`)
	path := "/apikey/keys/" + id
	for _, value := range []string{"9007199254740992", "-9007199254740992", "1.5", `"1"`, "null", "true", "-0", "1e2", "[]", "{}"} {
		a.send("PATCH", path, `{"remainingDelta":`+value+`}`).refused(t, 400, "INVALID_FIELD", "remainingDelta")
	}
	a.send("PATCH", path, `{"remainingDelta":-6}`).refused(t, 409, "USAGE_EXCEEDED", "remainingDelta")
	a.send("PATCH", path, `{"remainingDelta":-9007199254740991}`).refused(t, 409, "USAGE_EXCEEDED", "remainingDelta")
	a.send("PATCH", path, `{"remainingDelta":1,"remaining":1}`).refused(t, 400, "INVALID_FIELD", "remainingDelta")
	for _, step := range []struct{ delta, want string }{
		{"-5", "0"}, {"0", "0"}, {"3", "3"}, {"9007199254740991", "9007199254740991"}, {"1", "9007199254740991"},
	} {
		m := a.send("PATCH", path, `{"remainingDelta":`+step.delta+`}`).want(t, 200)
		if got := fmt.Sprint(m["remaining"]); got != step.want {
			t.Errorf("after %s: remaining %s, want %s", step.delta, got, step.want)
		}
	}
	unlimited, _ := a.make(`{"userId":"u"}`)
	a.send("PATCH", "/apikey/keys/"+unlimited, `{"remainingDelta":1}`).refused(t, 400, "INVALID_FIELD", "remainingDelta")
}

func TestBodies(t *testing.T) {
	a := newAPI(t)
	deep := strings.Repeat(`{"a":`, 3000) + "1" + strings.Repeat("}", 3000)
	for _, test := range []struct {
		name, body  string
		code, field string
	}{
		{"no object", `[]`, "BAD_REQUEST", ""},
		{"null", `null`, "BAD_REQUEST", ""},
		{"text", `"userId"`, "BAD_REQUEST", ""},
		{"empty", ``, "BAD_REQUEST", ""},
		{"blank", " \n", "BAD_REQUEST", ""},
		{"byte order mark", "\ufeff{}", "BAD_REQUEST", ""},
		{"UTF-16", "{\x00\"\x00", "BAD_REQUEST", ""},
		{"cut off", `{"userId":"u"`, "BAD_REQUEST", ""},
		{"cut off in a value", `{"userId":"u`, "INVALID_FIELD", "userId"},
		{"trailing garbage", `{"userId":"u"} x`, "BAD_REQUEST", ""},
		{"second object", `{"userId":"u"}{}`, "BAD_REQUEST", ""},
		{"trailing comma", `{"userId":"u",}`, "BAD_REQUEST", ""},
		{"no comma", `{"userId":"u" "name":"n"}`, "BAD_REQUEST", ""},
		{"no colon", `{"userId" "u"}`, "INVALID_FIELD", "userId"},
		{"wrong bracket", `{"userId":"u"]`, "BAD_REQUEST", ""},
		{"comment", `{"userId":"u" /* c */}`, "BAD_REQUEST", ""},
		{"missing", `{}`, "INVALID_FIELD", "userId"},
		{"unknown", `{"userId":"u","nosuch":1}`, "INVALID_FIELD", "nosuch"},
		{"wrong case", `{"USERID":"u"}`, "INVALID_FIELD", "USERID"},
		{"wrong case beside", `{"userId":"u","userid":"v"}`, "INVALID_FIELD", "userid"},
		{"look-alike", `{"u\u017ferId":"u"}`, "BAD_REQUEST", ""},
		{"repeated", `{"userId":"u","userId":"u"}`, "INVALID_FIELD", "userId"},
		{"repeated by escape", `{"userId":"u","user\u0049d":"v"}`, "INVALID_FIELD", "userId"},
		{"repeated null", `{"userId":"u","name":null,"name":null}`, "INVALID_FIELD", "name"},
		{"read-only", `{"userId":"u","id":"x"}`, "INVALID_FIELD", "id"},
		{"hash", `{"userId":"u","hash":"x"}`, "INVALID_FIELD", "hash"},
		{"prototype", `{"userId":"u","__proto__":{}}`, "INVALID_FIELD", "__proto__"},
		{"empty name", `{"userId":"u","":1}`, "BAD_REQUEST", ""},
		{"a key as name", `{"userId":"u","ak_` + strings.Repeat(marker, 7) + `":1}`, "BAD_REQUEST", ""},
		{"markup as name", `{"userId":"u","<img onerror=x>":1}`, "BAD_REQUEST", ""},
		{"name that is not UTF-8", "{\"userId\":\"u\",\"n\xffme\":1}", "BAD_REQUEST", ""},
		{"repeated in metadata", `{"userId":"u","metadata":{"a":[{"b":1,"b":2}]}}`, "INVALID_FIELD", "metadata"},
		{"repeated in permissions", `{"userId":"u","permissions":{"a":["b"],"a":["c"]}}`, "INVALID_FIELD", "permissions"},
		{"not UTF-8 in metadata", "{\"userId\":\"u\",\"metadata\":{\"a\":\"\xff\"}}", "INVALID_FIELD", "metadata"},
		{"metadata too long", `{"userId":"u","metadata":{"a":"` + strings.Repeat("x", 16<<10) + `"}}`, "INVALID_FIELD", "metadata"},
		{"metadata too deep", `{"userId":"u","metadata":` + deep + `}`, "INVALID_FIELD", "metadata"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := a.send("POST", "/apikey/keys", test.body)
			r.refused(t, 400, test.code, test.field)
			if strings.Contains(string(r.body), marker) {
				t.Errorf("repeated: %s", r.body)
			}
		})
	}
	if list := must(a.ListKeys(t.Context(), ListKeys{})); *list.Value.Total != 0 {
		t.Errorf("%d keys were made", *list.Value.Total)
	}
}

func TestBodySize(t *testing.T) {
	a := newAPI(t)
	fit := `{"userId":"u"` + strings.Repeat(" ", api.MaxBody-14) + `}`
	a.send("POST", "/apikey/keys", fit).want(t, 201)
	a.send("POST", "/apikey/keys", fit+" ").refused(t, 413, "PAYLOAD_TOO_LARGE", "")
	a.send("POST", "/apikey/keys", `{"userId":"u","name":"`+strings.Repeat("x", 64<<10)+`"}`).refused(t, 413, "PAYLOAD_TOO_LARGE", "")
	a.send("POST", "/apikey/keys", `{"userId":"u","name":"`+strings.Repeat("x", 60<<10)+`"}`).refused(t, 400, "INVALID_NAME_LENGTH", "name")
	// A body whose length is not announced is bounded too.
	req := must(newChunked(a.Base+"/apikey/keys", strings.Repeat("x", 1<<20)))
	resp := must(a.HTTP.Do(req))
	resp.Body.Close()
	if resp.StatusCode != 413 {
		t.Errorf("chunked: status %d", resp.StatusCode)
	}
}

func TestContentTypes(t *testing.T) {
	a := newAPI(t)
	for _, ok := range []string{"application/json", "application/json; charset=utf-8", "Application/JSON;charset=UTF-8"} {
		a.send("POST", "/apikey/keys", `{"userId":"u"}`, "Content-Type", ok).want(t, 201)
	}
	a.send("POST", "/apikey/keys", `{"userId":"u"}`, "X-None", "1").want(t, 201)
	for _, bad := range []string{"text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/json; charset=latin1", "application/jsonp", ";", "application/merge-patch+json"} {
		a.send("POST", "/apikey/keys", `{"userId":"u"}`, "Content-Type", bad).refused(t, 415, "UNSUPPORTED_MEDIA_TYPE", "")
	}
}

func TestQueries(t *testing.T) {
	a := newAPI(t)
	for _, test := range []struct{ query, code, field string }{
		{"limit=0", "INVALID_FIELD", "limit"},
		{"limit=501", "INVALID_FIELD", "limit"},
		{"limit=-1", "INVALID_FIELD", "limit"},
		{"limit=1e2", "INVALID_FIELD", "limit"},
		{"limit=05", "INVALID_FIELD", "limit"},
		{"limit=", "INVALID_FIELD", "limit"},
		{"limit=1000000000", "INVALID_FIELD", "limit"},
		{"limit=%201", "INVALID_FIELD", "limit"},
		{"limit=1&limit=1", "INVALID_FIELD", "limit"},
		{"enabled=1", "INVALID_FIELD", "enabled"},
		{"enabled=TRUE", "INVALID_FIELD", "enabled"},
		{"enabled=", "INVALID_FIELD", "enabled"},
		{"sort=id", "INVALID_FIELD", "sort"},
		{"sort=", "INVALID_FIELD", "sort"},
		{"sort=--name", "INVALID_FIELD", "sort"},
		{"sort=Name", "INVALID_FIELD", "sort"},
		{"cursor=" + marker, "INVALID_FIELD", "cursor"},
		{"cursor=%00", "INVALID_FIELD", "cursor"},
		{"userId=", "INVALID_FIELD", "userId"},
		{"userId=%00", "INVALID_FIELD", "userId"},
		{"userId=%ff", "INVALID_FIELD", "userId"},
		{"userId=" + strings.Repeat("x", 256), "INVALID_FIELD", "userId"},
		{"prefix=", "INVALID_FIELD", "prefix"},
		{"configId=", "INVALID_FIELD", "configId"},
		{"q=" + strings.Repeat("%25", 256), "INVALID_FIELD", "q"},
		{"USERID=a", "INVALID_FIELD", "USERID"},
		{"offset=1", "INVALID_FIELD", "offset"},
		{"key=ak_" + marker, "INVALID_FIELD", "key"},
		{"ak_" + strings.Repeat(marker, 8), "BAD_REQUEST", ""},
		{"a;b", "BAD_REQUEST", ""},
		{"limit=%zz", "BAD_REQUEST", ""},
	} {
		r := a.send("GET", "/apikey/keys?"+test.query, "")
		r.refused(t, 400, test.code, test.field)
		if strings.Contains(string(r.body), marker) {
			t.Errorf("%s is repeated: %s", test.query, r.body)
		}
	}
	a.send("GET", "/apikey/keys?q=&cursor=&limit=500", "").want(t, 200)
	for _, path := range []string{"/apikey/keys/x", "/apikey/owners/x", "/apikey/health", "/apikey/openapi.json"} {
		a.send("GET", path+"?verbose=1", "").refused(t, 400, "INVALID_FIELD", "verbose")
	}
	a.send("POST", "/apikey/keys/delete-expired?all=1", "").refused(t, 400, "INVALID_FIELD", "all")
}
