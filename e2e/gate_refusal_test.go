package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const refusalSites = `{
	log default {
		format apikey_redact
	}
}

{$SITE} {
	handle /secret/* {
		apikey {
			secret
		}
		respond ok
	}
	handle /perm/* {
		apikey nobody:has
		respond ok
	}
	handle {
		apikey
		respond ok
	}
}

http://neighbour.test:{$PORT} {
	apikey
	handle_errors {
		respond "neighbour {err.status_code}"
	}
}

http://only404.test:{$PORT} {
	handle /gone/* {
		apikey
		error 404
	}
	handle {
		apikey
		respond ok
	}
	handle_errors 404 {
		respond "page not found"
	}
}

http://code.test:{$PORT} {
	apikey
	respond ok
	handle_errors {
		respond "{err.status_code} {err.status_text} {err.message} {http.apikey.error.code} [{http.auth.user.id}]"
	}
}

http://expression.test:{$PORT} {
	apikey
	respond ok
	handle_errors {
		@limited expression {err.status_code} == 429
		respond @limited "limited {http.apikey.error.code}"
	}
}

http://placeholder.test:{$PORT} {
	apikey
	respond ok
	handle_errors {
		@bad expression {http.apikey.error.code} == "INVALID_API_KEY"
		respond @bad "bad key"
	}
}

http://range.test:{$PORT} {
	apikey
	respond ok
	handle_errors 4xx {
		respond "four hundred and something"
	}
	handle_errors 5xx {
		respond "five"
	}
}

http://rewritten.test:{$PORT} {
	rewrite /public/* /private{uri}
	apikey
	respond ok
	handle_errors {
		handle /public/* {
			respond "public page"
		}
		handle /private/* {
			respond "private page"
		}
	}
}

http://rewritten-other.test:{$PORT} {
	rewrite /public/* /private{uri}
	apikey
	respond ok
	handle_errors {
		handle_path /private/* {
			respond "private page"
		}
	}
}

http://header.test:{$PORT} {
	apikey
	respond ok
	handle_errors {
		header X-Seen yes
	}
}

http://inside.test:{$PORT} {
	handle /gated/* {
		apikey
		error 404
	}
	handle {
		error 404
	}
	handle_errors {
		apikey
		respond "inside {http.auth.user.id}"
	}
}
`

// TestRefusals checks what a refused client reads, on sites with error routes and
// without, beside each other on one port.
func TestRefusals(t *testing.T) {
	full(t)
	addr := freeAddr(t)
	s := startGate(t, refusalSites, withEnv("PORT="+port(t, addr)), func(s *server) { s.URL = "http://" + addr })
	good := s.create(nil)
	off := s.create(map[string]any{"enabled": false})
	empty := s.create(map[string]any{"remaining": 0})
	full := s.create(map[string]any{"rateLimitMax": 1, "rateLimitTimeWindow": 3_600_000})
	secret := s.create(map[string]any{"withSecret": true})
	far := s.create(map[string]any{"allowedIps": []string{"192.0.2.1/32"}})
	s.get("/", "X-API-Key: "+full.Raw)
	x := func(k made) string { return "X-API-Key: " + k.Raw }
	const wrong = "X-API-Key: wrong"
	for _, row := range []struct {
		host, target, line string
		status             int
		body               string // empty: a problem with code
		code               string
	}{
		{"", "/", "", 401, "", "MISSING_API_KEY"},
		{"", "/", wrong, 401, "", "INVALID_API_KEY"},
		{"", "/", x(off), 401, "", "KEY_DISABLED"},
		{"", "/", x(empty), 429, "", "USAGE_EXCEEDED"},
		{"", "/", x(full), 429, "", "RATE_LIMITED"},
		{"", "/", x(far), 403, "", "IP_NOT_ALLOWED"},
		{"", "/perm/", x(good), 403, "", "INSUFFICIENT_PERMISSIONS"},
		{"", "/secret/", x(secret), 401, "", "INVALID_SECRET"},
		{"", "/", "Authorization: Bearer " + good.Raw + "\r\nX-API-Key: " + full.Raw, 400, "", "AMBIGUOUS_API_KEY"},
		{"neighbour.test", "/", wrong, 401, "neighbour 401", ""},
		{"neighbour.test", "/", x(full), 429, "neighbour 429", ""},
		{"only404.test", "/", wrong, 401, "", "INVALID_API_KEY"},
		{"only404.test", "/", x(empty), 429, "", "USAGE_EXCEEDED"},
		{"only404.test", "/gone/", x(good), 404, "page not found", ""},
		{"code.test", "/", "", 401, "401 Unauthorized MISSING_API_KEY MISSING_API_KEY []", ""},
		{"code.test", "/", x(off), 401, "401 Unauthorized KEY_DISABLED KEY_DISABLED []", ""},
		{"code.test", "/", x(full), 429, "429 Too Many Requests RATE_LIMITED RATE_LIMITED []", ""},
		{"expression.test", "/", wrong, 401, "", "INVALID_API_KEY"},
		{"expression.test", "/", x(full), 429, "limited RATE_LIMITED", ""},
		{"placeholder.test", "/", wrong, 401, "bad key", ""},
		{"placeholder.test", "/", "", 401, "", "MISSING_API_KEY"},
		{"range.test", "/", x(full), 429, "four hundred and something", ""},
		{"rewritten.test", "/public/x", wrong, 401, "public page", ""},
		{"rewritten.test", "/private/x", wrong, 401, "private page", ""},
		{"rewritten.test", "/other/x", wrong, 401, "", "INVALID_API_KEY"},
		{"rewritten-other.test", "/public/x", wrong, 401, "", "INVALID_API_KEY"},
		{"rewritten-other.test", "/private/x", wrong, 401, "private page", ""},
		{"inside.test", "/", x(good), 404, "inside alice", ""},
		{"inside.test", "/", wrong, 401, "", "INVALID_API_KEY"},
		{"inside.test", "/", x(full), 429, "", "RATE_LIMITED"},
		{"inside.test", "/gated/", x(good), 404, "inside alice", ""},
		{"inside.test", "/gated/", wrong, 401, "", "INVALID_API_KEY"}, // though the first gate has removed it
	} {
		for _, method := range []string{"GET", "HEAD"} {
			m := message{method: method, target: row.target}
			if row.host != "" {
				m.noHost, m.fields = true, []field{{"Host", row.host + ":" + port(t, addr)}}
			}
			if row.line != "" {
				m.fields = append(m.fields, fieldsOf(strings.Split(row.line, "\r\n"))...)
			}
			r := m.plain(t, s.URL)
			name := fmt.Sprintf("%s %s%s %.20s", method, row.host, row.target, row.line)
			if r.status != row.status {
				t.Errorf("%s: status %d, want %d", name, r.status, row.status)
			}
			checkRefusal(t, name, method, r, row.body, row.code)
		}
	}
	m := message{target: "/", noHost: true, fields: []field{{"Host", "header.test:" + port(t, addr)}}}
	if r := m.plain(t, s.URL); r.status != 401 || r.header.Get("X-Seen") != "yes" || r.header.Get("WWW-Authenticate") == "" {
		t.Errorf("an error route that only sets a header: %+v", r)
	}
}

