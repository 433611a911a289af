package apikey

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// fieldTable is a generated table of docs/json.md: the JSON fields of a Go type, with
// their comments.
var fieldTable = regexp.MustCompile(`(?s)<!-- fields of (\w+) -->\n.*?<!-- end -->`)

// TestDocsJSON: the tables of fields in docs/json.md are those of the Go comments.
// UPDATE_DOCS=1 go test -run TestDocsJSON . writes them.
func TestDocsJSON(t *testing.T) {
	const page = "docs/json.md"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	types := configTypes(t, ".", "redact")
	listed := map[string]bool{}
	want := fieldTable.ReplaceAllStringFunc(string(text), func(old string) string {
		name := fieldTable.FindStringSubmatch(old)[1]
		listed[name] = true
		rows := types.rows(t, name)
		if rows == nil {
			t.Fatalf("%s: there is no type %s with JSON fields", page, name)
		}
		return fmt.Sprintf("<!-- fields of %s -->\n| field | type | meaning |\n| --- | --- | --- |\n%s<!-- end -->", name, strings.Join(rows, ""))
	})
	for name := range types.used {
		if !listed[name] {
			t.Errorf("%s has no table of the fields of %s", page, name)
		}
	}
	switch {
	case want == string(text):
	case os.Getenv("UPDATE_DOCS") != "":
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s is not what the Go comments say: run UPDATE_DOCS=1 go test -run TestDocsJSON .", page)
	}
}

// structTypes are the struct types of some packages, by name, and those of them that a
// table has named as the type of a field.
type structTypes struct {
	all  map[string]*ast.StructType
	used map[string]bool
}

func configTypes(t *testing.T, dirs ...string) structTypes {
	t.Helper()
	types := structTypes{map[string]*ast.StructType{}, map[string]bool{}}
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
				continue
			}
			file, err := parser.ParseFile(token.NewFileSet(), dir+"/"+e.Name(), nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if spec, ok := n.(*ast.TypeSpec); ok {
					if s, ok := spec.Type.(*ast.StructType); ok {
						types.all[spec.Name.Name] = s
					}
				}
				return true
			})
		}
	}
	return types
}

// rows returns the table rows of a type. Fields of embedded types are its own.
func (types structTypes) rows(t *testing.T, name string) (rows []string) {
	t.Helper()
	s := types.all[name]
	if s == nil {
		return nil
	}
	for _, f := range s.Fields.List {
		if len(f.Names) == 0 {
			if embedded, ok := f.Type.(*ast.Ident); ok {
				rows = append(rows, types.rows(t, embedded.Name)...)
			}
			continue
		}
		if f.Tag == nil {
			continue
		}
		tag := reflect.StructTag(strings.Trim(f.Tag.Value, "`"))
		field, _, _ := strings.Cut(tag.Get("json"), ",")
		if field == "" || field == "-" {
			continue
		}
		comment := strings.Join(strings.Fields(f.Doc.Text()), " ")
		if comment == "" {
			t.Errorf("%s.%s has no comment", name, f.Names[0].Name)
		}
		comment = strings.ReplaceAll(sentence(comment, f.Names[0].Name), "|", `\|`)
		rows = append(rows, fmt.Sprintf("| `%s` | %s | %s |\n", field, types.typeOf(f.Type, tag), comment))
	}
	return rows
}

// sentence returns a comment without the Go name that it begins with.
func sentence(comment, name string) string {
	rest, ok := strings.CutPrefix(comment, name+" ")
	if !ok {
		return comment
	}
	for _, verb := range []string{"is ", "are "} {
		rest = strings.TrimPrefix(rest, verb)
	}
	return strings.ToUpper(rest[:1]) + rest[1:]
}

// typeOf names the JSON type of a field.
func (types structTypes) typeOf(e ast.Expr, tag reflect.StructTag) string {
	module := ""
	for _, part := range strings.Fields(tag.Get("caddy")) {
		if namespace, ok := strings.CutPrefix(part, "namespace="); ok {
			module = "module of `" + namespace + "`"
		}
	}
	switch e := e.(type) {
	case *ast.StarExpr:
		return types.typeOf(e.X, tag)
	case *ast.ArrayType:
		if module != "" {
			return "list: " + module
		}
		return "list: " + types.typeOf(e.Elt, tag)
	case *ast.MapType:
		return "object: " + types.typeOf(e.Value, tag)
	case *ast.SelectorExpr:
		switch e.Sel.Name {
		case "RawMessage":
			return module
		case "Duration":
			return "duration"
		case "WeakString":
			return "string or integer"
		}
		return e.Sel.Name
	case *ast.Ident:
		switch {
		case e.Name == "bool":
			return "boolean"
		case slices.Contains([]string{"int", "int64"}, e.Name):
			return "integer"
		case e.Name == "Period" || e.Name == "Keep":
			return "duration or string"
		case types.all[e.Name] != nil:
			types.used[e.Name] = true
			return fmt.Sprintf("[`%s`](#%s)", e.Name, strings.ToLower(e.Name))
		}
		return e.Name
	}
	return "?"
}
