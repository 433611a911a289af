package admin

import (
	"encoding/json"
	"testing"
	"unicode/utf8"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
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
	f.Fuzz(func(t *testing.T, body []byte) {
		var p PatchKey
		_ = api.DecodeBody(body, &p)
		for _, n := range []api.Optional[int64]{p.ExpiresIn, p.Remaining, p.RefillAmount, p.RefillInterval, p.RateLimitMax, p.RateLimitTimeWindow} {
			if n.Value != nil && (!n.Set || *n.Value < 0 || *n.Value > key.MaxCount) {
				t.Errorf("%d passed", *n.Value)
			}
		}
		var in CreateKey
		if api.DecodeBody(body, &in) != nil {
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
		if !utf8.ValidString(in.UserID) || in.Metadata.Value != nil && !utf8.Valid(*in.Metadata.Value) {
			t.Errorf("accepted %q", body)
		}
	})
}
