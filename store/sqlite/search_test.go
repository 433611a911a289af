package sqlite

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// found returns the IDs of all keys that a list has, page by page, and its total.
func found(t *testing.T, s *Store, q store.List) (ids []string, pages int, total int64) {
	t.Helper()
	for {
		page, err := s.List(t.Context(), q)
		must(t, err)
		for _, e := range page.Entries {
			ids = append(ids, e.Key.ID)
		}
		pages, total = pages+1, page.Total
		if q.Cursor = page.Next; q.Cursor == "" {
			return ids, pages, total
		}
	}
}

// TestSearch compares what the index finds with what every key says, while keys are made,
// renamed, moved and deleted, before and after they are indexed.
func TestSearch(t *testing.T) {
	s := openHooked(t, hooks{})
	r := rand.New(rand.NewPCG(1, 2))
	texts := []string{"alpha", "ALPHABET", "betalpha", `a"b"c`, "100%", "under_score", "Ünïcödé", "日本語テキスト", "x", "", "a b c", "AND OR NOT", "*", "aaa", "aaaa"}
	owners := []string{"alice@example.com", "bob", "al", "日本"}
	keys := map[string]*key.Key{}
	change := func() {
		n := r.IntN(60)
		id := testKey(n).ID
		k := testKey(n)
		k.Name, k.UserID = &texts[r.IntN(len(texts))], owners[r.IntN(len(owners))]
		switch old := keys[id]; {
		case old == nil:
			_, err := s.Create(t.Context(), k, key.Credits{}, store.KeyLimit{}, nil)
			must(t, err)
			keys[id] = k
		case r.IntN(3) == 0:
			_, err := s.Delete(t.Context(), id, nil)
			must(t, err)
			delete(keys, id)
		default:
			_, err := s.Update(t.Context(), id, func(e *store.Entry) error {
				e.Key = e.Key.Clone()
				e.Key.Name, e.Key.UserID = k.Name, k.UserID
				return nil
			}, nil)
			must(t, err)
			keys[id] = k
		}
	}
	fold := func(text string) string { // ASCII letters only
		return strings.Map(func(c rune) rune {
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			return c
		}, text)
	}
	for round := range 40 {
		for range 20 {
			change()
		}
		for more := round%3 != 0; more; {
			var err error
			more, err = s.indexSome(t.Context())
			must(t, err)
		}
		for _, text := range []string{"alpha", "pha", "ALPH", `"b"`, "0%", "r_s", "nïc", "本語テ", "xyz", "a b", "OR N", "aaa", "aaaa", "example", "alice@example.com", "al", "%%%", strings.Repeat("alpha", 20)} {
			var want []string
			for id, k := range keys {
				if strings.Contains(fold(*k.Name), fold(text)) || strings.Contains(fold(k.UserID), fold(text)) || k.Start != nil && strings.Contains(fold(*k.Start), fold(text)) {
					want = append(want, id)
				}
			}
			got, _, total := found(t, s, store.List{Filter: store.Filter{Query: text}, Limit: 7})
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) || total != int64(len(want)) {
				t.Fatalf("round %d, %q: %v, total %d, want %v", round, text, got, total, want)
			}
		}
	}
}

// TestD5_Examined: what no index serves costs a page a bounded number of keys, and paging
// still finds every key once.
func TestD5_Examined(t *testing.T) {
	defer func(n int) { maxExamined = n }(maxExamined)
	maxExamined = 10
	s := openHooked(t, hooks{})
	var want []string
	for i := range 100 {
		k := testKey(i)
		k.CreatedAt = now + int64(i)
		if i%40 == 7 {
			k.Permissions = key.Permissions{"files": {"read"}}
			want = append(want, k.ID)
		}
		if i%2 == 0 {
			k.ExpiresAt, k.Name = now+int64(1000-i), nil
		}
		_, err := s.Create(t.Context(), k, key.Credits{}, store.KeyLimit{}, nil)
		must(t, err)
	}
	for _, by := range []store.Sort{store.SortCreatedAt, store.SortName, store.SortLastRequest, store.SortExpiresAt} {
		for _, reverse := range []bool{false, true} {
			ids, pages, _ := found(t, s, store.List{Filter: store.Filter{Permission: &key.Permission{Resource: "files", Action: "read"}}, Sort: by, Reverse: reverse, Limit: 50})
			slices.Sort(ids)
			if !slices.Equal(ids, want) || pages < 10 || pages > 14 {
				t.Errorf("by %s, reverse %v: %v in %d pages, want %v", by, reverse, ids, pages, want)
			}
		}
	}
}

// BenchmarkList lists pages of a store with many keys:
//
//	go test ./store/sqlite -run - -bench List -benchtime 20x
func BenchmarkList(b *testing.B) {
	s := openHooked(b, hooks{})
	const keys = 200_000
	for begin := 0; begin < keys; begin += 1000 {
		var batch []store.Entry
		for i := begin; i < begin+1000; i++ {
			k := testKey(i)
			name := fmt.Sprintf("service %d of team %d", i, i%97)
			k.Name, k.UserID, k.CreatedAt = &name, fmt.Sprintf("user-%d", i/20), now+int64(i)
			batch = append(batch, store.Entry{Key: k})
		}
		_, err := s.Import(b.Context(), batch, nil)
		must(b, err)
	}
	for more := true; more; {
		var err error
		more, err = s.indexSome(b.Context())
		must(b, err)
	}
	enabled := true
	for _, q := range []struct {
		name string
		store.List
	}{
		{"created", store.List{}},
		{"owner", store.List{Filter: store.Filter{UserID: "user-77"}, Sort: store.SortName}},
		{"enabled by name", store.List{Filter: store.Filter{Enabled: &enabled}, Sort: store.SortName}},
		{"one text", store.List{Filter: store.Filter{Query: "service 123456"}, Sort: store.SortName}},
		{"broad text", store.List{Filter: store.Filter{Query: "service"}, Sort: store.SortName}},
		{"text of 2,000", store.List{Filter: store.Filter{Query: "team 33"}, Sort: store.SortName}},
		{"short text, none", store.List{Filter: store.Filter{Query: "~~"}}},
		{"permission, none", store.List{Filter: store.Filter{Permission: &key.Permission{Resource: "no", Action: "such"}}}},
		{"state, none", store.List{Filter: store.Filter{State: store.StateExhausted, Now: now}, Sort: store.SortExpiresAt}},
	} {
		b.Run(q.name, func(b *testing.B) {
			q.Limit = 50
			for b.Loop() {
				if _, err := s.List(b.Context(), q.List); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
