package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/key"
)

// This file runs the configurations in the documentation with an upstream that is away,
// and looks for keys in their logs.

// example is a configuration in JSON, changed so that it runs anywhere: it listens on
// the loopback interface, without TLS, its files are in a folder of the test, and nobody
// listens where its upstreams are.
type example struct {
	config  map[string]any
	servers []string // addresses
	hosts   []string // that routes match
	paths   []string
	places  []examplePlace
	ids     []string // configurations of keys
	prints  bool     // it would print requests, but for its format
	formats int      // logs with apikey_redact
}

// examplePlace is where a gate or an API of an example reads keys.
type examplePlace struct {
	name string
	put  func(r *http.Request, raw string)
}

func newExample(t *testing.T, text []byte, admin string) *example {
	t.Helper()
	e := &example{paths: []string{"/", "/v1/items"}, ids: []string{key.DefaultConfig}}
	if err := json.Unmarshal(text, &e.config); err != nil {
		t.Fatal(err)
	}
	apps, _ := e.config["apps"].(map[string]any)
	httpApp, _ := apps["http"].(map[string]any)
	servers, _ := httpApp["servers"].(map[string]any)
	app, _ := apps["apikey"].(map[string]any)
	if app == nil {
		app = map[string]any{}
	}
	e.find(servers, app)
	if len(e.places) == 0 {
		return nil
	}
	dead := freeAddr(t)
	for _, name := range slices.Sorted(maps.Keys(servers)) {
		s := servers[name].(map[string]any)
		addr := freeAddr(t)
		e.servers = append(e.servers, addr)
		s["listen"], s["automatic_https"], s["protocols"] = []string{addr}, map[string]any{"disable": true}, []string{"h1"}
		delete(s, "tls_connection_policies")
		// An error that an error route takes is logged at the level DEBUG.
		e.prints = e.redirect(s, dead) && s["errors"] == nil || s["logs"] != nil || e.prints
	}
	configs, _ := app["configs"].([]any)
	for _, c := range configs {
		e.ids = append(e.ids, c.(map[string]any)["id"].(string))
	}
	app["store"] = map[string]any{"store": "sqlite", "path": filepath.Join(t.TempDir(), "keys.db")}
	e.config["apps"] = map[string]any{"http": httpApp, "apikey": app}
	e.config["admin"] = map[string]any{"listen": admin}
	delete(e.config, "storage")
	e.eachLog(func(log map[string]any) {
		if writer, _ := log["writer"].(map[string]any); writer["output"] != "discard" {
			delete(log, "writer")
		}
		if encoder, _ := log["encoder"].(map[string]any); encoder["format"] == "apikey_redact" {
			e.formats++
		}
	})
	return e
}

func (e *example) eachLog(f func(map[string]any)) {
	logging, _ := e.config["logging"].(map[string]any)
	logs, _ := logging["logs"].(map[string]any)
	for _, log := range logs {
		f(log.(map[string]any))
	}
}

// unmask takes the format away.
func (e *example) unmask() {
	e.eachLog(func(log map[string]any) { log["encoder"] = map[string]any{"format": "json"} })
}

// redirect sends everything that is proxied to an address, without health checks, and
// reports whether anything is.
func (e *example) redirect(v any, to string) (proxied bool) {
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			proxied = e.redirect(item, to) || proxied
		}
	case map[string]any:
		if v["handler"] == "reverse_proxy" {
			// What asks who is signed in (forward_auth) is asked about requests without a key.
			proxied = v["handle_response"] == nil
			v["upstreams"] = []any{map[string]any{"dial": to}}
			delete(v, "health_checks")
			delete(v, "dynamic_upstreams")
		}
		for _, item := range v {
			proxied = e.redirect(item, to) || proxied
		}
	}
	return proxied
}

