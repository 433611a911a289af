package apikey

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	_ "github.com/caddyserver/caddy/v2/modules/standard" // all directives
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// serverWarnings returns what the app says at start about the servers of a Caddyfile.
func serverWarnings(t *testing.T, source string) []observer.LoggedEntry {
	t.Helper()
	config, _, err := adapt([]byte(source))
	if err != nil {
		t.Fatal(err)
	}
	return warningsOfJSON(t, config)
}

// TestQ8_BlindMatchers: a matcher behind a gate that looks at what the gate has removed is
// warned of.
func TestQ8_BlindMatchers(t *testing.T) {
	const (
		bob   = " {\nbob $2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG\n}\n"
		proxy = "reverse_proxy localhost:1\n"
	)
	for _, row := range []struct {
		name, site, headers string
	}{
		{"key or password", "@key header Authorization Bearer*\n@no not header Authorization Bearer*\napikey @key\nbasic_auth @no" + bob + proxy, "[Authorization]"},
		{"another header", "@key header X-Key *\napikey {\nheaders X-Key\n}\nrequest_header @key X 1\n" + proxy, "[X-Key]"},
		{"a regular expression", "@key header_regexp X-Api-Key ^ak\napikey\nrequest_header @key X 1\n" + proxy, "[X-Api-Key]"},
		{"a header that carries no key", "@key header X-Other *\napikey\nrequest_header @key X 1\n" + proxy, ""},
		{"no Authorization", "@key header Authorization *\napikey {\nbearer off\n}\nrequest_header @key X 1\n" + proxy, ""},
		{"before the gate", "@key header Authorization *\nrewrite @key /key{uri}\napikey\n" + proxy, ""},
		{"two handles", "@key header Authorization Bearer*\nhandle @key {\napikey\n" + proxy + "}\nhandle {\nbasic_auth" + bob + proxy + "}\n", ""},
		{"in a handle", "handle {\napikey\n@x header Authorization *\nrequest_header @x X 1\n" + proxy + "}\n", "[Authorization]"},
		{"behind route", "route {\napikey\n}\n@x header Authorization *\nrespond @x no\n", "[Authorization]"},
		{"keep_key", "@key header Authorization *\napikey {\nkeep_key\n}\nrequest_header @key X 1\n" + proxy, ""},
		{"optional", "@key header Authorization *\napikey {\noptional\n}\nrequest_header @key X 1\n" + proxy, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			got := serverWarnings(t, "{\nauto_https off\n}\na.example:8001 {\n"+row.site+"}\n")
			if (len(got) == 1) != (row.headers != "") || len(got) > 1 {
				t.Fatalf("%v", got)
			}
			if row.headers != "" && (fmt.Sprint(got[0].ContextMap()["headers"]) != row.headers || !strings.Contains(got[0].Message, "a matcher behind a gate")) {
				t.Errorf("%v", got)
			}
		})
	}
}

// TestQ32_GateBeforeAPI: a gate that refuses calls of a self-service API before the API can
// answer them is warned of.
func TestQ32_GateBeforeAPI(t *testing.T) {
	const proxy, user = "reverse_proxy localhost:1\n", "apikey_api {\nuser {http.auth.user.id}\n}\n"
	for _, row := range []struct {
		name, site string
		warn       int
	}{
		{"a gate", "apikey\n" + user + proxy, 1},
		{"keys only", "apikey\napikey_api\n" + proxy, 1},
		{"an optional gate", "apikey {\noptional\n}\n" + user + proxy, 1},
		{"in a handle of its own", "handle /v1/auth/* {\n" + user + "error 404\n}\nhandle {\napikey\n" + proxy + "}\n", 0},
		{"left out of the matcher", "@app not path /v1/auth/*\napikey @app\n" + user + proxy, 0},
		{"a matcher for others", "apikey /app/*\n" + user + proxy, 0},
		{"a matcher for all", "@app path *\napikey @app\n" + user + proxy, 1},
		{"a matcher for writes", "@write not method GET HEAD\napikey @write\n" + user + proxy, 0},
		{"a gate behind", "route {\n" + user + "apikey\n" + proxy + "}\n", 0},
		{"in a handle, with a gate", "handle /v1/* {\napikey\n" + user + "}\nhandle {\n" + proxy + "}\n", 1},
		{"another base", "apikey /v1/*\napikey_api {\nbase /me\n}\n" + proxy, 0},
		{"two APIs", "handle /a/* {\napikey\napikey_api {\nbase /a\n}\n}\nhandle /b/* {\napikey_api {\nbase /b\n}\n}\n", 1},
		{"no gate", user + proxy, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			got := serverWarnings(t, "{\nauto_https off\n}\na.example:8001 {\n"+row.site+"}\nb.example:8001 {\napikey\n"+proxy+"}\n")
			if len(got) != row.warn || row.warn > 0 && !strings.Contains(got[0].Message, "a gate is in front of an apikey_api") {
				t.Errorf("%v", got)
			}
		})
	}
}

