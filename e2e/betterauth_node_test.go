package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// This file makes the same calls, with Better Auth's own client, to a running Caddy
// and to a real Better Auth server, and compares the answers.

// betterAuthSite is what both servers are configured like. Its people are known by
// basic_auth, which stands for any authentication.
const betterAuthSite = `{
	log default {
		format apikey_redact
	}
	apikey {
		rate_limit 100000/1m
		expiration {
			min 1d
		}
		config limited {
			expiration {
				max 365d
			}
		}
		config second {
			session off
			metadata off
			require_name
			expiration {
				fixed
			}
		}
		config team
	}
}

(api) {
	apikey_api {
		dialect better_auth
		user {http.auth.user.id}
		trusted_origins https://app.example.com
		organization {organization} {
			role {role}
			config team
			allow member read
		}
	}
}

{$SITE} {
	route /person/* {
		basic_auth {
			olga {$PASSWORD}
			bob {$PASSWORD}
			mike {$PASSWORD}
			sue {$PASSWORD}
		}
		uri strip_prefix /person
		map {http.auth.user.id} {organization} {role} {
			olga acme owner
			mike acme member
		}
		import api
	}
	import api
}
`

// comparison is one call, and what each server answered.
type comparison struct {
	Name      string          `json:"name"`
	Why       string          `json:"why"`
	Ours      json.RawMessage `json:"ours"`
	Reference json.RawMessage `json:"reference"`
}

// TestBetterAuthClient drives every call of the client, and holds the answers
// against those of the reference. Where they differ, the call must say why, and the
// documentation has a row for it.
func TestBetterAuthClient(t *testing.T) {
	full(t)
	node := needNode(t)
	s := startGate(t, betterAuthSite, withTestClock(), withEnv("PASSWORD="+passwordHash))
	out := runNode(t, node, "conformance.mjs", s.URL, s.Admin)
	var all []comparison
	if err := json.Unmarshal(out, &all); err != nil {
		t.Fatal(err)
	}
	var rows []string
	for _, c := range all {
		ours, reference := difference(c.Ours, c.Reference)
		switch {
		case ours == reference && c.Why != "":
			t.Errorf("%s: the answers are the same, but the call says why they differ", c.Name)
		case ours != reference && c.Why == "":
			t.Errorf("%s: the answers differ:\nours:      %s\nreference: %s", c.Name, c.Ours, c.Reference)
		case ours != reference:
			rows = append(rows, fmt.Sprintf("| %s | %s | %s | %s |", c.Name, cell(reference), cell(ours), c.Why))
		}
	}
	checkCodes(t, all)
	t.Logf("%d calls, %d with a difference", len(all), len(rows))
	checkGenerated(t, "docs/better-auth.md", "differences",
		"| call | reference | here | why |\n| --- | --- | --- | --- |\n"+strings.Join(rows, "\n")+"\n")
}

// checkCodes holds that every code of the reference occurred, but for those of which
// the document says that they never do.
func checkCodes(t *testing.T, all []comparison) {
	t.Helper()
	cells := firstCells(t)
	for _, code := range rowsOf(t, "codes") {
		occurs := slices.ContainsFunc(all, func(c comparison) bool {
			return bytes.Contains(c.Ours, []byte(`"code":"`+code+`"`))
		})
		if never := strings.HasPrefix(cells[code], "never"); never == occurs {
			t.Errorf("%s occurred: %v; the document says %q", code, occurs, cells[code])
		}
	}
}

// needNode returns the node program. Where it or the packages are not installed, the
// test is skipped, but never in CI.
func needNode(t *testing.T) string {
	t.Helper()
	node := tool(t, "node")
	if _, err := os.Stat(source(t, "testdata", "node", "node_modules", "better-auth", "package.json")); err != nil {
		lacking(t, errors.New("the packages of Better Auth are not installed: run npm ci --prefix testdata/node"))
	}
	return node
}

// runNode runs a script of testdata/node and returns what it prints.
func runNode(t *testing.T, node, script string, args ...string) []byte {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(node, append([]string{script}, args...)...)
	cmd.Dir = source(t, "testdata", "node")
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, stderr.String())
	}
	return stdout.Bytes()
}

