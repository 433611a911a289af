package apikey

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// TestQ17_errorContent finds error routes that serve what a gate protects, and no
// others.
func TestQ17_errorContent(t *testing.T) {
	const files = "root * /srv/site\n\tapikey\n\tfile_server\n"
	const proxy = "apikey\n\treverse_proxy 127.0.0.1:9000\n"
	for _, tt := range []struct{ name, site, errors, want string }{
		{"rewrite and file_server", files, "handle_errors {\nrewrite * /{err.status_code}.html\nfile_server\n}", "[/srv/site] []"},
		{"file_server alone", files, "handle_errors {\nfile_server\n}", "[/srv/site] []"},
		{"some of the statuses of refusals", files, "handle_errors 404 429 {\nfile_server\n}", "[/srv/site] []"},
		{"a range of statuses", files, "handle_errors 4xx {\nfile_server\n}", "[/srv/site] []"},
		{"a matcher that is not about the status", files, "handle_errors {\n@x expression {http.apikey.error.code} == \"KEY_EXPIRED\"\nfile_server @x\n}", "[/srv/site] []"},
		{"the same root, named again", files, "handle_errors {\nroot /srv/site/\nfile_server\n}", "[/srv/site] []"},
		{"a root above", files, "handle_errors {\nfile_server {\nroot /srv\n}\n}", "[/srv/site] []"},
		{"an open error route before it, for other statuses", files, "handle_errors 404 {\nrespond gone\n}\nhandle_errors {\nfile_server\n}", "[/srv/site] []"},
		{"the same upstream", proxy, "handle_errors {\nrewrite * /error\nreverse_proxy 127.0.0.1:9000\n}", "[] [127.0.0.1:9000]"},
		{"one of several upstreams", proxy, "handle_errors {\nreverse_proxy 127.0.0.1:9002 127.0.0.1:9000\n}", "[] [127.0.0.1:9000]"},
		{"a gate for some paths", "root /srv/site\n@a path /a/*\napikey @a\nfile_server\n", "handle_errors {\nfile_server\n}", "[/srv/site] []"},
		{"a gate in a subroute", "root /srv/site\nhandle /a/* {\nroute {\napikey\nfile_server\n}\n}", "handle_errors {\nfile_server\n}", "[/srv/site] []"},
		{"a gate in a named route", "root /srv/site\ninvoke gate\nfile_server\n", "handle_errors {\nfile_server\n}", "[/srv/site] []"},
		{"no root at all", "apikey\nfile_server\n", "handle_errors {\nfile_server\n}", "[.] []"},

		{"respond", files, "handle_errors {\nrespond {http.apikey.error.code}\n}", ""},
		{"no error route", files, "", ""},
		{"other statuses", files, "handle_errors 404 410 502 {\nfile_server\n}", ""},
		{"respond for refusals first", files, "handle_errors 4xx 5xx {\nrespond no\n}\nhandle_errors {\nfile_server\n}", ""},
		{"a root of its own", files, "handle_errors {\nroot /srv/errors\nfile_server\n}", ""},
		{"a root of its own, below", files, "handle_errors {\nroot /srv/site/errors\nfile_server\n}", ""},
		{"a root of its own, in file_server", files, "handle_errors {\nfile_server {\nroot /srv/errors\n}\n}", ""},
		{"a name that only begins alike", files, "handle_errors {\nroot /srv/sit\nfile_server\n}", ""},
		{"another upstream", proxy, "handle_errors {\nreverse_proxy 127.0.0.1:9001\n}", ""},
		{"files, where the gate protects an upstream", proxy, "handle_errors {\nfile_server\n}", ""},
		{"the gate first", files, "handle_errors {\napikey\nfile_server\n}", ""},
		{"an optional gate only", "apikey {\noptional\n}\nroot /srv/site\nfile_server\n", "handle_errors {\nfile_server\n}", ""},
		{"no gate", "root /srv/site\nfile_server\n", "handle_errors {\nfile_server\n}", ""},
		{"files in a branch without the gate", "handle /open/* {\nroot /srv/open\nfile_server\n}\nhandle {\napikey\nreverse_proxy 127.0.0.1:9000\n}", "handle_errors {\nroot /srv/open\nfile_server\n}", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := errorWarnings(t, tt.site+"\n"+tt.errors, "")
			if strings.Join(got, "; ") != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestQ17_sites: what another site of the server serves does not matter.
func TestQ17_sites(t *testing.T) {
	const site = "root /srv/site\napikey\nfile_server\n"
	other := func(host, body string) string {
		return fmt.Sprintf("http://%s:8001 {\n%s\n}\n", host, body)
	}
	open := "root /srv/site\nfile_server\nhandle_errors {\nfile_server\n}"
	if got := errorWarnings(t, site, other("b.test", open)); got != nil {
		t.Errorf("an open site beside it: %v", got)
	}
	if got := errorWarnings(t, "respond ok", other("b.test", site+"handle_errors {\nfile_server\n}")); len(got) != 1 {
		t.Errorf("the other site: %v", got)
	}
	if got := errorWarnings(t, site, other("*.test", open)); len(got) != 1 {
		t.Errorf("a site for all hosts: %v", got)
	}
}

// errorWarnings returns the warnings about the error routes of a site and others.
func errorWarnings(t *testing.T, site, others string) (got []string) {
	t.Helper()
	text := "{\n\tadmin off\n}\n&(gate) {\napikey\n}\nhttp://a.test:8001 {\n" + site + "\n}\n" + others
	adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	var conf struct {
		Apps struct{ HTTP json.RawMessage }
	}
	if err := json.Unmarshal(adapted, &conf); err != nil {
		t.Fatal(err)
	}
	_, ctx := provisioned(t, `"http":`+string(conf.Apps.HTTP))
	app, err := ctx.AppIfConfigured("http")
	if err != nil {
		t.Fatal(err)
	}
	core, observed := observer.New(zap.WarnLevel)
	for _, server := range app.(*caddyhttp.App).Servers {
		warnErrorContent(zap.New(core), server)
	}
	for _, warning := range observed.All() {
		f := warning.ContextMap()
		got = append(got, fmt.Sprint(f["roots"], " ", f["upstreams"]))
	}
	return got
}
