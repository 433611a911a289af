package e2e

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	leakPath = "/.well-known/apikey/leak"

	leakReportSite = `{
	log default {
		level DEBUG
		format apikey_redact
	}
	skip_install_trust
	auto_https disable_redirects
	servers {
		trusted_proxies static 127.0.0.1/32
		trusted_proxies_strict
	}
	apikey {
		config pub {
			public
		}
	}
}

(site) {
	log {
		format apikey_redact
	}
	@api path /v1/auth/* /.well-known/apikey/*
	handle @api {
		apikey_api {
			extended
			leak_reports
		}
		respond "next"
	}
	handle /stream {
		apikey {
			cut_on_revoke
		}
		reverse_proxy {$UPSTREAM:localhost:1} {
			flush_interval -1
		}
	}
	handle {
		apikey
		respond ok
	}
}

https://localhost:{$TLS_PORT} {
	bind 127.0.0.1
	tls internal
	import site
}

{$SITE} {
	import site
}
`
)

// leakRig is a site that takes reports of leaked keys, each from another address.
type leakRig struct {
	*server
	p         *protocols
	addresses int
}

func startLeakReports(t *testing.T, env ...string) *leakRig {
	t.Helper()
	tlsPort := port(t, freeAddr(t))
	s := startGate(t, leakReportSite, withEnv(append(env, "TLS_PORT="+tlsPort)...))
	return &leakRig{server: s, p: newProtocols(t, "localhost:"+tlsPort)}
}

// elsewhere is the line of a proxy about a client that has reported nothing yet.
func (g *leakRig) elsewhere() string {
	g.addresses++
	return fmt.Sprintf("X-Forwarded-For: 10.0.%d.%d", g.addresses>>8, g.addresses&255)
}

// report reports a raw key.
func (g *leakRig) report(raw string) {
	g.t.Helper()
	g.reportFrom(g.elsewhere(), fmt.Sprintf(`{"key":%q}`, raw))
}

func (g *leakRig) reportFrom(line, body string) {
	g.t.Helper()
	if r := g.call("POST", leakPath, body, line); r.status != http.StatusAccepted || r.body != "" {
		g.t.Fatalf("%d %s", r.status, r.body)
	}
}

// disabledBy returns who has disabled a key.
func (g *leakRig) disabledBy(id string) (by string) {
	g.t.Helper()
	var k struct {
		Enabled    bool
		DisabledBy *string
	}
	g.admin("GET", "/apikey/keys/"+id, nil, 200, &k)
	if k.DisabledBy != nil {
		by = *k.DisabledBy
	}
	if k.Enabled != (by == "") {
		g.t.Errorf("enabled %t, disabled by %q", k.Enabled, by)
	}
	return by
}

