package e2e

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
)

// matcherSite has gates that do not meet every request.
const matcherSite = `{
	log default {
		format apikey_redact
	}
	apikey {
		tier pro
		default_tier pro
	}
}

{$SITE} {
	@protected not path /health /both/* /a/* /route/* /json/*
	apikey @protected {
		identity_header X-User-Id {http.auth.user.id}
		identity_header X-Key-Name {http.auth.user.key_name}
		identity_header X-Plan {http.auth.user.metadata.plan}
	}
	apikey /a/* {
		identity_header X-User-Id {http.auth.user.id}
	}
	apikey /a/b/* {
		identity_header X-Key-Name {http.auth.user.key_name}
	}
	apikey /a/b/admin/* admin {
		identity_header X-Plan {http.auth.user.metadata.plan}
	}
	route /route/* {
		apikey /route/in/* {
			identity_header X-User-Id {http.auth.user.id}
		}
		reverse_proxy {$UPSTREAM}
	}
	reverse_proxy {$UPSTREAM}

	handle_errors {
		reverse_proxy {$UPSTREAM}
	}
}
`

// TestQ20_OpenPaths forges identity headers on requests that a matcher keeps away from
// the gate, and on requests that meet only some of several gates.
func TestQ20_OpenPaths(t *testing.T) {
	full(t)
	up := startUpstream(t)
	s := startGate(t, matcherSite, withEnv("UPSTREAM="+up.Addr))
	k := s.create(map[string]any{"userId": "alice", "name": "laptop", "metadata": map[string]any{"plan": "pro"}}).Raw
	for _, route := range []struct {
		name, path, key string
		want            string // X-User-Id, X-Key-Name, X-Plan
	}{
		{"open", "/health", "", "- - -"},
		{"open, with a key", "/health", "kept", "- - -"},
		{"the gate", "/x", k, "alice laptop pro"},
		{"the gate refuses", "/x", "", "- - -"},
		{"one of two gates", "/a/x", k, "alice - -"},
		{"two gates", "/a/b/x", k, "alice laptop -"},
		{"the third gate refuses", "/a/b/admin/x", k, "- - -"},
		{"open in a route block", "/route/x", "", "- - -"},
		{"a gate in a route block", "/route/in/x", k, "alice - -"},
	} {
		for i, f := range forgeries() {
			mark := fmt.Sprint(route.name, i)
			m := message{method: "POST", target: route.path, trailer: f.trailer, quiet: f.quiet}
			m.fields = append(slices.Clone(f.fields), field{markHeader, mark})
			if route.key != "" {
				m.fields = append(m.fields, field{"X-API-Key", route.key})
			}
			if f.trailer != nil {
				m.body = "body"
			}
			m.plain(t, s.URL)
			raw := route.key
			if raw == "kept" { // no gate looks there
				raw = ""
			}
			checkIdentitySeen(t, route.name+"/"+f.name, up.of(mark), route.want, raw)
		}
	}
}

// TestQ20_Warning starts a server whose other branch forwards forged headers.
func TestQ20_Warning(t *testing.T) {
	quick(t)
	const site = `{$SITE} {
	handle /api/* {
		apikey {
			identity_header X-User-Id {http.auth.user.id}
		}
		reverse_proxy 127.0.0.1:1
	}
	handle {
		%s
		reverse_proxy 127.0.0.1:1
	}
}
`
	const warning = "a client can forge identity headers"
	s := startGate(t, fmt.Sprintf(site, ""))
	awaitLog(t, s, warning)
	s = startGate(t, fmt.Sprintf(site, "request_header -X-User-Id"))
	if strings.Contains(s.Log(), warning) {
		t.Error("the remedy is there, and the server warns")
	}
}

// recipe returns the Caddyfile below a heading of docs/caddyfile.md, for the site and
// the upstream of a test.
func recipe(t *testing.T, heading string, replace ...string) string {
	t.Helper()
	return recipeIn(t, "docs/caddyfile.md", "### "+heading, replace...)
}

