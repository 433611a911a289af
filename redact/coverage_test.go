package redact

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap/zapcore"
)

// testCore is a log core that encodes fields with nothing that it was given.
type testCore struct{ zapcore.Core }

func init() { caddy.RegisterModule(testCore{}) }

func (testCore) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "caddy.logging.cores.test", New: func() caddy.Module { return &testCore{zapcore.NewNopCore()} }}
}

func (c testCore) With(fields []zapcore.Field) zapcore.Core {
	for _, f := range fields {
		f.AddTo(zapcore.NewMapObjectEncoder())
	}
	return c
}

// contextOf provisions a configuration that consists of logs. In these, FILE is a
// writer, REDACT the encoder with all names, and ACCESS takes the entries of a site.
func contextOf(t *testing.T, logs string) caddy.Context {
	t.Helper()
	file := filepath.Join(t.TempDir(), "log")
	t.Cleanup(func() { _, _ = caddy.ProvisionContext(nil) }) // the default log is global
	logs = strings.NewReplacer(
		"FILE", fmt.Sprintf(`"writer":{"output":"file","filename":%q}`, file),
		"REDACT", `{"format":"apikey_redact","headers":["X-A"],"query":["q"]}`,
		"ACCESS", `"include":["http.log.access.log0"]`,
	).Replace(logs)
	var conf caddy.Config
	if err := json.Unmarshal([]byte(`{"logging":{"logs":{`+logs+`}}}`), &conf); err != nil {
		t.Fatal(err)
	}
	ctx, err := caddy.ProvisionContext(&conf)
	if err != nil {
		t.Fatal(err)
	}
	return ctx
}

func TestUncovered(t *testing.T) {
	all := func(log string) Log {
		return Log{log, Places{Headers: []string{"X-A", "X-API-Key"}, Query: []string{"q"}}}
	}
	for _, tt := range []struct {
		name, logs string
		want       []Log
	}{
		{"no logging at all", ``, []Log{all("default")}},
		{"only the site", `"log0":{FILE,"encoder":REDACT,ACCESS}`, []Log{all("default")}},
		{"only the default", `"default":{FILE,"encoder":REDACT},"log0":{FILE,ACCESS}`, []Log{all("log0")}},
		{"both", `"default":{FILE,"encoder":REDACT,"exclude":["http.log.access.log0"]},"log0":{FILE,"encoder":REDACT,ACCESS}`, nil},
		{"neither", `"default":{FILE},"log0":{FILE,ACCESS,"encoder":{"format":"console"}}`, []Log{all("default"), all("log0")}},
		{"inside filter, sampled", `"default":{FILE,"sampling":{"first":1},"encoder":{"format":"filter","wrap":REDACT}}`, nil},
		{"around append", `"default":{FILE,"encoder":{"format":"apikey_redact","headers":["X-A"],"query":["q"],"wrap":{"format":"append"}}}`, nil},
		{"names missing", `"default":{FILE,"encoder":{"format":"apikey_redact"}}`, []Log{{"default", Places{Headers: []string{"X-A"}, Query: []string{"q"}}}}},
		{"filter does it", `"default":{FILE,"encoder":{"format":"filter","fields":{"request>headers>X-Api-Key":{"filter":"delete"},"request>headers>X-A":{"filter":"delete"}}}}`, []Log{{"default", Places{Query: []string{"q"}}}}},
		{"core of another module", `"default":{FILE,"encoder":REDACT,"core":{"module":"test"}}`, []Log{all("default")}},
		{"discarded", `"default":{"writer":{"output":"discard"}},"log0":{"writer":{"output":"discard"},ACCESS}`, nil},
		{"other entries only", `"default":{FILE,"encoder":REDACT},"tls":{FILE,"include":["tls"]},"rest":{FILE,"exclude":["http"]}`, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx := contextOf(t, tt.logs)
			masked := Places{Headers: []string{"Authorization", "Cookie"}, Cookies: []string{"c"}} // by Caddy itself
			got, err := Uncovered(ctx, []Requests{
				{Places: Places{Headers: []string{"X-API-Key"}, Query: []string{"q"}}},
				{Places: Places{Headers: []string{"X-API-Key", "X-A"}}},
				{Places: masked},
			}, false)
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %+v, %v, want %+v", got, err, tt.want)
			}
			if got, err := Uncovered(ctx, []Requests{{Places: masked}}, false); err != nil || got != nil {
				t.Errorf("without a place that is logged, got %+v, %v", got, err)
			}
		})
	}
}

