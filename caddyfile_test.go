package apikey

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/caddyauth"                // the directive basic_auth
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy/forwardauth" // the directive forward_auth
)

// adapt turns a Caddyfile into JSON. Its errors call it "Caddyfile".
func adapt(source []byte) ([]byte, []caddyconfig.Warning, error) {
	return caddyconfig.GetAdapter("caddyfile").Adapt(source, map[string]any{"filename": "Caddyfile"})
}

// TestCaddyfile runs the files of testdata/caddyfile: a Caddyfile, a line of ten
// dashes, and the JSON that it stands for ("ok") or the error it gives ("fail").
// An error names file and line.
func TestCaddyfile(t *testing.T) {
	files, err := filepath.Glob("testdata/caddyfile/*/*.caddyfiletest")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(strings.TrimPrefix(file, "testdata/caddyfile/"), ".caddyfiletest"), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			source, want, ok := bytes.Cut(b, []byte("\n----------\n"))
			if !ok {
				t.Fatal("no line of ten dashes")
			}
			got, warnings, err := adapt(append(source, '\n'))
			if strings.Contains(file, "/fail/") {
				text := strings.TrimSpace(string(want))
				if err == nil || !strings.Contains(err.Error(), text) {
					t.Errorf("error is\n%v\nwant\n%s", err, text)
				}
				if !strings.Contains(text, "Caddyfile:") {
					t.Error("the expected error names no line")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(warnings) > 0 {
				t.Errorf("warnings: %v", warnings)
			}
			if !sameJSON(t, got, want) {
				var indented bytes.Buffer
				json.Indent(&indented, got, "", "\t") //nolint:errcheck // it is valid
				t.Errorf("got\n%s", indented.String())
			}
			if err := validate(got); err != nil {
				t.Errorf("cannot be used: %v", err)
			}
		})
	}
}

func sameJSON(t *testing.T, a, b []byte) bool {
	t.Helper()
	var x, y any
	if err := json.Unmarshal(a, &x); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &y); err != nil {
		t.Fatalf("expected JSON: %v", err)
	}
	return reflect.DeepEqual(x, y)
}

// validate does what "caddy validate" does.
func validate(config []byte) error {
	var c caddy.Config
	if err := caddy.StrictUnmarshalJSON(config, &c); err != nil {
		return err
	}
	c.Admin = &caddy.AdminConfig{Disabled: true}
	return caddy.Validate(&c)
}