// recipeIn is recipe for another page.
func recipeIn(t *testing.T, page, heading string, replace ...string) string {
	t.Helper()
	text, err := os.ReadFile(source(t, page))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "\n"+heading+"\n")
	_, rest, ok2 := strings.Cut(rest, "```caddyfile\n")
	config, _, ok3 := strings.Cut(rest, "```\n")
	if !ok || !ok2 || !ok3 {
		t.Fatalf("there is no recipe %q", heading)
	}
	pairs := append([]string{"http://api.example.com", "{$SITE}", "localhost:9000", "{$UPSTREAM}"}, replace...)
	return strings.NewReplacer(pairs...).Replace(config)
}

// TestQ21_OpenPathRecipe sends paths that count as the open one. Only that one reaches
// the application without a key.
func TestQ21_OpenPathRecipe(t *testing.T) {
	full(t)
	up := startUpstream(t)
	s := startGate(t, recipe(t, "Leave one path open"), withEnv("UPSTREAM="+up.Addr))
	k := s.create(nil).Raw
	for i, target := range []string{
		"/health", "/users/bob%2f..%2f..%2fhealth", "/users/../health", "/users/bob/../../health", "//health", "/./health",
		"/%68ealth", "/HEALTH", "/health/", "/health/../users/bob", "/health%2f..%2fusers%2fbob", "/health?x=/users/bob", "/health;/users/bob",
		"/users/bob", "/health%00", "/health%3f/users/bob", "/users%2f..%2fhealth", `/users\..\health`, "/users/bob%2F..%2F..%2Fhealth",
	} {
		mark := fmt.Sprint("open", i)
		forged := []field{{markHeader, mark}, {"X-User-Id", "mallory"}}
		r := (&message{target: target, fields: forged}).plain(t, s.URL)
		for _, got := range up.of(mark) {
			if path, _, _ := strings.Cut(got.URI, "?"); path != "/health" || got.has("mallory") {
				t.Errorf("%s: the upstream has seen %s %v", target, got.URI, got.Header)
			}
		}
		if got := len(up.of(mark)); (r.status == 200) != (got == 1) || r.status != 200 && r.status != 401 && r.status != 400 {
			t.Errorf("%s: status %d, %d at the upstream", target, r.status, got)
		}
	}
	r := s.get("/users/bob", "X-API-Key: "+k, markHeader+": key", "X-User-Id: mallory")
	if got := up.of("key"); r.status != 200 || len(got) != 1 || got[0].URI != "/users/bob" || got[0].Header.Get("X-User-Id") != "alice" {
		t.Errorf("with a key: %d %v", r.status, got)
	}
}

// TestQ22_ProxyRecipe forges the left end of X-Forwarded-For.
func TestQ22_ProxyRecipe(t *testing.T) {
	full(t)
	up := startUpstream(t)
	config := recipe(t, "Run behind another proxy", "10.0.0.0/8", "127.0.0.0/8")
	s := startGate(t, config, withEnv("UPSTREAM="+up.Addr))
	k := s.create(map[string]any{"allowedIps": []string{"203.0.113.5"}}).Raw
	for list, status := range map[string]int{
		"203.0.113.5":                               200,
		"198.51.100.7, 203.0.113.5":                 200,
		"203.0.113.5, 198.51.100.7":                 403,
		"203.0.113.5,198.51.100.7":                  403,
		"203.0.113.5, 198.51.100.7, 127.0.0.2":      403,
		"203.0.113.5\r\nX-Forwarded-For: 192.0.2.1": 403,
	} {
		if r := s.get("/", "X-API-Key: "+k, "X-Forwarded-For: "+list); r.status != status {
			t.Errorf("%q: status %d, want %d", list, r.status, status)
		}
	}
	const warning = "a client can forge its address"
	if strings.Contains(s.Log(), warning) {
		t.Error("the recipe is warned about")
	}
	s.reload(strings.Replace(config, "trusted_proxies_strict", "", 1))
	awaitLog(t, s, warning)
}

