package apikey

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestArchitecture_state: docs/architecture.md names every lock and every map that keyring and
// store/sqlite keep, and no other.
func TestArchitecture_state(t *testing.T) {
	text, err := os.ReadFile("docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "\n## State in memory\n")
	if !ok {
		t.Error("docs/architecture.md has no section \"State in memory\"")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	var named []string
	for _, m := range regexp.MustCompile("`([a-zA-Z]+\\.[a-zA-Z]+)`").FindAllStringSubmatch(section, -1) {
		named = append(named, m[1])
	}
	for _, dir := range []string{"keyring", "store/sqlite"} {
		for _, field := range sharedState(t, dir) {
			if !slices.Contains(named, field) {
				t.Errorf("docs/architecture.md: %s of %s is not named", field, dir)
			}
		}
	}
}

// sharedState returns the fields of structs of a package that are locks or maps.
func sharedState(t *testing.T, dir string) (fields []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatal(dir, err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			s, ok := spec.Type.(*ast.StructType)
			if !ok {
				return false
			}
			ast.Inspect(s, func(n ast.Node) bool {
				if field, ok := n.(*ast.Field); ok && isState(field.Type) {
					for _, name := range field.Names {
						fields = append(fields, fmt.Sprintf("%s.%s", spec.Name, name))
					}
				}
				return true
			})
			return false
		})
	}
	return fields
}

func isState(t ast.Expr) bool {
	_, isMap := t.(*ast.MapType)
	return isMap || slices.Contains([]string{"sync.Mutex", "sync.RWMutex", "sync.Map", "atomic.Pointer[map[string]string]"}, types.ExprString(t))
}
