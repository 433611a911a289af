package e2e

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/key"
)

// This file looks for keys where they must not be: after everything that can be
// done with a key was done, in everything that a server writes and answers.

// canaries are raw keys and secrets that are looked for, by their pieces.
type canaries struct {
	pieces map[string]piece
}

// piece is where a piece of a secret part comes from.
type piece struct {
	name string
	at   int
}

const (
	// pieceLen is how many characters of a secret part are a leak. What is
	// stored for display is shorter by one.
	pieceLen = 10
	// inFiles is where pieces begin that are looked for in a database: next to
	// the characters for display there, chance may put the one that follows.
	inFiles = 4
)

func (c *canaries) add(name, raw string) {
	if c.pieces == nil {
		c.pieces = map[string]piece{}
	}
	_, secretPart, _ := strings.Cut(raw, "_")
	for i := 0; i+pieceLen <= len(secretPart); i++ {
		c.pieces[secretPart[i:i+pieceLen]] = piece{name, i}
	}
}

// search returns what was found in a text, each canary once, with what stands around it.
func (c *canaries) search(text string, from int) map[string]string {
	found := map[string]string{}
	for i := 0; i+pieceLen <= len(text); i++ {
		if p, ok := c.pieces[text[i:i+pieceLen]]; ok && p.at >= from && found[p.name] == "" {
			found[p.name] = text[max(0, i-200):min(len(text), i+80)]
		}
	}
	return found
}

// clean checks that a text holds no piece of a canary.
func (c *canaries) clean(t *testing.T, where, text string) {
	t.Helper()
	c.cleanFrom(t, where, text, 0)
}

func (c *canaries) cleanFrom(t *testing.T, where, text string, from int) {
	t.Helper()
	for name, around := range c.search(text, from) {
		t.Errorf("%s holds a piece of %s: …%q…", where, name, around)
	}
}

// leakUpstream notes all that it receives. Paths that end in /abort break off in
// the middle of the answer, which makes Caddy's reverse proxy panic.
type leakUpstream struct {
	*httptest.Server
	mu       sync.Mutex
	received bytes.Buffer
	requests int
}

func newLeakUpstream(t *testing.T) *leakUpstream {
	u := new(leakUpstream)
	u.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u.mu.Lock()
		u.requests++
		fmt.Fprintf(&u.received, "%s %s\n", r.Method, r.RequestURI)
		r.Header.Write(&u.received)    //nolint:errcheck // a buffer
		io.Copy(&u.received, r.Body)   //nolint:errcheck // a buffer
		u.received.WriteString("\n\n") //nolint:errcheck // a buffer
		defer u.mu.Unlock()
		if strings.HasSuffix(r.URL.Path, "/abort") {
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "ten bytes.") //nolint:errcheck // it breaks off anyway
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
	}))
	t.Cleanup(u.Close)
	return u
}

// leakConfig is the example configuration at the debug level, with more logs and
// with routes that go wrong. format is that of all logs.
func leakConfig(t *testing.T, dir, upstream string, format func(wrapped string) string) string {
	t.Helper()
	config := exampleCaddyfile(t)
	replace := func(old, with string) {
		t.Helper()
		if strings.Count(config, old) != 1 {
			t.Fatalf("example.Caddyfile has %d times %q", strings.Count(config, old), old)
		}
		config = strings.Replace(config, old, with, 1)
	}
	replace("\tlog default {\n\t\tformat apikey_redact\n", "\tmetrics\n\tlog default {\n\t\tlevel DEBUG\n\t\t"+format("")+"\n")
	replace("\tlog {\n\t\tformat apikey_redact\n\t}\n", fmt.Sprintf(
		"\tlog {\n\t\t%s\n\t}\n\tlog json {\n\t\toutput file %s/access.json\n\t\t%s\n\t}\n\tlog console {\n\t\toutput file %s/access.txt\n\t\t%s\n\t}\n",
		format(""), dir, format("json"), dir, format("console")))
	replace("\trespond ", "\t@ok not path */dead */up */abort\n\trespond @ok ")
	replace("\tapikey\n", `	@query path /query/*
	apikey @query {
		query api_key
	}
	@cookie path /cookie/*
	apikey @cookie {
		from {http.request.cookie.key}
	}
	@header not path /query/* /cookie/*
	apikey @header {
		secret
	}
	@dead path */dead
	reverse_proxy @dead `+freeAddr(t)+`
	@up path */up */abort
	reverse_proxy @up `+upstream+`
	@error path */error
	error @error "it went wrong" 500
`)
	return config
}

