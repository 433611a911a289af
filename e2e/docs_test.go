package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Every example in the documentation is run here:
//
//   - a caddyfile block is adapted, formatted as "caddy fmt" would have it;
//   - a json block that is a configuration is validated;
//   - the commands ("$ …") of a file's console blocks are run in order by one
//     shell, against a server with example.Caddyfile, and their output is
//     compared with what stands below them. IDs, times and keys may differ.

// docsSecret is what a reader sets before using the configuration with a webhook.
const docsSecret = "APIKEY_WEBHOOK_SECRET=whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="

type block struct {
	lang, text string
	line       int
}

var fence = regexp.MustCompile("(?ms)^```([a-z]+)\n(.*?)^```$")

// unmerged is what a merge leaves where both sides have changed a page.
var unmerged = regexp.MustCompile("(?m)^(<{7} |={7}$|>{7} )")

func documents(t *testing.T) map[string][]block {
	t.Helper()
	blocks := map[string][]block{}
	for _, file := range slices.Concat(sources(t, "docs/*.md"), sources(t, "docs/*/*.md"), []string{"README.md"}) {
		text, err := os.ReadFile(source(t, file))
		if err != nil {
			t.Fatal(err)
		}
		if where := unmerged.FindIndex(text); where != nil {
			t.Errorf("%s:%d: a merge was not finished", file, 1+strings.Count(string(text[:where[0]]), "\n"))
		}
		for _, m := range fence.FindAllSubmatchIndex(text, -1) {
			blocks[file] = append(blocks[file], block{
				string(text[m[2]:m[3]]), string(text[m[4]:m[5]]), 1 + strings.Count(string(text[:m[0]]), "\n"),
			})
		}
	}
	return blocks
}

func (b block) in(file string) string { return file + ":" + strconv.Itoa(b.line) }

func TestDocsConfigurations(t *testing.T) {
	full(t)
	checked := 0
	for file, blocks := range documents(t) {
		for _, b := range blocks {
			var args []string
			switch {
			case b.lang == "caddyfile":
				args = []string{"adapt", "--validate", "--adapter", "caddyfile", "--config"}
			case b.lang == "json" && strings.Contains(b.text, `"apps"`):
				args = []string{"validate", "--config"}
			default:
				continue
			}
			checked++
			t.Run(b.in(file), func(t *testing.T) {
				dir := t.TempDir()
				path := filepath.Join(dir, "config."+b.lang)
				if err := os.WriteFile(path, []byte(b.text), 0o600); err != nil {
					t.Fatal(err)
				}
				cmd := exec.Command(buildCaddy(t), append(args, path)...)
				cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir, docsSecret)
				out, err := cmd.CombinedOutput()
				if err != nil {
					t.Errorf("%v\n%s", err, out)
				}
				if strings.Contains(string(out), "is not formatted") {
					t.Errorf("not formatted: see caddy fmt --diff")
				}
			})
		}
	}
	if checked == 0 {
		t.Error("no configuration found")
	}
}

func TestDocsCommands(t *testing.T) {
	full(t)
	tool(t, "bash")
	tool(t, "curl")
	checked := 0
	for file, blocks := range documents(t) {
		var steps []docStep
		for _, b := range blocks {
			if b.lang == "console" {
				steps = append(steps, stepsOf(b, file)...)
			}
		}
		if len(steps) == 0 {
			continue
		}
		checked++
		t.Run(file, func(t *testing.T) { runSteps(t, steps) })
	}
	if checked == 0 {
		t.Error("no command found")
	}
}

// docStep is a command with the output that the documentation promises.
type docStep struct{ at, command, want string }

func stepsOf(b block, file string) (steps []docStep) {
	for i, line := range strings.SplitAfter(b.text, "\n") {
		if command, ok := strings.CutPrefix(line, "$ "); ok {
			steps = append(steps, docStep{file + ":" + strconv.Itoa(b.line+1+i), command, ""})
		} else if last := len(steps) - 1; last >= 0 {
			if strings.HasSuffix(steps[last].command, "\\\n") {
				steps[last].command += strings.TrimPrefix(line, "> ")
			} else {
				steps[last].want += line
			}
		}
	}
	return steps
}

