package e2e

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// TestS9_DataStaysData gives keys names and metadata that somebody might run.
func TestS9_DataStaysData(t *testing.T) {
	full(t)
	up := startUpstream(t)
	s := startGate(t, `{
	log default {
		format apikey_redact
	}
}

{$SITE} {
	log
	handle /proxy/* {
		apikey {
			identity_header X-Text {http.auth.user.metadata.text}
		}
		reverse_proxy {$UPSTREAM}
	}
	handle {
		apikey
		respond "{http.auth.user.metadata.text}"
	}
}
`, withEnv("UPSTREAM="+up.Addr, "CANARY=leaked"))
	for i, text := range []string{
		"{env.CANARY}", "{$CANARY}", "{http.request.header.X-API-Key}", "a\r\nSet-Cookie: x=1", "=cmd()", "<img onerror=x>",
		"\u202eevil", "{{env \"CANARY\"}}", strings.Repeat("x", 12<<10), "\x00\x1b[31m", "\\{env.CANARY}", "{", "}",
	} {
		k := s.create(map[string]any{"userId": "{env.CANARY}", "metadata": map[string]any{"text": text}})
		if r := s.get("/", "X-API-Key: "+k.Raw); r.status != 200 || r.body != text || r.header.Get("Set-Cookie") != "" {
			t.Errorf("%.30q: %d %.50q", text, r.status, r.body)
		}
		mark := fmt.Sprint("s9", i)
		r := s.get("/proxy/", "X-API-Key: "+k.Raw, markHeader+": "+mark)
		got := up.of(mark)
		if r.status != 200 || len(got) != 1 {
			t.Errorf("%.30q: status %d, %d at the upstream", text, r.status, len(got))
			continue
		}
		want := []string{text}
		if strings.ContainsAny(text, "\r\n\x00") { // would not arrive as it is
			want = nil
		}
		if v := got[0].Header.Values("X-Text"); !slices.Equal(v, want) || got[0].has("leaked") || got[0].has(k.Raw) || got[0].Header.Get("Set-Cookie") != "" {
			t.Errorf("%.30q: the upstream has seen %.200q", text, fmt.Sprint(got[0].Header))
		}
	}
	if strings.Contains(s.Log(), "leaked") {
		t.Error("a placeholder in an owner's name was replaced in the log")
	}
}

// doorSite has every way to give a key a name.
const doorSite = `{
	log default {
		format apikey_redact
	}
}

{$SITE} {
	log
	apikey_api
	apikey_api {
		dialect better_auth
		base /auth
	}
	apikey {
		identity_header X-Name {http.auth.user.key_name}
	}
	respond "{http.auth.user.key_name}"
}
`

// hostileTexts are names that somebody might run, or that would break a line.
var hostileTexts = []string{
	"{env.CANARY}", "{$CANARY}", "{{env \"CANARY\"}}", "${CANARY}", "=cmd|'/C calc'!A0", "+1+cmd()", "-1+cmd()", "@SUM(1+1)", "\uff1dcmd()",
	"<img src=x onerror=cmd()>", "a\r\nSet-Cookie: cmd=1", "a\n{\"level\":\"error\",\"msg\":\"cmd()\"}", "\u202eevil cmd()", "\u2066cmd()\u2069", "\x1b[31mcmd()", "cmd()\x00",
	"\tcmd()", "cmd(),\"=1\"", "\ufeffcmd()", strings.Repeat("cmd()", 64<<10/5),
}

// nameDoors give a key a name, and return its id, or none where the name is refused.
func nameDoors(s *server) map[string]func(name string) (id string) {
	created := func(r *reply) string {
		var k struct{ ID, KeyID string }
		if r.status >= 300 {
			if r.status < 400 || r.status >= 500 {
				s.t.Errorf("status %d: %s", r.status, r.body)
			}
			return ""
		}
		if err := json.Unmarshal([]byte(r.body), &k); err != nil {
			s.t.Errorf("%v: %s", err, r.body)
		}
		return k.ID + k.KeyID
	}
	send := func(method, url, path string, body any, lines ...string) *reply {
		b, err := json.Marshal(body)
		if err != nil {
			s.t.Fatal(err)
		}
		m := &message{method: method, target: path, body: string(b), fields: fieldsOf(append(lines, "Content-Type: application/json"))}
		return m.plain(s.t, url)
	}
	named := func(name string) map[string]any { return map[string]any{"userId": "eve", "name": name} }
	maker := s.create(with(readWrite, "userId", "eve"))
	n := 0
	return map[string]func(string) string{
		"create": func(name string) string { return created(send("POST", s.Admin, "/apikey/keys", named(name))) },
		"change": func(name string) string {
			return created(send("PATCH", s.Admin, "/apikey/keys/"+s.create(nil).ID, map[string]any{"name": name}))
		},
		"import": func(name string) string {
			n++
			id := fmt.Sprint("imported", n)
			k := named(name)
			maps.Copy(k, map[string]any{"id": id, "hash": fmt.Sprintf("%064x", n)})
			var done struct{ Created int }
			if r := send("POST", s.Admin, "/apikey/keys/import", map[string]any{"keys": []any{k}}); r.status != http.StatusOK || json.Unmarshal([]byte(r.body), &done) != nil || done.Created == 0 {
				return ""
			}
			return id
		},
		"rest": func(name string) string {
			return created(send("POST", s.URL, "/v1/auth/api-keys", map[string]any{"name": name}, keyLine(maker.Raw)))
		},
		"better_auth": func(name string) string {
			return created(send("POST", s.URL, "/auth/api-key/create", map[string]any{"name": name}, keyLine(maker.Raw)))
		},
		"command line": func(name string) string {
			if strings.Contains(name, "\x00") || len(name) > 60<<10 {
				return "" // no argument can be that
			}
			r := s.run("apikey", "create", "--owner", "eve", "--name", name, "--json")
			if r.code != 0 {
				return ""
			}
			return created(&reply{status: http.StatusCreated, body: r.stdout})
		},
	}
}