// TestLeakReports_effect: the present raw key disables its key, which only an operator enables
// again; a replaced one ends only itself; a public key stays; and the log tells of each once.
func TestLeakReports_effect(t *testing.T) {
	quick(t)
	g := startLeakReports(t)
	owner := g.create(readWrite)
	enable := func(id string) *reply {
		return g.call("PATCH", "/v1/auth/api-keys/"+id, `{"enabled":true}`, keyLine(owner.Raw))
	}
	leaked := g.create(readWrite)
	g.get("/", keyLine(leaked.Raw)).is(t, 200, "")
	for range 30 { // the log must not grow with the reports
		g.report(leaked.Raw)
	}
	g.get("/", keyLine(leaked.Raw)).is(t, 401, "KEY_DISABLED")
	enable(leaked.ID).is(t, 403, "INSUFFICIENT_PERMISSIONS")
	g.call("DELETE", "/v1/auth/api-keys/"+leaked.ID, "", keyLine(owner.Raw)).is(t, 200, "")
	enable(leaked.ID).is(t, 403, "INSUFFICIENT_PERMISSIONS")
	if by := g.disabledBy(leaked.ID); by != "leak" {
		t.Errorf("disabled by %q", by)
	}

	revoked := g.create(nil)
	g.call("DELETE", "/v1/auth/api-keys/"+revoked.ID, "", keyLine(owner.Raw)).is(t, 200, "")
	g.report(revoked.Raw)
	enable(revoked.ID).is(t, 403, "INSUFFICIENT_PERMISSIONS")

	var fresh made
	g.admin("POST", "/apikey/keys/"+owner.ID+"/rotate", map[string]any{"grace": 3600}, 200, &fresh)
	g.get("/", keyLine(owner.Raw)).is(t, 200, "")
	g.report(owner.Raw)
	g.get("/", keyLine(owner.Raw)).is(t, 401, "INVALID_API_KEY")
	g.get("/", keyLine(fresh.Raw)).is(t, 200, "")

	public := g.create(map[string]any{"configId": "pub"})
	g.report(public.Raw)
	g.report(public.Raw)
	g.get("/", keyLine(public.Raw)).is(t, 200, "")

	stopped := g.create(map[string]any{"userId": "bob"})
	g.admin("PUT", "/apikey/owners/bob", map[string]any{"enabled": false}, 200, nil)
	g.report(stopped.Raw)
	g.admin("PUT", "/apikey/owners/bob", map[string]any{"enabled": true}, 200, nil)
	g.get("/", keyLine(stopped.Raw)).is(t, 401, "KEY_DISABLED")

	g.report(testKey("ak_", 64))
	var got []string
	for _, line := range g.audit() {
		if strings.HasPrefix(line, "key.leak_reported ") {
			got = append(got, line)
		}
	}
	var want []string
	for _, k := range []made{leaked, revoked, owner, public, stopped} {
		want = append(want, "key.leak_reported system  "+k.ID)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q\nwant %q", got, want)
	}

	if r := g.run("apikey", "enable", leaked.ID); r.code != 0 {
		t.Errorf("%+v", r)
	}
	g.get("/", keyLine(leaked.Raw)).is(t, 200, "")
	if r := g.run("apikey", "audit", "--action", "key.leak_reported", "--key", owner.ID, "-o", "csv", "--columns", "changes"); !strings.Contains(r.stdout, "previousKeys: 1 → ") {
		t.Errorf("%+v", r)
	}
}

// TestLeakReports_atOnce: no request that starts after the answer is let in, responses that run
// are cut, and a crash undoes nothing.
func TestLeakReports_atOnce(t *testing.T) {
	full(t)
	g := startLeakReports(t, "UPSTREAM="+endless(t, nil))
	for range 100 {
		k := g.create(nil)
		g.get("/", keyLine(k.Raw)).is(t, 200, "")
		g.report(k.Raw)
		g.get("/", keyLine(k.Raw)).is(t, 401, "KEY_DISABLED")
	}
	running := func(raw string) io.Reader {
		req, err := http.NewRequestWithContext(t.Context(), "GET", g.URL+"/stream", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-API-Key", raw)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		if _, err := io.ReadFull(resp.Body, make([]byte, 5)); err != nil || resp.StatusCode != 200 {
			t.Fatalf("%d, %v", resp.StatusCode, err)
		}
		return resp.Body
	}
	k, old := g.create(nil), g.create(nil)
	var fresh made
	g.admin("POST", "/apikey/keys/"+old.ID+"/rotate", map[string]any{"grace": 3600}, 200, &fresh)
	present, previous, other := running(k.Raw), running(old.Raw), running(fresh.Raw)
	g.report(k.Raw)
	g.report(old.Raw)
	for _, body := range []io.Reader{present, previous} {
		if err := ends(t, "a response with a leaked key", body); err == nil {
			t.Error("it looks complete")
		}
	}
	if _, err := io.ReadFull(other, make([]byte, 50)); err != nil {
		t.Errorf("a response with another key: %v", err)
	}
	g.kill()
	g.start()
	g.settled()
	g.get("/", keyLine(k.Raw)).is(t, 401, "KEY_DISABLED")
	g.get("/", keyLine(old.Raw)).is(t, 401, "INVALID_API_KEY")
	g.get("/", keyLine(fresh.Raw)).is(t, 200, "")
}

