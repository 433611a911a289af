package apikey

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/caddy-apikey/caddy-apikey"

// mayImport says which packages of ours, and which of a few telling outsiders,
// each package may know. docs/architecture.md explains the picture.
var mayImport = map[string][]string{
	"/ratelimit":               {},
	"/key":                     {"/ratelimit"},
	"/store":                   {"/key", "/ratelimit"},
	"/store/sqlite":            {"/store", "/key", "/ratelimit", "sql"},
	"/store/storetest":         {"/store", "/key", "/ratelimit"},
	"/store/sqlite/manykeys":   {"/key", "sql"},
	"/keyring":                 {"/store", "/key", "/ratelimit"},
	"/keyring/keyringtest":     {},
	"/redact":                  {"/key", "http", "caddy"},
	"/internal/api":            {"/keyring", "/store", "/key", "http"},
	"/internal/api/rest":       {"/internal/api", "/keyring", "/store", "/key", "http"},
	"/internal/api/betterauth": {"/internal/api", "/keyring", "/store", "/key", "http"},
	"/internal/api/leaks":      {"/internal/api", "http"},
	"/internal/api/admin":      {"/internal/api", "/keyring", "/store", "/key", "/ratelimit", "http"},
	"/internal/near":           {},
	"/internal/webhook":        {"/keyring", "/store", "http"},
	"/internal/betterauthdb":   {"/internal/api", "/internal/api/admin", "/key", "sql"},
	"/internal/cli":            {"/internal/api", "/internal/api/admin", "/internal/betterauthdb", "/internal/near", "/keyring", "/store", "/store/sqlite", "/key", "http"},
	"":                         {"/internal/api", "/internal/api/rest", "/internal/api/betterauth", "/internal/api/leaks", "/internal/api/admin", "/internal/cli", "/internal/near", "/internal/webhook", "/redact", "/keyring", "/store/sqlite", "/store", "/key", "/ratelimit", "http", "caddy"},
	"/cmd/caddy":               {"", "caddy"},
	"/e2e":                     {"/internal/webhook", "/internal/api", "/internal/api/admin", "/internal/api/rest", "/internal/api/betterauth", "/keyring/keyringtest", "/key", "sql", "http", "caddy"},
	"/bench":                   {},
	"/bench/load":              {"", "/keyring", "/store", "/store/sqlite", "/store/sqlite/manykeys", "/key", "http", "caddy"},
}

// outsiders are packages that only some floors of the house may know.
var outsiders = map[string]string{
	"github.com/caddyserver/caddy": "caddy",
	"database/sql":                 "sql",
	"modernc.org/sqlite":           "sql",
	"net/http":                     "http",
}

// TestWhoKnowsWhom holds the import rule of the house.
func TestWhoKnowsWhom(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports", "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for dec := json.NewDecoder(strings.NewReader(string(out))); dec.More(); {
		var p struct {
			ImportPath  string
			Imports     []string
			TestImports []string
		}
		if err := dec.Decode(&p); err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(p.ImportPath, module)
		allowed, ok := mayImport[name]
		if !ok {
			t.Errorf("%s has no entry in mayImport", p.ImportPath)
		}
		imports := p.Imports
		if name == "/e2e" { // only tests, which must not look inside
			imports = append(imports, p.TestImports...)
		}
		for _, path := range imports {
			if known, ours := knows(path); ours && !slices.Contains(allowed, known) {
				t.Errorf("%s must not import %s", p.ImportPath, path)
			}
		}
	}
}

// knows returns the name that mayImport has for an import, if it has one.
func knows(path string) (string, bool) {
	if path == module || strings.HasPrefix(path, module+"/") {
		return strings.TrimPrefix(path, module), true
	}
	for prefix, name := range outsiders {
		if path == prefix || strings.HasPrefix(path, prefix+"/") {
			return name, true
		}
	}
	return "", false
}

// TestPureDependencies keeps Caddy and SQL out of the packages below, however
// they might come in.
func TestPureDependencies(t *testing.T) {
	for name, allowed := range mayImport {
		if slices.Contains(allowed, "caddy") || slices.Contains(allowed, "sql") || strings.Contains(name, "/store/") || name == "/bench" || name == "/internal/cli" {
			continue
		}
		p := "." + name
		out, err := exec.Command("go", "list", "-deps", p).Output()
		if err != nil {
			t.Fatal(err)
		}
		for path := range strings.Lines(string(out)) {
			path = strings.TrimSpace(path)
			if strings.HasPrefix(path, "github.com/caddyserver/caddy") || path == "database/sql" || strings.HasPrefix(path, "modernc.org/") {
				t.Errorf("%s depends on %s", p, path)
			}
		}
	}
}

// TestArchitecture: the files and folders that docs/architecture.md names exist, and
// its picture leaves out no package.
func TestArchitecture(t *testing.T) {
	page, err := os.ReadFile("docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```\n")
	picture, prose, _ := strings.Cut(rest, "```\n")
	drawn := map[string]bool{"/bench/load": true, "/store/storetest": true, "/store/sqlite/manykeys": true, "/keyring/keyringtest": true} // named in the lines of their parents
	for line := range strings.Lines(picture) {
		names, _, _ := strings.Cut(strings.TrimSpace(line), "  ")
		for name := range strings.FieldsSeq(names) {
			if found, err := filepath.Glob(name); err != nil || found == nil {
				t.Errorf("the picture shows %s, which does not exist", name)
			}
			drawn["/"+strings.TrimSuffix(name, "/")] = true
		}
	}
	for name := range mayImport {
		if name != "" && !drawn[name] {
			t.Errorf("the picture does not show %s", name)
		}
	}
	for _, m := range regexp.MustCompile("`([a-z/_]+\\.go)`").FindAllStringSubmatch(prose, -1) {
		beside := filepath.Join("internal/api/admin", m[1])
		if _, err := os.Stat(m[1]); err != nil {
			if _, err := os.Stat(beside); err != nil {
				t.Errorf("%s does not exist", m[1])
			}
		}
	}
}