// TestQ24_Owners names owners that would look like others on their way to the
// application.
func TestQ24_Owners(t *testing.T) {
	full(t)
	s := startGate(t, "{$SITE} {\n\tapikey {\n\t\tidentity_header X-User-Id {http.auth.user.id}\n\t}\n\trespond {header.X-User-Id}\n}\n")
	k := s.create(map[string]any{"userId": "alice"})
	hash := strings.Repeat("ab", 32)
	n := 0
	for _, space := range []string{
		" ", "\t", "\n", "\u00a0", "\u0085", "\u1680", "\u2003", "\u2028", "\u202f", "\u205f", "\u3000", "\u200b", "\ufeff", "\u2060", "\u180e",
	} {
		for _, owner := range []string{"alice" + space, space + "alice", space} {
			s.admin("POST", "/apikey/keys", map[string]any{"userId": owner}, 400, nil)
			s.admin("PATCH", "/apikey/keys/"+k.ID, map[string]any{"userId": owner}, 400, nil)
			s.admin("PUT", "/apikey/owners/"+percentEncode(owner), map[string]any{"enabled": true}, 400, nil)
			s.admin("GET", "/apikey/owners/"+percentEncode(owner), nil, 400, nil)
			s.admin("DELETE", "/apikey/owners/"+percentEncode(owner), nil, 400, nil)
			var done struct{ Invalid, Created int }
			n++
			s.admin("POST", "/apikey/keys/import", map[string]any{
				"keys":   []any{map[string]any{"id": fmt.Sprint("k", n), "userId": owner, "hash": hash}},
				"owners": []any{map[string]any{"userId": owner}},
			}, 200, &done)
			if done.Invalid != 2 || done.Created != 0 {
				t.Errorf("import of %q: %+v", owner, done)
			}
		}
	}
	for _, owner := range []string{"al ice", "al\u00a0ice", "José", "a/b", "user@example.com", strings.Repeat("ä", 255)} {
		raw := s.create(map[string]any{"userId": owner}).Raw
		if r := s.get("/", "X-API-Key: "+raw); r.body != owner {
			t.Errorf("%q arrives as %q", owner, r.body)
		}
	}
	s.admin("POST", "/apikey/keys", map[string]any{"userId": strings.Repeat("ä", 256)}, 400, nil)
}

// TestQ25_Values gives keys metadata that would change on its way through a header.
func TestQ25_Values(t *testing.T) {
	full(t)
	up := startUpstream(t)
	s := startGate(t, `{$SITE} {
	apikey {
		identity_header X-Role {http.auth.user.metadata.role}
		identity_header X-Both "{http.auth.user.id};{http.auth.user.metadata.role}"
	}
	reverse_proxy {$UPSTREAM}
}
`, withEnv("UPSTREAM="+up.Addr))
	for i, row := range []struct {
		role       string
		sent, both bool
	}{
		{"admin", true, true},
		{"admin of all\tteams", true, true},
		{"ädmin", true, true},
		{"", false, true},
		{"admin\n", false, false},
		{"\nadmin", false, false},
		{"ad\nmin", false, false},
		{"admin\r", false, false},
		{"admin\x00", false, false},
		{"ad\x7fmin", false, false},
		{"ad\u0085min", false, false},
		{"admin ", false, false},
		{" admin", false, true},
		{"\tadmin", false, true},
		{"admin\u00a0", false, false},
		{"admin\u2003", false, false},
		{"\ufeffadmin", false, true},
		{" ", false, false},
	} {
		k := s.create(map[string]any{"metadata": map[string]any{"role": row.role}})
		mark := fmt.Sprint("q25", i)
		s.get("/", "X-API-Key: "+k.Raw, markHeader+": "+mark, "X-Role: forged", "X-Both: forged")
		got := up.of(mark)
		if len(got) != 1 {
			t.Errorf("%q: %d at the upstream", row.role, len(got))
			continue
		}
		for name, want := range map[string]struct {
			value string
			sent  bool
		}{"X-Role": {row.role, row.sent}, "X-Both": {"alice;" + row.role, row.both}} {
			var values []string
			if want.sent {
				values = []string{want.value}
			}
			if v := got[0].Header.Values(name); !slices.Equal(v, values) {
				t.Errorf("%q: %s is %q, want %q", row.role, name, v, values)
			}
		}
	}
}