func checkRefusal(t *testing.T, name, method string, r *reply, body, code string) {
	t.Helper()
	if r.status == 401 && r.header.Get("WWW-Authenticate") == "" {
		t.Errorf("%s: no WWW-Authenticate", name)
	}
	if code == "RATE_LIMITED" && r.header.Get("Retry-After") == "" {
		t.Errorf("%s: no Retry-After", name)
	}
	switch {
	case method == "HEAD":
		if r.body != "" {
			t.Errorf("%s: body %q", name, r.body)
		}
		if code != "" && (r.header.Get("Content-Type") != "application/problem+json" || r.header.Get("Content-Length") == "") {
			t.Errorf("%s: header %v", name, r.header)
		}
	case code != "":
		p := r.problem(t)
		if p.Code != code || p.Status != r.status || p.Title != http.StatusText(r.status) || p.Detail == "" {
			t.Errorf("%s: %s", name, r.body)
		}
		if (p.RetryAfter != 0) != (r.header.Get("Retry-After") != "") {
			t.Errorf("%s: Retry-After %q, body %s", name, r.header.Get("Retry-After"), r.body)
		}
		if r.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: Cache-Control %q", name, r.header.Get("Cache-Control"))
		}
	case r.body != body:
		t.Errorf("%s: body %q, want %q", name, r.body, body)
	}
}

// subrouteJSON has gates in subroutes with error routes of their own, which run
// with the rest of the chain behind them.
const subrouteJSON = `{
	"admin": {"listen": "ADMIN"},
	"apps": {"http": {"servers": {
		"own": {
			"listen": ["SITE"],
			"automatic_https": {"disable": true},
			"errors": {"routes": [{"handle": [{"handler": "static_response", "status_code": "{http.error.status_code}", "body": "error route"}]}]},
			"routes": [
				{"match": [{"path": ["/plain/*"]}], "handle": [
					{"handler": "subroute", "routes": [{"handle": [{"handler": "apikey"}]}], "errors": ERRORS},
					{"handler": "static_response", "body": "behind"}], "terminal": true},
				{"match": [{"path": ["/deep/*"]}], "handle": [
					{"handler": "subroute", "errors": ERRORS, "routes": [{"handle": [
						{"handler": "subroute", "routes": [{"handle": [{"handler": "apikey"}]}]}]}]},
					{"handler": "static_response", "body": "behind"}], "terminal": true},
				{"match": [{"path": ["/cost/*"]}], "handle": [
					{"handler": "subroute", "routes": [{"handle": [{"handler": "vars", "cost": "{http.request.header.X-Cost}"}, {"handler": "apikey", "cost": "{http.vars.cost}"}]}], "errors": ERRORS},
					{"handler": "static_response", "body": "behind"}], "terminal": true},
				{"match": [{"path": ["/outside/*"]}], "handle": [
					{"handler": "apikey"},
					{"handler": "subroute", "routes": [], "errors": ERRORS},
					{"handler": "static_response", "body": "behind"}], "terminal": true}
			]
		},
		"named": {
			"listen": ["OTHER"],
			"automatic_https": {"disable": true},
			"errors": {"routes": [{"handle": [{"handler": "static_response", "status_code": "{http.error.status_code}", "body": "error route"}]}]},
			"named_routes": {"gate": {"handle": [{"handler": "vars", "cost": "{http.request.header.X-Cost}"}, {"handler": "apikey", "cost": "{http.vars.cost}"}]}},
			"routes": [{"handle": [
				{"handler": "subroute", "errors": ERRORS, "routes": [{"handle": [{"handler": "invoke", "name": "gate"}]}]},
				{"handler": "static_response", "body": "behind"}]}]
		}
	}}}
}`