// find notes the places that handlers read, and what routes match.
func (e *example) find(v any, app map[string]any) {
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			e.find(item, app)
		}
	case map[string]any:
		if v["handler"] == "apikey" || v["handler"] == "apikey_api" {
			e.addPlaces(v, app)
		}
		if base, ok := v["base"].(string); ok {
			e.paths = append(e.paths, base+"/keys")
		}
		for name, item := range v {
			if list, ok := item.([]any); ok && (name == "path" || name == "host") {
				for _, text := range list {
					if text, ok := text.(string); ok && name == "path" {
						e.paths = append(e.paths, "/"+strings.TrimPrefix(strings.ReplaceAll(text, "*", "x"), "/"))
					} else if ok {
						e.hosts = append(e.hosts, text)
					}
				}
			}
			e.find(item, app)
		}
	}
	slices.Sort(e.paths)
	e.paths = slices.Compact(e.paths)
	slices.Sort(e.hosts)
	e.hosts = slices.Compact(e.hosts)
}

// addPlaces adds the places of a handler.
func (e *example) addPlaces(handler, app map[string]any) {
	list := func(name, byDefault string) []string {
		for _, from := range []map[string]any{handler, app} {
			if values, ok := from[name].([]any); ok {
				texts := make([]string, len(values))
				for i := range values {
					texts[i] = values[i].(string)
				}
				return texts
			}
		}
		return []string{byDefault}
	}
	from, _ := handler["from"].(string)
	headers, schemes := list("headers", "X-API-Key"), list("authorization", "Bearer")
	query, _ := handler["query"].(string)
	switch kind, name := placeOf(from); kind {
	case "":
	case "header":
		headers, schemes = []string{name}, nil
	case "cookie":
		headers, schemes = nil, nil
		e.add("cookie "+name, func(r *http.Request, raw string) { r.AddCookie(&http.Cookie{Name: name, Value: raw}) })
	case "uri.query":
		headers, schemes, query = nil, nil, name
	case "uri.path":
		headers, schemes = nil, nil
		n, _ := strconv.Atoi(name)
		e.add("segment "+name, func(r *http.Request, raw string) {
			segments := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
			for len(segments) <= n {
				segments = append(segments, "x")
			}
			segments[n] = raw
			r.URL.Path = "/" + strings.Join(segments, "/")
		})
	}
	for _, name := range headers {
		e.add("header "+name, func(r *http.Request, raw string) { r.Header[name] = []string{raw} })
	}
	for _, scheme := range schemes {
		e.add("scheme "+scheme, func(r *http.Request, raw string) { r.Header.Set("Authorization", authorizationOf(scheme, raw)) })
	}
	if query != "" {
		e.add("parameter "+query, func(r *http.Request, raw string) { r.URL.RawQuery = query + "=" + raw })
	}
}

// placeOf returns the kind and the name of the place that a placeholder reads.
func placeOf(placeholder string) (kind, name string) {
	name = strings.TrimSuffix(strings.TrimPrefix(placeholder, "{http.request."), "}")
	for _, kind := range []string{"header", "cookie", "uri.query", "uri.path"} {
		if rest, ok := strings.CutPrefix(name, kind+"."); ok {
			return kind, rest
		}
	}
	return "", ""
}

func (e *example) add(name string, put func(*http.Request, string)) {
	if !slices.ContainsFunc(e.places, func(p examplePlace) bool { return p.name == name }) {
		e.places = append(e.places, examplePlace{name, put})
	}
}

// authorizationOf is the value of Authorization with a key.
func authorizationOf(scheme, raw string) string {
	if strings.EqualFold(scheme, "Basic") {
		return scheme + " " + basicToken(raw)
	}
	return scheme + " " + raw
}

func basicToken(raw string) string { return base64.StdEncoding.EncodeToString([]byte(raw + ":")) }