// answer is what a client sees of an answer, but for the time.
func answer(r *reply) string {
	h := maps.Clone(r.header)
	delete(h, "Date")
	return fmt.Sprintf("%d %q %v", r.status, r.body, h)
}

// bytes sends a report over a connection that the client would keep, and returns the bytes of
// the answer but for the time. They are read while the body is still being sent.
func (g *leakRig) bytes(t *testing.T, length, body string) (text string) {
	t.Helper()
	conn := dial(t, g.URL)
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(testTimeout))
	from := g.elsewhere()
	go func() {
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n%s\r\n%s\r\n\r\n",
			leakPath, strings.TrimPrefix(g.URL, "http://"), from, length)
		io.WriteString(conn, body) //nolint:errcheck // the server need not read it
	}()
	for r := bufio.NewReader(conn); ; {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("%v after %q", err, text)
		}
		if !strings.HasPrefix(line, "Date: ") {
			text += line
		}
		if line == "\r\n" { // there is no body
			return text
		}
	}
}

// TestLeakReports_sameAnswer: every report has the same status, body and headers, over every
// version of HTTP.
func TestLeakReports_sameAnswer(t *testing.T) {
	full(t)
	g := startLeakReports(t)
	g.p.ready(t)
	const jsonType = "Content-Type: application/json"
	for _, version := range versions {
		rotated, public, disabled, bystander := g.create(nil), g.create(map[string]any{"configId": "pub"}), g.create(map[string]any{"enabled": false}), g.create(nil)
		var fresh made
		g.admin("POST", "/apikey/keys/"+rotated.ID+"/rotate", map[string]any{"grace": 3600}, 200, &fresh)
		body := func(raw string) string { return fmt.Sprintf(`{"key":%q}`, raw) }
		want := ""
		for i, row := range []struct {
			name, body string
			lines      []string
		}{
			{"an unknown key", body(testKey("ak_", 64)), []string{jsonType}},
			{"a replaced key", body(rotated.Raw), []string{jsonType}},
			{"the same again", body(rotated.Raw), []string{jsonType}},
			{"the present key", body(fresh.Raw), []string{jsonType}},
			{"the same again", body(fresh.Raw), []string{jsonType}},
			{"a public key", body(public.Raw), []string{jsonType}},
			{"a disabled key", body(disabled.Raw), []string{jsonType}},
			{"half a key", body(bystander.Raw[:40]), []string{jsonType}},
			{"a typo", body(bystander.Raw[:60] + "0000000"), []string{jsonType}},
			{"a number", `{"key":1}`, []string{jsonType}},
			{"no key", `{}`, []string{jsonType}},
			{"null", `null`, []string{jsonType}},
			{"a list", `["` + bystander.Raw + `"]`, []string{jsonType}},
			{"malformed JSON", `{"key":"` + bystander.Raw + `"`, []string{jsonType}},
			{"more after it", body(bystander.Raw) + "x", []string{jsonType}},
			{"no body", "", []string{jsonType}},
			{"a form", "key=" + bystander.Raw, []string{"Content-Type: application/x-www-form-urlencoded"}},
			{"JSON as text", body(bystander.Raw), []string{"Content-Type: text/plain"}},
			{"two types", body(bystander.Raw), []string{jsonType, "Content-Type: text/plain"}},
			{"another origin", body(testKey("ak_", 64)), []string{jsonType, "Origin: https://evil.example"}},
			{"a caller with a key", body(testKey("ak_", 64)), []string{jsonType, keyLine(bystander.Raw)}},
			{"a caller with a wrong key", body(testKey("ak_", 64)), []string{jsonType, keyLine("x"), "Authorization: Bearer y"}},
			{"a key in the query", "{}", []string{jsonType}},
			{"too long", body(bystander.Raw) + strings.Repeat(" ", 5000), []string{jsonType}},
		} {
			target := leakPath
			if row.name == "a key in the query" {
				target += "?key=" + bystander.Raw
			}
			m := &message{method: "POST", target: target, body: row.body, fields: fieldsOf(append(row.lines, g.elsewhere()))}
			got := answer(g.p.send(t, version, m))
			if i == 0 {
				want = got
				if !strings.HasPrefix(want, `202 "" `) || !strings.Contains(want, "no-store") {
					t.Errorf("%s: %s", version, want)
				}
			}
			if got != want {
				t.Errorf("%s, %s: %s\nwant %s", version, row.name, got, want)
			}
		}
		g.get("/", keyLine(bystander.Raw)).is(t, 200, "")
		g.get("/", keyLine(public.Raw)).is(t, 200, "")
		for _, id := range []string{fresh.ID, disabled.ID} {
			if by := g.disabledBy(id); by != "leak" {
				t.Errorf("%s: disabled by %q", version, by)
			}
		}
	}
	large := strings.Repeat(" ", 1<<20)
	want := g.bytes(t, "Content-Length: 2", "{}")
	if !strings.HasPrefix(want, "HTTP/1.1 202 ") || !strings.Contains(want, "\r\nContent-Length: 0\r\n") {
		t.Errorf("%q", want)
	}
	for _, row := range [][2]string{
		{"Content-Length: 5000", large[:5000]},
		{"Content-Length: 1048576", large},
		{"Transfer-Encoding: chunked", "100000\r\n" + large},
		{"Content-Length: 0", ""},
	} {
		if got := g.bytes(t, row[0], row[1]); got != want {
			t.Errorf("%s: %q\nwant %q", row[0], got, want)
		}
	}
	// A member that nobody knows keeps no key from being ended.
	k := g.create(nil)
	g.reportFrom(g.elsewhere(), fmt.Sprintf(`{"source":"commit","key":%q,"url":"https://git.example/x"}`, k.Raw))
	g.get("/", keyLine(k.Raw)).is(t, 401, "KEY_DISABLED")
	t.Run("a stalled body", func(t *testing.T) {
		for _, version := range versions {
			t.Run(version, func(t *testing.T) {
				t.Parallel()
				if r, took := g.p.stall(t, version, leakPath, ""); r.status != 202 || r.body != "" || took < 29*time.Second {
					t.Errorf("%d %s after %s", r.status, r.body, took)
				}
			})
		}
	})
}

