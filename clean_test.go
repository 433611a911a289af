package apikey

import (
	"crypto/tls"
	"crypto/x509"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

func TestCleanOptions(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	for fields, want := range map[string]string{
		`"headers": ["X-User-Id", "x-plan"]`: "",
		``:                                   "headers: at least one name is required",
		`"headers": []`:                      "headers: at least one name is required",
		`"headers": ["X User"]`:              "is not a valid header name",
		`"headers": ["Connection"]`:          "a header of the connection",
		`"header": ["X-User-Id"]`:            "unknown field",
	} {
		handler := `{"handler": "apikey_clean"}`
		if fields != "" {
			handler = `{"handler": "apikey_clean", ` + fields + `}`
		}
		err := validate([]byte(`{"apps": {"http": {"servers": {"s": {"listen": ["127.0.0.1:0"], "routes": [{"handle": [` + handler + `]}]}}}}}`))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", fields, err, want)
		}
	}
}

// TestQ25_Certificate: an identity is read from a certificate only if the server has
// verified it.
func TestQ25_Certificate(t *testing.T) {
	id := newIdentity([]IdentityHeader{{"X-Subject", "{http.request.tls.client.subject}"}, {"X-Fixed", "fixed"}})
	for _, state := range []*tls.ConnectionState{nil, {}, {VerifiedChains: [][]*x509.Certificate{{{}}}}} {
		r := httptest.NewRequest("GET", "/", nil)
		r.TLS = state
		repl := caddy.NewReplacer()
		repl.Set("http.request.tls.client.subject", "CN=alice")
		id.set(r, repl)
		verified := state != nil && state.VerifiedChains != nil
		if got := r.Header.Get("X-Subject"); (got == "CN=alice") != verified || r.Header.Get("X-Fixed") != "fixed" {
			t.Errorf("verified %v: %v", verified, r.Header)
		}
	}
}

// TestQ25_ClientPlaceholders tells placeholders that hold what the client writes.
func TestQ25_ClientPlaceholders(t *testing.T) {
	for text, want := range map[string]bool{
		"{http.auth.user.id}": false, "{http.auth.user.metadata.plan} of {http.auth.user.tier}": false, "{http.vars.cost}": false, "plain": false,
		"{http.request.remote.host}": false, "{http.request.uuid}": false, "{http.request.tls.client.subject}": false, "{env.HOME}": false, "{": false,
		"{http.request.header.X-User}": true, "{http.request.cookie.user}": true, "{http.request.uri.query.user}": true, "{http.request.uri.path.1}": true,
		"{http.request.uri}": true, "{http.request.orig_uri.path}": true, "{http.request.host}": true, "{http.request.body}": true, "{http.request.method}": true,
		"{http.request.tls.server_name}": true, "{http.regexp.name.1}": true, "a {http.auth.user.id} {http.request.header.X}": true, "{{http.request.uri}}": true,
	} {
		if hasClientPlaceholder(text) != want {
			t.Errorf("%s: %v", text, !want)
		}
	}
}
