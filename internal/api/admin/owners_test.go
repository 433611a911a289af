package admin

import (
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
)

func TestOwners(t *testing.T) {
	a := newAPI(t)
	_, raw := a.make(`{"userId":"alice"}`)
	want := `{"userId":"alice","tier":null,"enabled":true,"keyCount":1,"createdAt":"2026-11-21T19:09:19.500Z","updatedAt":"2026-11-21T19:09:19.500Z"}` + "\n"
	if got := a.send("GET", "/apikey/owners/alice", ""); string(got.body) != want {
		t.Errorf("got %s", got.body)
	}
	a.sleep(time.Second)
	o := must(a.PutOwner(t.Context(), "alice", PutOwner{Enabled: api.Some(false)})).Value
	if o.Enabled || o.KeyCount != 1 || !o.UpdatedAt.Equal(start.Add(time.Second)) || !o.CreatedAt.Equal(start) {
		t.Errorf("%+v", o)
	}
	if v := must(a.Verify(t.Context(), VerifyKey{Key: raw})).Value; v.Valid || v.Error.Code != "KEY_DISABLED" {
		t.Errorf("%+v", v)
	}
	a.make(`{"userId":"alice"}`) // also for a disabled owner
	must(a.PutOwner(t.Context(), "alice", PutOwner{Tier: api.Null[string]()}))
	if o := must(a.Owner(t.Context(), "alice")).Value; o.Enabled || o.KeyCount != 2 {
		t.Errorf("%+v", o)
	}
	must(a.PutOwner(t.Context(), "alice", PutOwner{Enabled: api.Some(true)}))
	if v := must(a.Verify(t.Context(), VerifyKey{Key: raw})).Value; !v.Valid {
		t.Errorf("%+v", v.Error)
	}
	if err := a.DeleteOwner(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	if v := must(a.Verify(t.Context(), VerifyKey{Key: raw})).Value; v.Valid || v.Error.Code != "INVALID_API_KEY" {
		t.Errorf("%+v", v)
	}
	for _, err := range []error{a.DeleteOwner(t.Context(), "alice"), second(a.Owner(t.Context(), "alice"))} {
		if e := apiErr(t, err); e.Status != 404 || e.Code != "OWNER_NOT_FOUND" {
			t.Errorf("%+v", e)
		}
	}
}

func TestPutOwner(t *testing.T) {
	a := newAPI(t)
	if m := a.send("PUT", "/apikey/owners/new", `{}`).want(t, 200); m["enabled"] != true || m["tier"] != nil {
		t.Errorf("%v", m)
	}
	a.send("PUT", "/apikey/owners/new", ``).refused(t, 400, "BAD_REQUEST", "")
	r := a.send("PUT", "/apikey/owners/new", `{"tier":"`+marker+`"}`)
	r.refused(t, 400, "INVALID_FIELD", "tier")
	if !strings.Contains(string(r.body), "unknown tier") || strings.Contains(string(r.body), marker) {
		t.Errorf("%s", r.body)
	}
	a.send("PUT", "/apikey/owners/other", `{"tier":"x"}`).refused(t, 400, "INVALID_FIELD", "tier")
	a.send("GET", "/apikey/owners/other", "").refused(t, 404, "OWNER_NOT_FOUND", "")
	a.send("PUT", "/apikey/owners/new", `{"enabled":null}`).refused(t, 400, "INVALID_FIELD", "enabled")
	a.send("PUT", "/apikey/owners/new", `{"userId":"x"}`).refused(t, 400, "INVALID_FIELD", "userId")
}

// TestOwnerNames: a name may hold whatever a path must escape.
func TestOwnerNames(t *testing.T) {
	a := newAPI(t)
	names := []string{"a/b", "a//b", "/", "//", "a/../b", "../..", "...", "a b", "a+b", "a%2Fb", "é日🔑", "a?b#c", "a;b=c", "a&b", `"<>`, "user@example.com", "{id}", strings.Repeat("é", 255)}
	for _, name := range names {
		if o := must(a.PutOwner(t.Context(), name, PutOwner{})).Value; o.UserID != name {
			t.Errorf("put %q, got %q", name, o.UserID)
		}
		if o := must(a.Owner(t.Context(), name)).Value; o.UserID != name {
			t.Errorf("asked for %q, got %q", name, o.UserID)
		}
		must(a.CreateKey(t.Context(), CreateKey{UserID: name}))
		if page := must(a.ListKeys(t.Context(), ListKeys{UserID: &name})).Value; *page.Total != 1 || page.Keys[0].UserID != name {
			t.Errorf("keys of %q: %+v", name, page)
		}
	}
	var listed []string
	in := ListOwners{Limit: ptr(int64(4))}
	for {
		page := must(a.ListOwners(t.Context(), in)).Value
		for _, o := range page.Owners {
			listed = append(listed, o.UserID)
		}
		if page.NextCursor == nil {
			break
		}
		in.Cursor = page.NextCursor
	}
	slices.Sort(names)
	if !slices.Equal(listed, names) {
		t.Errorf("listed %q", listed)
	}
	for _, name := range names {
		if err := a.DeleteOwner(t.Context(), name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{".", "..", "a\x00", "a\nb", "\xff", strings.Repeat("x", 256)} {
		for _, method := range []string{"GET", "PUT", "DELETE"} {
			path := "/apikey/owners/" + segment(name)
			if _, err := url.Parse(path); err != nil {
				t.Fatal(err)
			}
			body := ""
			if method == "PUT" {
				body = "{}"
			}
			a.send(method, path, body).refused(t, 400, "INVALID_FIELD", "userId")
		}
	}
	a.send("GET", "/apikey/owners?limit=0", "").refused(t, 400, "INVALID_FIELD", "limit")
	a.send("GET", "/apikey/owners?cursor=%21", "").refused(t, 400, "INVALID_FIELD", "cursor")
}
