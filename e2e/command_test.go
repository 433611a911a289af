package e2e

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/key"
)

const commandSite = "{$SITE} {\n\tapikey\n\trespond \"hello {http.auth.user.id}\"\n}\n"

// shell runs "caddy apikey" against a server and fails the test on a wrong exit status.
type shell struct {
	*testing.T
	s *server
}

func startCLI(t *testing.T, options ...option) shell {
	t.Helper()
	return shell{t, startCaddy(t, commandSite, options...)}
}

func (c shell) exits(code int, args ...string) result {
	c.Helper()
	return c.exitsWith(code, "", args...)
}

func (c shell) exitsWith(code int, stdin string, args ...string) result {
	c.Helper()
	r := c.s.runWith(stdin, append([]string{"apikey"}, args...)...)
	if r.code != code {
		c.Fatalf("caddy apikey %s: exit status %d, want %d\nstdout: %s\nstderr: %s",
			strings.Join(args, " "), r.code, code, r.stdout, r.stderr)
	}
	if code != 0 && !strings.Contains(r.stderr, "Error: ") {
		c.Errorf("caddy apikey %s: stderr: %q", strings.Join(args, " "), r.stderr)
	}
	return r
}

// json runs a command with --json and decodes what it prints.
func (c shell) json(args ...string) map[string]any {
	c.Helper()
	return c.decode(c.exits(0, append(args, "--json")...).stdout)
}

func (c shell) decode(text string) (v map[string]any) {
	c.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		c.Fatalf("%v: %s", err, text)
	}
	return v
}

// status sends a request with a key to the site.
func (c shell) status(raw, secret string) int {
	c.Helper()
	req, err := http.NewRequest(http.MethodGet, c.s.URL, nil)
	if err != nil {
		c.Fatal(err)
	}
	req.Header.Set("X-API-Key", raw)
	if secret != "" {
		req.Header.Set("X-API-Secret", secret)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		c.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

func (c shell) wants(what string, got, want any) {
	c.Helper()
	g, _ := json.Marshal(got)
	w, _ := json.Marshal(want)
	if string(g) != string(w) {
		c.Errorf("%s: got %s, want %s", what, g, w)
	}
}

var wordID = regexp.MustCompile(`\b[0-9a-f]{24}\b`)

func TestCommandCreate(t *testing.T) {
	full(t)
	c := startCLI(t)

	r := c.exits(0, "create", "--owner", "alice")
	raw := strings.TrimSuffix(r.stdout, "\n")
	if key.CheckShape(raw, true) != nil {
		t.Fatalf("stdout is not a raw key alone on its line: %q", r.stdout)
	}
	if strings.Contains(r.stderr, raw) || !strings.Contains(r.stderr, "alice") || !wordID.MatchString(r.stderr) {
		t.Errorf("stderr: %s", r.stderr)
	}
	c.wants("status with the key", c.status(raw, ""), 200)

	r = c.exits(0, "create", "--owner", "alice", "--with-secret")
	lines := strings.Split(r.stdout, "\n")
	if len(lines) != 3 || lines[2] != "" || !strings.HasPrefix(lines[1], "clsk_") {
		t.Fatalf("stdout is not a key and a secret: %q", r.stdout)
	}
	c.exitsWith(0, r.stdout, "verify", "--with-secret")
	c.exitsWith(1, lines[0]+"\n"+lines[1]+"x\n", "verify")
	c.exitsWith(1, lines[0]+"\n", "verify", "--with-secret")

	for _, issued := range append(lines[:2], raw) {
		if strings.Contains(c.s.Log(), issued) {
			t.Error("a key or secret is in the server's log")
		}
	}
}

func TestCommandCreateFields(t *testing.T) {
	full(t)
	c := startCLI(t)
	got := c.json("create", "--owner", "bob", "--name", "部署 <1>", "--prefix", "pk_", "--expires-in", "90d",
		"--refill", "100/1d", "--rate-limit", "5/1m", "--rate-limit-algorithm", "token_bucket",
		"--permission", "files:read", "--permission", "write", "--metadata", "a=b=c", "--metadata", "n=1 < 2",
		"--allowed-ip", "127.0.0.1", "--allowed-ip", "10.0.0.0/8", "--disabled", "--with-secret")
	for field, want := range map[string]any{
		"userId": "bob", "name": "部署 <1>", "prefix": "pk_", "remaining": 100, "refillAmount": 100,
		"refillInterval": 86_400_000, "rateLimitMax": 5, "rateLimitTimeWindow": 60_000,
		"rateLimitAlgorithm": "token_bucket", "rateLimitEnabled": true, "enabled": false,
		"permissions": map[string][]string{"api": {"write"}, "files": {"read"}},
		"metadata":    map[string]string{"a": "b=c", "n": "1 < 2"},
		"allowedIps":  []string{"127.0.0.1/32", "10.0.0.0/8"},
	} {
		c.wants(field, got[field], want)
	}
	if got["expiresAt"] == nil || got["key"] == nil || got["secret"] == nil {
		t.Errorf("expiresAt, key or secret is missing: %v", got)
	}
	got = c.json("create", "--owner", "bob", "--remaining", "7", "--refill", "10/1h",
		"--metadata-json", `{"b":1.0,"a":[true]}`, "--rate-limit-enabled=false")
	c.wants("remaining", got["remaining"], 7)
	c.wants("rateLimitEnabled", got["rateLimitEnabled"], false)
	c.wants("metadata", got["metadata"], map[string]any{"b": 1, "a": []bool{true}})
}

func TestCommandCreateRefused(t *testing.T) {
	full(t)
	c := startCLI(t)
	r := c.exits(1, "create", "--owner", "a", "--name", strings.Repeat("n", 33))
	c.wants("stdout", r.stdout, "")
	if !strings.Contains(r.stderr, "name") {
		t.Errorf("the field is not named: %s", r.stderr)
	}
	r = c.exits(1, "create", "--owner", "a", "--allowed-ip", "nowhere", "--json")
	c.wants("field", c.decode(r.stdout)["field"], "allowedIps")
}

// A key that nobody has seen must not look as if all were well.
func TestCommandCreateLosesTheKey(t *testing.T) {
	full(t)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("no /dev/full here")
	}
	defer full.Close()
	c := startCLI(t)
	var stderr strings.Builder
	cmd := c.s.command("apikey", "create", "--owner", "alice")
	cmd.Stdout, cmd.Stderr = full, &stderr
	if err := cmd.Run(); err == nil || cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("exit status %d, want 1", cmd.ProcessState.ExitCode())
	}
	if !strings.Contains(stderr.String(), "rotate or delete") || !wordID.MatchString(stderr.String()) {
		t.Errorf("stderr: %s", stderr.String())
	}
}

