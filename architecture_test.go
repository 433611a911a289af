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
// store/sqlite keep, and no field that does not exist.
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
	var known []string
	for _, dir := range []string{"keyring", "store/sqlite"} {
		fields, state := fieldsIn(t, dir)
		known = append(known, fields...)
		for _, field := range state {
			if !slices.Contains(named, field) {
				t.Errorf("docs/architecture.md: %s of %s is not named", field, dir)
			}
		}
	}
	for _, field := range named {
		if !slices.Contains(known, field) {
			t.Errorf("docs/architecture.md: there is no %s", field)
		}
	}
}

// fieldsIn returns the fields of the structs of a package, and those of them that are locks
// or maps.
func fieldsIn(t *testing.T, dir string) (fields, state []string) {
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
				if field, ok := n.(*ast.Field); ok {
					for _, name := range field.Names {
						fields = append(fields, fmt.Sprintf("%s.%s", spec.Name, name))
						if isState(field.Type) {
							state = append(state, fields[len(fields)-1])
						}
					}
				}
				return true
			})
			return false
		})
	}
	return fields, state
}

func isState(t ast.Expr) bool {
	_, isMap := t.(*ast.MapType)
	return isMap || slices.Contains([]string{"sync.Mutex", "sync.RWMutex", "sync.Map", "atomic.Pointer[map[string]string]"}, types.ExprString(t))
}
