package admin

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"reflect"
	"slices"

	"github.com/caddy-apikey/caddy-apikey/internal/strictjson"
)

// MaxImportBody is the longest body of an import.
const MaxImportBody = 4 << 20

// readBody reads a request's body of so many bytes at most, and nil for an empty one.
func readBody(w http.ResponseWriter, r *http.Request, most int64) ([]byte, error) {
	body, err := strictjson.ReadBody(w, r, most)
	switch {
	case errors.As(err, new(*strictjson.TooLargeError)):
		return nil, fail(http.StatusRequestEntityTooLarge, codeTooLarge, err.Error())
	case errors.Is(err, strictjson.ErrMediaType):
		return nil, fail(http.StatusUnsupportedMediaType, codeMediaType, err.Error())
	case err != nil:
		return nil, malformed(err.Error())
	}
	return body, nil
}

// decodeBody reads a JSON object into in, a struct. It is stricter than
// encoding/json: names must fit to the letter and stand once, nothing is
// converted, and null is told from absent.
func decodeBody(body []byte, in reflect.Value, fields []field) error {
	seen := make(map[string]bool, len(fields))
	err := strictjson.Object(body, func(name string, value json.RawMessage) error {
		f, err := find(in, fields, name, seen)
		switch {
		case err != nil:
			return err
		case value == nil:
			return invalid(name, "%s", f.allowed())
		case !isList(f.value) && !strictjson.NamesOnce(value): // objects in lists are looked at one by one
			return invalid(name, "must not hold an object with a repeated name")
		}
		return f.set(in, value)
	})
	switch err {
	case nil:
		return demand(fields, seen)
	case strictjson.ErrInvalid, strictjson.ErrNoObject:
		return malformed(err.Error())
	default:
		return err
	}
}

// find returns the field that a request names, once.
func find(in reflect.Value, fields []field, name string, seen map[string]bool) (*field, error) {
	i := slices.IndexFunc(fields, func(f field) bool { return f.name == name })
	switch {
	case i < 0:
		return nil, unknown(in, name)
	case seen[name]:
		return nil, invalid(name, "stands there more than once")
	}
	seen[name] = true
	return &fields[i], nil
}

// demand reports the first required field that is missing.
func demand(fields []field, seen map[string]bool) error {
	for _, f := range fields {
		if f.required() && !seen[f.name] {
			return invalid(f.name, "is required")
		}
	}
	return nil
}

// unknown refuses a name. A name that looks like something else, such as a key
// in the wrong place, is not repeated.
func unknown(in reflect.Value, name string) error {
	if in.Type() == reflect.TypeFor[PatchKey]() {
		for _, t := range []reflect.Type{reflect.TypeFor[CreateKey](), reflect.TypeFor[IssuedKey]()} {
			if slices.ContainsFunc(fieldsOf(t, "json"), func(f field) bool { return f.name == name }) {
				return invalid(name, "cannot be changed")
			}
		}
	}
	if !strictjson.PlainWord(name) {
		return malformed("a field or parameter is not known here; its name is not repeated")
	}
	return invalid(name, "is not known here")
}

// decodeQuery reads the parameters of a URL into in, a struct.
func decodeQuery(query string, in reflect.Value, fields []field) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return malformed("the query is not valid")
	}
	seen := make(map[string]bool, len(values))
	for name, v := range values {
		f, err := find(in, fields, name, seen)
		if err != nil {
			return err
		}
		if len(v) > 1 {
			return invalid(name, "stands there more than once")
		}
		if err := f.setText(f.target(in), v[0]); err != nil {
			return err
		}
	}
	return demand(fields, seen)
}
