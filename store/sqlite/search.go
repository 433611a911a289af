package sqlite

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"unicode/utf8"
)

// A text that is part of a name, a displayed start or an owner is found by an index of
// trigrams. To bring one key into it costs more than to store the key, and much less in
// a batch, so that it is done behind the changes: triggers note in search_todo what has
// changed, and a search looks at these keys as well.

const (
	// indexSize is how many keys one transaction indexes, which other writes wait for.
	indexSize = 500
	// gram is the length of what is indexed, in characters.
	gram = 3
	// maxGrams is how many of a text are considered, and bestGrams how many of them are
	// looked for: the rarest. What they find is held against the whole text.
	maxGrams, bestGrams = 32, 3
)

// rareGrams are up to how many keys with a trigram are counted: first few, and more where
// that does not tell which are rare.
var rareGrams = []int64{1000, 8000}

// gramsOf returns the first trigrams of a text, as expressions of FTS5.
func gramsOf(text string) (all []string) {
	runes := []rune(text)
	if !utf8.ValidString(text) {
		return nil
	}
	for i := 0; i+gram <= len(runes) && len(all) < maxGrams; i++ {
		g := `"` + strings.ReplaceAll(string(runes[i:i+gram]), `"`, `""`) + `"`
		if !slices.Contains(all, g) {
			all = append(all, g)
		}
	}
	return all
}

// search adds the keys that the index finds as a choice, if these are few. Where they are
// many, the order of the list is the better index.
func (l *lister) search(r *listReader) error {
	grams, err := r.rarest(gramsOf(l.text))
	if err != nil || len(grams) == 0 {
		return err
	}
	const query = `SELECT rowid FROM {p}key_search WHERE {p}key_search MATCH ? UNION ALL SELECT key FROM {p}search_todo LIMIT ?`
	var nums []int64
	err = eachRowOf(r.ctx, r.tx, r.stmts, query, []any{strings.Join(grams, " AND "), maxCounted + 1}, numbersTo(&nums))
	if err != nil || len(nums) > maxCounted {
		return err
	}
	c := choice{found: int64(len(nums)), tested: true}
	c.conditions.add("k.num IN "+listed, jsonNumbers(nums))
	l.choices = append(l.choices, c)
	return nil
}

// rarest returns those of some trigrams that the fewest keys have. Of those that many have,
// the last come first: what texts have in common is at their beginning more often.
func (r *listReader) rarest(grams []string) ([]string, error) {
	if len(grams) <= bestGrams {
		return grams, nil
	}
	slices.Reverse(grams)
	counts, before := map[string]int64{}, int64(0)
	for _, most := range rareGrams {
		rare := 0
		for _, g := range grams {
			if counts[g] < before {
				rare++
				continue
			}
			if rare >= bestGrams {
				break
			}
			const query = `SELECT count(*) FROM (SELECT 1 FROM {p}key_search WHERE {p}key_search MATCH ? LIMIT ?)`
			var n int64
			if err := r.one(&n, query, []any{g, most}); err != nil {
				return nil, err
			}
			counts[g] = n
		}
		before = most
	}
	slices.SortStableFunc(grams, func(a, b string) int { return cmp.Compare(counts[a], counts[b]) })
	return grams[:bestGrams], nil
}

// indexSome brings some of the changed keys into the index, and reports whether more wait.
func (s *Store) indexSome(ctx context.Context) (more bool, err error) {
	err = s.write(ctx, func(w *writerConn) error {
		for _, query := range []string{
			`DELETE FROM {p}key_search WHERE rowid IN (SELECT key FROM {p}search_todo ORDER BY key LIMIT ?)`,
			`INSERT INTO {p}key_search (rowid, name, start, owner)
				SELECT k.num, k.name, k.start, o.user_id FROM {p}keys k JOIN {p}owners o ON o.num = k.owner
				WHERE k.num IN (SELECT key FROM {p}search_todo ORDER BY key LIMIT ?)`,
			`DELETE FROM {p}search_todo WHERE key IN (SELECT key FROM {p}search_todo ORDER BY key LIMIT ?)`,
		} {
			if _, err := w.exec(query, indexSize); err != nil {
				return failed("indexing keys", err)
			}
		}
		return failed("indexing keys", w.row(`SELECT EXISTS (SELECT 1 FROM {p}search_todo)`, nil, &more))
	})
	return more, err
}
