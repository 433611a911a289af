package admin

import (
	"net/http"
	"strings"
	"testing"
)

// TestAdded: a key without restrictions is refused, until it has one.
func TestAdded(t *testing.T) {
	a := newAPI(t)
	id, raw := a.make(`{"userId":"alice","permissions":{"*":["*"]}}`)
	verify := func() string {
		r := a.send("POST", "/apikey/verify", `{"key":"`+raw+`"}`)
		return string(r.body)
	}
	if got := verify(); !strings.Contains(got, "KEY_UNRESTRICTED") {
		t.Error(got)
	}
	if r := a.send("PATCH", "/apikey/keys/"+id, `{"allowedIps":["10.0.0.0/8"]}`); r.status != http.StatusOK {
		t.Fatalf("%+v", r)
	}
	if got := verify(); strings.Contains(got, "KEY_UNRESTRICTED") {
		t.Error(got)
	}
}