func redactFormat(wrapped string) string {
	return strings.TrimSpace("format apikey_redact " + wrapped)
}

func plainFormat(wrapped string) string {
	if wrapped == "" {
		wrapped = "json"
	}
	return "format " + wrapped
}

// place is a way to send a key. The gate finds it there, or it is somewhere where a
// client may put it by mistake.
type place struct {
	name, prefix string
	put          func(r *http.Request, raw string)
	mistake      bool // what is behind the gate may see it: the gate does not look there
	whole        bool // masked for whole keys only
}

var places4leaks = func() (all []place) {
	header := func(name, format string) place {
		return place{name: "header " + name, prefix: "/header", put: func(r *http.Request, raw string) {
			r.Header[name] = []string{strings.ReplaceAll(format, "*", raw)}
		}}
	}
	for _, name := range []string{
		"X-API-Key", "x-api-key", "X-Api-Key", "X_API_Key", "X-API_Key", "x.api.key", "X.Api-Key",
		"X-API-Secret", "x_api_secret", "X.API.Secret",
	} {
		all = append(all, header(name, "*"))
	}
	for _, scheme := range []string{"Bearer", "bearer", "BEARER"} {
		all = append(all, header("Authorization", scheme+" *"))
	}
	query := func(name string) place {
		return place{name: "query " + name, prefix: "/query", put: func(r *http.Request, raw string) { r.URL.RawQuery = "a=1&" + name + "=" + raw + "&b=2" }}
	}
	mistaken := func(p place) place { p.mistake = true; return p }
	return append(all,
		query("api_key"), query("%61pi_key"), mistaken(query("API_KEY")),
		place{name: "cookie", prefix: "/cookie", put: func(r *http.Request, raw string) { r.Header.Set("Cookie", "a=1; key="+raw+"; b=2") }},
		mistaken(header("Referer", "https://example.com/page?x=1&api_key=*")),
		mistaken(header("Cookie", "key=*")),
		place{name: "two headers", prefix: "/header", put: func(r *http.Request, raw string) { r.Header["X-Api-Key"] = []string{raw, raw} }},
		place{name: "header and bearer", prefix: "/header", put: func(r *http.Request, raw string) {
			r.Header["X-Api-Key"], r.Header["Authorization"] = []string{raw}, []string{"Bearer " + raw}
		}},
		place{name: "path", prefix: "/header", mistake: true, whole: true, put: func(r *http.Request, raw string) { r.URL.Path = "/header/" + raw + r.URL.Path }},
		place{name: "user agent", prefix: "/header", mistake: true, whole: true, put: func(r *http.Request, raw string) { r.Header.Set("User-Agent", raw) }},
	)
}()

// leaker does everything that can be done with keys.
type leaker struct {
	life
	t *testing.T
	canaries
	keys map[string]string // raw keys by what is with them
	ids  map[string]string
}

// issue makes a key that is looked for from then on.
func (l *leaker) issue(name string, more ...string) lifeKey {
	l.t.Helper()
	k := l.create(append(more, `"name":"`+name+`","withSecret":true`)...)
	l.watch(name, k)
	return k
}

func (l *leaker) watch(name string, k lifeKey) {
	l.add(name, k.Raw)
	if k.Secret != "" {
		l.add("the secret of "+name, k.Secret)
	}
	l.keys[name], l.ids[name] = k.Raw, k.ID
	l.keys["the secret of "+name] = k.Secret
}

func (l *leaker) issueAll() {
	l.issue("good")
	l.issue("expired", `"expiresIn":1`)
	l.issue("disabled", `"enabled":false`)
	l.issue("limited", `"rateLimitMax":1,"rateLimitTimeWindow":3600000`)
	l.issue("empty", `"remaining":0`)
	l.issue("elsewhere", `"allowedIps":["192.0.2.1"]`)
	near := l.issue("near").Raw
	l.keys["near"] = near
	last := "0"
	if strings.HasSuffix(near, last) {
		last = "1"
	}
	l.keys["mistyped"] = near[:len(near)-1] + last
	l.keys["truncated"] = near[:len(near)-3]
	l.keys["with a blank"] = near[:20] + "%20" + near[20:]
	unknown, err := key.Random{}.Generate("ak_", key.DefaultLength, true)
	if err != nil {
		l.t.Fatal(err)
	}
	l.keys["unknown"] = unknown
	l.add("unknown", unknown)
}

