package betterauth

import (
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// teamAPI has a configuration whose keys belong to organizations.
func teamAPI(t *testing.T) *rig {
	t.Helper()
	return newAPI(t, config("team", func(*keyring.Rules) {}), mount(func(o *options) {
		o.Organization = &Organization{
			Configs: []string{"team"}, CreatorRole: "owner",
			Allow: map[string][]string{"viewer": {"read"}, "maker": {"create", "update"}},
		}
	}))
}

func TestBetterAuth_organizationId(t *testing.T) {
	a := teamAPI(t)
	create := func(rest string, header ...string) reply {
		return a.post("/api-key/create", `{"configId":"team"`+rest+`}`, header...)
	}
	const acme = `,"organizationId":"acme"`
	create("").refuses(400, "ORGANIZATION_ID_REQUIRED")
	create(`,"organizationId":""`).refuses(400, "ORGANIZATION_ID_REQUIRED")
	create(acme).refuses(401, "UNAUTHORIZED_SESSION")
	create(acme, person("olga")...).refuses(403, "USER_NOT_MEMBER_OF_ORGANIZATION")
	create(acme, member("olga", "other", "owner")...).refuses(403, "USER_NOT_MEMBER_OF_ORGANIZATION")
	create(acme, member("olga", "acme", "")...).refuses(403, "INSUFFICIENT_API_KEY_PERMISSIONS")
	create(acme, member("olga", "acme", "viewer")...).refuses(403, "INSUFFICIENT_API_KEY_PERMISSIONS")
	for _, roles := range []string{"owner", "viewer,maker", "viewer maker", "x, owner"} {
		if owner := create(acme, member("olga", "acme", roles)...).object()["referenceId"]; owner != "acme" {
			t.Errorf("%s: the key belongs to %v", roles, owner)
		}
	}
	// A configuration of users does not look at the field.
	if owner := a.post("/api-key/create", `{"organizationId":5}`, person("olga")...).object()["referenceId"]; owner != "olga" {
		t.Errorf("the key belongs to %v", owner)
	}
}

// TestQ26_SameNames: a key of an organization and one of a user whose name is the same
// are kept apart, also in the configuration of organizations.
func TestQ26_SameNames(t *testing.T) {
	a := teamAPI(t)
	team := a.mint(keyring.Draft{UserID: "org:acme", ConfigID: ptr("team"), Name: ptr("team's"), Permissions: key.Permissions{"api": {"admin"}}})
	user := a.mint(keyring.Draft{UserID: "acme", Name: ptr("user's")})
	a.sleep(time.Millisecond) // lists are sorted by time
	among := a.mint(keyring.Draft{UserID: "acme", ConfigID: ptr("team"), Name: ptr("user's in team")})

	for _, header := range [][]string{as(user), person("acme"), member("olga", "other", "owner")} {
		a.get("/api-key/get?configId=team&id="+team.Key.ID, header...).refuses(404, "KEY_NOT_FOUND")
		a.post("/api-key/update", `{"configId":"team","keyId":"`+team.Key.ID+`","name":"x"}`, header...).refuses(404, "KEY_NOT_FOUND")
		a.post("/api-key/delete", `{"configId":"team","keyId":"`+team.Key.ID+`"}`, header...).refuses(404, "KEY_NOT_FOUND")
		a.get("/api-key/list?organizationId=acme", header...).refuses(403, "USER_NOT_MEMBER_OF_ORGANIZATION")
	}
	if names := a.get("/api-key/list", as(user)...).names(); !same(names, []any{"user's", "user's in team"}) {
		t.Errorf("the user sees %v", names)
	}
	owner := member("olga", "acme", "owner")
	if names := a.get("/api-key/list?organizationId=acme", owner...).names(); !same(names, []any{"team's"}) {
		t.Errorf("the organization sees %v", names)
	}
	a.get("/api-key/get?id="+user.Key.ID, owner...).refuses(404, "KEY_NOT_FOUND")
	a.get("/api-key/get?configId=team&id="+among.Key.ID, owner...).refuses(404, "KEY_NOT_FOUND")
	if owner := a.get("/api-key/get?configId=team&id="+team.Key.ID, owner...).object()["referenceId"]; owner != "acme" {
		t.Errorf("the key of the organization belongs to %v", owner)
	}

	before := a.withdrew
	for _, path := range []string{"/get-session", "/api-key/list", "/api-key/list?limit=x"} {
		a.get(path, as(team)...).refuses(401, "INVALID_REFERENCE_ID_FROM_API_KEY")
	}
	a.post("/api-key/create", "{}", as(team)...).refuses(401, "INVALID_REFERENCE_ID_FROM_API_KEY")
	a.post("/api-key/verify", `{"key":"`+user.Raw+`"}`, as(team)...).refuses(401, "INVALID_REFERENCE_ID_FROM_API_KEY")
	if a.withdrew != before+5 {
		t.Error("a refused key is charged")
	}
}

// Each role may do what it is allowed, and nothing else.
func TestBetterAuth_organization_roles(t *testing.T) {
	a := teamAPI(t)
	mine := a.mint(keyring.Draft{UserID: "org:acme", ConfigID: ptr("team")})
	calls := map[string]func(...string) reply{
		actionCreate: func(h ...string) reply {
			return a.post("/api-key/create", `{"configId":"team","organizationId":"acme"}`, h...)
		},
		actionRead: func(h ...string) reply { return a.get("/api-key/get?configId=team&id="+mine.Key.ID, h...) },
		actionUpdate: func(h ...string) reply {
			return a.post("/api-key/update", `{"configId":"team","keyId":"`+mine.Key.ID+`","name":"x"}`, h...)
		},
		actionDelete: func(h ...string) reply {
			return a.post("/api-key/delete", `{"configId":"team","keyId":"`+mine.Key.ID+`"}`, h...)
		},
	}
	for role, may := range map[string]map[string]bool{
		"viewer": {actionRead: true}, "maker": {actionCreate: true, actionUpdate: true}, "stranger": {},
	} {
		for action, call := range calls {
			if r := call(member("olga", "acme", role)...); may[action] {
				r.object()
			} else {
				t.Log(role, action)
				r.refuses(403, "INSUFFICIENT_API_KEY_PERMISSIONS")
			}
		}
	}
	for _, action := range Actions { // delete comes last
		calls[action](member("olga", "acme", "owner")...).object()
	}
}
