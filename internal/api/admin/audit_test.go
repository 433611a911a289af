package admin

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
)

// TestAudit: the log is listed as it was written, filters narrow it, and an entry is what its
// chain was made of.
func TestAudit(t *testing.T) {
	a := newAPI(t)
	if got := a.send("GET", "/apikey/audit", ""); string(got.body) != `{"entries":[],"nextCursor":null,"head":null,"anchor":null}`+"\n" {
		t.Errorf("%s", got.body)
	}
	id, _ := a.make(`{"userId":"alice","metadata":{"<b>":"secret"}}`)
	a.sleep(time.Second)
	a.Actor = "bob <bob@example.com>"
	must(a.PatchKey(t.Context(), id, PatchKey{Enabled: api.Some(false)}))
	a.Actor = ""
	must(a.PutOwner(t.Context(), "carol", PutOwner{}))
	answer := must(a.Audit(t.Context(), ListAudit{}))
	log := answer.Value
	if len(log.Entries) != 3 || log.NextCursor != nil || log.Anchor != nil || *log.Head != (AuditPoint{3, log.Entries[0].Chain}) {
		t.Fatalf("%s", answer.Raw)
	}
	if e := log.Entries[1]; e.Action != "key.revoked" || e.Actor != (AuditActor{Kind: "operator", Name: "bob <bob@example.com>", Address: "127.0.0.1"}) || e.KeyID != id || e.UserID != "alice" ||
		!e.Time.Equal(start.Add(time.Second)) || string(e.Changes) != `{"disabledBy":{"from":null,"to":"operator"},"enabled":{"from":true,"to":false}}` {
		t.Errorf("%+v, %s", e, e.Changes)
	}
	if strings.Contains(string(answer.Raw), "secret") {
		t.Errorf("%s shows a value of metadata", answer.Raw)
	}
	var raw struct{ Entries []json.RawMessage }
	if err := json.Unmarshal(answer.Raw, &raw); err != nil {
		t.Fatal(err)
	}
	for i := len(raw.Entries) - 1; i >= 0; i-- {
		before := ""
		if i+1 < len(raw.Entries) {
			before = log.Entries[i+1].Chain
		}
		if chain := ChainOf(before, must(CanonicalEntry(raw.Entries[i]))); chain != log.Entries[i].Chain {
			t.Errorf("the chain of %s is not made of it", raw.Entries[i])
		}
	}
	for query, want := range map[string]int{
		"?keyId=" + id: 2, "?userId=carol": 1, "?action=key.created": 1, "?actor=operator": 3, "?actor=nobody": 0,
		"?since=2026-11-21T19:09:20Z": 2, "?until=2026-11-21T19:09:20Z": 1, "?limit=1": 1,
	} {
		m := a.send("GET", "/apikey/audit"+query, "").want(t, 200)
		if entries := m["entries"].([]any); len(entries) != want {
			t.Errorf("%s: %d entries, want %d", query, len(entries), want)
		}
	}
	for query, field := range map[string]string{
		"?since=yesterday": "since", "?limit=501": "limit", "?cursor=x": "cursor", "?nosuch=1": "nosuch", "?action=": "action",
	} {
		a.send("GET", "/apikey/audit"+query, "").refused(t, 400, "INVALID_FIELD", field)
	}
	if h := must(a.Health(t.Context())).Value; *h.Audit != *log.Head {
		t.Errorf("%+v", h)
	}
}

// TestActorHeader: a name that is none is refused, and nothing is changed.
func TestActorHeader(t *testing.T) {
	a := newAPI(t)
	for _, name := range []string{"", strings.Repeat("a", 65), "a\tb", "Zoë"} {
		a.send("POST", "/apikey/keys", `{"userId":"alice"}`, "Content-Type", "application/json", "X-Actor", name).refused(t, 400, "INVALID_FIELD", "X-Actor")
	}
	if n := len(must(a.Audit(t.Context(), ListAudit{})).Value.Entries); n != 0 {
		t.Errorf("%d changes were made", n)
	}
	a.send("POST", "/apikey/keys", `{"userId":"alice"}`, "Content-Type", "application/json", "X-Actor", strings.Repeat("~", 64)).want(t, 201)
}