// TestLeakReports_warning: reports that do not arrive are warned of.
func TestLeakReports_warning(t *testing.T) {
	const proxy, leaks = "reverse_proxy localhost:1\n", "apikey_api {\nleak_reports\n}\n"
	for _, row := range []struct {
		name, site string
		warn       bool
	}{
		{"the recipe", "@api path /v1/auth/* /.well-known/apikey/leak\nhandle @api {\n" + leaks + "error 404\n}\nhandle {\napikey\n" + proxy + "}\n", false},
		{"all of the site", leaks + proxy, false},
		{"behind others", "route {\n" + leaks + "apikey\n" + proxy + "}\n", false},
		{"another path", "handle /a/* {\napikey_api {\nbase /a/b\nleak_reports /a/leak\n}\n}\nhandle {\napikey\n" + proxy + "}\n", false},
		{"a handle of the API alone", "handle /v1/auth/* {\n" + leaks + "error 404\n}\nhandle {\n" + proxy + "}\n", true},
		{"a path that is cut off", "handle_path /keys/* {\n" + leaks + "}\nhandle {\n" + proxy + "}\n", true},
		{"a gate for what is no call", "@app not path /v1/auth/*\napikey @app\n" + leaks + proxy, true},
		{"a gate for writes", "@write not method GET HEAD\napikey @write\n" + leaks + proxy, true},
		{"no reports", "handle /v1/auth/* {\napikey_api\n}\nhandle {\napikey\n" + proxy + "}\n", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			got := serverWarnings(t, "{\nauto_https off\n}\na.example:8001 {\n"+row.site+"}\n")
			if (len(got) == 1) != row.warn || len(got) > 1 || row.warn && !strings.Contains(got[0].Message, "reports of leaked keys do not arrive") {
				t.Errorf("%v", got)
			}
		})
	}
}

