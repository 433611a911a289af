package betterauthdb

import (
	"encoding/json"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
	"github.com/caddy-apikey/caddy-apikey/key"
)

// FuzzConvert puts values of every type that SQLite has into the columns. What is not refused
// has a hash and an owner's restrictions, is written as JSON, and is read by the server's
// decoder, but for fields whose values only the server judges. No note repeats a value.
func FuzzConvert(f *testing.F) {
	theirs, _ := hashes(raw)
	f.Add(theirs, "AbCdEf", "ak_", "1", `{"files":["read"]}`, `{"plan":"pro"}`, "2026-11-21T19:09:19.598Z", int64(5), 2.5, byte(0), false)
	f.Add(raw, raw[:6], "", "true", `"{\"*\":[\"*\"]}"`, `"\"{}\""`, "1795296600", int64(-1), -0.5, byte(1), true)
	f.Add("", "", "\xff", "no", `[]`, `null`, "0001-01-01", int64(1)<<62, 1e300, byte(2), false)
	f.Add(theirs, "", "", "0", `{"a b":["c"]}`, "", "99999-01-01", int64(0), 1e-300, byte(3), true)
	f.Fuzz(func(t *testing.T, stored, start, prefix, flag, permissions, metadata, at string, whole int64, part float64, kinds byte, plain bool) {
		pick := func(bit byte, a, b any) any {
			if kinds>>bit&1 == 1 {
				return b
			}
			return a
		}
		o := Options{PlainKeys: plain}
		k := converted(o, row{
			"key": pick(0, stored, []byte(stored)), "start": start, "prefix": prefix, "enabled": pick(1, flag, whole), "permissions": pick(2, permissions, []byte(permissions)),
			"metadata": metadata, "expiresAt": pick(3, at, whole), "createdAt": pick(4, at, part), "remaining": pick(5, whole, part), "rateLimitMax": pick(6, whole, at),
			"rateLimitTimeWindow": pick(7, part, whole), "refillAmount": whole, "refillInterval": part,
		})
		if k.Refused != nil {
			return
		}
		rec := &k.Record
		for name, n := range map[string]*int64{"remaining": rec.Remaining, "rateLimitMax": rec.RateLimitMax, "rateLimitTimeWindow": rec.RateLimitTimeWindow, "refillAmount": rec.RefillAmount, "refillInterval": rec.RefillInterval} {
			if n != nil && (*n < 0 || *n > key.MaxCount) {
				t.Errorf("%s is %d", name, *n)
			}
		}
		if rec.ExpiresAt != nil && (rec.ExpiresAt.UnixMilli() < 0 || rec.ExpiresAt.UnixMilli() > key.MaxTime) {
			t.Errorf("expiresAt is %v", rec.ExpiresAt)
		}
		text, err := json.Marshal(rec)
		if err != nil {
			t.Fatal(err)
		}
		var in admin.KeyRecord
		if err := api.DecodeBody(text, &in); err != nil {
			t.Errorf("the server refuses %s: %v", text, err)
		}
	})
}
