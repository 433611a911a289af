package cli

import (
	"encoding/json"
	"errors"
	"slices"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
)

func TestAllPages(t *testing.T) {
	type list = admin.OwnerList
	var asked []string
	fetch := func(cursor *string) (a admin.Answer[list], err error) {
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
	var names []string
	items, err := allPages("owners", fetch, func(page list) *string {
		for _, o := range page.Owners {
			names = append(names, o.UserID)
		}
		return page.NextCursor
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"", "x", "y"}; !slices.Equal(asked, want) {
		t.Errorf("cursors: got %q, want %q", asked, want)
	}
	if want := []string{"a", "<", "c"}; !slices.Equal(names, want) {
		t.Errorf("owners: got %q, want %q", names, want)
	}
	const want = `{"owners":[{"userId":"a","extra":1.0},{"userId":"<"},{"userId":"c"}],"nextCursor":null}`
	if got := joinPages("owners", items, nil); string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	total := int64(0)
	if got := joinPages("keys", nil, &total); string(got) != `{"keys":[],"total":0,"nextCursor":null}` {
		t.Errorf("got %s", got)
	}
}

func TestAllPagesStopsAtAnError(t *testing.T) {
	gone := errors.New("gone")
	fetch := func(*string) (a admin.Answer[admin.OwnerList], err error) { return a, gone }
	if _, err := allPages("owners", fetch, nil); !errors.Is(err, gone) {
		t.Errorf("got %v", err)
	}
}
