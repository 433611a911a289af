package api

import (
	"encoding/json"
	"net/url"
	"reflect"
	"slices"
)

// DecodeBody reads a JSON object into the struct that in points to. It is stricter
// than encoding/json: names must match exactly and may not be repeated, nothing is
// converted, and null is told from absent.
func DecodeBody(body []byte, in any) error { return decodeObject(body, reflect.ValueOf(in).Elem()) }

func decodeObject(body []byte, in reflect.Value) error {
	fields := fieldsOf(in.Type(), "json")
	seen := make(map[string]bool, len(fields))
	err := eachField(body, func(name string, value json.RawMessage) error {
		f, err := find(in, fields, name, seen)
		switch {
		case err != nil:
			return err
		case value == nil:
			return Invalid(name, "%s", f.allowed())
		case !isList(f.value) && !namesOnce(value): // objects in lists are looked at one by one
			return Invalid(name, "must not hold an object with a repeated name")
		}
		return f.set(in, value)
	})
	if err != nil {
		return err
	}
	return demand(fields, seen)
}

// decodeQuery reads the parameters of a URL into the struct that query points to.
// extra ignores what no field is named after.
func decodeQuery(text string, query any, extra bool) error {
	values, err := url.ParseQuery(text)
	if err != nil && !extra {
		return BadRequest("the query is not valid")
	}
	in := reflect.ValueOf(query).Elem()
	fields := fieldsOf(in.Type(), "query")
	seen := make(map[string]bool, len(values))
	for name, v := range values {
		f, err := find(in, fields, name, seen)
		if f == nil && extra {
			continue
		}
		if err != nil {
			return err
		}
		if len(v) > 1 {
			return repeated(name)
		}
		if err := f.setText(f.target(in), v[0]); err != nil {
			return err
		}
	}
	return demand(fields, seen)
}

// SetParameter reads one parameter into the struct that query points to, as a call with it
// would.
func SetParameter(query any, name, value string) error {
	in := reflect.ValueOf(query).Elem()
	f, err := find(in, fieldsOf(in.Type(), "query"), name, map[string]bool{})
	if err != nil {
		return err
	}
	return f.setText(f.target(in), value)
}

// find returns the field that a request names, once.
func find(in reflect.Value, fields []field, name string, seen map[string]bool) (*field, error) {
	i := slices.IndexFunc(fields, func(f field) bool { return f.name == name })
	switch {
	case i < 0:
		return nil, unknown(in, name)
	case seen[name]:
		return nil, repeated(name)
	}
	seen[name] = true
	return &fields[i], nil
}

func repeated(name string) error { return Invalid(name, "is given more than once") }

// demand reports the first required field that is missing.
func demand(fields []field, seen map[string]bool) error {
	for _, f := range fields {
		if f.required() && !seen[f.name] {
			return Invalid(f.name, "is required")
		}
	}
	return nil
}

// Immutable is a body that knows of fields which it cannot change.
type Immutable interface{ IsImmutable(name string) bool }

// unknown refuses a name. A name that looks like something else, such as a key
// in the wrong place, is not repeated.
func unknown(in reflect.Value, name string) error {
	if body, ok := in.Interface().(Immutable); ok && body.IsImmutable(name) {
		return Invalid(name, "cannot be changed")
	}
	if !isPlainWord(name) {
		return BadRequest("a field or parameter is unknown; its name is not repeated")
	}
	return Invalid(name, "is unknown")
}

// Words returns the words that a field of a wire type takes, by its name in JSON.
func Words[T any](name string) []string {
	fields := fieldsOf(reflect.TypeFor[T](), "json")
	return fields[slices.IndexFunc(fields, func(f field) bool { return f.name == name })].enum
}

// HasField reports whether a wire type has a field of a name in its JSON.
func HasField[T any](name string) bool {
	return slices.ContainsFunc(fieldsOf(reflect.TypeFor[T](), "json"), func(f field) bool { return f.name == name })
}
