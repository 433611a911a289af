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
	"strconv"
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
		names := namedTests(t, page, item, tests)
		if len(names) == 0 {
			t.Errorf("%s: no test shows this promise:\n%s", page, item)
		}
		for _, name := range names {
			if listed[name] {
				t.Errorf("%s: %s is listed more than once", page, name)
			}
			listed[name] = true
		}
	}
	for _, name := range tests {
		if requirement.MatchString(name) && !listed[name] {
			t.Errorf("%s: no promise lists %s", page, name)
		}
	}
}

// namedTests returns the tests that a text of a page names. Each must be one of tests.
func namedTests(t *testing.T, page, text string, tests []string) (names []string) {
	t.Helper()
	for _, m := range quotedTest.FindAllStringSubmatch(text, -1) {
		names = append(names, m[1])
		if !slices.Contains(tests, m[1]) {
			t.Errorf("%s: there is no test %s", page, m[1])
		}
	}
	return names
}

var (
	// asvsRow is a row of a table in docs/asvs.md: its first cell and the rest.
	asvsRow = regexp.MustCompile(`(?m)^\| (v5\.0\.0-[^|]*) \| (.*) \|$`)
	// asvsPart is what such a cell names: a chapter, a section or a requirement.
	asvsPart = regexp.MustCompile(`^v5\.0\.0-(\d+(?:\.\d+){0,2})$`)
)

// TestPromises_asvs compares docs/asvs.md with the requirements of the standard and with
// the code: each requirement is there once, those that are met have their level and a
// test or a page that shows it, and every test that is named exists.
func TestPromises_asvs(t *testing.T) {
	const page = "docs/asvs.md"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	levels, tests := asvsLevels(t), testFunctions(t)
	assessed := map[string]bool{}
	for _, row := range asvsRow.FindAllStringSubmatch(string(text), -1) {
		cells := strings.Split(row[2], " | ")
		shown := cells[len(cells)-1]
		named := namedTests(t, page, row[2], tests)
		for _, cited := range strings.Split(row[1], ", ") {
			var part string
			if m := asvsPart.FindStringSubmatch(cited); m != nil {
				part = m[1]
			}
			if len(cells) > 1 && levels[part] != cells[0] {
				t.Errorf("%s: %s has level %q, not %q", page, cited, levels[part], cells[0])
			}
			if len(cells) > 1 && len(named) == 0 && !link.MatchString(shown) {
				t.Errorf("%s: nothing shows %s", page, cited)
			}
			found := false
			for requirement := range levels {
				if requirement != part && !strings.HasPrefix(requirement, part+".") {
					continue
				}
				if found = true; assessed[requirement] {
					t.Errorf("%s: %s is there more than once", page, requirement)
				}
				assessed[requirement] = true
			}
			if !found {
				t.Errorf("%s: the standard has no %q", page, cited)
			}
		}
	}
	for requirement := range levels {
		if !assessed[requirement] {
			t.Errorf("%s: %s is missing", page, requirement)
		}
	}
}

// asvsCited is a requirement that a text refers to.
var asvsCited = regexp.MustCompile(`\bASVS (?:5\.0 \()?(\d+\.\d+\.\d+)\b`)

// TestPromises_asvsCited checks that the requirements exist to which pages and the report
// of keys refer.
func TestPromises_asvsCited(t *testing.T) {
	levels, cited := asvsLevels(t), 0
	for _, file := range append(docPages(t), "keyring/report.go") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range asvsCited.FindAllStringSubmatch(string(text), -1) {
			if cited++; m[1] != "5.0.0" && levels[m[1]] == "" {
				t.Errorf("%s: the standard has no %s", file, m[1])
			}
		}
	}
	if cited == 0 {
		t.Error("no requirement found")
	}
}

// asvsLevels returns the level of every requirement of OWASP ASVS 5.0.0.
func asvsLevels(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("testdata/asvs-5.0.0.txt")
	if err != nil {
		t.Fatal(err)
	}
	levels := map[string]string{}
	for line := range strings.Lines(string(text)) {
		section, list, _ := strings.Cut(strings.TrimSpace(line), " ")
		if section == "#" {
			continue
		}
		for i, level := range strings.Fields(list) {
			levels[section+"."+strconv.Itoa(i+1)] = level
		}
	}
	if len(levels) != 345 {
		t.Fatalf("%d requirements", len(levels))
	}
	return levels
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