// TestQ20_Branches: where requests of a site meet no gate, the app warns at start,
// until the remedy is there.
func TestQ20_Branches(t *testing.T) {
	const (
		gate     = "apikey {\nidentity_header X-User-Id {http.auth.user.id}\n}\n"
		optional = "apikey {\noptional\nidentity_header X-User-Id {http.auth.user.id}\n}\n"
		remove   = "request_header -X-User-Id\n"
		proxy    = "reverse_proxy localhost:1\n"
	)
	for _, row := range []struct {
		name, site string
		warn       bool
	}{
		{"one gate", gate + proxy, false},
		{"a gate with a matcher", "@p not path /health\napikey @p {\nidentity_header X-User-Id {http.auth.user.id}\n}\n" + proxy, false},
		{"a redirect before the gate", "redir /old /new\n" + gate + proxy, false},
		{"handle", "handle /a/* {\n" + gate + proxy + "}\nhandle {\n" + proxy + "}\n", true},
		{"handle, the rest unhandled", "handle /a/* {\n" + gate + proxy + "}\n" + proxy, true},
		{"handle_path", "handle_path /a/* {\n" + gate + proxy + "}\nhandle {\n" + proxy + "}\n", true},
		{"handle, an answer with text", "handle /a/* {\n" + gate + "respond ok\n}\nhandle {\nrespond ok\n}\n", true},
		{"handle, no application", "handle /a/* {\n" + gate + proxy + "}\nhandle /b/* {\nfile_server\n}\nhandle {\nrespond 404\n}\n", false},
		{"handle, the only branch", "handle /a/* {\n" + gate + proxy + "}\n", false},
		{"handle, optional gate", "handle /a/* {\n" + gate + proxy + "}\nhandle {\n" + optional + proxy + "}\n", false},
		{"handle, request_header", "handle /a/* {\n" + gate + proxy + "}\nhandle {\n" + remove + proxy + "}\n", false},
		{"handle, request_header with a pattern", "handle /a/* {\n" + gate + proxy + "}\nhandle {\nrequest_header -x-user-*\n" + proxy + "}\n", false},
		{"handle, request_header that sets", "handle /a/* {\n" + gate + proxy + "}\nhandle {\nrequest_header X-User-Id nobody\n" + proxy + "}\n", false},
		{"handle, request_header for all", remove + "handle /a/* {\n" + gate + proxy + "}\nhandle {\n" + proxy + "}\n", false},
		{"handle, header_up", "handle /a/* {\n" + gate + proxy + "}\nhandle {\nreverse_proxy localhost:1 {\nheader_up -X-User-Id\n}\n}\n", false},
		{"handle, another header", "handle /a/* {\n" + gate + proxy + "}\nhandle {\nrequest_header -X-User\n" + proxy + "}\n", true},
		{"handle, remedy in one of two", "handle /a/* {\n" + gate + proxy + "}\nhandle /b/* {\n" + remove + proxy + "}\nhandle {\n" + proxy + "}\n", true},
		{"handle in handle", "handle /a/* {\nhandle /a/b/* {\n" + gate + proxy + "}\nhandle {\n" + proxy + "}\n}\nhandle {\n" + remove + proxy + "}\n", true},
		{"route with a matcher", "route /a/* {\n" + gate + proxy + "}\n" + proxy, true},
		{"route around all", "route {\n" + gate + proxy + "}\n", false},
		{"route, forwarded before the gate", "route {\nreverse_proxy /health localhost:1\n" + gate + proxy + "}\n", true},
		{"FastCGI", "handle /a/* {\n" + gate + proxy + "}\nhandle {\nphp_fastcgi localhost:1\n}\n", true},
		{"matcher in a branch", "handle /a/* {\napikey /a/b/* {\nidentity_header X-User-Id {http.auth.user.id}\n}\n" + proxy + "}\nhandle {\n" + proxy + "}\n", true},
		{"no identity header", "handle /a/* {\napikey\n" + proxy + "}\nhandle {\n" + proxy + "}\n", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			for _, address := range []string{":8001", "a.example:8001"} {
				got := serverWarnings(t, "{\nauto_https off\n}\n"+address+" {\n"+row.site+"}\nb.example:8001 {\n"+proxy+"}\n")
				if (len(got) == 1) != row.warn || len(got) > 1 {
					t.Errorf("%s: %v", address, got)
				}
				if len(got) == 1 && fmt.Sprint(got[0].ContextMap()["headers"]) != "[X-User-Id]" {
					t.Errorf("%s: %v", address, got[0].ContextMap())
				}
			}
		})
	}
	for _, row := range []struct {
		name, config string
		warn         bool
	}{
		{"invoke with a matcher", "&(gate) {\n" + gate + "}\n:8001 {\ninvoke /a/* gate\n" + proxy + "}\n", true},
		{"invoke for all", "&(gate) {\n" + gate + "}\n:8001 {\ninvoke gate\n" + proxy + "}\n", false},
		{"invoke beside handle", "&(gate) {\n" + gate + proxy + "}\n:8001 {\nhandle /a/* {\ninvoke gate\n}\nhandle {\n" + proxy + "}\n}\n", true},
		{"invoke itself", "&(again) {\n" + gate + "invoke again\n}\n:8001 {\ninvoke /a/* again\n" + proxy + "}\n", true},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := serverWarnings(t, row.config); (len(got) == 1) != row.warn {
				t.Errorf("%v", got)
			}
		})
	}
	for _, row := range []struct {
		name, routes string
		warn         bool
	}{
		{"match", `{"match":[{"path":["/a/*"]}],"handle":[GATE]},{"handle":[PROXY]}`, true},
		{"match and clean", `{"match":[{"path":["/a/*"]}],"handle":[GATE]},{"handle":[{"handler":"apikey_clean","headers":["x-user-id"]},PROXY]}`, false},
		{"match and clean of another header", `{"match":[{"path":["/a/*"]}],"handle":[GATE]},{"handle":[{"handler":"apikey_clean","headers":["X-User"]},PROXY]}`, true},
		{"two hosts", `{"match":[{"host":["a.example"]}],"handle":[GATE,PROXY],"terminal":true},{"match":[{"host":["b.example"]}],"handle":[PROXY],"terminal":true}`, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			routes := strings.NewReplacer("GATE", `{"handler":"apikey","identity_headers":[{"name":"X-User-Id","value":"{http.auth.user.id}"}]}`,
				"PROXY", `{"handler":"reverse_proxy","upstreams":[{"dial":"localhost:1"}]}`).Replace(row.routes)
			got := warningsOfJSON(t, []byte(`{"apps":{"http":{"servers":{"s":{"listen":["127.0.0.1:8001"],"routes":[`+routes+`]}}}}}`))
			if (len(got) == 1) != row.warn {
				t.Errorf("%v", got)
			}
		})
	}
}

