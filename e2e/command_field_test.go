package e2e

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// saysAll fails the test unless text contains all of words.
func (c shell) saysAll(what, text string, words ...string) {
	c.Helper()
	for _, word := range words {
		if !strings.Contains(text, word) {
			c.Errorf("%s does not say %q:\n%s", what, word, text)
		}
	}
}

// TestQ47_whichServer: health, and what create prints, tell two Caddys apart.
func TestQ47_whichServer(t *testing.T) {
	full(t)
	a, b := startCLI(t), startCLI(t)
	for _, c := range []shell{a, b} {
		database, pid := filepath.Join(c.s.Dir, "caddy/apikey/apikey.db"), strconv.Itoa(c.s.cmd.Process.Pid)
		health := c.json("health")
		c.wants("database", health["store"].(map[string]any)["database"], database)
		c.wants("pid", fmt.Sprint(health["pid"]), pid)
		if started, _ := health["startedAt"].(string); !regexp.MustCompile(`^\d{4}-\d\d-\d\dT.*Z$`).MatchString(started) {
			t.Errorf("startedAt: %q", started)
		}
		c.saysAll("health", c.exits(0, "health").stdout, database, pid+" at "+c.s.adminAddr, "started ")
		r := c.exits(0, "create", "--owner", "alice")
		c.saysAll("create", r.stderr, "for alice in "+database+" (process "+pid+" at "+c.s.adminAddr+")")
		if strings.Count(r.stdout, "\n") != 1 {
			t.Errorf("standard output holds more than the key: %s", r.stdout)
		}
	}
	// Also one whose store does not answer says which one it is.
	c := shell{t, startCaddy(t, "{$SITE} {\n\trespond ok\n}\n")}
	c.wants("pid", c.decode(c.exits(1, "health", "--json").stdout)["pid"], c.s.cmd.Process.Pid)
}

// TestQ48_withoutValueLast: keys that were never used, or have no name, come last
// whichever way a list is sorted, and over pages.
func TestQ48_withoutValueLast(t *testing.T) {
	full(t)
	c := startCLI(t)
	var used []string
	for i := range 3 {
		made := c.json("create", "--owner", "alice", "--name", fmt.Sprintf("n%d", i))
		c.wants("status", c.status(made["key"].(string), ""), 200)
		used = append(used, made["id"].(string))
	}
	for range 5 {
		c.exits(0, "create", "--owner", "alice")
	}
	for _, sort := range []string{"name", "-name", "lastRequest", "-lastRequest"} {
		for _, owner := range [][]string{nil, {"--owner", "alice"}} {
			ids := func(more ...string) []string {
				return strings.Fields(c.exits(0, slices.Concat([]string{"list", "-o", "name", "--sort", sort}, owner, more)...).stdout)
			}
			first := ids()[:3]
			slices.Sort(first)
			want := slices.Sorted(slices.Values(used))
			c.wants("the first keys by "+sort, first, want)
			page := c.json(slices.Concat([]string{"list", "--sort", sort, "--limit", "4"}, owner)...)
			rest := ids("--limit", "10", "--cursor", page["nextCursor"].(string))
			c.wants("keys on the second page by "+sort, len(rest), 4)
			for _, id := range rest {
				if slices.Contains(used, id) {
					t.Errorf("by %s, key %s is on the second page", sort, id)
				}
			}
		}
	}
}

// TestQ49_ownerSet: a new owner is called one, and a change names how many keys it
// is about.
func TestQ49_ownerSet(t *testing.T) {
	full(t)
	c := startCLI(t)
	c.exits(0, "create", "--owner", "alice")
	c.exits(0, "create", "--owner", "alice")
	c.saysAll("a change", c.exits(0, "owner", "set", "alice", "--disable").stderr, "Changed owner alice, which has 2 keys.")
	c.saysAll("a typo", c.exits(0, "owner", "set", "aliec").stderr, "Created owner aliec, which did not exist and has no keys.")
	c.saysAll("the typo again", c.exits(0, "owner", "set", "aliec").stderr, "Changed owner aliec, which has 0 keys.")
	c.wants("standard error with --json", c.exits(0, "owner", "set", "carol", "--json").stderr, "")
	c.exits(1, "owner", "set", "dave", "--tier", "none")
	c.exits(1, "owner", "show", "dave")
	c.saysAll("owner delete", c.exits(0, "owner", "delete", "alice", "--yes").stdout, "Deleted owner alice and 2 keys.")
}

