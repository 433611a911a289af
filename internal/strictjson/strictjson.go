// Package strictjson reads the bodies of requests more strictly than encoding/json:
// what two readers might understand differently is refused.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"unicode/utf8"
)

// MaxBody is the longest body that is read. The largest part of one, metadata, may
// be 16 KiB.
const MaxBody = 64 << 10

// What a body can be refused for. The texts are for people and repeat nothing.
var (
	ErrTooLarge   error = tooLarge(MaxBody)
	ErrMediaType        = errors.New("the body must be JSON, and its Content-Type application/json")
	ErrUnreadable       = errors.New("the body could not be read")
	ErrNoObject         = errors.New("the body must be a JSON object")
	ErrInvalid          = errors.New("the body is not valid JSON")
)

// tooLarge is ErrTooLarge for another limit.
type tooLarge int64

func (most tooLarge) Error() string {
	return fmt.Sprintf("the body must be at most %d bytes", int64(most))
}

func (tooLarge) Is(target error) bool { return target == ErrTooLarge }

// ReadBody reads a request's body, and nil for an empty one.
func ReadBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	return ReadUpTo(w, r, MaxBody)
}

// ReadUpTo is ReadBody for bodies of at most so many bytes.
func ReadUpTo(w http.ResponseWriter, r *http.Request, most int64) ([]byte, error) {
	if r.ContentLength > most {
		return nil, tooLarge(most)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	if err != nil {
		if beyond := new(http.MaxBytesError); errors.As(err, &beyond) {
			return nil, tooLarge(most)
		}
		return nil, ErrUnreadable
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
	return ErrMediaType
}

// Object calls each with every field of a JSON object; a value that is not valid
// JSON is nil. Its first error is returned.
func Object(body []byte, each func(name string, value json.RawMessage) error) error {
	d := json.NewDecoder(bytes.NewReader(body))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return ErrNoObject
	}
	for d.More() {
		t, err := d.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return ErrInvalid
		}
		var value json.RawMessage
		if d.Decode(&value) != nil || !utf8.Valid(value) || !ends(body[d.InputOffset():]) {
			value = nil
		}
		if err := each(name, value); err != nil {
			return err
		}
		if value == nil {
			return ErrInvalid
		}
	}
	// The decoder reads tokens, and lets some wrong ones between them pass.
	if !json.Valid(body) {
		return ErrInvalid
	}
	return nil
}

// ends reports whether a value is over where rest begins. It is not over in 0x1
// or 01, of which the decoder takes the 0.
func ends(rest []byte) bool {
	return len(rest) == 0 || bytes.IndexByte([]byte(" \t\r\n,]}"), rest[0]) >= 0
}

// NamesOnce reports whether no object in value, at any depth, repeats a name:
// which of the values counts would differ from reader to reader.
func NamesOnce(value json.RawMessage) bool {
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

// String reads a JSON string. encoding/json would replace halves of surrogate
// pairs silently, and so store something else than was sent.
func String(value json.RawMessage) (string, bool) {
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

// PlainWord reports whether a name may be repeated in an error: it looks like a
// name, and not like something else in the wrong place, such as a key.
func PlainWord(s string) bool {
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

// Marshal writes JSON without the escapes that only HTML needs, and a line end.
func Marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