// TestLeakReports_methods: what is no report is answered like other calls of the API, never by
// what is behind, and one in early data has to be repeated.
func TestLeakReports_methods(t *testing.T) {
	full(t)
	g := startLeakReports(t)
	k := g.create(nil)
	for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"} {
		r := g.call(method, leakPath, "", "Origin: https://app.example", "Access-Control-Request-Method: POST")
		if r.status != 405 || r.header.Get("Allow") != "POST" || r.header.Get("Access-Control-Allow-Origin") != "" || method != "HEAD" && r.code != "METHOD_NOT_ALLOWED" {
			t.Errorf("%s: %d %s %v", method, r.status, r.body, r.header)
		}
	}
	for _, target := range []string{leakPath + "/", leakPath + "/x", "/.well-known//apikey/leak", "/.well-known/apikey/LEAK", "/.well-known/apikey/./leak"} {
		g.call("POST", target, fmt.Sprintf(`{"key":%q}`, k.Raw)).is(t, 404, "NOT_FOUND")
	}
	if r := g.call("POST", "/.well-known/apikey/leaks", "{}"); r.body != "next" {
		t.Errorf("another path: %d %s", r.status, r.body)
	}
	g.call("POST", leakPath, fmt.Sprintf(`{"key":%q}`, k.Raw), "Early-Data: 1").is(t, 425, "TOO_EARLY")
	g.get("/", keyLine(k.Raw)).is(t, 200, "")
}

