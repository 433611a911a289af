package admin

import (
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// TestUsageDocument: the answer is the contract's, to the letter.
func TestUsageDocument(t *testing.T) {
	a := newAPI(t)
	id, raw := a.make(`{"userId":"u","remaining":2}`)
	for range 3 {
		a.send("POST", "/apikey/verify", `{"key":"`+raw+`"}`).want(t, 200)
	}
	a.send("POST", "/apikey/verify", `{"key":"`+raw+`","permissions":["x:y"]}`).want(t, 200)
	a.send("POST", "/apikey/verify", `{"key":"`+raw+`","dryRun":true}`).want(t, 200)
	a.sleep(24 * time.Hour)
	a.send("POST", "/apikey/verify", `{"key":"`+raw+`"}`).want(t, 200)
	want := `{"tier":null,"usage":{"today":0,"month":2},"limits":{"perDay":null,"perMinute":null},"days":[` +
		`{"date":"2026-11-20","allowed":0,"limited":0,"denied":0},` +
		`{"date":"2026-11-21","allowed":2,"limited":1,"denied":1},` +
		`{"date":"2026-11-22","allowed":0,"limited":1,"denied":0}]}` + "\n"
	for _, path := range []string{"/apikey/keys/" + id, "/apikey/owners/u"} {
		if got := string(a.send("GET", path+"/usage?days=3", "").body); got != want {
			t.Errorf("%s: got\n%s want\n%s", path, got, want)
		}
		if days := a.send("GET", path+"/usage", "").want(t, 200)["days"].([]any); len(days) != 30 {
			t.Errorf("%s: %d days", path, len(days))
		}
	}
}

func TestUsageRefusals(t *testing.T) {
	a := newAPI(t)
	id, _ := a.make(`{"userId":"u"}`)
	for _, days := range []string{"0", "-1", "367", "1.5", "x", "", "1e2", "9007199254740992"} {
		a.send("GET", "/apikey/keys/"+id+"/usage?days="+days, "").refused(t, 400, keyring.InvalidField, "days")
	}
	a.send("GET", "/apikey/keys/"+id+"/usage?day=1", "").refused(t, 400, keyring.InvalidField, "day")
	a.send("GET", "/apikey/keys/"+id+"/usage?days=1&days=2", "").refused(t, 400, keyring.InvalidField, "days")
	a.send("GET", "/apikey/keys/nosuch/usage", "").refused(t, 404, api.CodeKeyNotFound, "")
	a.send("GET", "/apikey/owners/nobody/usage", "").refused(t, 404, api.CodeOwnerNotFound, "")
	a.send("GET", "/apikey/owners/"+strings.Repeat("x", 256)+"/usage", "").refused(t, 400, keyring.InvalidField, "userId")
	a.send("POST", "/apikey/keys/"+id+"/usage", "{}").refused(t, 405, api.CodeMethodNotAllowed, "")
	a.send("DELETE", "/apikey/keys/"+id, "")
	a.send("GET", "/apikey/keys/"+id+"/usage", "").refused(t, 404, api.CodeKeyNotFound, "")
}
