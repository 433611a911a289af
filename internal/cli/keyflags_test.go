package cli

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
)

// TestCreateTakesFieldsOfAPatch: create and update share flags because the fields
// of both requests have the same names and types.
func TestCreateTakesFieldsOfAPatch(t *testing.T) {
	patch, create := reflect.TypeFor[admin.PatchKey](), reflect.TypeFor[admin.CreateKey]()
	for field := range patch.Fields() {
		if field.Name == "RemainingDelta" {
			continue // only of a patch
		}
		if other, ok := create.FieldByName(field.Name); field.Anonymous && ok && other.Type == field.Type {
			continue
		}
		other, ok := create.FieldByName(field.Name)
		if !ok {
			t.Errorf("CreateKey has no %s", field.Name)
			continue
		}
		name := func(f reflect.StructField) string { return f.Tag.Get("json") }
		if want := name(field); name(other)+",omitzero" != want && name(other) != want {
			t.Errorf("%s: tag %q, of a patch %q", field.Name, name(other), want)
		}
		value, _ := field.Type.FieldByName("Value") // *T
		if other.Type != value.Type && other.Type != value.Type.Elem() {
			t.Errorf("%s: type %s, of a patch %s", field.Name, other.Type, value.Type)
		}
	}
}

// TestKeyFlags: create and update send the same for the same flags, and only what
// was given.
func TestKeyFlags(t *testing.T) {
	for _, tt := range []struct {
		args           []string
		create, update string
	}{
		{nil, ``, ``},
		{[]string{"--name", "a", "--name", "b"}, `,"name":"b"`, `,"name":"b"`},
		{[]string{"--remaining", "unlimited"}, ``, `,"remaining":null`},
		{[]string{"--refill", "5/1m"}, `,"remaining":5,"refillAmount":5,"refillInterval":60000`, `,"refillAmount":5,"refillInterval":60000`},
		{[]string{"--refill", "5/1m", "--remaining", "0"}, `,"remaining":0,"refillAmount":5,"refillInterval":60000`, `,"remaining":0,"refillAmount":5,"refillInterval":60000`},
		{[]string{"--rate-limit-enabled=false"}, `,"rateLimitEnabled":false`, `,"rateLimitEnabled":false`},
		{[]string{"--disabled"}, `,"enabled":false`, `,"enabled":false`},
		{[]string{"--metadata", "b=<1>", "--metadata", "a="}, `,"metadata":{"a":"","b":"<1>"}`, `,"metadata":{"a":"","b":"<1>"}`},
		{[]string{"--metadata-json", `{"b":1.50,"a":"&"}`}, `,"metadata":{"b":1.50,"a":"&"}`, `,"metadata":{"b":1.50,"a":"&"}`},
		{[]string{"--allowed-ip", "::1", "--allowed-ip", "::2"}, `,"allowedIps":["::1","::2"]`, `,"allowedIps":["::1","::2"]`},
		{[]string{"--permission", "b:c", "--permission", "a"}, `,"permissions":{"api":["a"],"b":["c"]}`, `,"permissions":{"api":["a"],"b":["c"]}`},
	} {
		for command, want := range map[string]string{"create": tt.create, "update": tt.update} {
			args := append([]string{command, "--owner", "o"}, tt.args...)
			if command == "update" {
				args = append(args, "id")
			}
			if got := sent(t, args...); got != `{"userId":"o"`+want+`}` {
				t.Errorf("%v: sent %s, want %s", args, got, want)
			}
		}
	}
	for flag, want := range map[string]string{
		"--no-name": `{"name":null}`, "--no-name=false": "", "--no-rate-limit": `{"rateLimitMax":null,"rateLimitTimeWindow":null}`,
		"--no-refill": `{"refillAmount":null,"refillInterval":null}`, "--no-metadata": `{"metadata":null}`, "--add=-1": `{"remainingDelta":-1}`,
	} {
		if got := sent(t, "update", "id", flag); got != want {
			t.Errorf("%s: sent %s, want %s", flag, got, want)
		}
	}
}

// sent returns the body that a command sends, or "" where it sends nothing.
func sent(t *testing.T, args ...string) string {
	t.Helper()
	var body json.RawMessage
	p := recorder(t, &body)
	p.run("", args...) //nolint:errcheck // the answer is empty
	return string(body)
}

// recorder is a peer that keeps the body of a request.
func recorder(t *testing.T, body *json.RawMessage) *peer {
	p := &peer{Server: httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet { // where create asks for the database
			if err := json.NewDecoder(r.Body).Decode(body); err != nil {
				t.Error(err)
			}
		}
		fmt.Fprint(w, "{}")
	}))}
	t.Cleanup(p.Close)
	return p
}