// TestD4_leakReports: ten reports of an address, or a /64 of IPv6, count in a minute, by Caddy's
// client_ip. The others get the same answer and do nothing.
func TestD4_leakReports(t *testing.T) {
	full(t)
	g := startLeakReports(t)
	for name, address := range map[string]func(round, i int) string{
		"one address": func(round, _ int) string { return fmt.Sprintf("198.51.100.%d", round) },
		"a /64":       func(round, i int) string { return fmt.Sprintf("2001:db8:1:%x:%x::%x", round, i*977, i) },
		"mapped": func(round, i int) string {
			return [...]string{"", "::ffff:"}[i%2] + fmt.Sprintf("198.51.101.%d", round)
		},
		"made up": func(round, i int) string { return fmt.Sprintf("192.0.2.%d, 198.51.102.%d", i, round) },
	} {
		k := g.create(nil)
		for round := 1; ; round++ {
			began := time.Now()
			for i := range 10 {
				g.reportFrom("X-Forwarded-For: "+address(round, i), []string{`{}`, `{"key":"x"}`, `no JSON`}[i%3])
			}
			over := answer(g.call("POST", leakPath, fmt.Sprintf(`{"key":%q}`, k.Raw), "X-Forwarded-For: "+address(round, 11)))
			if time.Since(began) >= time.Minute { // a new window may have begun: again, from another address
				k = g.create(nil)
				continue
			}
			if within := answer(g.call("POST", leakPath, "{}", g.elsewhere())); over != within {
				t.Errorf("%s: over the limit: %s\nwant %s", name, over, within)
			}
			break
		}
		if r := g.get("/", keyLine(k.Raw)); r.status != 200 {
			t.Errorf("%s: a report over the limit counts: %d %s", name, r.status, r.body)
		}
		g.report(k.Raw)
		g.get("/", keyLine(k.Raw)).is(t, 401, "KEY_DISABLED")
	}
}

// TestLeakReports_away: while the store is away, every report gets the same 503, and works when
// it is repeated. The log has no raw key in it.
func TestLeakReports_away(t *testing.T) {
	full(t)
	g := startLeakReports(t)
	k, old, public := g.create(nil), g.create(nil), g.create(map[string]any{"configId": "pub"})
	var fresh made
	g.admin("POST", "/apikey/keys/"+old.ID+"/rotate", map[string]any{"grace": 3600}, 200, &fresh)
	for _, raw := range []string{k.Raw, old.Raw, fresh.Raw, public.Raw} {
		g.get("/", keyLine(raw)).is(t, 200, "")
	}
	db := filepath.Join(g.Dir, "caddy", "apikey", "apikey.db")
	if err := os.Rename(db, db+".away"); err != nil {
		t.Fatal(err)
	}
	want := ""
	for _, body := range []string{
		fmt.Sprintf(`{"key":%q}`, testKey("ak_", 64)), fmt.Sprintf(`{"key":%q}`, k.Raw), fmt.Sprintf(`{"key":%q}`, old.Raw), fmt.Sprintf(`{"key":%q}`, public.Raw),
		`{"key":"x"}`, `{}`, `no JSON`, k.Raw, strings.Repeat(" ", 5000),
	} {
		r := g.call("POST", leakPath, body, g.elsewhere())
		r.is(t, 503, "STORE_UNAVAILABLE")
		if want == "" {
			want = answer(r)
		}
		if got := answer(r); got != want || r.header.Get("Retry-After") != "1" {
			t.Errorf("%.80s: %s\nwant %s", body, got, want)
		}
	}
	g.get("/", keyLine(k.Raw)).is(t, 200, "")
	if err := os.Rename(db+".away", db); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the report is taken", func() bool {
		return g.call("POST", leakPath, fmt.Sprintf(`{"key":%q}`, k.Raw), g.elsewhere()).status == 202
	})
	g.get("/", keyLine(k.Raw)).is(t, 401, "KEY_DISABLED")
	g.report(old.Raw)
	g.stop(os.Interrupt)
	secrets := map[string]string{"present": k.Raw, "replaced": old.Raw, "another": fresh.Raw, "public": public.Raw}
	for name, raw := range secrets {
		if strings.Contains(g.Log(), raw[len("ak_"):][:16]) {
			t.Errorf("the log shows the %s key", name)
		}
	}
	err := filepath.WalkDir(g.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		for name, raw := range secrets {
			if strings.Contains(string(b), raw[len("ak_"):][:16]) {
				t.Errorf("%s shows the %s key", path, name)
			}
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