// load puts the example to use.
func (e *example) load(s *server) {
	s.t.Helper()
	body, err := json.Marshal(e.config)
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := http.Post(s.Admin+"/load", "application/json", bytes.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK {
		s.t.Fatalf("the configuration was refused: %s\n%s", text, body)
	}
	s.settled()
}

// send sends keys in every place to every server, host and path. Each place has owners
// of its own, so that no limit keeps its requests from the upstream.
func (e *example) send(s *server, found *canaries, phase string) {
	s.t.Helper()
	client := &http.Client{
		Timeout:       testTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	for i, p := range e.places {
		var keys []made
		for _, id := range e.ids {
			owner := fmt.Sprintf("%s-%d-%s", phase, i, id)
			keys = append(keys, s.create(map[string]any{
				"userId": owner, "configId": id, "name": "x", "permissions": []string{"*:*"}, "withSecret": true,
			}))
		}
		unknown, err := key.Random{}.Generate("ak_", key.DefaultLength, true)
		if err != nil {
			s.t.Fatal(err)
		}
		without, err := key.Random{}.Generate("ak_", key.DefaultLength, false)
		if err != nil {
			s.t.Fatal(err)
		}
		keys = append(keys, made{Raw: unknown}, made{Raw: without})
		for _, k := range keys {
			found.add(phase+": a key in "+p.name, k.Raw)
			found.add(phase+": the secret beside "+p.name, k.Secret)
			found.add(phase+": Basic", "_"+basicToken(k.Raw))
			for _, addr := range e.servers {
				for _, host := range append([]string{addr}, e.hosts...) {
					for _, path := range e.paths {
						req, err := http.NewRequest(http.MethodGet, "http://"+addr+path, nil)
						if err != nil {
							s.t.Fatal(err)
						}
						req.Host = host
						p.put(req, k.Raw)
						if k.Secret != "" {
							req.Header.Set("X-API-Secret", k.Secret)
						}
						resp, err := client.Do(req)
						if err != nil {
							s.t.Fatal(err)
						}
						resp.Body.Close()
					}
				}
			}
		}
	}
}

// TestQ42_ExamplesLogNoKey runs every configuration of the documentation as it is
// printed while the upstream is away, which is when Caddy logs requests without an access
// log. Without the format, the same configuration prints keys.
func TestQ42_ExamplesLogNoKey(t *testing.T) {
	full(t)
	type text struct{ name, lang, body string }
	var texts []text
	for _, file := range append(sources(t, "examples/*/Caddyfile"), "example.Caddyfile") {
		body, err := os.ReadFile(source(t, file))
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, text{file, "caddyfile", string(body)})
	}
	for file, blocks := range documents(t) {
		for _, b := range blocks {
			if b.lang == "caddyfile" || b.lang == "json" && strings.Contains(b.text, `"apps"`) {
				texts = append(texts, text{b.in(file), b.lang, b.text})
			}
		}
	}
	s := startCaddy(t, "{\n\tgrace_period 1s\n}\n", withEnv(docsSecret))
	checked := 0
	for _, x := range texts {
		t.Run(x.name, func(t *testing.T) {
			adapted := x.body
			if x.lang == "caddyfile" {
				file := filepath.Join(t.TempDir(), "example.caddyfile")
				if err := os.WriteFile(file, []byte(x.body), 0o600); err != nil {
					t.Fatal(err)
				}
				r := s.run("adapt", "--config", file)
				if r.code != 0 {
					t.Fatal(r.stderr)
				}
				adapted = r.stdout
			}
			e := newExample(t, []byte(adapted), s.adminAddr)
			if e == nil {
				t.Skip("it has no gate")
			}
			checked++
			if e.formats == 0 {
				t.Error("no log has format apikey_redact")
			}
			before := len(s.Log())
			e.load(s)
			var found canaries
			e.send(s, &found, "as printed")
			log := s.Log()[before:]
			found.clean(t, "the log", log)
			if strings.Contains(log, "API keys would be printed") {
				t.Errorf("a warning about logs that are covered:\n%s", log)
			}
			if !e.prints {
				return
			}
			before = len(s.Log())
			e.unmask()
			e.load(s)
			e.send(s, &found, "without the format")
			if log := s.Log()[before:]; len(found.search(log, 0)) == 0 {
				t.Errorf("without the format, no key is found:\n%s", log)
			} else if !strings.Contains(log, "API keys would be printed") {
				t.Error("without the format, there is no warning")
			}
		})
	}
	if checked < 10 {
		t.Errorf("%d configurations were run", checked)
	}
}

// secretPlaces is a site that reads keys from every kind of place. Its format is FORMAT,
// nobody listens at DEAD, and DIR is a folder.
const secretPlaces = `{
	servers {
		log_credentials
	}
	log default {
		level DEBUG
		format FORMAT
	}
	apikey {
		checksum off
	}
}
{$SITE} {
	log json {
		output file DIR/access.json
		format FORMAT json
	}
	log console {
		output file DIR/access.txt
		format FORMAT console
	}
	handle /path/* {
		apikey {
			from {http.request.uri.path.1}
		}
		reverse_proxy DEAD
	}
	handle_path /deep/* {
		apikey {
			from {http.request.uri.path.0}
		}
		reverse_proxy DEAD
	}
	handle /cookie/* {
		apikey {
			from {http.request.cookie.my_key}
		}
		reverse_proxy DEAD
	}
	handle /header/* {
		apikey {
			from {http.request.header.X-Other-Key}
		}
		reverse_proxy DEAD
	}
	handle {
		apikey {
			headers X-Acme-Key
			authorization Bearer ApiKey Basic
			query access_key
		}
		reverse_proxy DEAD
	}
}
`

// Keys without a checksum are masked wherever a gate reads them, at every level and in
// every spelling, though no log names the places.
func TestQ43_KeysWithoutChecksum(t *testing.T) {
	full(t)
	dead := freeAddr(t)
	config := func(dir, format string) string {
		c := strings.NewReplacer("DEAD", dead, "DIR", dir).Replace(secretPlaces)
		if format == "" { // the control
			return strings.NewReplacer("FORMAT json", "json", "FORMAT console", "console", "FORMAT", "json").Replace(c)
		}
		return strings.ReplaceAll(c, "FORMAT", format)
	}
	dir := t.TempDir()
	s := startGate(t, config(dir, "apikey_redact"))
	var found canaries
	send := func() {
		t.Helper()
		for name, put := range map[string]func(r *http.Request, raw string){
			"a segment":                      func(r *http.Request, raw string) { r.URL.Path = "/path/" + raw + "/items" },
			"the last segment":               func(r *http.Request, raw string) { r.URL.Path = "/path/" + raw },
			"a segment behind a prefix":      func(r *http.Request, raw string) { r.URL.Path = "/deep/" + raw + "/items" },
			"a segment with something wrong": func(r *http.Request, raw string) { r.URL.Path = "/path/" + raw[:30] + "!" + raw[30:] },
			"a cookie": func(r *http.Request, raw string) {
				r.URL.Path = "/cookie/"
				r.Header.Set("Cookie", "a=1; my_key="+raw+"; b=2")
			},
			"a cookie, spelled otherwise":    func(r *http.Request, raw string) { r.URL.Path = "/cookie/"; r.Header.Set("Cookie", "My-Key="+raw) },
			"a header":                       func(r *http.Request, raw string) { r.URL.Path = "/header/"; r.Header.Set("X-Other-Key", raw) },
			"another header":                 func(r *http.Request, raw string) { r.Header.Set("X-Acme-Key", raw) },
			"another header, mistaken":       func(r *http.Request, raw string) { r.Header["x_acme_key"] = []string{raw} },
			"the default header":             func(r *http.Request, raw string) { r.Header.Set("X-API-Key", raw) },
			"Bearer":                         func(r *http.Request, raw string) { r.Header.Set("Authorization", "Bearer "+raw) },
			"ApiKey":                         func(r *http.Request, raw string) { r.Header.Set("Authorization", "apikey "+raw) },
			"Basic":                          func(r *http.Request, raw string) { r.Header.Set("Authorization", authorizationOf("Basic", raw)) },
			"an unknown scheme":              func(r *http.Request, raw string) { r.Header.Set("Authorization", "Token "+raw) },
			"a parameter":                    func(r *http.Request, raw string) { r.URL.RawQuery = "a=1&access_key=" + raw + "&b=2" },
			"a parameter, encoded":           func(r *http.Request, raw string) { r.URL.RawQuery = "access%5Fkey=" + raw },
			"a parameter, spelled otherwise": func(r *http.Request, raw string) { r.URL.RawQuery = "Access-Key=" + raw },
			"the Referer": func(r *http.Request, raw string) {
				r.Header.Set("Referer", "https://example.com/path/"+raw+"?access_key="+raw)
			},
		} {
			k := s.create(nil)
			if key.ChecksumFits(k.Raw) {
				t.Fatal("the key has a checksum")
			}
			found.add(name, k.Raw)
			found.add(name+", in Basic", "_"+basicToken(k.Raw))
			req, err := http.NewRequest(http.MethodGet, s.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			put(req, k.Raw)
			if _, err := lifeRetry(lifeClient, req); err != nil {
				t.Fatal(err)
			}
		}
	}
	access := func(dir, name string) string {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		}
		return string(b)
	}
	send()
	eventually(t, "all requests are in the access log", func() bool { return strings.Count(access(dir, "access.txt"), "handled request") >= 18 })
	found.clean(t, "the log of the server", s.Log())
	found.clean(t, "the access log in JSON", access(dir, "access.json"))
	found.clean(t, "the access log as text", access(dir, "access.txt"))
	if log := s.Log(); strings.Contains(log, "API keys would be printed") {
		t.Error("a warning about logs that are covered")
	} else if !strings.Contains(log, `"level":"debug"`) || !strings.Contains(log, "connection refused") {
		t.Error("not all was tried")
	}

	// Without the format the same requests are found in every log, and there is a warning.
	dir2, before := t.TempDir(), len(s.Log())
	s.reload(config(dir2, ""))
	s.settled()
	send()
	eventually(t, "all requests are in the access log", func() bool { return strings.Count(access(dir2, "access.txt"), "handled request") >= 18 })
	log := s.Log()[before:]
	for name, text := range map[string]string{"log": log, "access log": access(dir2, "access.json"), "access log as text": access(dir2, "access.txt")} {
		shown := found.search(text, 0)
		if len(shown) < 10 {
			t.Errorf("without the format, the %s shows only %s", name, slices.Sorted(maps.Keys(shown)))
		}
	}
	if n := strings.Count(log, "API keys would be printed"); n != 3 {
		t.Errorf("%d warnings for three logs", n)
	}
}

// What "from" reads is a warning only if no log can mask it: it is no place of its own,
// and keys have no checksum.
func TestQ43_WarningsForFrom(t *testing.T) {
	full(t)
	const site = "{\n\tlog default {\n\t\tformat apikey_redact\n\t}\n\tapikey {\n\t\tchecksum CHECKSUM\n\t}\n}\n{$SITE} {\n\tapikey {\n\t\tfrom FROM\n\t}\n\trespond ok\n}\n"
	s := startGate(t, "{\n}\n{$SITE} {\n\tapikey\n\trespond ok\n}\n")
	for _, tt := range []struct {
		from, checksum string
		warns          bool
	}{
		{"{http.request.uri.path.1}", "off", false},
		{"{http.request.orig_uri.path.1}", "off", false},
		{"{http.request.cookie.k}", "off", false},
		{"{http.request.header.X-K}", "off", false},
		{"{http.request.uri.query.k}", "off", false},
		{"{http.request.host.labels.2}", "on", false},
		{"{http.request.host.labels.2}", "off", true},
		{"{http.request.uri.path}", "off", true},
		{"{http.vars.k}", "off", true},
	} {
		t.Run(tt.from+" "+tt.checksum, func(t *testing.T) {
			before := len(s.Log())
			s.reload(strings.NewReplacer("FROM", tt.from, "CHECKSUM", tt.checksum).Replace(site))
			s.settled()
			log := s.Log()[before:]
			if warned := strings.Contains(log, "API keys would be printed"); warned != tt.warns {
				t.Errorf("warned: %v\n%s", warned, log)
			}
			if tt.warns && !strings.Contains(log, `"from":["`+tt.from+`"]`) {
				t.Errorf("the warning does not name the placeholder:\n%s", log)
			}
		})
	}
}

// The log names the mode that a restored database had.
func TestQ44_LogNamesTheMode(t *testing.T) {
	full(t)
	s := startGate(t, "{\n\tapikey {\n\t\tstore sqlite keys.db\n\t}\n}\n{$SITE} {\n\tapikey\n\trespond ok\n}\n")
	file := filepath.Join(s.Dir, "keys.db")
	if strings.Contains(s.Log(), "other users") {
		t.Errorf("a line about a new database:\n%s", s.Log())
	}
	if code := s.stop(os.Interrupt); code != 0 {
		t.Fatalf("exit status %d", code)
	}
	if err := os.Chmod(file, 0o644); err != nil { //nolint:gosec // what the test is about
		t.Fatal(err)
	}
	before := len(s.Log())
	s.start()
	s.settled()
	s.create(nil)
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if info, err := os.Stat(file + suffix); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("keys.db%s: %v, %v", suffix, info.Mode(), err)
		}
	}
	said := false
	for line := range strings.Lines(s.Log()[before:]) {
		said = said || containsAll(line, `"level":"warn"`, `"logger":"apikey"`, "its mode is now 0600", `"file":"`+file+`"`, `"mode":"0644"`)
	}
	if !said {
		t.Errorf("no line names the file and its mode:\n%s", s.Log()[before:])
	}
}

