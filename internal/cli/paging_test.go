package cli

import (
	"encoding/json"
	"errors"
	"slices"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
)

func TestAllPages(t *testing.T) {
	var limit *int64
	var cursor *string
	var asked []string
	get := func() (a admin.Answer[admin.OwnerList], err error) {
		next := ""
		if cursor != nil {
			next = *cursor
		}
		asked = append(asked, next)
		a.Raw = json.RawMessage(map[string]string{
			"":  `{"owners":[{"userId":"a","extra":1.0},{"userId":"<"}],"nextCursor":"x"}`,
			"x": `{"owners":[],"nextCursor":"y"}`,
			"y": `{"owners":[{"userId":"c"}],"nextCursor":null}`,
		}[next])
		return a, json.Unmarshal(a.Raw, &a.Value)
	}
	a, err := fetch(&paging{&limit, &cursor, true}, "owners", get)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"", "x", "y"}; !slices.Equal(asked, want) || *limit != maxPage {
		t.Errorf("cursors: got %q, want %q; limit %d", asked, want, *limit)
	}
	var names []string
	for _, o := range a.Value.Owners {
		names = append(names, o.UserID)
	}
	if want := []string{"a", "<", "c"}; !slices.Equal(names, want) || a.Value.NextCursor != nil {
		t.Errorf("owners: got %q, want %q", names, want)
	}
	const want = `{"owners":[{"userId":"a","extra":1.0},{"userId":"<"},{"userId":"c"}],"nextCursor":null}`
	if string(a.Raw) != want {
		t.Errorf("got  %s\nwant %s", a.Raw, want)
	}
}

// TestAllPagesAsSent: one page is repeated to the byte.
func TestAllPagesAsSent(t *testing.T) {
	for _, page := range []string{
		`{"keys":[],"total":0,"nextCursor":null}`,
		`{"keys":[{"id":"1","metadata":{"b":"< &","a":1.50}}],"total":1,"nextCursor":null}`,
	} {
		var limit *int64
		var cursor *string
		get := func() (a admin.Answer[admin.KeyList], err error) {
			return admin.Answer[admin.KeyList]{Raw: []byte(page)}, nil
		}
		a, err := fetch(&paging{&limit, &cursor, true}, "keys", get)
		if err != nil || string(a.Raw) != page {
			t.Errorf("%v, got %s", err, a.Raw)
		}
	}
}

func TestAllPagesStopsAtAnError(t *testing.T) {
	gone := errors.New("gone")
	var limit *int64
	var cursor *string
	get := func() (a admin.Answer[admin.OwnerList], err error) { return a, gone }
	if _, err := fetch(&paging{&limit, &cursor, true}, "owners", get); !errors.Is(err, gone) {
		t.Errorf("got %v", err)
	}
}