// TestQ49_withoutTerminal: what cannot be undone needs --yes where nobody can
// answer, and changes nothing without it.
func TestQ49_withoutTerminal(t *testing.T) {
	full(t)
	c := startCLI(t)
	one, two := c.json("create", "--owner", "alice")["id"].(string), c.json("create", "--owner", "alice")["id"].(string)
	before := c.exits(0, "list", "--json").stdout
	for _, args := range [][]string{
		{"delete", one},
		{"delete", one, two},
		{"revoke", one, two},
		{"update", one, two, "--disabled"},
		{"delete-expired"},
		{"owner", "delete", "alice"},
	} {
		for _, stdin := range []string{"", "y\n"} {
			r := c.exitsWith(2, stdin, args...)
			c.saysAll(args[0], r.stderr, "--yes is required")
		}
	}
	c.wants("the list", c.exits(0, "list", "--json").stdout, before)
	c.exits(0, "revoke", one) // enable reverts it
	c.exits(0, "revoke", one, one)
	c.exits(0, "revoke", one, two, "--yes")
	c.exits(0, "delete", one, two, "--yes")
	c.wants("keys", c.json("list")["total"], 0)
}

// TestQ53_addresses: an address may be a URL or lack its port, and what is not an
// admin endpoint is called what it is.
func TestQ53_addresses(t *testing.T) {
	full(t)
	c := startCLI(t)
	_, port, _ := strings.Cut(c.s.adminAddr, ":")
	for _, address := range []string{c.s.adminAddr, "http://" + c.s.adminAddr, "HTTP://" + c.s.adminAddr + "/", "tcp/" + c.s.adminAddr, ":" + port, "localhost:" + port} {
		c.exits(0, "list", "--address", address)
	}
	for _, address := range []string{"localhost", "http://localhost", "http://localhost/"} {
		r := c.s.run("apikey", "list", "--address", address)
		if r.code != 0 { // unless a Caddy happens to run here
			c.saysAll(address, r.stderr, ":2019")
		}
	}
	for _, address := range []string{"https://localhost:2019", "http://", "http://localhost:2019/apikey", "http://a@localhost:2019", "ftp://localhost", "localhost:0", "localhost:http", "localhost:99999", "a b"} {
		r := c.exits(2, "list", "--address", address)
		c.saysAll(address, r.stderr, "the address of the admin endpoint must")
	}
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Server", "elsewhere/1")
		fmt.Fprint(w, "<html>hello</html>")
	}))
	defer page.Close()
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	defer secure.Close()
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(404)
		fmt.Fprint(w, `{"error":"no such route"}`)
	}))
	defer api.Close()
	for address, what := range map[string]string{
		page.URL: "another web server (elsewhere/1)",
		c.s.URL:  "a site of Caddy",
		"http://" + secure.Listener.Addr().String(): "a server that speaks HTTPS",
		api.URL: "a web server",
	} {
		for _, args := range [][]string{{"list"}, {"health"}, {"create", "--owner", "a"}, {"owner", "set", "a"}, {"export"}, {"delete", "a", "--yes"}} {
			r := c.exits(1, append(args, "--address", address)...)
			text := strings.ReplaceAll(r.stderr, "its admin endpoint", "Caddy's admin endpoint") // where the server has hung up at once
			c.saysAll(strings.Join(args, " ")+" at "+what, text, "is not Caddy's admin endpoint, but "+what, "CADDY_ADMIN")
			c.wants("standard output", r.stdout, "")
		}
	}
	c.saysAll("something that is no web server", c.exits(1, "list", "--address", noHTTP(t)).stderr, "does not speak HTTP")
}

// noHTTP returns the address of a server that greets as SSH does.
func noHTTP(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(conn, "SSH-2.0-greeting\r\n")
			conn.Close()
		}
	}()
	return l.Addr().String()
}

