package e2e

import "testing"

// TestOrganization_disabled disables an organization: nobody acts for it then, and those
// who belong to it go on with their own keys.
func TestOrganization_disabled(t *testing.T) {
	full(t)
	s := startGate(t, betterAuthSite, withTestClock(), withEnv("PASSWORD="+passwordHash))
	as := func(method, path, body string) *reply {
		return s.call(method, "/person/api/auth"+path, body, signedIn("olga"))
	}
	made := as("POST", "/api-key/create", `{"configId":"team","organizationId":"acme"}`) // the first: there is no owner yet
	made.is(t, 200, "")
	var k struct{ ID string }
	decode(t, made.body, &k)
	change := `{"configId":"team","keyId":"` + k.ID + `"`
	calls := []struct {
		method, path, body string
		code               string // where it is disabled
	}{
		{"POST", "/api-key/create", `{"configId":"team","organizationId":"acme"}`, "USER_NOT_MEMBER_OF_ORGANIZATION"},
		{"GET", "/api-key/list?organizationId=acme", "", "USER_NOT_MEMBER_OF_ORGANIZATION"},
		{"GET", "/api-key/get?configId=team&id=" + k.ID, "", "KEY_NOT_FOUND"},
		{"POST", "/api-key/update", change + `,"name":"x"}`, "KEY_NOT_FOUND"},
		{"POST", "/api-key/create", "{}", ""},
		{"GET", "/api-key/list", "", ""},
		{"POST", "/api-key/delete", change + "}", "KEY_NOT_FOUND"}, // the last: it works where it is enabled
	}
	for _, enabled := range []bool{false, true} {
		s.admin("PUT", "/apikey/owners/org:acme", map[string]any{"enabled": enabled}, 200, nil)
		for _, c := range calls {
			want := c.code
			if enabled {
				want = ""
			}
			if r := as(c.method, c.path, c.body); r.code != want || (want == "") != (r.status == 200) {
				t.Errorf("%s, enabled %v: %d %s, want %q", c.path, enabled, r.status, r.body, want)
			}
		}
	}
}