// organizationSite trusts what a client says of itself, which only a test may.
const organizationSite = `{
	apikey {
		config team
		tier free {
			limit 2/day
		}
		tier pro
		default_tier pro
	}
}

{$SITE} {
	vars {
		who {header.X-Who}
		org {header.X-Org}
		role owner
	}
	handle /api/* {
		apikey_api {
			dialect better_auth
			base /api
			user {vars.who}
			organization {vars.org} {
				role {vars.role}
				config team
			}
		}
	}
	handle /v1/* {
		apikey_api {
			base /v1
			user {vars.who}
		}
	}
	handle {
		apikey {
			identity_header X-User-Id {http.auth.user.id}
			identity_header X-Org-Id {http.auth.user.organization}
		}
		respond "user={http.auth.user.id} org={http.auth.user.organization} key={http.auth.user.key_id} config={http.auth.user.config} tier={http.auth.user.tier} X-User-Id={header.X-User-Id} X-Org-Id={header.X-Org-Id}"
	}
}
`

// TestQ26_Organizations: an organization and a user of the same name share nothing, and
// nobody else can be taken for an organization.
func TestQ26_Organizations(t *testing.T) {
	full(t)
	s := startGate(t, organizationSite)
	r := s.call("POST", "/api/api-key/create", `{"configId":"team","organizationId":"acme"}`, "X-Who: olga", "X-Org: acme")
	r.is(t, 200, "")
	var team struct{ ID, Key, ReferenceID string }
	decode(t, r.body, &team)
	if team.ReferenceID != "acme" {
		t.Errorf("the answer names %q", team.ReferenceID)
	}
	user := s.create(map[string]any{"userId": "acme"})
	var shown struct{ UserID string }
	s.admin("GET", "/apikey/keys/"+team.ID, nil, 200, &shown)
	if shown.UserID != "org:acme" {
		t.Errorf("the owner is %q", shown.UserID)
	}
	at := func(raw string) string {
		t.Helper()
		return s.get("/", "X-API-Key: "+raw, "X-User-Id: forged", "X-Org-Id: forged").body
	}
	if got, want := at(team.Key), "user= org=acme key="+team.ID+" config=team tier=pro X-User-Id= X-Org-Id=acme"; got != want {
		t.Errorf("the organization: %s\nwant %s", got, want)
	}
	if got, want := at(user.Raw), "user=acme org= key="+user.ID+" config=default tier=pro X-User-Id=acme X-Org-Id="; got != want {
		t.Errorf("the user: %s\nwant %s", got, want)
	}

	// Tier and state are the organization's own.
	s.admin("PUT", "/apikey/owners/org:acme", map[string]any{"tier": "free"}, 200, nil)
	for i, want := range []int{200, 429} { // one request was above
		if r := s.get("/", "X-API-Key: "+team.Key); r.status != want {
			t.Errorf("request %d of the organization: %d, want %d", i, r.status, want)
		}
	}
	if r := s.get("/", "X-API-Key: "+user.Raw); r.status != 200 {
		t.Errorf("the user is held to the organization's tier: %d", r.status)
	}
	s.admin("PUT", "/apikey/owners/acme", map[string]any{"enabled": false}, 200, nil)
	s.call("GET", "/api/api-key/list?organizationId=acme", "", "X-Who: olga", "X-Org: acme").is(t, 200, "")
	s.admin("PUT", "/apikey/owners/acme", map[string]any{"enabled": true}, 200, nil)

	// Nobody else is an organization.
	for _, person := range []string{"org:acme", "org:", "org:other"} {
		s.call("GET", "/v1/api-keys", "", "X-Who: "+person).is(t, 401, "MISSING_API_KEY")
		s.call("POST", "/api/api-key/create", "{}", "X-Who: "+person).is(t, 401, "UNAUTHORIZED_SESSION")
	}
	for _, body := range []map[string]any{
		{"userId": "org:acme"},
		{"userId": "org:acme", "configId": "default"},
		{"userId": "org:", "configId": "team"},
		{"userId": "org: acme", "configId": "team"},
		{"userId": "org:.", "configId": "team"},
	} {
		s.admin("POST", "/apikey/keys", body, 400, nil)
	}
	s.admin("PATCH", "/apikey/keys/"+user.ID, map[string]any{"userId": "org:acme"}, 400, nil)
	hash := strings.Repeat("ab", 32)
	for configID, status := range map[string]string{"default": "invalid", "team": "created"} {
		var done struct {
			Results []struct{ Status, Field string }
		}
		s.admin("POST", "/apikey/keys/import", map[string]any{
			"keys": []any{map[string]any{"id": "imported", "userId": "org:acme", "configId": configID, "hash": hash}},
		}, 200, &done)
		if got := done.Results[0]; got.Status != status {
			t.Errorf("import into %s: %+v", configID, got)
		}
	}
	// A key of an organization makes keys of that organization, and is no session.
	s.admin("PATCH", "/apikey/keys/"+team.ID, map[string]any{"permissions": []string{"read", "write"}}, 200, nil)
	s.admin("PUT", "/apikey/owners/org:acme", map[string]any{"tier": "pro"}, 200, nil)
	s.call("GET", "/api/get-session", "", keyLine(team.Key)).is(t, 401, "INVALID_REFERENCE_ID_FROM_API_KEY")
	var made struct{ UserID string }
	r = s.call("POST", "/v1/api-keys", "{}", keyLine(team.Key))
	s.admin("GET", "/apikey/keys?userId=acme", nil, 200, nil)
	decode(t, r.body, &made)
	if r.status != http.StatusCreated || strings.Contains(r.body, `"acme"`) {
		t.Errorf("a key made by the organization's: %d %s", r.status, r.body)
	}
}