// difference returns how two answers differ, as short texts that are the same where
// the answers are.
func difference(ours, reference json.RawMessage) (o, r string) {
	var a, b any
	json.Unmarshal(ours, &a)      //nolint:errcheck // it came out of a document that was read
	json.Unmarshal(reference, &b) //nolint:errcheck // likewise
	one, other := map[string]string{}, map[string]string{}
	flatten("", a, one)
	flatten("", b, other)
	for _, path := range slices.Sorted(maps.Keys(one)) {
		if other[path] == one[path] {
			delete(one, path)
			delete(other, path)
		}
	}
	switch {
	case succeeds(one, other):
		return "200", summary(other)
	case succeeds(other, one):
		return summary(one), "200"
	}
	return summary(one), summary(other)
}

// succeeds reports whether one answer is no error while the other is.
func succeeds(one, other map[string]string) bool {
	return one["error"] == "null" && other["error.status"] != ""
}

// flatten writes the values of an answer by their paths.
func flatten(path string, v any, to map[string]string) {
	if m, ok := v.(map[string]any); ok && len(m) > 0 {
		for name, value := range m {
			flatten(strings.TrimPrefix(path+"."+name, "."), value, to)
		}
		return
	}
	text := new(bytes.Buffer)
	e := json.NewEncoder(text)
	e.SetEscapeHTML(false)
	e.Encode(v) //nolint:errcheck // it was read from JSON
	to[path] = strings.TrimSpace(text.String())
}

// summary is what is left of an answer, in one line. Beside a code, the message
// says nothing new.
func summary(values map[string]string) string {
	if code := values["error.code"]; code != "" {
		return strings.TrimSpace(values["error.status"] + " " + strings.Trim(code, `"`))
	}
	var parts []string
	for _, path := range slices.Sorted(maps.Keys(values)) {
		code, isMessage := strings.CutSuffix(path, "message")
		if isMessage && values[code+"code"] != "" {
			continue
		}
		if path == "" {
			parts = append(parts, values[path])
		} else {
			parts = append(parts, path+": "+values[path])
		}
	}
	return strings.Join(parts, ", ")
}

func cell(s string) string {
	if s == "" {
		return "—"
	}
	return strings.ReplaceAll(strings.ReplaceAll(s, "|", "\\|"), "<", "&lt;")
}

// updateEnv tells tests to write what they generate.
const updateEnv = "APIKEY_UPDATE"

// checkGenerated holds the part of a document between two markers against what it
// must be, and writes it there where the tests are told to.
func checkGenerated(t *testing.T, file, name, want string) {
	t.Helper()
	b, err := os.ReadFile(source(t, file))
	if err != nil {
		t.Fatal(err)
	}
	begin, end := "<!-- "+name+" -->\n", "<!-- end of "+name+" -->\n"
	before, rest, found := strings.Cut(string(b), begin)
	got, after, ended := strings.Cut(rest, end)
	switch {
	case !found || !ended:
		t.Fatalf("%s: no part between %q and %q", file, begin, end)
	case got == want:
	case os.Getenv(updateEnv) != "":
		if err := os.WriteFile(source(t, file), []byte(before+begin+want+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s is out of date: run %s=1 go test -run %s ./e2e", file, updateEnv, t.Name())
	}
}

// TestBetterAuthClient_database makes the database that a real server leaves, which
// imports are tried with.
func TestBetterAuthClient_database(t *testing.T) {
	full(t)
	file, keys := betterAuthDatabase(t)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(b, []byte("SQLite format 3\x00")) {
		t.Error("the file is no SQLite database")
	}
	if len(keys) < 25 {
		t.Errorf("%d keys are few for all kinds", len(keys))
	}
	for _, k := range keys {
		if k.Raw == "" || k.Row["id"] == nil || !bytes.Contains(b, fmt.Append(nil, k.Row["id"])) {
			t.Errorf("%s: the key is not in the file", k.Kind)
		}
	}
}

// betterAuthKey is a key of a real Better Auth server.
type betterAuthKey struct {
	Kind string         `json:"kind"` // what is special about it, in words
	Raw  string         `json:"key"`
	Row  map[string]any `json:"row"` // as it is stored
}

// betterAuthDatabase returns an SQLite file that a real Better Auth server has
// written, and the keys in it.
func betterAuthDatabase(t *testing.T) (file string, keys []betterAuthKey) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "better-auth.db")
	var made struct {
		Keys []betterAuthKey `json:"keys"`
	}
	if err := json.Unmarshal(runNode(t, needNode(t), "database.mjs", file), &made); err != nil {
		t.Fatal(err)
	}
	return file, made.Keys
}