// TestQ22_TrustedProxies: the app warns where a client can choose the address that
// allowedIps is compared with.
func TestQ22_TrustedProxies(t *testing.T) {
	for _, row := range []struct {
		name, servers, site string
		warn                bool
	}{
		{"no proxies", "", "apikey", false},
		{"strict", "trusted_proxies static private_ranges\ntrusted_proxies_strict", "apikey", false},
		{"not strict", "trusted_proxies static private_ranges", "apikey", true},
		{"not strict, an API", "trusted_proxies static private_ranges", "apikey_api", true},
		{"not strict, in a branch", "trusted_proxies static private_ranges", "handle /a/* {\napikey\n}", true},
		{"not strict, no gate", "trusted_proxies static private_ranges", "respond ok", false},
		{"another header", "trusted_proxies static private_ranges\nclient_ip_headers X-Real-IP", "apikey", false},
		{"two headers", "trusted_proxies static private_ranges\nclient_ip_headers X-Real-IP x-forwarded-for", "apikey", true},
		{"unix", "trusted_proxies_unix", "apikey", true},
		{"strict only", "trusted_proxies_strict", "apikey", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			got := serverWarnings(t, "{\nservers {\n"+row.servers+"\n}\n}\n:8001 {\n"+row.site+"\n}\n")
			if (len(got) == 1) != row.warn {
				t.Errorf("%v", got)
			}
		})
	}
}

// warningsOfJSON is serverWarnings for a configuration in JSON.
func warningsOfJSON(t *testing.T, config []byte) []observer.LoggedEntry {
	t.Helper()
	var conf struct {
		Apps struct{ HTTP json.RawMessage }
	}
	if err := json.Unmarshal(config, &conf); err != nil {
		t.Fatal(err)
	}
	app, _ := provisioned(t, `"http":`+string(conf.Apps.HTTP))
	core, observed := observer.New(zap.WarnLevel)
	app.logger = zap.New(core)
	app.warnServers()
	return observed.All()
}

// TestQ20_Examples: nothing that the documentation shows lets a client forge an
// identity header or its address.
func TestQ20_Examples(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	sources := map[string]string{}
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/how-to/*.md"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for i, part := range strings.Split(string(text), "```caddyfile\n")[1:] {
				config, _, _ := strings.Cut(part, "\n```")
				sources[fmt.Sprintf("%s, block %d", file, i+1)] = config
			}
		}
	}
	if len(sources) < 10 {
		t.Fatalf("only %d examples", len(sources))
	}
	t.Setenv("APIKEY_WEBHOOK_SECRET", "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=") // which a reader sets
	for name, source := range sources {
		t.Run(name, func(t *testing.T) {
			config, _, err := adapt([]byte(source))
			if err != nil {
				t.Fatal(err)
			}
			var conf caddy.Config
			if err := json.Unmarshal(config, &conf); err != nil {
				t.Fatal(err)
			}
			conf.Logging = nil
			conf.Admin = &caddy.AdminConfig{Disabled: true}
			if conf.AppsRaw["http"] == nil {
				return
			}
			ctx, err := caddy.ProvisionContext(&conf)
			if err != nil {
				t.Fatal(err)
			}
			mod, err := ctx.App("apikey")
			if err != nil {
				t.Fatal(err)
			}
			app := mod.(*App)
			t.Cleanup(func() { _ = app.Cleanup() })
			core, observed := observer.New(zap.WarnLevel)
			app.logger = zap.New(core)
			app.warnServers()
			for _, entry := range observed.All() {
				t.Errorf("%s %v", entry.Message, entry.ContextMap())
			}
		})
	}
}
