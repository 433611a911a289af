package rest

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

func extended(_ *keyring.Settings, o *options) { o.Extended = true }

// TestExtended_answers holds the answers of the extended dialect against their picture:
// the fields of the plain one, and then some.
func TestExtended_answers(t *testing.T) {
	a := newAPI(t, extended, func(s *keyring.Settings, _ *options) {
		s.Tiers = []keyring.Tier{{Name: "pro", Limits: []keyring.TierLimit{{Max: 1000, Unit: keyring.Day}, {Max: 30_000, Unit: keyring.Month}}}}
		s.DefaultTier = "pro"
	})
	id := a.create(`{"name":"a","expiresIn":1800}`).ID
	if _, err := a.keys.As(keyring.Actor{Kind: keyring.ActorOperator}).Create(context.Background(), keyring.Draft{UserID: "alice", Remaining: ptr(int64(7))}); err != nil {
		t.Fatal(err)
	}
	const first = `{"_id":"ID","key":"ak_KEY...","name":"NAME","permissions":["read","write"],"tier":"pro","enabled":ENABLED,"createdAt":"TIME",` +
		`"expiresAt":"TIME","lastUsedAt":null,"remaining":null,"start":"ak_KEY"}`
	key := func(name, enabled string) string {
		return strings.NewReplacer("NAME", name, "ENABLED", enabled).Replace(first)
	}
	for _, row := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{
			"GET", "/api-keys", "", 200, `{"keys":[` + key("a", "true") + `,{"_id":"ID","key":"ak_KEY...","name":"Default Key","permissions":[],"tier":"pro","enabled":true,"createdAt":"TIME",` +
				`"expiresAt":null,"lastUsedAt":null,"remaining":7,"start":"ak_KEY"}],"nextCursor":null}`,
		},
		{"PATCH", "/api-keys/" + id, `{"name":"b"}`, 200, key("b", "true")},
		{"PATCH", "/api-keys/" + id, `{"enabled":false}`, 200, key("b", "false")},
		{"PATCH", "/api-keys/" + id, `{"enabled":true,"name":null}`, 200, key("Default Key", "true")},
		{"PATCH", "/api-keys/" + id, `{}`, 200, key("Default Key", "true")},
		{"PATCH", "/api-keys/" + id, `{"enabled":null}`, 400, `{"error":"enabled: must not be null","code":"INVALID_FIELD"}`},
		{"PATCH", "/api-keys/" + id, `{"permissions":["admin"]}`, 400, `{"error":"permissions: is unknown","code":"INVALID_FIELD"}`},
		{"PATCH", "/api-keys/none", `{}`, 404, `{"error":"key not found","code":"KEY_NOT_FOUND"}`},
		{"POST", "/api-keys/" + id + "/rotate", "", 200, `{"id":"ID","key":"ak_KEY","name":"Default Key","permissions":["read","write"],"tier":"pro","expiresAt":"TIME"}`},
		{"POST", "/api-keys/" + id + "/rotate", `{"grace":-1}`, 400, `{"error":"grace: must be an integer from 0 to 9007199254740991","code":"INVALID_FIELD"}`},
		{"POST", "/api-keys/none/rotate", "", 404, `{"error":"key not found","code":"KEY_NOT_FOUND"}`},
		{"POST", "/api-keys", `{"expiresIn":0}`, 400, `{"error":"expiresIn: must be an integer from 1 to 9007199254740991","code":"INVALID_FIELD"}`},
		{"GET", "/api-keys?limit=0", "", 400, `{"error":"limit: must be an integer from 1 to 500","code":"INVALID_FIELD"}`},
		{"GET", "/usage", "", 200, `{"tier":"pro","usage":{"today":0,"month":0},"limits":{"perDay":1000,"perMinute":null,"perMonth":30000},"remaining":null}`},
	} {
		r := a.send(row.method, "/v1/auth"+row.path, row.body)
		got := picture(r.body)
		for _, start := range startsOf(r.body) {
			got = strings.ReplaceAll(got, `"start":"`+start+`"`, `"start":"ak_KEY"`)
		}
		if r.status != row.status || got != row.want {
			t.Errorf("%s %s %s: %d\n%s\nwant %d\n%s", row.method, row.path, row.body, r.status, got, row.status, row.want)
		}
	}
}

// startsOf returns what an answer shows of raw keys.
func startsOf(body string) (all []string) {
	for _, part := range strings.Split(body, `"start":"`)[1:] {
		start, _, _ := strings.Cut(part, `"`)
		all = append(all, start)
	}
	return all
}

