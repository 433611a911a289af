package store_test

import (
	"encoding/json"
	"math"
	"reflect"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/store"
)

// FuzzAuditEntry: an entry that is read and can be written has a canonical form, which is
// read as the same entry and written as the same bytes. The chain depends on that.
func FuzzAuditEntry(f *testing.F) {
	for _, e := range []store.AuditEntry{
		{ID: 1, Time: 1_800_000_000_000, Action: "key.created", Actor: store.AuditActor{Kind: "operator", Name: "é\u2028<"}, KeyID: "k", UserID: "u"},
		{ID: 1<<53 - 1, Action: "keys.deleted", Changes: json.RawMessage(`{"name":{"from":null,"to":"\u0000"},"remaining":{"from":1e3,"to":9007199254740991}}`), Count: 7, IDsHash: "00"},
	} {
		text, err := e.Canonical()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(`{"id":-0,"time":"9999-12-31T23:59:59.999Z","action":"\ud800"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		e, err := store.ParseAuditEntry(text, "c")
		const most = 1<<53 - 1 // canonical numbers are floats, and what an entry counts is below
		if err != nil || max(e.ID, -e.ID, e.Count, -e.Count) > most || e.ID == math.MinInt64 || e.Count == math.MinInt64 {
			return
		}
		canonical, err := e.Canonical()
		if err != nil {
			return // such as numbers beyond a float in Changes
		}
		again, err := store.ParseAuditEntry(canonical, "c")
		if err != nil {
			t.Fatalf("%s is written as %s: %v", text, canonical, err)
		}
		if twice, err := again.Canonical(); err != nil || string(twice) != string(canonical) {
			t.Errorf("%s is written as %s: %v", canonical, twice, err)
		}
		e.Changes, again.Changes = nil, nil // which are the same only in canonical form
		if !reflect.DeepEqual(again, e) {
			t.Errorf("%s is read as\n%+v, want\n%+v", canonical, again, e)
		}
	})
}