// TestS8_SubrouteErrors checks that a refusal in such a subroute ends there.
func TestS8_SubrouteErrors(t *testing.T) {
	full(t)
	s, other := newServer(t), freeAddr(t)
	addr := strings.TrimPrefix(s.URL, "http://")
	config := strings.NewReplacer("ADMIN", s.adminAddr, "SITE", addr, "OTHER", other,
		"ERRORS", `{"routes": [{"handle": [{"handler": "headers", "response": {"set": {"X-Error": ["yes"]}}}]}]}`).Replace(subrouteJSON)
	file := filepath.Join(s.Dir, "caddy.json")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	s.launch(file)
	s.settled()
	k := s.create(nil).Raw
	check := func(site, target string, lines []string, status int, want string) {
		t.Helper()
		r := (&message{target: target, fields: fieldsOf(lines)}).plain(t, site)
		got := r.code
		if got == "" {
			got = r.body
		}
		if r.status != status || got != want {
			t.Errorf("%s %.30q: %d %s, want %d %s", target, lines, r.status, got, status, want)
		}
	}
	for _, row := range []struct {
		target string
		lines  []string
		status int
		want   string
	}{
		{"/plain/", nil, 401, "MISSING_API_KEY"},
		{"/plain/", []string{"X-API-Key: x"}, 401, "INVALID_API_KEY"},
		{"/plain/", []string{"X-API-Key: " + k}, 200, "behind"},
		{"/deep/", nil, 401, "MISSING_API_KEY"},
		{"/deep/", []string{"X-API-Key: " + k}, 200, "behind"},
		{"/cost/", nil, 401, "MISSING_API_KEY"},
		{"/cost/", []string{"X-API-Key: " + k, "X-Cost: x"}, 500, ""},
		{"/cost/", []string{"X-API-Key: " + k, "X-Cost: 1"}, 200, "behind"},
		{"/outside/", nil, 401, "error route"},
		{"/outside/", []string{"X-API-Key: " + k}, 200, "behind"},
	} {
		check(s.URL, row.target, row.lines, row.status, row.want)
	}
	// A gate in a named route does not see the subroute among its ancestors.
	check("http://"+other, "/", nil, 401, "MISSING_API_KEY")
	check("http://"+other, "/", []string{"X-API-Key: " + k, "X-Cost: x"}, 500, "")
	check("http://"+other, "/", []string{"X-API-Key: " + k, "X-Cost: 1"}, 200, "behind")
}

// TestS3_OnlyTheExactString sends what is nearly a key. Nothing is accepted, and
// all answers are the same.
func TestS3_OnlyTheExactString(t *testing.T) {
	full(t)
	for name, global := range map[string]string{"checksum": "", "no checksum": "{\n\tapikey {\n\t\tchecksum off\n\t}\n}\n"} {
		s := startGate(t, global+"{$SITE} {\n\tapikey\n\trespond ok\n}\n")
		client := &http.Client{}
		first := ""
		n := 0
		refused := func(raw string) {
			n++
			req, err := http.NewRequest("GET", s.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("X-API-Key", raw)
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			resp.Header.Del("Date")
			got := fmt.Sprint(resp.StatusCode, resp.Header, string(b))
			if first == "" {
				first = got
			}
			if resp.StatusCode != 401 || got != first {
				t.Errorf("%s: %q: %s, else %s", name, raw, got, first)
			}
		}
		for range 3 {
			k := s.create(nil).Raw
			for i := range k {
				if i > 0 {
					refused(k[:i])
					refused(k[i:])
				}
				refused(flip(k, i))
				refused(k[:i] + k[i+1:])
				if c := k[i] ^ 0x20; c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' {
					refused(k[:i] + string(c) + k[i+1:])
				}
				if i > 0 && k[i] != k[i-1] {
					refused(k[:i-1] + string(k[i]) + string(k[i-1]) + k[i+1:])
				}
			}
			for _, more := range []string{"A", "\u00a0", "\u200b", ".", "=", "%20", "\x7f"} {
				if more != "\x7f" {
					refused(k + more)
					refused(more + k)
				}
			}
			refused(strings.ToUpper(k))
			refused(strings.ToLower(k))
			refused(k + k)
			if r := s.get("/", "X-API-Key: "+k); r.status != 200 {
				t.Errorf("%s: the key itself: %d %s", name, r.status, r.code)
			}
		}
		if n < 1000 {
			t.Errorf("%s: only %d tries", name, n)
		}
	}
}
