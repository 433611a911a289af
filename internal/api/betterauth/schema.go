package betterauth

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
)

// field is a field of a body or a query. Fields are checked in the order in which
// the plugin checks them, because it reports all that are wrong in that order.
type field struct {
	name     string
	required bool
	read     reader
}

// reader reads a value, and notes what is wrong with it.
type reader func(is *issues, at string, raw json.RawMessage) any

// input is what the fields of a request hold: string, float64, bool, nil for null,
// json.RawMessage for what is not looked into, key.Permissions.
type input map[string]any

// has reports whether a field was sent.
func (in input) has(name string) bool {
	_, ok := in[name]
	return ok
}

// hasAny reports whether one of some fields was sent.
func (in input) hasAny(names ...string) bool {
	for _, name := range names {
		if in.has(name) {
			return true
		}
	}
	return false
}

// text returns a field that holds a string, empty where it was not sent.
func (in input) text(name string) string {
	s, _ := in[name].(string)
	return s
}

// sent returns the value of a field, or nil where it is null or was not sent.
func sent[T any](in input, name string) *T {
	if v, ok := in[name].(T); ok {
		return &v
	}
	return nil
}

// issues are all that is wrong with a request, in words that a client may compare.
type issues []string

func (is *issues) add(at, format string, args ...any) {
	*is = append(*is, "["+at+"] "+fmt.Sprintf(format, args...))
}

func (is *issues) wrongType(at, want, got string) {
	is.add(at, "Invalid input: expected %s, received %s", want, got)
}

func (is issues) failure() *api.Error {
	return fail(http.StatusBadRequest, codeValidation, strings.Join(is, "; "))
}

// typeOf names the type of a JSON value; nil is a value that was not sent.
func typeOf(raw json.RawMessage) string {
	if raw = bytes.TrimSpace(raw); len(raw) == 0 {
		return "undefined"
	}
	switch raw[0] {
	case '{':
		return "object"
	case '[':
		return "array"
	case '"':
		return "string"
	case 't', 'f':
		return "boolean"
	case 'n':
		return "null"
	default:
		return "number"
	}
}

// readObject reads a body. Of a name that stands twice the last value counts, and
// names that are not known are dropped.
func (is *issues) readObject(body []byte, fields []field) input {
	if t := typeOf(body); t != "object" {
		is.wrongType("body", "object", t)
		return nil
	}
	var values map[string]json.RawMessage
	if err := json.Unmarshal(body, &values); err != nil { // the JSON is valid
		is.wrongType("body", "object", "undefined")
		return nil
	}
	in := input{}
	for _, f := range fields {
		at := "body." + f.name
		switch raw, ok := values[f.name]; {
		case ok:
			in[f.name] = f.read(is, at, raw)
		case f.required:
			is.wrongType(at, "string", "undefined")
		}
	}
	return in
}

// readQuery reads the parameters of a URL. One that stands twice is a list to the
// plugin, and no field takes one.
func (is *issues) readQuery(values url.Values, fields []field) input {
	in := input{}
	for _, f := range fields {
		at := "query." + f.name
		switch v := values[f.name]; {
		case len(v) == 1:
			text, _ := api.Marshal(v[0]) // a string
			in[f.name] = f.read(is, at, text)
		case len(v) > 1:
			f.read(is, at, json.RawMessage("[]"))
		case f.required:
			is.wrongType(at, "string", "undefined")
		}
	}
	return in
}
