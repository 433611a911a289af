package api

import (
	"bytes"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"strings"
	"unicode/utf8"
)

// JSONBody returns a body, and nil for an empty one. One whose Content-Type is not
// JSON is refused; without a Content-Type it counts as JSON.
func JSONBody(r *http.Request, body []byte) ([]byte, error) {
	switch {
	case len(bytes.TrimSpace(body)) == 0:
		return nil, nil
	case len(r.Header["Content-Type"]) > 0 && !saysJSON(r):
		return nil, ErrMediaType
	}
	return body, nil
}

// saysJSON reports whether a request says that its body is JSON, in UTF-8. curl -d
// says something else unless it is told otherwise, and so do forms on other
// people's web pages, which cannot say this.
func saysJSON(r *http.Request) bool {
	types := r.Header["Content-Type"]
	if len(types) != 1 {
		return false
	}
	t, params, err := mime.ParseMediaType(types[0])
	charset, given := params["charset"]
	return err == nil && t == "application/json" && (!given || strings.EqualFold(charset, "utf-8"))
}

// eachField calls each with every field of a JSON object; a value that is not valid
// JSON is nil. Its first error is returned.
func eachField(body []byte, each func(name string, value json.RawMessage) error) error {
	d := json.NewDecoder(bytes.NewReader(body))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return errNoObject
	}
	for d.More() {
		t, err := d.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return errInvalid
		}
		var value json.RawMessage
		if d.Decode(&value) != nil || !utf8.Valid(value) || !ends(body[d.InputOffset():]) {
			value = nil
		}
		if err := each(name, value); err != nil {
			return err
		}
		if value == nil {
			return errInvalid
		}
	}
	// The decoder reads tokens, and lets some wrong ones between them pass.
	if !json.Valid(body) {
		return errInvalid
	}
	return nil
}

// ends reports whether a value is over where rest begins. It is not over in 0x1
// or 01, of which the decoder takes the 0.
func ends(rest []byte) bool {
	return len(rest) == 0 || bytes.IndexByte([]byte(" \t\r\n,]}"), rest[0]) >= 0
}

// namesOnce reports whether no object in value, at any depth, repeats a name:
// which of the values counts would differ from reader to reader.
func namesOnce(value json.RawMessage) bool {
	if !bytes.ContainsRune(value, '{') {
		return true
	}
	d := json.NewDecoder(bytes.NewReader(value))
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

// readString reads a JSON string. encoding/json would replace halves of surrogate
// pairs silently, and so store something else than was sent.
func readString(value json.RawMessage) (string, bool) {
	var s string
	if len(value) == 0 || value[0] != '"' || json.Unmarshal(value, &s) != nil {
		return "", false
	}
	if !strings.ContainsRune(s, utf8.RuneError) {
		return s, true
	}
	sent := bytes.Count(value, []byte("\uFFFD")) + bytes.Count(bytes.ToLower(value), []byte(`\ufffd`))
	return s, strings.Count(s, "\uFFFD") <= sent
}

// isPlainWord reports whether a name may be repeated in an error: it looks like a
// name, and not like something else in the wrong place, such as a key.
func isPlainWord(s string) bool {
	if s == "" || len(s) > 31 { // raw keys are longer
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("_-.", c) >= 0) {
			return false
		}
	}
	return true
}

// Marshal writes JSON without the escapes that only HTML needs.
func Marshal(v any) ([]byte, error) {
	b, err := MarshalLine(v)
	return bytes.TrimSuffix(b, []byte("\n")), err
}

// MarshalLine is Marshal with a line end.
func MarshalLine(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