// included finds the names of loggers in the documentation.
var included = regexp.MustCompile("(?m)(?:`|^\t+)(?:include|exclude) +([a-z_.]+(?: +[a-z_.]+)*)(?:`|$)")

// TestQ46_LogsExist checks that a log which the documentation tells to make gets
// something: Caddy accepts any name, and then writes nothing.
func TestQ46_LogsExist(t *testing.T) {
	full(t)
	s := newServer(t)
	file := filepath.Join(s.Dir, "own.log")
	var named []string
	for _, page := range slices.Concat(sources(t, "docs/*.md"), sources(t, "docs/*/*.md"), sources(t, "examples/*/Caddyfile"), []string{"README.md", "example.Caddyfile"}) {
		text, err := os.ReadFile(source(t, page))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range included.FindAllStringSubmatch(string(text), -1) {
			named = append(named, strings.Fields(m[1])...)
		}
	}
	if len(named) == 0 {
		t.Fatal("the documentation names no logger")
	}
	slices.Sort(named)
	named = slices.Compact(named)
	var logs strings.Builder
	for i, name := range named {
		fmt.Fprintf(&logs, "\tlog l%d {\n\t\tlevel DEBUG\n\t\toutput file %s.%s\n\t\tinclude %s\n\t}\n", i, file, name, name)
	}
	s = startGate(t, "{\n"+logs.String()+"\tapikey {\n\t\tstore sqlite "+file+".db\n\t}\n}\n{$SITE} {\n\tlog\n\thandle /v1/auth/* {\n\t\tapikey_api\n\t}\n\thandle {\n\t\tapikey\n\t\treverse_proxy "+freeAddr(t)+"\n\t}\n}\n")
	k := s.create(map[string]any{"permissions": []string{"*:*"}})
	for _, raw := range []string{k.Raw, "nothing"} {
		for _, path := range []string{"/", "/v1/auth/keys"} {
			req, err := http.NewRequest(http.MethodGet, s.URL+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("X-API-Key", raw)
			if _, err := lifeRetry(lifeClient, req); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, name := range named {
		eventually(t, "the log that includes "+name+" has something", func() bool {
			info, err := os.Stat(file + "." + name)
			return err == nil && info.Size() > 0
		})
	}
}