func TestCommandList(t *testing.T) {
	full(t)
	c := startCLI(t)
	c.wants("empty table", strings.Count(c.exits(0, "list").stdout, "\n"), 1)
	for _, args := range [][]string{
		{"--owner", "alice", "--name", "one"},
		{"--owner", "alice", "--name", "two", "--disabled", "--rate-limit", "100/1m"},
		{"--owner", "bob", "--name", "three", "--prefix", "pk_", "--remaining", "12", "--expires-in", "1d"},
	} {
		c.exits(0, append([]string{"create"}, args...)...)
	}
	table := c.exits(0, "list", "--wide").stdout
	for _, want := range []string{"ID ", "OWNER", "NAME", "START", "STATUS", "disabled", "REMAINING", "LIMIT", "EXPIRES", "LAST USED", "100/1m", " 12 ", "pk_"} {
		if !strings.Contains(table, want) {
			t.Errorf("no %q in\n%s", want, table)
		}
	}
	for _, tt := range []struct {
		args  []string
		names []string
	}{
		{nil, []string{"one", "two", "three"}},
		{[]string{"--owner", "alice"}, []string{"one", "two"}},
		{[]string{"--owner", "alice", "--enabled"}, []string{"one"}},
		{[]string{"--disabled"}, []string{"two"}},
		{[]string{"--prefix", "pk_"}, []string{"three"}},
		{[]string{"--query", "tw"}, []string{"two"}},
		{[]string{"--sort", "-name", "--limit", "2"}, []string{"two", "three"}},
		{[]string{"--all"}, []string{"one", "two", "three"}},
		{[]string{"--config-id", "default", "--sort", "name"}, []string{"one", "three", "two"}},
	} {
		page := c.json(append([]string{"list"}, tt.args...)...)
		names := []string{}
		for _, k := range page["keys"].([]any) {
			names = append(names, k.(map[string]any)["name"].(string))
		}
		c.wants(strings.Join(tt.args, " "), names, tt.names)
	}
}

