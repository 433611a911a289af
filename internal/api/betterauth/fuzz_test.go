package betterauth

import (
	"encoding/json"
	"math"
	"net/url"
	"testing"
)

// FuzzBody reads bodies as every call does: whatever they hold is a value of the kind
// that the call expects, or a problem that is told.
func FuzzBody(f *testing.F) {
	for _, body := range []string{
		`{}`, `null`, `[]`, `{"name":"x","expiresIn":1e999,"permissions":{"a":["b"]}}`, `{"permissions":{"a":[null]},"metadata":{}}`,
		`{"limit":"0x","key":"\ud800","userId":{}}`, ` {"keyId" : "x" , "enabled":true}`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if !json.Valid(body) {
			return // refused before
		}
		for _, rt := range routes {
			if rt.fields == nil {
				continue
			}
			var problems issues
			in := problems.readObject(body, rt.fields)
			if problems != nil {
				problems.failure()
				continue
			}
			for _, field := range rt.fields {
				if field.required && !in.has(field.name) {
					t.Errorf("%s is missing, and nothing is said", field.name)
				}
			}
			if n := seconds(in); n != nil && *n < 1 {
				t.Errorf("a life of %d seconds", *n)
			}
		}
	})
}

// FuzzQuery reads parameters: a number that passes counts something.
func FuzzQuery(f *testing.F) {
	for _, query := range []string{"", "limit=1&offset=2", "limit=0x1F", "limit=1e400", "limit=-0", "limit=&limit=", "sortBy=name&sortDirection=desc"} {
		f.Add(query)
	}
	f.Fuzz(func(t *testing.T, query string) {
		values, _ := url.ParseQuery(query)
		var problems issues
		in := problems.readQuery(values, listFields)
		if problems != nil {
			return
		}
		for _, name := range []string{"limit", "offset"} {
			if n := sent[float64](in, name); n != nil && (*n < 0 || *n != math.Trunc(*n) || wholeOf(in, name) == nil || *wholeOf(in, name) < 0) {
				t.Errorf("%s is %v", name, *n)
			}
		}
	})
}