func runSteps(t *testing.T, steps []docStep) {
	example, err := os.ReadFile(source(t, "example.Caddyfile"))
	if err != nil {
		t.Fatal(err)
	}
	s := startCaddy(t, strings.ReplaceAll(string(example), "http://localhost:8080", "{$SITE}"))
	bin := filepath.Dir(buildCaddy(t))
	const mark = "\x1e"
	script := "export PATH=" + bin + ":$PATH\n"
	for _, step := range steps {
		command := strings.NewReplacer(
			"go run ./cmd/caddy", "caddy", "./caddy", "caddy", "http://localhost:8080", s.URL, "localhost:8080", strings.TrimPrefix(s.URL, "http://"),
			"localhost:2019", s.adminAddr,
		).Replace(step.command)
		script += command + "printf '\\036'\n"
	}
	cmd := s.command()
	cmd.Path, cmd.Args = "/bin/bash", []string{"bash", "-c", script + "\n"}
	if path, err := exec.LookPath("bash"); err == nil {
		cmd.Path = path
	}
	cmd.Dir = t.TempDir()
	fillBetterAuthDB(t, filepath.Join(cmd.Dir, "better-auth.db"), docsRows())
	// On a terminal curl shows no progress, as here.
	if err := os.WriteFile(filepath.Join(cmd.Dir, ".curlrc"), []byte("silent\nshow-error\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(cmd.Env, "CURL_HOME="+cmd.Dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Logf("the shell: %v", err)
	}
	got := strings.Split(string(out), mark)
	for i, step := range steps {
		if i >= len(got) {
			t.Fatalf("%s was not reached", step.at)
		}
		if have, want := anonymous(got[i]), anonymous(step.want); have != want {
			t.Errorf("%s: %s\ngot:\n%s\nthe documentation says:\n%s", step.at, strings.TrimSpace(step.command), got[i], step.want)
		}
	}
}

// docsRows is the database of Better Auth that the documentation moves in from.
func docsRows() []map[string]any {
	const raw = "kQzVbWnYcRtMfHjLpXsDgKaUoEiTyNwBqZvCxSmRdFhJlPgOkIuYtReWqAzSxDcF"
	other := func(name string, changes map[string]any) map[string]any {
		changes["id"], changes["name"] = name, name
		return betterAuthRow(rawKeyOf(name), changes)
	}
	return []map[string]any{
		betterAuthRow(raw, map[string]any{"id": "laptop", "name": "laptop", "remaining": 50}),
		other("build", map[string]any{"permissions": `{"files":["read","*"]}`}),
		other("report", map[string]any{"remaining": 0}),
		other("tags", map[string]any{"metadata": `["a","b"]`}),
		other("website", map[string]any{"configId": "public"}),
	}
}

// varying are the parts of an output that differ from run to run.
var varying = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`ak_[0-9A-Za-z]{64}`), "KEY"},
	{regexp.MustCompile(`clsk_[0-9A-Za-z]{48}`), "SECRET"},
	{regexp.MustCompile(`\bak_[0-9A-Za-z]{3}([0-9A-Za-z]{6})?\b`), "START"},
	{regexp.MustCompile(`\b[0-9a-f]{24}\b`), "ID"},
	{regexp.MustCompile(`(chain"?:"|[0-9]+:)[0-9a-f]{64}\b`), "${1}CHAIN"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z| UTC)?`), "TIME"},
	{regexp.MustCompile(`\b\d{4}-\d\d-\d\d\b`), "DATE"},
	{regexp.MustCompile(`(\bschema"?:? ?)\d+`), "${1}N"},
	{regexp.MustCompile(`\bt=\d+`), "t=N"},
	{regexp.MustCompile(`/\S+/apikey\.db\b`), "DATABASE"},
	{regexp.MustCompile(`(?i)("pid":|\bprocess:? +)\d+`), "${1}N"},
	{regexp.MustCompile(`\bjust now\b|\b\d+[smh] ago\b`), "AGO"},
	{regexp.MustCompile(`(?m)^(Date|Server|Content-Length|Connection): .*\n`), ""},
	{regexp.MustCompile(`127\.0\.0\.1:\d+|localhost:(8080|2019)`), "ADDRESS"},
	{regexp.MustCompile(`\bv\d+\.\d+\.\d+[-+.\w]*|\(devel\)|\b3\.\d+\.\d+\b`), "VERSION"},
	{regexp.MustCompile(`\r`), ""},
	{regexp.MustCompile(` +\n`), "\n"},
	{regexp.MustCompile(` {3,}`), "  "}, // columns are as wide as an age, "just now" or "1m ago"
}

func anonymous(s string) string {
	for _, v := range varying {
		s = v.pattern.ReplaceAllString(s, v.with)
	}
	return strings.TrimSpace(s)
}