func TestCommandListPages(t *testing.T) {
	full(t)
	c := startCLI(t)
	for range 3 {
		c.exits(0, "create", "--owner", "alice")
	}
	r := c.exits(0, "list", "--limit", "2")
	if !strings.Contains(r.stderr, "2 of 3") {
		t.Errorf("stderr: %s", r.stderr)
	}
	first := c.json("list", "--limit", "2")
	rest := c.json("list", "--limit", "2", "--cursor", first["nextCursor"].(string))
	c.wants("keys on the second page", len(rest["keys"].([]any)), 1)
	c.wants("cursor of the last page", rest["nextCursor"], nil)
}

func TestCommandUpdate(t *testing.T) {
	full(t)
	c := startCLI(t)
	id := c.json("create", "--owner", "alice", "--name", "old", "--expires-in", "1d", "--remaining", "10", "--refill", "10/1d",
		"--rate-limit", "5/1m", "--permission", "read", "--metadata", "a=b", "--allowed-ip", "127.0.0.1")["id"].(string)
	steps := []struct {
		args []string
		want map[string]any
	}{
		{[]string{"--add", "-4"}, map[string]any{"remaining": 6, "name": "old"}},
		{[]string{"--add", "14"}, map[string]any{"remaining": 20}},
		{[]string{"--remaining", "3", "--name", "new", "--owner", "bob"}, map[string]any{"remaining": 3, "name": "new", "userId": "bob"}},
		{[]string{"--remaining", "unlimited"}, map[string]any{"remaining": nil}},
		{[]string{"--refill", "7/1h", "--remaining", "7"}, map[string]any{"remaining": 7, "refillAmount": 7, "refillInterval": 3_600_000}},
		{[]string{"--rate-limit", "9/1h", "--rate-limit-enabled=false"}, map[string]any{"rateLimitMax": 9, "rateLimitEnabled": false}},
		{[]string{"--permission", "files:read"}, map[string]any{"permissions": map[string][]string{"files": {"read"}}}},
		{[]string{"--disabled"}, map[string]any{"enabled": false}},
		{[]string{"--enabled"}, map[string]any{"enabled": true}},
		{
			[]string{"--no-name", "--no-expires-in", "--no-remaining", "--no-refill", "--no-rate-limit", "--no-permission", "--no-metadata", "--no-allowed-ip"},
			map[string]any{
				"name": nil, "expiresAt": nil, "remaining": nil, "refillAmount": nil, "refillInterval": nil, "rateLimitMax": nil,
				"rateLimitTimeWindow": nil, "permissions": nil, "metadata": nil, "allowedIps": nil,
			},
		},
	}
	for _, step := range steps {
		got := c.json(append([]string{"update", id}, step.args...)...)
		for field, want := range step.want {
			c.wants(strings.Join(step.args, " ")+": "+field, got[field], want)
		}
	}
	if out := c.exits(0, "update", id, "--name", "third").stdout; !strings.Contains(out, "third") {
		t.Errorf("stdout: %s", out)
	}
	c.exits(1, "update", id, "--add", "1") // unlimited
	c.exits(1, "update", strings.Repeat("0", 24), "--name", "x")
}

func TestCommandLifeOfAKey(t *testing.T) {
	quick(t)
	c := startCLI(t)
	made := c.json("create", "--owner", "alice")
	id, raw := made["id"].(string), made["key"].(string)

	c.exits(0, "revoke", id)
	c.wants("status of a revoked key", c.status(raw, ""), 401)
	c.exits(0, "enable", id)
	c.wants("status of an enabled key", c.status(raw, ""), 200)

	r := c.exits(0, "rotate", id)
	second := strings.TrimSpace(r.stdout)
	c.wants("status of the old key", c.status(raw, ""), 401)
	c.wants("status of the new key", c.status(second, ""), 200)
	third := c.json("rotate", id, "--grace", "1h", "--with-secret")
	c.wants("status in grace", c.status(second, ""), 200)
	c.wants("status of the third key", c.status(third["key"].(string), third["secret"].(string)), 200)

	if out := c.exits(0, "show", id).stdout; !strings.Contains(out, id) || !strings.Contains(out, "alice") {
		t.Errorf("show: %s", out)
	}
	c.wants("id", c.json("show", id)["id"], id)
	c.wants("delete --json", c.exits(0, "delete", id, "--yes", "--json").stdout, "")
	r = c.exits(1, "show", id, "--json")
	c.wants("code", c.decode(r.stdout)["code"], "KEY_NOT_FOUND")
	c.exits(1, "delete", id, "--yes")
	c.wants("deleted", c.json("delete-expired", "--yes")["deleted"], 0)
	c.exits(0, "delete-expired", "--yes")
}

