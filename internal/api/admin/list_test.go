package admin

import (
	"slices"
	"strings"
	"testing"
	"time"
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
			return names, page.Total
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
	if len(page.Keys) != 50 || page.Total != 51 || page.NextCursor == nil {
		t.Errorf("%d keys of %d", len(page.Keys), page.Total)
	}
}
