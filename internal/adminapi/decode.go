package adminapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// maxBody is the longest body that is read. Its largest part, metadata, may be 16 KiB.
	maxBody = 64 << 10
	// MaxImportBody is the longest body of an import.
	MaxImportBody = 4 << 20
)

// readBody reads a request's body, and nil for an empty one.
func readBody(w http.ResponseWriter, r *http.Request, most int64) ([]byte, error) {
	if r.ContentLength > most {
		return nil, tooLarge(most)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	if err != nil {
		if beyond := new(http.MaxBytesError); errors.As(err, &beyond) {
			return nil, tooLarge(most)
		}
		return nil, malformed("the body could not be read")
	}
	if len(bytes.TrimSpace(body)) == 0 {
		return nil, nil
	}
	return body, checkContentType(r.Header.Values("Content-Type"))
}

// checkContentType refuses whatever says that it is not JSON. curl -d says so
// unless it is told otherwise, and so do forms on other people's web pages.
func checkContentType(types []string) error {
	switch len(types) {
	case 0:
		return nil
	case 1:
		t, params, err := mime.ParseMediaType(types[0])
		if charset, given := params["charset"]; err == nil && t == "application/json" && (!given || strings.EqualFold(charset, "utf-8")) {
			return nil
		}
	}
	return errMediaType
}

// decodeBody reads a JSON object into in, a struct. It is stricter than
// encoding/json: names must fit to the letter and stand once, nothing is
// converted, and null is told from absent.
func decodeBody(body []byte, in reflect.Value, fields []field) error {
	d := json.NewDecoder(bytes.NewReader(body))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return malformed("the body must be a JSON object")
	}
	seen := make(map[string]bool, len(fields))
	for d.More() {
		t, err := d.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return malformed("the body is not valid JSON")
		}
		f, err := find(in, fields, name, seen)
		if err != nil {
			return err
		}
		var raw json.RawMessage
		if d.Decode(&raw) != nil || !utf8.Valid(raw) || !ends(body[d.InputOffset():]) {
			return invalid(name, "%s", f.allowed())
		}
		if !isList(f.value) && !namesOnce(raw) { // objects in lists are looked at one by one
			return invalid(name, "must not hold an object with a repeated name")
		}
		if err := f.set(in, raw); err != nil {
			return err
		}
	}
	// The decoder reads tokens, and lets some wrong ones between them pass.
	if !json.Valid(body) {
		return malformed("the body is not valid JSON")
	}
	return demand(fields, seen)
}

// ends reports whether a value is over where rest begins. It is not over in 0x1
// or 01, of which the decoder takes the 0.
func ends(rest []byte) bool {
	return len(rest) == 0 || bytes.IndexByte([]byte(" \t\r\n,]}"), rest[0]) >= 0
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
	if len(name) > 31 || !plainWord(name) { // raw keys are longer
		return malformed("a field or parameter is not known here; its name is not repeated")
	}
	return invalid(name, "is not known here")
}

func plainWord(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r >= utf8.RuneSelf || !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("_-.", r)
	})
}

// namesOnce reports whether no object in raw, at any depth, repeats a name:
// which of the values counts would differ from reader to reader.
func namesOnce(raw json.RawMessage) bool {
	if !bytes.ContainsRune(raw, '{') {
		return true
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	type level struct {
		names map[string]bool // nil for a list
		value bool            // a value comes next, not a name
	}
	open := []level{{}}
	for {
		t, err := d.Token()
		if err != nil {
			return err == io.EOF
		}
		if t == json.Delim('}') || t == json.Delim(']') {
			open = open[:len(open)-1]
			continue
		}
		top := &open[len(open)-1]
		if top.names != nil && !top.value {
			name := t.(string)
			if top.names[name] {
				return false
			}
			top.names[name], top.value = true, true
			continue
		}
		top.value = false
		switch t {
		case json.Delim('{'):
			open = append(open, level{names: map[string]bool{}})
		case json.Delim('['):
			open = append(open, level{})
		}
	}
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
