package admin

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
)

// spec is the parsed OpenAPI document, and a validator of what it says: enough
// of JSON Schema for the words that are used there.
type spec map[string]any

func (s spec) at(path ...string) any {
	var v any = map[string]any(s)
	for _, p := range path {
		m, _ := v.(map[string]any)
		v = m[p]
	}
	return v
}

// check returns what is wrong with a value.
func (s spec) check(schema map[string]any, v any, at string) (faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, at+": "+fmt.Sprintf(format, args...)) }
	for word, arg := range schema {
		switch word {
		case "description", "format":
		case "$ref":
			name := strings.TrimPrefix(arg.(string), "#/components/schemas/")
			target, _ := s.at("components", "schemas", name).(map[string]any)
			if target == nil {
				fault("no schema %v", arg)
			}
			faults = append(faults, s.check(target, v, at)...)
		case "anyOf":
			if !slices.ContainsFunc(arg.([]any), func(o any) bool { return len(s.check(o.(map[string]any), v, at)) == 0 }) {
				fault("fits none of %v", arg)
			}
		case "type":
			types, ok := arg.([]any)
			if !ok {
				types = []any{arg}
			}
			if !slices.Contains(types, any(typeOf(v))) {
				fault("is a %s, want %v", typeOf(v), types)
			}
		case "enum":
			if !slices.Contains(arg.([]any), v) {
				fault("%v is not in %v", v, arg)
			}
		case "pattern":
			if text, ok := v.(string); ok && !regexp.MustCompile(arg.(string)).MatchString(text) {
				fault("%q does not match", text)
			}
		case "minimum", "maximum":
			if n, ok := v.(float64); ok && (word == "minimum" && n < arg.(float64) || word == "maximum" && n > arg.(float64)) {
				fault("%v is out of range", n)
			}
		case "minLength", "maxLength", "minItems", "maxItems":
		case "items":
			list, _ := v.([]any)
			for i, e := range list {
				faults = append(faults, s.check(arg.(map[string]any), e, fmt.Sprintf("%s[%d]", at, i))...)
			}
		case "properties":
			m, _ := v.(map[string]any)
			for name, e := range m {
				if p, ok := arg.(map[string]any)[name]; ok {
					faults = append(faults, s.check(p.(map[string]any), e, at+"."+name)...)
				}
			}
		case "required":
			if m, ok := v.(map[string]any); ok {
				for _, name := range arg.([]any) {
					if _, has := m[name.(string)]; !has {
						fault("lacks %v", name)
					}
				}
			}
		case "additionalProperties":
			m, _ := v.(map[string]any)
			properties, _ := schema["properties"].(map[string]any)
			for name, e := range m {
				if _, known := properties[name]; known {
					continue
				}
				if arg == false {
					fault("has %s", name)
				} else {
					faults = append(faults, s.check(arg.(map[string]any), e, at+"."+name)...)
				}
			}
		default:
			fault("unknown word %s", word)
		}
	}
	return faults
}

func typeOf(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	case float64:
		if v == float64(int64(v)) {
			return "integer"
		}
		return "number"
	case string:
		return "string"
	case []any:
		return "array"
	default:
		return "object"
	}
}