// Commands that act on keys take several ids.
func TestCommandSeveralKeys(t *testing.T) {
	full(t)
	c := startCLI(t)
	var ids []string
	for i := range 3 {
		ids = append(ids, c.json("create", "--owner", "alice", "--name", fmt.Sprintf("n%d", i))["id"].(string))
	}
	missing := strings.Repeat("0", 24)
	some := []string{ids[0], missing, ids[1]}
	for _, args := range [][]string{{"show"}, {"enable"}, {"revoke", "--yes"}, {"update", "--add", "1", "--remaining", "1"}, {"update", "--remaining", "5"}, {"rotate"}, {"delete", "--yes"}} {
		if slices.Contains(args, "--add") {
			c.exits(2, append(args, some...)...)
			continue
		}
		// The bulk answer.
		r := c.exits(1, slices.Concat(args, some, []string{"--json"})...)
		c.saysAll(args[0], r.stderr, missing+": key not found", "1 of 3 keys failed")
		var bulk struct {
			Matched int
			Results []struct {
				ID, Status, Code string
				Error            *string
				Key              map[string]any
			}
			NextCursor *string
		}
		if err := json.Unmarshal([]byte(r.stdout), &bulk); err != nil {
			t.Fatalf("%v: %v: %s", args, err, r.stdout)
		}
		c.wants("matched", bulk.Matched, 3)
		var got []string
		for i, one := range bulk.Results {
			got = append(got, one.ID+" "+one.Status+one.Code)
			if hasKey := one.Key["id"] == some[i]; hasKey != (one.Status == "done" && args[0] != "delete") {
				t.Errorf("%v: key of %s: %v", args, one.ID, one.Key)
			}
			if args[0] == "rotate" && one.Status == "done" && one.Key["key"] == nil {
				t.Errorf("the new raw key is missing")
			}
		}
		c.wants(args[0], got, []string{ids[0] + " done", missing + " failedKEY_NOT_FOUND", ids[1] + " done"})
		if args[0] == "delete" {
			continue
		}
		// One answer in a line.
		r = c.exits(1, slices.Concat(args, some, []string{"-o", "ndjson"})...)
		lines := strings.Split(strings.TrimSuffix(r.stdout, "\n"), "\n")
		if len(lines) != 3 {
			t.Fatalf("%v: %s", args, r.stdout)
		}
		c.wants("first line", c.decode(lines[0])["id"], ids[0])
		c.wants("second line", c.decode(lines[1])["status"], "failed")
		c.wants("third line", c.decode(lines[2])["userId"], "alice")
		// For people.
		r = c.exits(1, append(args, some...)...)
		if args[0] == "rotate" {
			c.wants("raw keys", strings.Count(r.stdout, "ak_"), 2)
			c.wants("lines", strings.Count(r.stdout, "\n"), 2)
		} else {
			c.saysAll(args[0], r.stdout, ids[0], ids[1])
		}
	}
	// An endpoint that does not answer is asked once.
	r := c.exits(1, "show", ids[2], missing, "--address", "127.0.0.1:1")
	c.wants("failed", strings.Count(r.stderr, "refused"), 2)
	c.saysAll("show", r.stderr, "2 of 2 keys failed")
}

// TestCommandFilter: commands that act on keys take filters instead of ids, which is asked
// about, and can be tried before.
func TestCommandFilter(t *testing.T) {
	full(t)
	c := startCLI(t)
	var ids []string
	for i, owner := range []string{"alice", "alice", "bob"} {
		ids = append(ids, c.json("create", "--owner", owner, "--name", fmt.Sprintf("service-%d!", i))["id"].(string))
	}
	states := func(want ...string) {
		t.Helper()
		c.wants("states", c.exits(0, "list", "-o", "csv", "--columns", "status").stdout, "status\n"+strings.Join(want, "\n")+"\n")
	}
	alices := []string{"--filter", "userId=alice"}
	r := c.exits(0, slices.Concat([]string{"revoke", "--dry-run", "-o", "name"}, alices)...)
	c.wants("dry run", r.stdout, ids[0]+"\n"+ids[1]+"\n")
	c.saysAll("dry run", r.stderr, "2 matching keys. Nothing was changed.")
	c.saysAll("dry run of ids", c.exits(0, "delete", "--dry-run", ids[0]).stdout, ids[0])
	states("active", "active", "active")
	c.saysAll("no terminal", c.exits(2, append([]string{"revoke"}, alices...)...).stderr, "disables 2 keys", "--yes")
	c.saysAll("one key, found by a filter", c.exits(2, "revoke", "--filter", "userId=bob").stderr, "disables 1 key", "--yes")
	states("active", "active", "active")
	bulk := c.json(append([]string{"revoke", "--yes"}, alices...)...)
	if results := bulk["results"].([]any); len(results) != 2 || bulk["matched"] != 2.0 {
		t.Errorf("%v", bulk)
	}
	states("disabled", "disabled", "active")
	c.exits(0, "enable", "--filter", "state=disabled", "--filter", "q=service-1!")
	states("disabled", "active", "active")
	bulk = c.json("show", "--filter", "userId=bob")
	c.wants("one key in a bulk answer", bulk["matched"], 1.0)
	r = c.exits(0, "delete", "--yes", "--filter", "permission=no:such")
	c.wants("nothing", r.stdout, "")
	c.saysAll("nothing", r.stderr, "No key matches.")
	c.exits(0, "update", "--filter", "createdBefore=0s", "--remaining", "7")
	c.wants("all changed", c.exits(0, "list", "-o", "csv", "--columns", "remaining").stdout, "remaining\n7\n7\n7\n")
	for _, row := range []struct {
		args []string
		says string
	}{
		{[]string{"revoke"}, "the id of a key, or --filter"},
		{append([]string{"revoke", ids[0]}, alices...), "cannot be combined"},
		{append(append([]string{"show"}, alices...), alices...), "userId is given more than once"},
		{[]string{"show", "--filter", "owner=alice"}, "userId"},
		{[]string{"show", "--filter", "alice"}, "name=value"},
		{[]string{"show", "--filter", "state=dead"}, "active, disabled, expired, exhausted"},
		{[]string{"show", "--filter", "limit=1"}, "userId, configId"},
	} {
		c.saysAll(strings.Join(row.args, " "), c.exits(2, row.args...).stderr, row.says)
	}
	c.exits(0, "delete", "--yes", "--filter", "enabled=false")
	c.wants("the rest", c.exits(0, "list", "-o", "name").stdout, ids[1]+"\n"+ids[2]+"\n")
}