// TestJSONErrors checks that a configuration in JSON that could never work is
// refused like one in a Caddyfile.
func TestJSONErrors(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	for _, row := range []struct{ app, gate, want string }{
		{`{}`, `{}`, ""},
		{``, `{}`, ""},
		{`{"headers": ["X-Key"]}`, `{"identity_headers": [{"name": "X-Api-Key", "value": "{x}"}]}`, ""},
		{`{"keep": 1}`, `{}`, "keep"},
		{`{"headers": ["X_Key"]}`, `{}`, `headers: X_key can never match`},
		{`{"headers": ["X Key"]}`, `{}`, `headers: "X Key" is not a valid header name`},
		{`{"headers": [""]}`, `{}`, `headers: "" is not a valid header name`},
		{`{"headers": ["X-A", "x-a"]}`, `{}`, "headers: X-A already specified"},
		{`{"headers": ["Authorization"]}`, `{}`, `use the option authorization`},
		{`{"headers": ["X-API-Secret"]}`, `{}`, "reserved for the secret"},
		{`{"headers": ["Connection"]}`, `{}`, "a header of the connection"},
		{`{"headers": [], "authorization": []}`, `{}`, "requests could not carry a key"},
		{`{"prefix": "a b"}`, `{}`, "prefix: must be"},
		{`{"secret_prefix": "é"}`, `{}`, "secret_prefix: must be"},
		{`{"length": 32}`, `{}`, "length: must be from 33"},
		{`{"length": 481}`, `{}`, "length: must be from 33"},
		{`{"length": -1}`, `{}`, "length: must be from 33"},
		{`{"length": 9223372036854775807}`, `{}`, "length: must be from 33"},
		{`{"start": 13}`, `{}`, "start: must be from"},
		{`{"start": -1}`, `{}`, "start: must be from"},
		{`{"name_length": {"min": 5, "max": 4}}`, `{}`, "name_length: must be a minimum and a maximum"},
		{`{"prefix_length": {"min": 1, "max": 33}}`, `{}`, "prefix_length: must be a minimum and a maximum"},
		{`{"expiration": {"min": "2d", "max": "1d"}}`, `{}`, "expiration min: must not be above max"},
		{`{"expiration": {"default": "1ms"}}`, `{}`, "expiration default: must be at least one second"},
		{`{"expiration": {"keep": "-1s"}}`, `{}`, "expiration keep"},
		{`{"expiration": {"keep": "often"}}`, `{}`, "often"},
		{`{"rate_limit": {"max": 0, "window": "1m"}}`, `{}`, "rate_limit: the maximum"},
		{`{"rate_limit": {"max": 1, "window": 0}}`, `{}`, "rate_limit: the window"},
		{`{"rate_limit": {"max": 1, "window": 1500}}`, `{}`, "rate_limit: the window"},
		{`{"rate_limit": {"max": 1, "window": "1m", "algorithm": "x"}}`, `{}`, "rate_limit: the algorithm"},
		{`{"permissions": ["*"]}`, `{}`, "permissions:"},
		{`{"permissions": ["*:read"]}`, `{}`, "permissions:"},
		{`{"generator": {"generator": "none"}}`, `{}`, "there is no generator"},
		{`{"validators": [{"validator": "match", "pattern": "("}]}`, `{}`, "missing closing )"},
		{`{"validators": [{"validator": "match"}]}`, `{}`, "the pattern is missing"},
		{`{"validators": [{"validator": "match", "pattern": "^xx_"}]}`, `{}`, "this configuration cannot create keys"},
		{`{"rate_limit": {}, "permissions": [], "validators": [], "expiration": {"default": 0, "min": 0, "max": 0}}`, `{}`, ""},
		{`{"configs": [{"id": "pub", "prefix": "pub_"}]}`, `{"configs": ["pub", "default"]}`, ""},
		{`{"validators": [{"validator": "match", "pattern": "^ak_"}], "configs": [{"id": "pub", "prefix": "pub_", "validators": []}]}`, `{}`, ""},
		{`{"configs": [{}]}`, `{}`, "config: the id must be 1 to 64"},
		{`{"configs": [{"id": "a/b"}]}`, `{}`, "config: the id must be 1 to 64"},
		{`{"configs": [{"id": "default"}]}`, `{}`, `config: "default" is reserved`},
		{`{"configs": [{"id": "a"}, {"id": "b"}, {"id": "a"}]}`, `{}`, "config a already specified"},
		{`{"configs": [{"id": "a", "tiers": []}]}`, `{}`, "tiers"},
		{`{"configs": [{"id": "a", "start": 13}]}`, `{}`, "config a: start: must be"},
		{`{"configs": [{"id": "a", "expiration": {"min": "2d"}}], "expiration": {"max": "1d"}}`, `{}`, "config a, with inherited options: expiration min"},
		{`{"configs": [{"id": "a", "generator": {"generator": "none"}}]}`, `{}`, "config a: generator: there is no generator"},
		{`{"validators": [{"validator": "match", "pattern": "^ak_"}], "configs": [{"id": "pub", "prefix": "pub_"}]}`, `{}`, "config pub: this configuration cannot create keys"},
		{`{"store": {"store": "none"}}`, `{}`, "there is no store"},
		{`{"store": {"store": "sqlite", "path": 1}}`, `{}`, "sqlite"},
		{`{"table_prefix": "a b"}`, `{}`, "table"},
		{`{}`, `{"hedaers": ["X-Key"]}`, "hedaers"},
		{`{}`, `{"headers": ["X.Key"]}`, "headers: X.key can never match"},
		{`{}`, `{"headers": [], "authorization": []}`, "requests could not carry a key"},
		{`{}`, `{"query": "a&b"}`, "query: must be the name"},
		{`{}`, `{"from": "x"}`, "from: must be a placeholder"},
		{`{}`, `{"from": "{"}`, "from: must be a placeholder"},
		{`{}`, `{"from": "{}"}`, "from: must be a placeholder"},
		{`{}`, `{"from": "{a}{b}"}`, "from: must be a placeholder"},
		{`{}`, `{"from": "{http.request.header.X_Key}"}`, "can never match"},
		{`{}`, `{"from": "{a}", "authorization": ["Bearer"]}`, "from: cannot be combined"},
		{`{}`, `{"from": "{a}", "query": "b"}`, "from: cannot be combined"},
		{`{}`, `{"from": "{a}", "headers": ["X-B"]}`, "from: cannot be combined"},
		{`{}`, `{"configs": ["default"]}`, ""},
		{`{}`, `{"configs": []}`, "config: the list is empty"},
		{`{}`, `{"configs": ["default", "default"]}`, `config: "default" already specified`},
		{`{}`, `{"configs": ["pub"]}`, `config: there is no configuration "pub": it must be one of "default"`},
		{`{"configs": [{"id": "pub"}, {"id": "sec"}]}`, `{"configs": ["sec", "Pub"]}`, `there is no configuration "Pub": it must be one of "default", "pub", "sec"`},
		{`{}`, `{"require": ["a b"]}`, "permission:"},
		{`{}`, `{"require_any": [["*"]]}`, "permission:"},
		{`{}`, `{"require_any": [[]]}`, "require_any: the list is empty"},
		{`{}`, `{"cost": -1}`, "cost: must be an integer"},
		{`{}`, `{"cost": "1.5"}`, "cost: must be an integer"},
		{`{}`, `{"cost": "{a"}`, "cost: must be an integer"},
		{`{}`, `{"cost": "9007199254740992"}`, "cost: must be an integer"},
		{`{}`, `{"secret": "maybe"}`, "secret: must be"},
		{`{}`, `{"rate_headers": "new"}`, "rate_headers: must be"},
		{`{}`, `{"refund_on": [99]}`, "refund_on: must be"},
		{`{}`, `{"refund_on": [600]}`, "refund_on: must be"},
		{`{}`, `{"identity_headers": [{"name": "X_User", "value": "{x}"}]}`, "identity_header: X_User must be written"},
		{`{}`, `{"identity_headers": [{"name": "X-User"}]}`, "X-User has no value"},
		{`{}`, `{"identity_headers": [{"name": "X-User", "value": "a\nb"}]}`, "control character"},
		{`{}`, `{"identity_headers": [{"name": "X-User", "value": "a"}, {"name": "x-user", "value": "b"}]}`, "X-User already specified"},
		{`{}`, `{"identity_headers": [{"name": "Connection", "value": "a"}]}`, "a header of the connection"},
		{`{}`, `{"identity_headers": [{"name": "Authorization", "value": "a"}]}`, "carries a credential"},
		{`{}`, `{"identity_headers": [{"name": "X-API-Key", "value": "a"}]}`, "carries a credential"},
		{`{"headers": ["X-Key"]}`, `{"identity_headers": [{"name": "X-Key", "value": "a"}]}`, "carries a credential"},
		{`{}`, `{"headers": ["X-Key"], "identity_headers": [{"name": "x-key", "value": "a"}]}`, "carries a credential"},
		{`{}`, `{"from": "{http.request.header.x-token}", "identity_headers": [{"name": "X-Token", "value": "a"}]}`, "carries a credential"},
		{`{}`, `{"from": "{http.request.cookie.key}", "identity_headers": [{"name": "Cookie", "value": "a"}]}`, "carries a credential"},
	} {
		app := ""
		if row.app != "" {
			app = `"apikey": ` + row.app + `, `
		}
		gate := strings.Replace(row.gate, "{", `{"handler": "apikey", `, 1)
		gate = strings.Replace(gate, `, }`, `}`, 1)
		err := validate([]byte(`{"apps": {` + app + `"http": {"servers": {"s": {"listen": [":0"], "routes": [{"handle": [` + gate + `]}]}}}}}`))
		switch {
		case row.want == "" && err != nil:
			t.Errorf("app %s, gate %s: %v", row.app, row.gate, err)
		case row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)):
			t.Errorf("app %s, gate %s: error is %v, want %s", row.app, row.gate, err, row.want)
		}
	}
}