func TestCommandVerify(t *testing.T) {
	full(t)
	c := startCLI(t)
	made := c.json("create", "--owner", "alice", "--permission", "files:read", "--remaining", "3", "--allowed-ip", "10.0.0.0/8")
	id, raw := made["id"].(string), made["key"].(string)
	verify := func(code int, stdin string, args ...string) result {
		t.Helper()
		r := c.exitsWith(code, stdin, append([]string{"verify"}, args...)...)
		if strings.Contains(r.stdout+r.stderr, raw) {
			t.Errorf("verify %v repeats the key", args)
		}
		return r
	}
	remaining := func(want int) {
		t.Helper()
		c.wants("remaining", c.json("show", id)["remaining"], want)
	}
	verify(0, raw+"\r\n", "--dry-run")
	remaining(3)
	if r := verify(0, raw); !strings.Contains(r.stdout, id) {
		t.Errorf("stdout: %s", r.stdout)
	}
	remaining(2)
	verify(0, raw, "--permission", "files:read", "--ip", "10.1.2.3", "--config-id", "default")
	remaining(1)
	for code, args := range map[string][]string{
		"INSUFFICIENT_PERMISSIONS": {"--permission", "files:write"},
		"IP_NOT_ALLOWED":           {"--ip", "192.0.2.1"},
		"USAGE_EXCEEDED":           {"--cost", "5"},
		"INVALID_API_KEY":          {"--config-id", "other"},
	} {
		if r := verify(1, raw, args...); !strings.Contains(r.stderr, code) {
			t.Errorf("no %s in %s", code, r.stderr)
		}
	}
	remaining(1)
	v := c.decode(verify(1, raw+"x", "--json").stdout)
	c.wants("valid", v["valid"], false)
	verify(1, "")
	verify(1, "\n\n")
	verify(1, raw+"\nx\ny\n")
}

func TestCommandOwner(t *testing.T) {
	full(t)
	c := startCLI(t)
	raw := strings.TrimSpace(c.exits(0, "create", "--owner", "a/b ö").stdout)
	c.exits(0, "owner", "set", "a/b ö", "--disable")
	c.wants("status of a disabled owner", c.status(raw, ""), 401)
	c.wants("enabled", c.json("owner", "set", "a/b ö", "--enable")["enabled"], true)
	c.wants("status", c.status(raw, ""), 200)
	c.exits(0, "owner", "set", "second")
	c.wants("keys", c.json("owner", "show", "a/b ö")["keyCount"], 1)
	if out := c.exits(0, "owner", "list").stdout; !strings.Contains(out, "a/b ö") || !strings.Contains(out, "second") {
		t.Errorf("owner list: %s", out)
	}
	if r := c.exits(0, "owner", "list", "--limit", "1"); !strings.Contains(r.stderr, "--all") {
		t.Errorf("stderr: %s", r.stderr)
	}
	c.wants("owners", len(c.json("owner", "list", "--all")["owners"].([]any)), 2)
	c.exits(0, "owner", "delete", "a/b ö", "--yes")
	c.wants("status of a deleted owner's key", c.status(raw, ""), 401)
	c.exits(1, "owner", "show", "a/b ö")
}

func TestCommandHealth(t *testing.T) {
	full(t)
	c := startCLI(t)
	c.wants("status", c.json("health")["status"], "ok")
	if out := c.exits(0, "health").stdout; !strings.Contains(out, "sqlite") {
		t.Errorf("health: %s", out)
	}
}

