package apikey

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	// promise is an item of docs/promises.md, up to the next item, heading or end.
	promise = regexp.MustCompile(`(?m)^- .*\n(  .*\n)*`)
	// quotedTest is the name of a test in such an item.
	quotedTest = regexp.MustCompile("`(Test\\w*)`")
	// barTest is the name of a test for a row of the bar, such as TestK1_LastCredits.
	barTest = regexp.MustCompile(`^Test[A-Z]\d+(_|$)`)
)

// TestPromises holds docs/promises.md against the code: every promise names a
// test, every test that is named exists, and every test that is named after a row
// of the bar belongs to a promise.
func TestPromises(t *testing.T) {
	const page = "docs/promises.md"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	promises := promise.FindAllString(string(text), -1)
	if len(promises) == 0 {
		t.Fatalf("%s lists no promises", page)
	}
	tests := testFunctions(t)
	listed := map[string]bool{}
	for _, item := range promises {
		names := quotedTest.FindAllStringSubmatch(item, -1)
		if len(names) == 0 {
			t.Errorf("%s: no test shows this promise:\n%s", page, item)
		}
		for _, m := range names {
			name := m[1]
			if listed[name] {
				t.Errorf("%s: %s is listed more than once", page, name)
			}
			listed[name] = true
			if !slices.Contains(tests, name) {
				t.Errorf("%s: there is no test %s", page, name)
			}
		}
	}
	for _, name := range tests {
		if barTest.MatchString(name) && !listed[name] {
			t.Errorf("%s: no promise lists %s", page, name)
		}
	}
}

// testFunctions returns the names of all test functions in the repository, sorted.
// Build tags do not matter.
func testFunctions(t *testing.T) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != "." && (d.Name() == "node_modules" || strings.HasPrefix(d.Name(), ".")):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			if isTest(decl) {
				names = append(names, decl.(*ast.FuncDecl).Name.Name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// isTest reports whether decl is a function func TestX(*testing.T).
func isTest(decl ast.Decl) bool {
	fn, ok := decl.(*ast.FuncDecl)
	if !ok || fn.Recv != nil || !strings.HasPrefix(fn.Name.Name, "Test") || len(fn.Type.Params.List) != 1 {
		return false
	}
	pointer, ok := fn.Type.Params.List[0].Type.(*ast.StarExpr)
	if !ok {
		return false
	}
	selector, ok := pointer.X.(*ast.SelectorExpr)
	return ok && selector.Sel.Name == "T"
}

var (
	// fencedCaddyfile is a Caddyfile in a page of the documentation.
	fencedCaddyfile = regexp.MustCompile("(?ms)^```caddyfile\n(.*?)^```$")
	// ours is a directive or the global option of this plugin.
	ours       = regexp.MustCompile(`(?m)^\t+apikey`)
	defaultLog = regexp.MustCompile(`(?m)^\tlog default \{\n\t\tformat apikey_redact\b`)
	anyLog     = regexp.MustCompile(`(?m)^\t+log( \S+)? \{\n\t+(.*)$`)
)

// TestPromises_examplesMaskKeys holds that no configuration in the documentation
// writes keys to a log when it is copied as it is: Caddy logs the headers of a
// request when the upstream is away, also without an access log.
func TestPromises_examplesMaskKeys(t *testing.T) {
	pages, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for _, page := range append(pages, "README.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range fencedCaddyfile.FindAllStringSubmatch(string(text), -1) {
			if !ours.MatchString(m[1]) {
				continue
			}
			checked++
			if !defaultLog.MatchString(m[1]) {
				t.Errorf("%s: the default log lacks format apikey_redact:\n%s", page, m[1])
			}
			for _, log := range anyLog.FindAllStringSubmatch(m[1], -1) {
				if !strings.HasPrefix(log[2], "format apikey_redact") {
					t.Errorf("%s: a log lacks format apikey_redact:\n%s", page, m[1])
				}
			}
		}
	}
	if checked == 0 {
		t.Error("no configuration found")
	}
}