func readSpec(t *testing.T, a *rig) spec {
	t.Helper()
	var s spec
	if err := json.Unmarshal(must(a.OpenAPI(t.Context())), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// checkExport holds the lines of an export against the records in the document.
func (s spec) checkExport(t *testing.T, r reply) {
	t.Helper()
	if ct, cc := r.header.Get("Content-Type"), r.header.Get("Cache-Control"); ct != api.StreamType || cc != "no-store" {
		t.Errorf("Content-Type %q, Cache-Control %q", ct, cc)
	}
	record := func(name string) map[string]any { return s.at("components", "schemas", name).(map[string]any) }
	keys, owners, end := 0, 0, ""
	for line := range strings.Lines(string(r.body)) {
		if end != "" {
			t.Errorf("a line behind the end: %s", line)
		}
		var v map[string]any
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		var faults []string
		switch owner, ok := v["owner"]; {
		case v["format"] != nil:
		case v["end"] != nil:
			end = strings.TrimSpace(line)
		case ok:
			owners++
			faults = s.check(record("OwnerRecord"), owner, "owner")
		default:
			keys++
			faults = s.check(record("KeyRecord"), v, "key")
		}
		for _, f := range faults {
			t.Errorf("export: %s", f)
		}
	}
	if keys == 0 {
		t.Error("no key in the export")
	}
	if want := fmt.Sprintf(`{"end":{"owners":%d,"keys":%d}}`, owners, keys); end != want {
		t.Errorf("the end is %q, want %s", end, want)
	}
}

func TestDocumentHoldsEveryRoute(t *testing.T) {
	s := readSpec(t, newAPI(t))
	if s["openapi"] != "3.1.0" || s.at("info", "version") != "v1.2.3" {
		t.Errorf("openapi %v, info %v", s["openapi"], s["info"])
	}
	documented := 0
	for _, item := range s["paths"].(map[string]any) {
		documented += len(item.(map[string]any))
	}
	all := Routes()
	if documented != len(all) {
		t.Errorf("%d calls documented, %d routes", documented, len(all))
	}
	queries := map[string]any{"listKeys": ListKeys{}, "listOwners": ListOwners{}, "keyUsage": UsageQuery{}, "ownerUsage": UsageQuery{}, "listAudit": ListAudit{}, "report": Report{}, "listDeliveries": ListDeliveries{}}
	bodies := []string{"createKey", "importKeys", "patchKey", "rotateKey", "verifyKey", "putOwner"}
	for _, rt := range all {
		op, _ := s.at("paths", Base+rt.Path, strings.ToLower(rt.Method)).(map[string]any)
		if op == nil || op["operationId"] != rt.Name {
			t.Errorf("%s is not documented: %v", rt.Name, op)
			continue
		}
		var names []string
		parameters, _ := op["parameters"].([]any)
		for _, p := range parameters {
			names = append(names, p.(map[string]any)["name"].(string))
		}
		var want []string
		if m := regexp.MustCompile(`\{(\w+)\}`).FindStringSubmatch(rt.Path); m != nil {
			want = append(want, m[1])
		}
		if q := queries[rt.Name]; q != nil {
			for i := range reflect.TypeOf(q).NumField() {
				want = append(want, reflect.TypeOf(q).Field(i).Tag.Get("query"))
			}
		}
		if !slices.Equal(names, want) {
			t.Errorf("%s: parameters %v, want %v", rt.Name, names, want)
		}
		if _, has := op["requestBody"]; has != slices.Contains(bodies, rt.Name) {
			t.Errorf("%s: request body %v", rt.Name, op["requestBody"])
		}
		for _, status := range []string{fmt.Sprint(rt.Status), "400", "default"} {
			if s.at("paths", Base+rt.Path, strings.ToLower(rt.Method), "responses", status) == nil {
				t.Errorf("%s: no response %s", rt.Name, status)
			}
		}
	}
}

// TestAnswersAreDocumented sends calls and holds the answers against the document (A5).
func TestAnswersAreDocumented(t *testing.T) {
	a := newAPI(t)
	s := readSpec(t, a)
	seen := map[string]bool{}
	do := func(method, pattern, arg, query, body string) map[string]any {
		t.Helper()
		path := regexp.MustCompile(`\{\w+\}`).ReplaceAllString(pattern, arg)
		r := a.send(method, path+query, body)
		responses := s.at("paths", pattern, strings.ToLower(method), "responses").(map[string]any)
		name := fmt.Sprint(r.status)
		response, ok := responses[name].(map[string]any)
		if !ok {
			t.Errorf("%s %s: status %d is not documented: %s", method, path, r.status, r.body)
			return nil
		}
		seen[method+" "+pattern+" "+name] = true
		content, ok := response["content"].(map[string]any)
		if !ok {
			if len(r.body) != 0 {
				t.Errorf("%s %s: undocumented body %s", method, path, r.body)
			}
			return nil
		}
		if content[BackupType] != nil {
			checkBackup(t, r)
			return nil
		}
		if content[api.StreamType] != nil {
			s.checkExport(t, r)
			return nil
		}
		var v map[string]any
		if err := json.Unmarshal(r.body, &v); err != nil {
			t.Fatal(err)
		}
		for _, f := range s.check(content["application/json"].(map[string]any)["schema"].(map[string]any), v, "answer") {
			t.Errorf("%s %s: %s", method, path, f)
		}
		if strings.Contains(strings.ToLower(string(r.body)), "hash") && pattern != "/apikey/openapi.json" {
			t.Errorf("%s %s: %s", method, path, r.body)
		}
		return v
	}
	const keys, one, owner = "/apikey/keys", "/apikey/keys/{id}", "/apikey/owners/{userId}"
	bare := do("POST", keys, "", "", `{"userId":"u"}`)
	full := do("POST", keys, "", "", `{"userId":"u","name":"n","prefix":"ci_","expiresIn":60,"metadata":{"a":1},"remaining":1,"refillAmount":2,
		"refillInterval":1000,"rateLimitMax":2,"rateLimitTimeWindow":60000,"permissions":{"a":["b"]},"allowedIps":["::/0"],"withSecret":true}`)
	do("POST", keys, "", "", `{"userId":"u","name":""}`)
	do("POST", keys, "", "", `{"userId":"u","metadata":"`+strings.Repeat("x", 64<<10)+`"}`)
	id, raw := full["id"].(string), full["key"].(string)
	do("GET", keys, "", "", "")
	do("GET", keys, "", "?limit=1", "")
	do("GET", keys, "", "?limit=0", "")
	do("GET", one, id, "", "")
	do("GET", one, "nosuch", "", "")
	do("PATCH", one, id, "", `{"enabled":true}`)
	do("PATCH", one, id, "", `{}`)
	do("PATCH", one, id, "", `{"remainingDelta":-9}`)
	do("POST", "/apikey/verify", "", "", `{"key":"`+raw+`"}`)
	do("POST", "/apikey/verify", "", "", `{"key":"`+raw+`"}`)
	do("POST", "/apikey/verify", "", "", `{"key":"`+bare["key"].(string)+`"}`)
	do("POST", "/apikey/verify", "", "", `{"key":""}`)
	do("POST", "/apikey/verify", "", "", `{}`)
	do("POST", one+"/rotate", id, "", "")
	do("POST", one+"/rotate", id, "", `{"withSecret":true}`)
	do("POST", one+"/rotate", id, "", `{"grace":60}`)
	do("POST", one+"/end-grace", id, "", "")
	do("PATCH", one, id, "", `{"enabled":false}`)
	do("POST", keys+"/delete-expired", "", "", "")
	do("GET", "/apikey/owners", "", "", "")
	do("GET", "/apikey/tiers", "", "", "")
	do("GET", "/apikey/configs", "", "", "")
	do("GET", "/apikey/report", "", "", "")
	do("GET", "/apikey/report", "", "?limit=0", "")
	do("GET", owner, "u", "", "")
	do("GET", owner, "nosuch", "", "")
	do("PUT", owner, "u", "", `{"enabled":false}`)
	do("PUT", owner, "u", "", `{"tier":"x"}`)
	do("GET", one+"/usage", id, "", "")
	do("GET", one+"/usage", id, "?days=0", "")
	do("GET", one+"/usage", "nosuch", "", "")
	do("GET", owner+"/usage", "u", "?days=366", "")
	do("GET", owner+"/usage", "nosuch", "", "")
	do("GET", keys+"/export", "", "", "")
	do("POST", keys+"/import", "", "", `{"keys":[{"id":"i","userId":"w","hash":"`+strings.Repeat("0", 64)+`"},{"id":"i"}],"owners":[{"userId":"u"},{"userId":"v","tier":"x"}]}`)
	do("POST", keys+"/import", "", "", `{}`)
	do("POST", keys+"/import", "", "", `{"keys":[`+strings.Repeat(" ", 4<<20)+`]}`)
	do("DELETE", one, id, "", "")
	do("DELETE", one, id, "", "")
	do("DELETE", owner, "u", "", "")
	do("GET", "/apikey/audit", "", "", "")
	do("GET", "/apikey/audit", "", "?limit=0", "")
	do("GET", "/apikey/webhooks", "", "", "")
	do("GET", "/apikey/webhooks", "", "?state=lost", "")
	do("POST", "/apikey/webhooks/{id}/retry", a.undelivered(), "", "")
	do("POST", "/apikey/webhooks/{id}/retry", "nosuch", "", "")
	do("GET", "/apikey/backup", "", "", "")
	do("GET", "/apikey/health", "", "", "")
	do("GET", "/apikey/openapi.json", "", "", "")
	a.breakStore(broken{err: errStore})
	do("GET", "/apikey/health", "", "", "")
	do("GET", one, id, "", "")
	for _, rt := range Routes() {
		if !seen[rt.Method+" "+Base+rt.Path+" "+fmt.Sprint(rt.Status)] {
			t.Errorf("%s was not tried", rt.Name)
		}
	}
}

// TestBodiesAreDocumented: what the document says of a body is what is accepted.
func TestBodiesAreDocumented(t *testing.T) {
	a := newAPI(t)
	s := readSpec(t, a)
	id, _ := a.make(`{"userId":"u"}`)
	for _, test := range []struct {
		schema, method, path string
		base                 map[string]any
	}{
		{"CreateKey", "POST", "/apikey/keys", map[string]any{"userId": "u"}},
		{"PatchKey", "PATCH", "/apikey/keys/" + id, nil},
		{"RotateKey", "POST", "/apikey/keys/" + id + "/rotate", nil},
		{"VerifyKey", "POST", "/apikey/verify", map[string]any{"key": "k"}},
		{"PutOwner", "PUT", "/apikey/owners/u", nil},
	} {
		schema := s.at("components", "schemas", test.schema).(map[string]any)
		for name := range schema["properties"].(map[string]any) {
			for _, value := range []any{nil, true, -1.0, 0.0, 1.0, 1.5, 9007199254740992.0, "x", "192.0.2.1", []any{}, []any{"a:b"}, []any{"::1"}, []any{1.0}, map[string]any{}, map[string]any{"a": []any{"b"}}, map[string]any{"a": 1.0}} {
				body := map[string]any{}
				maps.Copy(body, test.base)
				body[name] = value
				r := a.send(test.method, test.path, string(must(json.Marshal(body))))
				documented := s.check(schema, body, "body")
				if r.status < 300 && len(documented) > 0 {
					t.Errorf("%s.%s = %v is accepted: %v", test.schema, name, value, documented)
				}
				if kind := typeOf(value); r.status == 400 && len(documented) == 0 && (kind == "null" || kind == "boolean" || kind == "object") {
					t.Errorf("%s.%s = %v is refused: %s", test.schema, name, value, r.body)
				}
			}
		}
	}
}

// TestKeyOrder: a key object has its fields in the order of the contract.
func TestKeyOrder(t *testing.T) {
	want := "id configId name start prefix userId enabled permissions metadata tier remaining refillAmount refillInterval lastRefillAt " +
		"rateLimitEnabled rateLimitMax rateLimitTimeWindow rateLimitAlgorithm requestCount lastRequest allowedIps expiresAt createdAt updatedAt"
	a := newAPI(t)
	doc := string(must(a.OpenAPI(t.Context())))
	doc = doc[strings.Index(doc, `"Key":{`):]
	at := 0
	for name := range strings.FieldsSeq(want) {
		i := strings.Index(doc[at:], `"`+name+`":{"`)
		if i < 0 {
			t.Fatalf("%s is not where it should be", name)
		}
		at += i
	}
}