// TestS9_EveryDoor gives keys hostile names by every door. A name is refused or kept as
// it is, and no list, log line or metric becomes something else by it.
func TestS9_EveryDoor(t *testing.T) {
	full(t)
	s := startGate(t, doorSite, withEnv("CANARY=leaked"))
	for door, name := range nameDoors(s) {
		kept := 0
		for _, text := range hostileTexts {
			id := name(text)
			if id == "" {
				continue
			}
			kept++
			var k struct{ Name string }
			s.admin("GET", "/apikey/keys/"+id, nil, http.StatusOK, &k)
			if k.Name != text {
				t.Errorf("%s: %.40q became %.40q", door, text, k.Name)
			}
		}
		if kept < 5 {
			t.Errorf("%s: only %d names were kept", door, kept)
		}
	}
	for door, body := range map[string]string{
		"/apikey/keys":              `{"userId":"eve","name":"` + "\xff\xfe" + `"}`,
		"/apikey/owners/%ff%fe":     `{}`,
		"/apikey/keys?q=%ff%fe":     "",
		"/apikey/audit?actor=%ff":   "",
		"/apikey/report?cursor=%ff": "",
	} {
		m := &message{method: "GET", target: door, body: body, fields: fieldsOf([]string{"Content-Type: application/json"})}
		if body != "" {
			m.method = map[bool]string{true: "PUT", false: "POST"}[strings.Contains(door, "owners")]
		}
		if r := m.plain(t, s.Admin); r.status >= 500 || r.status < 300 && body != "" {
			t.Errorf("%s: not UTF-8: %d %s", door, r.status, r.body)
		}
	}
	s.listsAreInert()
	s.linesAreEvents()
	if text := s.metrics(s.Admin+"/metrics", "Accept: text/plain"); strings.Contains(text, "cmd()") || strings.Contains(text, "eve\"") {
		t.Error("the metrics have a name or an owner")
	}
}

// listsAreInert prints keys, owners, the audit log and the report in every format.
func (s *server) listsAreInert() {
	s.t.Helper()
	for _, args := range []string{"list --all", "audit --all", "report --idle 0s --older-than 0s", "owner list"} {
		for _, format := range []string{"table", "wide", "csv", "ndjson", "name", "json"} {
			r := s.run(append([]string{"apikey"}, append(strings.Fields(args), "-o", format)...)...)
			if r.code != 0 || r.stdout == "" {
				s.t.Errorf("%s -o %s: %d %s", args, format, r.code, r.stderr)
			}
			if strings.Contains(r.stdout, "leaked") {
				s.t.Errorf("%s -o %s: a placeholder was replaced", args, format)
			}
			if i := strings.IndexFunc(r.stdout, func(c rune) bool { return c != '\n' && !unicode.IsGraphic(c) }); i >= 0 && format != "json" && format != "ndjson" {
				s.t.Errorf("%s -o %s: a control character: %q", args, format, r.stdout[max(0, i-20):min(len(r.stdout), i+20)])
			}
			if format == "csv" {
				s.cellsAreText(args, r.stdout)
			}
		}
	}
}

func (s *server) cellsAreText(args, text string) {
	s.t.Helper()
	rows, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil {
		s.t.Errorf("%s: %v", args, err)
	}
	for _, cell := range slices.Concat(rows...) {
		if strings.ContainsAny(cell[:min(1, len(cell))], "=+-@\t\r") || strings.HasPrefix(cell, "\uff1d") {
			s.t.Errorf("%s: a spreadsheet runs %q", args, cell)
		}
	}
}

// linesAreEvents checks that every line of the log is one event, none of which a client
// has made up.
func (s *server) linesAreEvents() {
	s.t.Helper()
	for line := range strings.Lines(s.Log()) {
		var event struct{ Level, Msg string }
		if err := json.Unmarshal([]byte(line), &event); err != nil || event.Level == "" || event.Level == "error" || strings.Contains(event.Msg, "cmd()") {
			s.t.Errorf("not an event of the server: %.200q (%v)", line, err)
		}
	}
	if strings.Contains(s.Log(), "leaked") {
		s.t.Error("a placeholder was replaced in the log")
	}
}