// With --json, standard output is what the admin API answers.
func TestCommandJSONIsTheAnswer(t *testing.T) {
	full(t)
	c := startCLI(t)
	id := c.json("create", "--owner", "alice", "--metadata-json", `{"z":"<&>","a":1.50}`)["id"].(string)
	for path, args := range map[string][]string{
		"/apikey/keys/" + id:    {"show", id},
		"/apikey/keys?limit=1":  {"list", "--limit", "1"},
		"/apikey/keys":          {"list", "--all"},
		"/apikey/owners":        {"owner", "list"},
		"/apikey/owners/alice":  {"owner", "show", "alice"},
		"/apikey/owners/nobody": {"owner", "show", "nobody"},
	} {
		resp, err := http.Get(c.s.Admin + path)
		if err != nil {
			t.Fatal(err)
		}
		var want json.RawMessage
		if err := json.NewDecoder(resp.Body).Decode(&want); err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		got := c.s.run(append([]string{"apikey", "--json"}, args...)...)
		if strings.TrimSuffix(got.stdout, "\n") != string(want) {
			t.Errorf("%v: got\n%s want\n%s", args, got.stdout, want)
		}
	}
}

func TestCommandUsage(t *testing.T) {
	full(t)
	c := startCLI(t)
	for _, args := range [][]string{
		{"nosuch"},
		{"owner", "nosuch"},
		{"--nosuch"},
		{"list", "-z"},
		{"list", "extra"},
		{"list", "--enabled", "--disabled"},
		{"list", "--limit", "many"},
		{"list", "--limit"},
		{"list", "--sort", "size"},
		{"list", "--json=maybe"},
		{"create"},
		{"create", "--owner", "a", "extra"},
		{"create", "--owner", "a", "--expires-in", "soon"},
		{"create", "--owner", "a", "--expires-in", "1500ms"},
		{"create", "--owner", "a", "--expires-in", "-1d"},
		{"create", "--owner", "a", "--refill", "100"},
		{"create", "--owner", "a", "--rate-limit", "x/1m"},
		{"create", "--owner", "a", "--rate-limit", "100/"},
		{"create", "--owner", "a", "--rate-limit-algorithm", "guess"},
		{"create", "--owner", "a", "--permission", "a b"},
		{"create", "--owner", "a", "--metadata", "novalue"},
		{"create", "--owner", "a", "--metadata-json", "[1]"},
		{"create", "--owner", "a", "--metadata-json", "{}", "--metadata", "a=b"},
		{"create", "--owner", "a", "--remaining", "lots"},
		{"create", "--owner", "a", "--disabled=perhaps"},
		{"show"},
		{"show", ""},
		{"show", "a", ""},
		{"show", "a", "-o", "xml"},
		{"show", "a", "-o", "csv", "--json"},
		{"show", "a", "--columns", "id,size"},
		{"list", "--columns", "id", "--json"},
		{"list", "--columns", "id", "-o", "name"},
		{"create", "--owner", "a", "-o", "name"},
		{"health", "-o", "csv"},
		{"delete", "a"},
		{"revoke", "a", "b"},
		{"update", "a", "b", "--disabled"},
		{"update", "a", "--yes"},
		{"delete-expired"},
		{"owner", "delete", "a"},
		{"update"},
		{"update", "id"},
		{"update", "id", "--name", "a", "--no-name"},
		{"update", "id", "--add", "1", "--remaining", "1"},
		{"update", "id", "--prefix", "x_"},
		{"revoke"},
		{"enable"},
		{"delete"},
		{"rotate"},
		{"rotate", "id", "--grace", "later"},
		{"verify", "argument"},
		{"owner", "show"},
		{"owner", "set", "a", "--enable", "--disable"},
		{"owner", "delete"},
		{"health", "extra"},
		{"delete-expired", "extra"},
	} {
		r := c.exits(2, args...)
		if r.stdout != "" || !strings.Contains(r.stderr, "--help") {
			t.Errorf("%v: stdout %q, stderr %q", args, r.stdout, r.stderr)
		}
	}
	for _, args := range [][]string{nil, {"--help"}, {"owner"}, {"create", "--help"}, {"update", "-h"}} {
		if r := c.exits(0, args...); !strings.Contains(r.stdout, "Usage:") {
			t.Errorf("%v: %s", args, r.stdout)
		}
	}
}

