package apikey

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-apikey/caddy-apikey/redact"
)

// TestWeakSecrets compares the option "secret" of gates and APIs for the same keys.
func TestWeakSecrets(t *testing.T) {
	for _, row := range []struct {
		name      string
		gate, api handler
		weak      bool
	}{
		{"nobody asks", handler{}, handler{}, false},
		{"the gate asks", handler{secret: "check"}, handler{}, true},
		{"the API asks for less", handler{secret: "required"}, handler{secret: "check"}, true},
		{"both ask", handler{secret: "required"}, handler{secret: "required"}, false},
		{"the API asks for more", handler{secret: "check"}, handler{secret: "required"}, false},
		{"an API for all keys", handler{secret: "check", configs: []string{"a"}}, handler{}, true},
		{"a gate for all keys", handler{secret: "check"}, handler{configs: []string{"a"}}, true},
		{"some of the same keys", handler{secret: "check", configs: []string{"a", "b"}}, handler{configs: []string{"b"}}, true},
		{"other keys", handler{secret: "check", configs: []string{"a"}}, handler{configs: []string{"b"}}, false},
	} {
		row.api.kind = apiHandler
		// A strict API and a gate without the option change nothing.
		all := []handler{{}, row.gate, {kind: apiHandler, secret: "required"}, row.api}
		if weakSecrets(all) != row.weak {
			t.Errorf("%s: %v", row.name, !row.weak)
		}
	}
}

// What a log would print depends on the server of each handler: only one with
// log_credentials logs Authorization and cookies.
func TestExposedByServer(t *testing.T) {
	const credentials = `{"should_log_credentials":true}`
	for _, tt := range []struct {
		name, logs, handler string
		want                string // headers, cookies, from
	}{
		{"no logs", `null`, `{"handler":"apikey"}`, "[X-Api-Key] [] []"},
		{"logs", `{}`, `{"handler":"apikey","secret":"required"}`, "[X-Api-Key X-Api-Secret] [] []"},
		{"credentials", credentials, `{"handler":"apikey"}`, "[Authorization X-Api-Key] [] []"},
		{"credentials, bearer off", credentials, `{"handler":"apikey","authorization":[]}`, "[X-Api-Key] [] []"},
		{"credentials, API", credentials, `{"handler":"apikey_api"}`, "[Authorization X-Api-Key] [] []"},
		{"credentials, cookie", credentials, `{"handler":"apikey","from":"{http.request.cookie.c}"}`, "[] [c] []"},
		{"credentials, header of from", credentials, `{"handler":"apikey","from":"{http.request.header.authorization}"}`, "[Authorization] [] []"},
		{"logs, cookie", `{}`, `{"handler":"apikey","from":"{http.request.cookie.c}"}`, ""},
		{"path segment", `null`, `{"handler":"apikey","from":"{http.request.uri.path.1}"}`, "[] [] [{http.request.uri.path.1}]"},
		{"no handler", credentials, `{"handler":"subroute"}`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			app, ctx := provisioned(t, fmt.Sprintf(`"http":{"servers":{
				"with": {"listen":["127.0.0.1:8001"],"logs":%s,"routes":[{"handle":[{"handler":"subroute","routes":[{"handle":[%s]}]}]}]},
				"beside": {"listen":["127.0.0.1:8002"],"logs":%s}
			}}`, tt.logs, tt.handler, credentials))
			logs, err := redact.Uncovered(ctx, app.requests(), true)
			if err != nil {
				t.Fatal(err)
			}
			var got string
			for _, warning := range uncoveredWarnings(logs, nil) {
				f := warning.ContextMap()
				got += fmt.Sprint(f["headers"], f["cookies"], f["from"])
			}
			if got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

// Where the logs cannot be found, the app does not keep silent.
func TestUncoveredUnknown(t *testing.T) {
	warnings := uncoveredWarnings(nil, errors.New("elsewhere"))
	if len(warnings) != 1 || warnings[0].ContextMap()["error"] != "elsewhere" {
		t.Errorf("got %v", warnings)
	}
}

func uncoveredWarnings(logs []redact.Log, err error) []observer.LoggedEntry {
	core, observed := observer.New(zap.WarnLevel)
	warnUncovered(zap.New(core), logs, err)
	return observed.All()
}

// provisioned provisions apps and returns the apikey app, which is not started.
func provisioned(t *testing.T, apps string) (*App, caddy.Context) {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() { _, _ = caddy.ProvisionContext(nil) }) // the default log is global
	var conf caddy.Config
	if err := json.Unmarshal(fmt.Appendf(nil, `{
		"logging": {"logs": {"default": {"writer": {"output": "file", "filename": %q}}}},
		"apps": {"apikey": {"store": {"store": "sqlite", "path": %q}}, %s}
	}`, filepath.Join(dir, "log"), filepath.Join(dir, "keys.db"), apps), &conf); err != nil {
		t.Fatal(err)
	}
	ctx, err := caddy.ProvisionContext(&conf)
	if err != nil {
		t.Fatal(err)
	}
	app, err := ctx.AppIfConfigured("apikey")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = app.(*App).Cleanup() })
	return app.(*App), ctx
}