// TestExtended_pages lists keys page by page: each once, in the order of the whole list,
// also where the API does not serve all configurations.
func TestExtended_pages(t *testing.T) {
	other := keyring.DefaultRules()
	other.ConfigID = "other"
	a := newAPI(t, extended, func(s *keyring.Settings, o *options) {
		s.Configs, o.Configs = []keyring.Rules{other}, []string{key.DefaultConfig}
	})
	var want []string
	for range 7 {
		want = append(want, a.create("").ID)
		if _, err := a.keys.As(keyring.Actor{Kind: keyring.ActorOperator}).Create(context.Background(), keyring.Draft{UserID: "alice", ConfigID: ptr("other")}); err != nil {
			t.Fatal(err)
		}
	}
	for _, limit := range []string{"1", "3", "7", "500"} {
		var got []string
		for cursor := ""; ; {
			var page ExtendedKeys
			r := a.send("GET", "/v1/auth/api-keys?limit="+limit+"&cursor="+cursor, "")
			r.into(t, &page)
			most, err := strconv.Atoi(limit)
			if err != nil {
				t.Fatal(err)
			}
			if n := len(page.Keys); n > most || n < most && page.NextCursor != nil {
				t.Errorf("by %s: a page of %d", limit, n)
			}
			for _, k := range page.Keys {
				got = append(got, k.ID)
			}
			if page.NextCursor == nil {
				break
			}
			cursor = *page.NextCursor
		}
		if !slices.Equal(got, want) {
			t.Errorf("by %s: %v, want %v", limit, got, want)
		}
	}
	a.send("GET", "/v1/auth/api-keys?limit=1&cursor=x", "").refused(t, http.StatusBadRequest, "INVALID_FIELD", "cursor")
}

// TestExtended_expiry: silence is the default of the configuration, null its maximum.
func TestExtended_expiry(t *testing.T) {
	a := newAPI(t, extended, func(s *keyring.Settings, _ *options) {
		s.Rules.Expiration.Default, s.Rules.Expiration.Max = 60_000, 3_600_000
	})
	for body, want := range map[string]time.Duration{`{}`: time.Minute, `{"expiresIn":null}`: time.Hour, `{"expiresIn":90}`: 90 * time.Second} {
		k, err := a.keys.Get(context.Background(), a.create(body).ID)
		if err != nil {
			t.Fatal(err)
		}
		if got := time.Duration(k.Key.ExpiresAt-k.Key.CreatedAt) * time.Millisecond; got != want {
			t.Errorf("%s: %v, want %v", body, got, want)
		}
	}
	a.send("POST", "/v1/auth/api-keys", `{"expiresIn":3601}`).refused(t, http.StatusBadRequest, "EXPIRES_IN_IS_TOO_LARGE", "expiresIn")
}

// TestExtended_rotate gives nobody a raw key that opens more than they may open.
func TestExtended_rotate(t *testing.T) {
	a := newAPI(t, extended)
	mint := func(d keyring.Draft) keyring.Issued {
		t.Helper()
		made, err := a.keys.As(keyring.Actor{Kind: keyring.ActorOperator}).Create(context.Background(), d)
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	plain := mint(keyring.Draft{UserID: "alice", Permissions: key.Permissions{"api": {"read"}}})
	strong := mint(keyring.Draft{UserID: "alice", Permissions: key.Permissions{"api": {"admin"}}})
	files := mint(keyring.Draft{UserID: "alice", Permissions: key.Permissions{"files": {"read"}}})
	bobs := mint(keyring.Draft{UserID: "bob"})
	for _, row := range []struct {
		id     string
		status int
		code   string
	}{
		{plain.Key.ID, 200, ""},
		{strong.Key.ID, 403, "INSUFFICIENT_PERMISSIONS"},
		{files.Key.ID, 403, "INSUFFICIENT_PERMISSIONS"},
		{bobs.Key.ID, 404, "KEY_NOT_FOUND"},
		{"self", 404, "KEY_NOT_FOUND"}, // a person has no key
	} {
		r := a.send("POST", "/v1/auth/api-keys/"+row.id+"/rotate", `{"grace":60}`)
		if row.status != 200 {
			r.refused(t, row.status, row.code, "")
			continue
		}
		var made Rotated
		r.into(t, &made)
		info, err := a.keys.Get(context.Background(), row.id)
		if err != nil || len(info.Previous) != 1 || (info.Previous[0].Until-a.keys.Now()+500)/1000 != 60 {
			t.Errorf("the grace is not 60 s: %+v, %v", info.Previous, err)
		}
		for _, raw := range []string{made.Key, plain.Raw} {
			if d, err := a.keys.Verify(context.Background(), raw, &keyring.Request{}); err != nil || d.Outcome != keyring.Allowed {
				t.Errorf("%v %v", d.Outcome.Code(), err)
			}
		}
	}
	for _, k := range []keyring.Issued{strong, files, bobs} {
		if d, _ := a.keys.Verify(context.Background(), k.Raw, &keyring.Request{}); d.Outcome != keyring.Allowed {
			t.Errorf("a refused rotation has ended a key: %s", d.Outcome.Code())
		}
	}
	// One with limited credits gets no others.
	a.caller.Scope = &keyring.Scope{Permissions: api.Grantable(a.caller.Permissions), Metered: true, KeyID: "x"}
	a.send("POST", "/v1/auth/api-keys/"+plain.Key.ID+"/rotate", "").refused(t, 403, "INSUFFICIENT_PERMISSIONS", "limited credits")
	a.caller.Scope.KeyID = plain.Key.ID
	if r := a.send("POST", "/v1/auth/api-keys/"+plain.Key.ID+"/rotate", ""); r.status != 200 {
		t.Errorf("its own: %d %s", r.status, r.body)
	}
}