// request sends all keys in all places, and looks at the answers.
func (l *leaker) request(ways []string) {
	l.t.Helper()
	for _, name := range slices.Sorted(maps.Keys(l.keys)) {
		whole := key.ChecksumFits(l.keys[name])
		for _, p := range places4leaks {
			for _, way := range ways {
				if p.mistake && way != "ok" && way != "dead" || p.whole && !whole {
					continue
				}
				req, err := http.NewRequest(http.MethodGet, l.URL+p.prefix+"/"+way, strings.NewReader("body"))
				if err != nil {
					l.t.Fatal(err)
				}
				if secret := l.keys["the secret of "+name]; secret != "" && p.prefix == "/header" {
					req.Header["X-API-Secret"] = []string{secret}
				}
				p.put(req, l.keys[name])
				do := lifeRetry
				if way == "abort" {
					do = lifeDo
				}
				a, err := do(lifeClient, req)
				if err != nil && way != "abort" {
					l.t.Fatal(err)
				}
				l.clean(l.t, fmt.Sprintf("the answer to %s with the key %s in %s", way, name, p.name), fmt.Sprint(a.header)+a.body)
			}
		}
	}
}

// calls makes all admin calls, good and bad.
func (l *leaker) calls() {
	l.t.Helper()
	good, id := l.keys["good"], l.ids["good"]
	for _, c := range [][3]string{
		{"GET", "/apikey/keys", ""},
		{"GET", "/apikey/keys?limit=500&sort=-lastRequest", ""},
		{"GET", "/apikey/keys/" + id, ""},
		{"PATCH", "/apikey/keys/" + id, `{"metadata":{"a":1}}`},
		{"GET", "/apikey/keys/" + id + "/usage", ""},
		{"GET", "/apikey/owners", ""},
		{"GET", "/apikey/owners/alice", ""},
		{"PUT", "/apikey/owners/alice", `{"enabled":true}`},
		{"GET", "/apikey/owners/alice/usage", ""},
		{"GET", "/apikey/tiers", ""},
		{"GET", "/apikey/health", ""},
		{"GET", "/apikey/openapi.json", ""},
		{"GET", "/config/", ""},
		{"GET", "/metrics", ""},
		{"GET", "/debug/vars", ""},
		{"GET", "/debug/pprof/cmdline", ""},
		// A key in the wrong place.
		{"GET", "/apikey/keys/" + good, ""},
		{"DELETE", "/apikey/keys/" + good, ""},
		{"GET", "/apikey/keys?q=" + good, ""},
		{"GET", "/apikey/keys?userId=" + good, ""},
		{"GET", "/apikey/keys?cursor=" + good, ""},
		{"GET", "/apikey/keys?limit=" + good, ""},
		{"GET", "/apikey/keys?" + good + "=1", ""},
		{"GET", "/apikey/owners/" + good, ""},
		{"GET", "/apikey/" + good, ""},
		{"GET", "/" + good, ""},
		{"PATCH", "/apikey/keys/" + good, `{"enabled":true}`},
		{"POST", "/apikey/keys/" + good + "/rotate", ""},
	} {
		l.clean(l.t, "the answer to "+c[0]+" "+c[1][:min(20, len(c[1]))], l.admin(c[0], c[1], c[2]).body)
	}
	for _, name := range slices.Sorted(maps.Keys(l.keys)) {
		raw := l.keys[name]
		for _, body := range []string{
			`{"key":"*"}`, `{"key":"*","secret":"*"}`, `{"key":"*","dryRun":true,"permissions":["files:read"],"ip":"192.0.2.1"}`,
			// Bad ones.
			`{"key":"*","cost":-1}`, `{"kee":"*"}`, `{"key":1,"secret":"*"}`, `{"key":"*","key":"*"}`, `{"key":"*","ip":"*"}`, `{"key":"*","cost":"*"}`,
			`{"key":"*","permissions":["*"]}`, `{"key":"*","permissions":{"*":["*"]}}`, `{"key":"*","permissions":"*"}`, `{"key":"*","configId":"*"}`,
			`{"key":["*"]}`, `{"key":{"a":"*"}}`, `{"key":"*"`, `{"key":"*"}}`, `{"key":"*"} *`, `"*"`, `*`, `["*"]`, `{"*":1}`, `{"*":"*"}`, `{"key":*}`,
			`{"userId":"*","nmae":"*"}`, `{"userId":1,"name":"*"}`, `{"userId":"alice","expiresIn":"*"}`, `{"userId":"alice","prefix":"*"}`,
			`{"userId":"alice","allowedIps":["*"]}`, `{"userId":"alice","metadata":"*"}`, `{"userId":"alice","permissions":"*"}`, `{"userId":"alice","permissions":["* *"]}`,
			`{"userId":"alice","rateLimitAlgorithm":"*"}`, `{"userId":"alice","configId":"*"}`, `{"userId":"alice","remaining":"*"}`, `{"tier":"*"}`, `{"enabled":"*"}`,
		} {
			body = strings.ReplaceAll(body, "*", raw)
			for _, path := range []string{"POST /apikey/verify", "PATCH /apikey/keys/" + id, "PUT /apikey/owners/alice", "POST /apikey/keys", "POST /apikey/keys/" + id + "/rotate"} {
				method, path, _ := strings.Cut(path, " ")
				if path == "/apikey/keys" && strings.HasPrefix(body, `{"userId":"alice","configId"`) && name == "" {
					continue
				}
				a := l.admin(method, path, body)
				if a.status == 201 || a.status == 200 && strings.HasSuffix(path, "rotate") {
					l.t.Fatalf("%s %s: a key was made: %s", method, path, body)
				}
				l.clean(l.t, fmt.Sprintf("the answer %d to %s %s with %s", a.status, method, path, strings.ReplaceAll(body, raw, "*")), a.body)
			}
		}
	}
}