func TestCommandFormats(t *testing.T) {
	full(t)
	c := startCLI(t)
	one := c.json("create", "--owner", "alice", "--name", `a,"b"`, "--expires-in", "90d", "--permission", "files:read", "--rate-limit", "5/1m")["id"].(string)
	two := c.json("create", "--owner", "bob", "--remaining", "0")["id"].(string)
	three := c.json("create", "--owner", "carol", "--disabled")["id"].(string)
	c.wants("names", c.exits(0, "list", "-o", "name").stdout, one+"\n"+two+"\n"+three+"\n")
	c.wants("owners", c.exits(0, "owner", "list", "-o", "name").stdout, "alice\nbob\ncarol\n")
	c.wants("a name", c.exits(0, "show", one, "-o", "name").stdout, one+"\n")
	lines := strings.Split(c.exits(0, "list", "--all", "-o", "ndjson").stdout, "\n")
	c.wants("lines", len(lines), 4)
	c.wants("a line", c.decode(lines[1]), c.json("show", two))
	rows, err := csv.NewReader(strings.NewReader(c.exits(0, "list", "-o", "csv", "--columns", "id,name,status,remaining,limit,permissions,expires").stdout)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	c.wants("header", rows[0], []string{"id", "name", "status", "remaining", "limit", "permissions", "expires"})
	c.wants("row", rows[1][:6], []string{one, `a,"b"`, "active", "", "5/1m", "files:read"})
	if !strings.HasSuffix(rows[1][6], "Z") {
		t.Errorf("time: %s", rows[1][6])
	}
	c.wants("row", rows[2], []string{two, "", "exhausted", "0", "", "", ""})
	c.wants("row", rows[3][2], "disabled")
	c.saysAll("list", c.exits(0, "list").stdout, "STATUS", "active", "exhausted", "disabled", "in 90d", "never")
	c.wants("columns", strings.Fields(c.exits(0, "list", "--columns", "Owner,ID", "--limit", "1").stdout)[:3], []string{"OWNER", "ID", "alice"})
	r := c.exits(2, "list", "--columns", "onwer")
	c.saysAll("a misspelt column", r.stderr, "did you mean owner?")
	r = c.exits(2, "list", "-o", "jsn")
	c.saysAll("a misspelt format", r.stderr, "did you mean json?")
	r = c.exits(2, "create", "--owner", "a", "--rate-limit", "1/1m", "--rate-limit-algorithm", "sliding")
	c.saysAll("a misspelt algorithm", r.stderr, "did you mean sliding_window?")
	c.wants("health", c.decode(c.exits(0, "health", "-o", "ndjson").stdout)["status"], "ok")
	c.saysAll("usage", c.exits(0, "usage", one, "-o", "csv").stdout, "date,allowed,limited,denied\n")
	// A disabled owner's keys do not look as if they worked.
	c.exits(0, "owner", "set", "alice", "--disable")
	c.wants("state", c.json("show", one)["state"], "disabled")
	c.wants("enabled", c.json("show", one)["enabled"], true)
}

func TestCommandCompletion(t *testing.T) {
	full(t)
	c := shell{t, startCaddy(t, "{\n\tapikey {\n\t\ttier free {\n\t\t\tlimit 5/1m\n\t\t}\n\t}\n}\n"+commandSite)}
	id := c.json("create", "--owner", "alice", "--name", "laptop")["id"].(string)
	for _, tt := range []struct {
		args []string
		want []string
	}{
		{[]string{"sh"}, []string{"show"}},
		{[]string{"owner", "s"}, []string{"show", "set"}},
		{[]string{"show", id[:4]}, []string{id}},
		{[]string{"show", "x"}, nil},
		{[]string{"delete", id, ""}, nil},
		{[]string{"rotate", ""}, []string{id}},
		{[]string{"usage", ""}, []string{id}},
		{[]string{"owner", "show", "al"}, []string{"alice"}},
		{[]string{"create", "--owner", ""}, []string{"alice"}},
		{[]string{"owner", "set", "alice", "--tier", ""}, []string{"free"}},
		{[]string{"list", "--sort", "l"}, []string{"lastRequest"}},
		{[]string{"create", "--rate-limit-algorithm", "s"}, []string{"sliding_window"}},
		{[]string{"health", "-o", ""}, []string{"table", "wide", "json", "ndjson"}},
		{[]string{"list", "--columns", "id,own"}, []string{"id,owner"}},
		{[]string{"show", "--address", "127.0.0.1:1", ""}, nil},
	} {
		var got []string
		for _, line := range strings.Split(c.s.run(append([]string{"__complete", "apikey"}, tt.args...)...).stdout, "\n") {
			word, _, _ := strings.Cut(line, "\t")
			if word != "" && !strings.HasPrefix(word, ":") && strings.HasPrefix(word, tt.args[len(tt.args)-1]) {
				got = append(got, word)
			}
		}
		slices.Sort(got)
		c.wants(strings.Join(tt.args, " "), got, sorted(tt.want))
	}
}

func sorted(words []string) []string {
	slices.Sort(words)
	return words
}

// Manual pages hold what --help does: a renderer of Markdown may drop what stands in
// angle brackets.
func TestCommandManual(t *testing.T) {
	full(t)
	c := startCLI(t)
	dir := t.TempDir()
	if r := c.s.run("manpage", "-o", dir); r.code != 0 {
		t.Fatal(r.stderr)
	}
	pages, err := filepath.Glob(filepath.Join(dir, "caddy-apikey*.8"))
	if err != nil || len(pages) < 20 {
		t.Fatalf("%d manual pages, %v", len(pages), err)
	}
	plain := func(s string) string {
		s = regexp.MustCompile(`(?m)^\.PP$|\\f[A-Z]|\\`).ReplaceAllString(s, "")
		return strings.Join(strings.Fields(s), " ")
	}
	used := regexp.MustCompile(`(?s)Usage:\n  (.*?)\n`)
	flag := regexp.MustCompile(`(?m)^ +(?:-\w, )?--([\w-]+)(?: [^ ]+)?  +(.*)$`)
	for _, page := range pages {
		raw, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		manual := plain(string(raw))
		command := strings.Split(strings.TrimSuffix(filepath.Base(page), ".8"), "-")[1:]
		switch joined := strings.Join(command, "-"); {
		case strings.HasSuffix(joined, "delete-expired"):
			command = []string{"apikey", "delete-expired"}
		case strings.HasSuffix(joined, "end-grace"):
			command = []string{"apikey", "end-grace"}
		case strings.HasSuffix(joined, "better-auth"):
			command = []string{"apikey", "import", "better-auth"}
		}
		help := c.s.run(append(command, "--help")...).stdout
		for _, m := range used.FindAllStringSubmatch(help, -1) {
			c.saysAll(page, manual, plain(m[1]))
		}
		about, _, _ := strings.Cut(help, "Usage:")
		c.saysAll(page, manual, plain(about))
		for _, m := range flag.FindAllStringSubmatch(help, -1) {
			c.saysAll(page, manual, "--"+m[1], plain(m[2]))
		}
		c.saysAll(page, help, "Documentation: https://github.com/caddy-apikey/caddy-apikey/", "CADDY_ADMIN")
	}
}
