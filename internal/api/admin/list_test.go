package admin

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
)

// names lists the names of the keys that a list shows, page by page.
func (a *rig) names(in ListKeys) (names []string, total int64) {
	a.t.Helper()
	for range 100 {
		page := must(a.ListKeys(a.t.Context(), in)).Value
		for _, k := range page.Keys {
			name := "-"
			if k.Name != nil {
				name = *k.Name
			}
			names = append(names, name)
		}
		if page.NextCursor == nil {
			return names, *page.Total
		}
		in.Cursor = page.NextCursor
	}
	a.t.Fatal("the list does not end")
	return nil, 0
}

func TestList(t *testing.T) {
	a := newAPI(t)
	raws := map[string]string{}
	for _, k := range []struct{ name, userID, prefix, more string }{
		{"b", "u/1", "ak_", ""},
		{"a%", "u/1", "ci_", `,"enabled":false`},
		{"c", "u/2", "ak_", ""},
		{"A_d", "u/2", "ci_", `,"permissions":["read"]`},
	} {
		_, raw := a.make(`{"name":"` + k.name + `","userId":"` + k.userID + `","prefix":"` + k.prefix + `"` + k.more + `}`)
		raws[k.name] = raw
		a.sleep(time.Second)
	}
	a.make(`{"userId":"u/3"}`)
	for _, name := range []string{"c", "b"} {
		a.sleep(time.Second)
		must(a.Verify(t.Context(), VerifyKey{Key: raws[name]}))
	}
	for _, test := range []struct {
		name string
		in   ListKeys
		want string
	}{
		{"all", ListKeys{}, "b a% c A_d -"},
		{"reverse", ListKeys{Sort: ptr("-createdAt")}, "- A_d c a% b"},
		{"by name", ListKeys{Sort: ptr("name")}, "A_d a% b c -"},
		{"by name, reverse", ListKeys{Sort: ptr("-name")}, "c b a% A_d -"},
		{"owner", ListKeys{UserID: ptr("u/1")}, "b a%"},
		{"nobody", ListKeys{UserID: ptr("u")}, ""},
		{"configuration", ListKeys{ConfigID: ptr("default")}, "b a% c A_d -"},
		{"other configuration", ListKeys{ConfigID: ptr("x")}, ""},
		{"enabled", ListKeys{Enabled: ptr(true)}, "b c A_d -"},
		{"disabled", ListKeys{Enabled: ptr(false)}, "a%"},
		{"prefix", ListKeys{Prefix: ptr("ci_")}, "a% A_d"},
		{"part of a prefix", ListKeys{Prefix: ptr("ci")}, ""},
		{"part of the name", ListKeys{Query: ptr("a")}, "b a% c A_d -"}, // "ak_" of the start too
		{"percent", ListKeys{Query: ptr("%")}, "a%"},
		{"underscore", ListKeys{Query: ptr("a_")}, "A_d"},
		{"start", ListKeys{Query: ptr(raws["c"][:6])}, "c"},
		{"both", ListKeys{UserID: ptr("u/2"), Prefix: ptr("ci_")}, "A_d"},
	} {
		t.Run(test.name, func(t *testing.T) {
			want := strings.Fields(test.want)
			for _, limit := range []*int64{nil, ptr(int64(1)), ptr(int64(2)), ptr(int64(500))} {
				test.in.Limit = limit
				got, total := a.names(test.in)
				if !slices.Equal(got, want) || total != int64(len(want)) {
					t.Errorf("got %v of %d, want %v", got, total, want)
				}
			}
		})
	}
}