// commands runs all commands.
func (l *leaker) commands() {
	l.t.Helper()
	made := l.run("apikey", "create", "--owner", "bob", "--name", "command", "--with-secret", "--json")
	var k lifeKey
	decode(l.t, made.stdout, &k)
	l.watch("made by a command", k)
	l.clean(l.t, "the standard error of create", made.stderr)
	rotated := l.run("apikey", "rotate", k.ID, "--with-secret", "--json")
	var r lifeKey
	decode(l.t, rotated.stdout, &r)
	l.watch("rotated by a command", r)
	l.clean(l.t, "the standard error of rotate", rotated.stderr)
	for _, args := range [][]string{
		{"list"},
		{"list", "--json"},
		{"show", k.ID},
		{"show", k.ID, "--json"},
		{"update", k.ID, "--name", "other"},
		{"revoke", k.ID},
		{"enable", k.ID},
		{"usage", k.ID},
		{"owner", "list"},
		{"owner", "show", "bob"},
		{"tiers"},
		{"health"},
		{"health", "--json"},
		{"show", r.Raw},
		{"delete", r.Raw},
		{"verify", r.Raw},
		{"show", k.ID, r.Raw},
		{"create", "--owner", "x", "--remaining", r.Raw}, // by mistake
		{"list", "--nonsense=" + r.Raw},
		{"verify", "--key", r.Raw},
		{r.Raw},
		{"create", "--owner", "x", "--allowed-ip", r.Raw},
	} {
		out := l.run(append([]string{"apikey"}, args...)...)
		l.clean(l.t, "caddy apikey "+args[0], out.stdout+out.stderr)
	}
	for _, raw := range []string{r.Raw, k.Raw, l.keys["disabled"], l.keys["mistyped"]} {
		for _, more := range [][]string{nil, {"--json"}} {
			out := l.runWith(raw+"\n", append([]string{"apikey", "verify"}, more...)...)
			l.clean(l.t, "caddy apikey verify", out.stdout+out.stderr)
		}
	}
	l.processes(r)
	l.run("apikey", "delete", k.ID, "--yes")
}

