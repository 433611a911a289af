package e2e

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// rowsOf returns the entries of a list in testdata/better-auth.
func rowsOf(t *testing.T, name string) []string {
	t.Helper()
	b, err := os.ReadFile(source(t, "testdata", "better-auth", name+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(b))
}

// firstCells are the first cells of all rows in the document, and the cell beside.
func firstCells(t *testing.T) map[string]string {
	t.Helper()
	b, err := os.ReadFile(source(t, "docs", "better-auth.md"))
	if err != nil {
		t.Fatal(err)
	}
	cells := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ([^|]+) \\|").FindAllStringSubmatch(string(b), -1) {
		if cells[m[1]] != "" {
			t.Errorf("%s has two rows", m[1])
		}
		cells[m[1]] = m[2]
	}
	return cells
}

// TestBetterAuthDocs holds that every option and every code of the reference has a
// row in the document.
func TestBetterAuthDocs(t *testing.T) {
	quick(t)
	cells := firstCells(t)
	for _, list := range []string{"options", "codes"} {
		for _, name := range rowsOf(t, list) {
			if cells[name] == "" {
				t.Errorf("docs/better-auth.md has no row for %s", name)
			}
		}
	}
}

// TestBetterAuthRows holds that every field has a test of its name.
func TestBetterAuthRows(t *testing.T) {
	quick(t)
	names := map[string]bool{}
	for _, file := range sources(t, "internal/api/betterauth/*_test.go") {
		f, err := parser.ParseFile(token.NewFileSet(), source(t, file), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok {
				names[fn.Name.Name] = true
			}
		}
	}
	for _, field := range rowsOf(t, "fields") {
		if !names["TestBetterAuth_"+field] {
			t.Errorf("no test is named TestBetterAuth_%s", field)
		}
	}
}

// TestBetterAuthClient_docs runs the example of the document.
func TestBetterAuthClient_docs(t *testing.T) {
	full(t)
	node := needNode(t)
	var configuration, script string
	for _, b := range documents(t)["docs/better-auth.md"] {
		switch {
		case b.lang == "caddyfile" && configuration == "":
			configuration = b.text
		case b.lang == "js":
			script += b.text
		}
	}
	s := startGate(t, strings.ReplaceAll(configuration, "http://localhost:8080", "{$SITE}"))
	k := s.create(map[string]any{"permissions": []string{"write"}})
	cmd := exec.Command(node, "--input-type=module", "-")
	cmd.Dir = source(t, "testdata", "node")
	cmd.Env = append(os.Environ(), "API_KEY="+k.Raw)
	cmd.Stdin = strings.NewReader(strings.ReplaceAll(script, "http://localhost:8080", s.URL))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !regexp.MustCompile(`^ak_[0-9A-Za-z]{64}\n$`).Match(out) {
		t.Errorf("it prints %s", out)
	}
}