// With log_credentials, Caddy leaves Authorization and cookies to the encoder.
func TestUncoveredCredentials(t *testing.T) {
	const cookieFilter = `{"format":"filter","fields":{"request>headers>Cookie":{"filter":"cookie","actions":[{"type":"replace","name":"a","value":"x"}]}}}`
	for _, tt := range []struct {
		name, encoder string
		want          Places
	}{
		{"plain", `{"format":"json"}`, Places{Headers: []string{"Authorization"}, Cookies: []string{"a", "b"}}},
		{"apikey_redact", `{"format":"apikey_redact"}`, Places{Headers: []string{"Authorization"}, Cookies: []string{"a", "b"}}},
		{"apikey_redact with Authorization", `{"format":"apikey_redact","headers":["Authorization"]}`, Places{Cookies: []string{"a", "b"}}},
		{"apikey_redact with Cookie", `{"format":"apikey_redact","headers":["cookie"]}`, Places{Headers: []string{"Authorization"}}},
		{"filter for one cookie", cookieFilter, Places{Headers: []string{"Authorization"}, Cookies: []string{"b"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx := contextOf(t, `"default":{FILE,"encoder":`+tt.encoder+`}`)
			places := Places{Headers: []string{"Authorization"}, Cookies: []string{"b", "a"}}
			got, err := Uncovered(ctx, []Requests{{places, true}, {places, false}}, true)
			if want := []Log{{"default", tt.want}}; err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, %v, want %+v", got, err, want)
			}
		})
	}
}

// What a placeholder reads is masked where its keys end in a checksum.
func TestUncoveredFrom(t *testing.T) {
	const segment, host, whole = "{http.request.uri.path.1}", "{http.request.host.labels.2}", "{http.request.orig_uri}"
	requests := []Requests{{Places: Places{From: []string{segment}}}, {Places: Places{From: []string{host}}}, {Places: Places{From: []string{whole}}}}
	for _, tt := range []struct {
		name, encoder string
		checksums     bool
		want          []string
	}{
		{"plain", `{"format":"console"}`, true, []string{host, whole, segment}},
		{"masked by the checksum", `{"format":"apikey_redact"}`, true, nil},
		{"without a checksum", `{"format":"apikey_redact"}`, false, []string{host, whole, segment}},
		{"without the URI", `{"format":"filter","fields":{"request>uri":{"filter":"delete"}}}`, false, []string{host}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Uncovered(contextOf(t, `"default":{FILE,"encoder":`+tt.encoder+`}`), requests, tt.checksums)
			var want []Log
			if tt.want != nil {
				want = []Log{{"default", Places{From: tt.want}}}
			}
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, %v, want %+v", got, err, want)
			}
		})
	}
}

// A configuration that cannot be found is told from one that does not exist.
func TestConfigOf(t *testing.T) {
	requests := []Requests{{Places: Places{Headers: []string{"X-API-Key"}}}}
	if got, err := Uncovered(testContext(t), requests, false); got != nil || err != nil {
		t.Errorf("without a configuration, got %+v, %v", got, err)
	}
	if conf, err := configOf(struct{ config any }{}); conf != nil || err == nil {
		t.Errorf("without the field, got %v, %v", conf, err)
	}
}

// TestCaddyVersion fails when Caddy is updated, so that somebody checks what this
// package knows of Caddy's inside.
func TestCaddyVersion(t *testing.T) {
	const checked = "v2.11.9"
	mod, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`caddyserver/caddy/v2 v\S+`).Find(mod)
	if string(found) != "caddyserver/caddy/v2 "+checked {
		t.Errorf("go.mod has %s, but %s was checked. Check that (1) caddy.Context still holds its configuration in a field of type *caddy.Config: "+
			"configOf reads it by reflection, which is to be replaced once Caddy has an accessor; (2) caddyhttp.Server still logs the same request, "+
			"with ShouldLogCredentials of its own logs, in access and error logs; (3) the other tests here pass. Then set the version here", found, checked)
	}
	// These are what Caddy masks by itself, unless it logs credentials.
	headers := http.Header{"Authorization": {"a"}, "Cookie": {"a"}, "Proxy-Authorization": {"a"}, "Set-Cookie": {"a"}, "X-Api-Key": {"a"}}
	enc := zapcore.NewMapObjectEncoder()
	if err := (caddyhttp.LoggableHTTPHeader{Header: headers}).MarshalLogObject(enc); err != nil {
		t.Fatal(err)
	}
	for name := range headers {
		if masked := slices.Equal(enc.Fields[name].([]any), []any{redacted}); masked != (name != "X-Api-Key") {
			t.Errorf("%s: masked: %v", name, masked)
		}
	}
}