// processes looks at what others can see of a command that knows a key.
func (l *leaker) processes(k lifeKey) {
	l.t.Helper()
	cmd := l.command("apikey", "verify", "--with-secret")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		l.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	if _, err := io.WriteString(stdin, k.Raw+"\n"); err != nil { // and it waits for the secret
		l.t.Fatal(err)
	}
	for _, name := range []string{"cmdline", "environ"} {
		for _, pid := range []int{cmd.Process.Pid, l.cmd.Process.Pid} {
			var text []byte
			eventually(l.t, "the process runs", func() bool {
				text, _ = os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
				return len(text) > 0
			})
			l.clean(l.t, "/proc/PID/"+name, string(text))
		}
	}
	io.WriteString(stdin, k.Secret+"\n") //nolint:errcheck // the status tells
	stdin.Close()
	if err := cmd.Wait(); err != nil {
		l.t.Errorf("caddy apikey verify: %v", err)
	}
}

// files looks into all files of the server.
func (l *leaker) files(when string) {
	l.t.Helper()
	seen := 0
	err := filepath.WalkDir(l.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if err == nil {
			from := 0
			if strings.HasPrefix(filepath.Base(path), "apikey.db") {
				from = inFiles
			}
			l.cleanFrom(l.t, path+" "+when, string(b), from)
			seen++
		}
		return err
	})
	if err != nil || seen < 4 {
		l.t.Errorf("%d files, %v", seen, err)
	}
}

func TestS1_noKeyAnywhere(t *testing.T) {
	full(t)
	up := newLeakUpstream(t)
	dir := t.TempDir()
	s := startLife(t, leakConfig(t, dir, up.Listener.Addr().String(), redactFormat))
	l := &leaker{life: s, t: t, keys: map[string]string{}, ids: map[string]string{}}
	l.issueAll()
	eventually(t, "a key has expired", func() bool { return s.getAt("/header/ok", l.keys["expired"]).code() == "KEY_EXPIRED" })
	if a := s.getAt("/header/ok", l.keys["good"]); a.status != 401 || a.code() != "INVALID_SECRET" {
		t.Errorf("without the secret: %v", a)
	}
	l.request([]string{"ok", "dead", "up", "abort", "error"})
	rotated := s.admin(http.MethodPost, "/apikey/keys/"+l.ids["near"]+"/rotate", `{"grace":60,"withSecret":true}`)
	var k lifeKey
	decode(t, rotated.body, &k)
	l.watch("rotated", k)
	l.request([]string{"up"})
	l.calls()
	l.commands()

	access := func(name string) string {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		}
		return string(b)
	}
	log := s.Log()
	l.clean(t, "the log of the server", log)
	l.clean(t, "the access log in JSON", access("access.json"))
	l.clean(t, "the access log as text", access("access.txt"))
	up.mu.Lock()
	if up.requests < 20 {
		t.Errorf("%d requests reached the upstream", up.requests)
	}
	l.clean(t, "a request at the upstream", up.received.String())
	up.mu.Unlock()
	for _, want := range []string{"REDACTED", `"logger":"http.log.error`, "aborting with incomplete response", "admin.api", `"level":"debug"`, "http.log.access"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log has no %s: not all was tried", want)
		}
	}
	if strings.Contains(log, "API keys would be printed") {
		t.Error("a warning about logs that are covered")
	}
	if r := s.run("apikey", "backup", s.db()+".backup"); r.code != 0 {
		t.Errorf("%+v", r)
	}
	l.files("while the server runs")

	// Without the encoder the same tests must find keys, and the server must have said so.
	before := len(s.Log())
	dir2 := t.TempDir()
	s.loads(leakConfig(t, dir2, up.Listener.Addr().String(), plainFormat))
	l.request([]string{"dead"})
	dir = dir2
	log = s.Log()[before:]
	if len(l.search(log, 0)) == 0 || len(l.search(access("access.json"), 0)) == 0 || len(l.search(access("access.txt"), 0)) == 0 {
		t.Error("the control finds no keys in logs without apikey_redact")
	}
	var warnings []string
	for line := range strings.Lines(log) {
		if strings.Contains(line, "API keys would be printed") {
			warnings = append(warnings, line)
		}
	}
	for _, name := range []string{`"default"`, `"log0"`, `"json"`, `"console"`} {
		if !strings.Contains(strings.Join(warnings, ""), name) {
			t.Errorf("no warning names the log %s: %s", name, warnings)
		}
	}
	if code := s.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("exit status %d", code)
	}
	l.files("after the end")
}

// getAt sends a request with a key to a path of the site.
func (l life) getAt(path, raw string) lifeAnswer {
	l.t.Helper()
	a, err := l.retry(path, raw)
	if err != nil {
		l.t.Fatal(err)
	}
	return a
}
