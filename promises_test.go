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
	// requirement is the name of a test that shows a requirement, such as K1.
	requirement = regexp.MustCompile(`^Test[A-Z]\d+(_|$)`)
)

// TestPromises compares docs/promises.md with the code: every promise names a test,
// every test that it names exists, and every test that is named after a requirement
// belongs to a promise.
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
		if requirement.MatchString(name) && !listed[name] {
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

// TestPromises_examplesMaskKeys checks that no configuration in the documentation
// writes keys to a log when it is copied as it is. Caddy logs the headers of a
// request when the upstream is away, also without an access log.
func TestPromises_examplesMaskKeys(t *testing.T) {
	pages := docPages(t)
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

var (
	fenced  = regexp.MustCompile("(?ms)^```.*?^```$")
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	link    = regexp.MustCompile(`\]\(([^)#\s]*)(?:#([^)\s]*))?\)`)
	// noAnchor is what GitHub leaves out of the anchor of a heading.
	noAnchor = regexp.MustCompile(`[^a-z0-9 _-]`)
)

// TestDocsLinks checks that every link within the documentation leads to a file and
// a heading that exist.
func TestDocsLinks(t *testing.T) {
	pages := docPages(t)
	for _, page := range append(pages, "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md") {
		for _, m := range link.FindAllStringSubmatch(prose(t, page), -1) {
			target, anchor := filepath.Join(filepath.Dir(page), m[1]), m[2]
			switch {
			case strings.Contains(m[1], "://"):
				continue
			case m[1] == "":
				target = page
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: %v", page, err)
			} else if anchor != "" && !slices.Contains(anchors(prose(t, target)), anchor) {
				t.Errorf("%s: %s has no heading %q", page, target, anchor)
			}
		}
	}
}

// prose returns a page without its code.
func prose(t *testing.T, page string) string {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	return fenced.ReplaceAllString(string(text), "")
}

// anchors returns the anchors of the headings of a page.
func anchors(text string) (all []string) {
	for _, m := range heading.FindAllStringSubmatch(text, -1) {
		all = append(all, strings.ReplaceAll(noAnchor.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-"))
	}
	return all
}

// docPages returns the pages of the documentation.
func docPages(t *testing.T) (pages []string) {
	t.Helper()
	for _, pattern := range []string{"docs/*.md", "docs/*/*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, found...)
	}
	return pages
}