// TestQ26_NoOrganizations: without an organization block there are no organizations,
// but one that is left over stays within reach.
func TestQ26_NoOrganizations(t *testing.T) {
	full(t)
	s := startGate(t, organizationSite)
	s.call("POST", "/api/api-key/create", `{"configId":"team","organizationId":"acme"}`, "X-Who: olga", "X-Org: acme").is(t, 200, "")
	s.reload("{\n\tapikey {\n\t\tconfig team\n\t}\n}\n" + commandSite)
	s.admin("POST", "/apikey/keys", map[string]any{"userId": "org:acme", "configId": "team"}, 400, nil)
	s.admin("PUT", "/apikey/owners/org:other", map[string]any{"enabled": true}, 400, nil)
	s.admin("PUT", "/apikey/owners/org:acme", map[string]any{"enabled": false}, 200, nil)
	var done struct{ Invalid int }
	s.admin("POST", "/apikey/keys/import", map[string]any{"owners": []any{map[string]any{"userId": "org:third"}}}, 200, &done)
	if done.Invalid != 1 {
		t.Error("an organization was imported")
	}
	s.admin("DELETE", "/apikey/owners/org:acme", nil, 204, nil)
}

// TestQ27_CommandLine names permissions on the command line that may mean several.
func TestQ27_CommandLine(t *testing.T) {
	quick(t)
	c := startCLI(t)
	for _, word := range []string{"read,write", "read write", "files/read", "{need}", "{args[0]}", "{http.request.host}:call", "a:b/c", " read"} {
		r := c.exits(2, "create", "--owner", "alice", "--permission", word)
		if !strings.Contains(r.stderr, "--permission files:read --permission files:write") && !strings.Contains(r.stderr, "without that argument") {
			t.Errorf("%q: %s", word, r.stderr)
		}
		c.s.admin("POST", "/apikey/keys", map[string]any{"userId": "alice", "permissions": []string{word}}, 400, nil)
	}
	c.exits(0, "create", "--owner", "alice", "--permission", "files:read", "--permission", "write", "--permission", "a:*")
	c.s.create(map[string]any{"permissions": map[string]any{"files/x": []string{"a,b"}}}) // the map means one
}
