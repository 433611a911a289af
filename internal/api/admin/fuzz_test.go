package admin

import (
	"encoding/json"
	"reflect"
	"testing"
	"unicode/utf8"

	"github.com/caddy-apikey/caddy-apikey/key"
)

// FuzzDecodeBody: whatever comes, the decoder neither panics nor lets a number
// out of range pass, and what it accepts is JSON that encoding/json reads alike.
func FuzzDecodeBody(f *testing.F) {
	for _, value := range badValues {
		for _, name := range []string{"userId", "remaining", "metadata", "permissions", "allowedIps", "nosuch"} {
			f.Add([]byte(`{"userId":"u","` + name + `":` + value + `}`))
		}
	}
	fields := fieldsOf(reflect.TypeFor[CreateKey](), "json")
	patch := fieldsOf(reflect.TypeFor[PatchKey](), "json")
	f.Fuzz(func(t *testing.T, body []byte) {
		var p PatchKey
		_ = decodeBody(body, reflect.ValueOf(&p).Elem(), patch)
		for _, n := range []Optional[int64]{p.ExpiresIn, p.Remaining, p.RefillAmount, p.RefillInterval, p.RateLimitMax, p.RateLimitTimeWindow} {
			if n.Value != nil && (!n.Set || *n.Value < 0 || *n.Value > key.MaxCount) {
				t.Errorf("%d passed", *n.Value)
			}
		}
		var in CreateKey
		if decodeBody(body, reflect.ValueOf(&in).Elem(), fields) != nil {
			return
		}
		var m map[string]any
		if err := json.Unmarshal(body, &m); err != nil {
			var r map[string]json.RawMessage // metadata may hold numbers beyond a float
			if err := json.Unmarshal(body, &r); err != nil {
				t.Fatalf("accepted %q: %v", body, err)
			}
		} else if in.UserID != m["userId"] {
			t.Errorf("userId %q, sent %q", in.UserID, m["userId"])
		}
		if !utf8.ValidString(in.UserID) || !utf8.Valid(in.Metadata) {
			t.Errorf("accepted %q", body)
		}
	})
}