// Wherever a raw key stands among the arguments, it is refused, not repeated, and
// not sent.
func TestCommandTakesNoRawKey(t *testing.T) {
	full(t)
	c := startCLI(t)
	raw := strings.TrimSpace(c.exits(0, "create", "--owner", "alice").stdout)
	for _, args := range [][]string{
		{raw},
		{"--" + raw},
		{"verify", raw},
		{"verify", "--key", raw},
		{"verify", "--key=" + raw},
		{"verify", "--ip", raw},
		{"verify", "--cost", raw},
		{"verify", "--dry-run=" + raw},
		{"show", raw},
		{"revoke", raw},
		{"delete", raw},
		{"owner", raw},
		{"owner", "show", raw},
		{"list", "--query", raw},
		{"list", "--limit", raw},
		{"list", "--cursor", raw},
		{"list", "--address", raw},
		{"list", "--config", raw},
		{"create", "--owner", raw},
		{"create", "--owner", "a", "--name", raw},
		{"create", "--owner", "a", "--metadata", "token=" + raw, "--metadata", "a=b"},
		{"create", "--owner", "a", "--metadata-json", `{"token":"` + raw + `"}`},
		{"create", "--owner", "a", "--permission", raw},
		{"create", "--owner", "a", "--expires-in", raw},
		{"create", "--owner", "a", "--refill", raw + "/1d"},
	} {
		r := c.exits(2, args...)
		if strings.Contains(r.stdout+r.stderr, raw[3:13]) {
			t.Errorf("%v is repeated: %s", args[:len(args)-1], r.stderr)
		}
	}
	if strings.Contains(c.s.Log(), raw) {
		t.Error("the server's log holds the key")
	}
}

func TestCommandHostileText(t *testing.T) {
	full(t)
	c := startCLI(t)
	made := c.json("create", "--owner", "al\u202eice", "--name", "x\u200bname", "--metadata", "a=\u202e")
	c.exits(1, "create", "--owner", "a\x1b[2J")
	r := c.exits(0, "list")
	out := r.stdout + c.exits(0, "show", made["id"].(string)).stdout + c.exits(0, "owner", "list").stdout
	if strings.ContainsAny(out, "\x1b\r\u202e\u200b") || !strings.Contains(out, `\u202e`) {
		t.Errorf("output: %q", out)
	}
}

func TestCommandFindsTheServer(t *testing.T) {
	full(t)
	if runtime.GOOS == "windows" {
		t.Skip("Unix sockets")
	}
	dir, err := os.MkdirTemp("", "apikey") // shorter than t.TempDir: socket paths are limited
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := "unix/" + filepath.Join(dir, "admin.sock")
	c := startCLI(t, withAdmin(socket+"|0200"))
	for _, args := range [][]string{
		{"list"},
		{"list", "--address", socket},
		{"--address", socket + "|0200", "list"},
	} {
		c.exits(0, args...)
	}
	config := filepath.Join(c.s.Dir, "other.json")
	for listen, code := range map[string]int{socket: 0, "127.0.0.1:1": 1} {
		if err := os.WriteFile(config, []byte(`{"admin":{"listen":"`+listen+`"}}`), 0o600); err != nil {
			t.Fatal(err)
		}
		c.exits(code, "list", "--config", config)
	}
	c.exits(1, "list", "--config", filepath.Join(c.s.Dir, "none.json"))
	c.exits(2, "list", "--address", "127.0.0.1:1-9")
}

func TestCommandWithoutServer(t *testing.T) {
	full(t)
	c := startCLI(t)
	c.s.stop(syscall.SIGTERM)
	r := c.exits(1, "list")
	if r.stdout != "" || !strings.Contains(r.stderr, "Is Caddy running") || !strings.Contains(r.stderr, "--address") {
		t.Errorf("stderr: %s", r.stderr)
	}
	c.exitsWith(1, "ak_x\n", "verify")
}

func TestCommandWithoutApp(t *testing.T) {
	full(t)
	c := shell{t, startCaddy(t, "{$SITE} {\n\trespond ok\n}\n")}
	if r := c.exits(1, "list"); !strings.Contains(r.stderr, "apikey is running") {
		t.Errorf("stderr: %s", r.stderr)
	}
	r := c.exits(1, "health", "--json")
	c.wants("status", c.decode(r.stdout)["status"], "unavailable")
}