// TestSelfServiceJSONErrors does the same for the self-service API.
func TestSelfServiceJSONErrors(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	for _, row := range []struct{ app, api, want string }{
		{`{}`, ``, ""},
		{`{"configs": [{"id": "pub"}]}`, `"configs": ["pub", "default"]`, ""},
		{`{}`, `"grants": []`, "grants"},
		{`{}`, `"dialect": "graphql"`, "dialect: must be better_auth or rest"},
		{`{}`, `"secret": "yes"`, `secret: must be "check" or "required"`},
		{`{}`, `"base": "v1"`, "base: must be a path"},
		{`{}`, `"base": "/v1/"`, "base: must be a path"},
		{`{}`, `"leak_reports": "/leak"`, ""},
		{`{}`, `"leak_reports": "/v1"`, ""},
		{`{}`, `"leak_reports": "leak"`, "leak_reports: must be a path"},
		{`{}`, `"leak_reports": "/v1/auth/api-keys"`, "leak_reports: the path is one of the API's own calls"},
		{`{}`, `"leak_reports": "/v1/auth/api-keys/leak"`, "leak_reports: the path is one of the API's own calls"},
		{`{}`, `"dialect": "better_auth", "leak_reports": "/api/auth/get-session"`, "leak_reports: the path is one of the API's own calls"},
		{`{}`, `"user": "{http.request.header.X-User}"`, "not one that holds what the client sends"},
		{`{}`, `"user": "{http.auth.user.id} "`, "user: must be a placeholder"},
		{`{}`, `"grant": ["read"]`, "grant: requires user"},
		{`{}`, `"user": "{x}", "grant": ["*"]`, "grant: a bare"},
		{`{}`, `"user": "{x}", "dialect": "better_auth", "organization": {}`, "organization: must be a placeholder"},
		{`{}`, `"user": "{x}", "dialect": "better_auth", "organization": {"id": "{o}", "role": "{r}", "configs": ["none"]}`, `organization: config: there is no configuration "none"`},
		{`{}`, `"dialect": "better_auth", "organization": {"id": "{o}", "role": "{r}", "configs": ["default"]}`, "requires user"},
		{`{}`, `"configs": []`, "config: the list is empty"},
		{`{}`, `"configs": ["pub"]`, `config: there is no configuration "pub": it must be one of "default"`},
		{`{}`, `"trusted_origins": ["*"]`, "trusted_origins: \"*\" must be"},
		{`{}`, `"trusted_origins": ["https://bücher.example"]`, "trusted_origins: browsers do not send \"https://bücher.example\"; use https://xn--bcher-kva.example"},
		{`{}`, `"headers": ["X.Key"]`, "headers: X.key can never match"},
		{`{}`, `"headers": [], "authorization": []`, "requests could not carry a key"},
		{`{"headers": [], "authorization": []}`, `"query": "key"`, ""},
		{`{}`, `"from": "x"`, "from: must be a placeholder"},
	} {
		api := strings.TrimSuffix(`{"handler": "apikey_api", `+row.api, ", ") + `}`
		err := validate([]byte(`{"apps": {"apikey": ` + row.app + `, "http": {"servers": {"s": {"listen": [":0"], "routes": [{"handle": [` + api + `]}]}}}}}`))
		switch {
		case row.want == "" && err != nil:
			t.Errorf("app %s, api %s: %v", row.app, api, err)
		case row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)):
			t.Errorf("app %s, api %s: error is %v, want %s", row.app, api, err, row.want)
		}
	}
}

// TestExampleCaddyfile checks that the example is as "caddy fmt" would have it,
// adapts without a warning and can be used.
func TestExampleCaddyfile(t *testing.T) {
	source, err := os.ReadFile("example.Caddyfile")
	if err != nil {
		t.Fatal(err)
	}
	if formatted := caddyfile.Format(source); !bytes.Equal(source, formatted) {
		t.Errorf("caddy fmt would make of it\n%s", formatted)
	}
	config, warnings, err := adapt(source)
	if err != nil {
		t.Fatal(err)
	}
	if len(warnings) > 0 {
		t.Errorf("warnings: %v", warnings)
	}
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	if err := validate(config); err != nil {
		t.Error(err)
	}
}