// TestListFilters: every filter of the query, and what is refused of it.
func TestListFilters(t *testing.T) {
	a := newAPI(t)
	began := a.now()
	at := func(d time.Duration) *api.Time {
		when := api.TimeOf(began.Add(d).UnixMilli())
		return &when
	}
	for _, k := range []struct{ name, userID, more string }{
		{"old", "alice", `,"permissions":["files:read"]`},
		{"ends", "alice", `,"expiresIn":60,"permissions":["files:*"]`},
		{"empty", "bob", `,"remaining":0`},
		{"off", "bob", `,"enabled":false,"permissions":["*:*"]`},
		{"new", "carol@example.com", `,"expiresIn":3600`},
	} {
		id, raw := a.make(`{"name":"` + k.name + `","userId":"` + k.userID + `"` + k.more + `}`)
		if k.name == "old" {
			must(a.Verify(t.Context(), VerifyKey{Key: raw}))
		}
		if k.name == "empty" {
			a.sleep(time.Minute)
			must(a.RotateKey(t.Context(), id, RotateKey{}))
		}
		a.sleep(time.Second)
	}
	for _, test := range []struct {
		name string
		in   ListKeys
		want string
	}{
		{"part of the owner", ListKeys{Query: ptr("CAROL@")}, "new"},
		{"active", ListKeys{State: ptr("active")}, "old new"},
		{"disabled", ListKeys{State: ptr("disabled")}, "off"},
		{"expired", ListKeys{State: ptr("expired")}, "ends"},
		{"exhausted", ListKeys{State: ptr("exhausted")}, "empty"},
		{"permission", ListKeys{Permission: ptr("files:read")}, "old ends off"},
		{"wildcard", ListKeys{Permission: ptr("files:*")}, "ends off"},
		{"expires before", ListKeys{ExpiresBefore: at(10 * time.Minute)}, "ends"},
		{"unused since", ListKeys{UnusedSince: at(time.Hour)}, "old ends empty off new"},
		{"unused since the first use", ListKeys{UnusedSince: at(500 * time.Millisecond)}, "old"},
		{"unused since before", ListKeys{UnusedSince: at(-time.Hour)}, ""},
		{"unused for a while", ListKeys{UnusedSince: at(1500 * time.Millisecond)}, "old ends"},
		{"created before", ListKeys{CreatedBefore: at(30 * time.Second)}, "old ends empty"},
		{"rotated before", ListKeys{RotatedBefore: at(30 * time.Second)}, "old ends"},
		{"by end", ListKeys{Sort: ptr("expiresAt")}, "ends new old empty off"},
		{"by end, reverse", ListKeys{Sort: ptr("-expiresAt")}, "new ends off empty old"},
		{"several", ListKeys{State: ptr("active"), Query: ptr("e"), Sort: ptr("expiresAt")}, "new old"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got, total := a.names(test.in); strings.Join(got, " ") != test.want || total != int64(len(got)) {
				t.Errorf("got %v of %d, want %s", got, total, test.want)
			}
		})
	}
	for query, field := range map[string]string{
		"tier=gold": "tier", "tier=": "tier", "permission=a,b": "permission", "permission=": "permission", "state=dead": "state", "state=Active": "state",
		"expiresBefore=soon": "expiresBefore", "unusedSince=2026-11-26": "unusedSince", "createdBefore=1": "createdBefore", "rotatedBefore=9999999-01-01T00:00:00Z": "rotatedBefore",
		"sort=expires": "sort", "state=active&state=expired": "state",
	} {
		a.send("GET", "/apikey/keys?"+query, "").refused(t, 400, "INVALID_FIELD", field)
	}
}

func TestListIsNeverNull(t *testing.T) {
	a := newAPI(t)
	if got := string(a.send("GET", "/apikey/keys", "").body); got != `{"keys":[],"total":0,"nextCursor":null}`+"\n" {
		t.Error(got)
	}
	if got := string(a.send("GET", "/apikey/owners", "").body); got != `{"owners":[],"nextCursor":null}`+"\n" {
		t.Error(got)
	}
}

func TestCursors(t *testing.T) {
	a := newAPI(t)
	for range 3 {
		a.make(`{"userId":"u","name":"é/?&="}`)
	}
	page := must(a.ListKeys(t.Context(), ListKeys{Limit: ptr(int64(1)), Sort: ptr("name")})).Value
	cursor := *page.NextCursor
	if strings.Trim(cursor, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~") != "" {
		t.Errorf("cursor %q is not URL-safe", cursor)
	}
	a.send("GET", "/apikey/keys?sort=name&cursor="+cursor, "").want(t, 200)
	for _, query := range []string{"sort=-name&cursor=" + cursor, "cursor=" + cursor, "sort=name&cursor=" + cursor[1:]} {
		a.send("GET", "/apikey/keys?"+query, "").refused(t, 400, "INVALID_FIELD", "cursor")
	}
}

// TestDefaultLimit: 50, unless the caller says otherwise.
func TestDefaultLimit(t *testing.T) {
	a := newAPI(t)
	for range 51 {
		a.make(`{"userId":"u"}`)
	}
	page := must(a.ListKeys(t.Context(), ListKeys{})).Value
	if len(page.Keys) != 50 || *page.Total != 51 || page.NextCursor == nil {
		t.Errorf("%d keys of %d", len(page.Keys), *page.Total)
	}
}
