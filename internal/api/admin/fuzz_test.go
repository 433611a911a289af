package admin

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
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

// FuzzRecord: a line of an import that can be stored is exported as a line that can be
// imported, and stored as the same.
func FuzzRecord(f *testing.F) {
	hash := strings.Repeat("0f", 32)
	for _, fields := range []string{
		``, `,"remaining":5,"refillAmount":9,"refillInterval":1000,"peak":7,"spent":3`, `,"expiresAt":"1970-01-01T00:00:00Z","metadata":{"a":[1,{}]},"permissions":["files:read"]`,
		`,"permissions":{"*":["*"]},"allowedIps":["192.0.2.0/24","2001:db8::1"],"rateLimitMax":5,"rateLimitTimeWindow":1000,"rateLimitAlgorithm":"token_bucket"`,
		`,"previousKeys":[{"hash":"` + hash + `","until":"2030-01-01T00:00:00.5Z","start":"ak_"}],"secretHash":"` + hash + `","disabledBy":"leak","enabled":false`,
		`,"requestCount":3,"lastRequest":"2026-11-21T19:09:19Z","rateLimitTimeWindow":60000`, `,"name":"\ud83d\ude00","prefix":"","start":null`,
	} {
		f.Add([]byte(`{"id":"k","userId":"u","hash":"` + hash + `"` + fields + `}`))
	}
	const now = 1_800_000_000_000
	f.Fuzz(func(t *testing.T, line []byte) {
		read := func(line []byte) (e store.Entry, err error) {
			var r KeyRecord
			if err := api.DecodeBody(line, &r); err != nil {
				return e, err
			}
			return r.entry(now)
		}
		e, err := read(line)
		if err != nil {
			return
		}
		out, err := json.Marshal(recordOf(e))
		if err != nil {
			t.Fatalf("%s cannot be exported: %v", line, err)
		}
		again, err := read(out)
		if err != nil {
			t.Fatalf("%s is exported as %s: %v", line, out, err)
		}
		if twice, err := json.Marshal(recordOf(again)); err != nil || !bytes.Equal(twice, out) {
			t.Errorf("%s is exported as\n%s, then as\n%s: %v", line, out, twice, err)
		}
	})
}

// FuzzQuery sets each parameter of the lists: what is taken is what its documentation allows.
func FuzzQuery(f *testing.F) {
	for _, name := range []string{"limit", "sort", "state", "expiresBefore", "enabled", "permission", "cursor", "q", "nosuch"} {
		for _, value := range []string{"1", "500", "501", "-name", "active", "2026-11-21T19:09:19Z", "true", "files:read", "", "\xff", "1e2"} {
			f.Add(name, value)
		}
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		var keys ListKeys
		if err := api.SetParameter(&keys, name, value); err == nil {
			if keys.Limit != nil && (*keys.Limit < 1 || *keys.Limit > 500) || keys.Sort != nil && !strings.Contains("createdAt name lastRequest expiresAt", strings.TrimPrefix(*keys.Sort, "-")) {
				t.Errorf("%s=%q passed", name, value)
			}
		}
		var audit ListAudit
		if err := api.SetParameter(&audit, name, value); err == nil && audit.Since != nil && audit.Since.UnixMilli() < 0 {
			t.Errorf("%s=%q passed", name, value)
		}
	})
}
