package sqlite

import (
	"runtime"
	"strings"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/store"
)

func yieldNow() { runtime.Gosched() }

// TestPlans checks that no page, look-up or clean-up reads or sorts a whole
// table (bar D5): the engine must find an index for each.
func TestPlans(t *testing.T) {
	s := openHooked(t, hooks{})
	plan := func(query string, args ...any) string {
		t.Helper()
		rows, err := s.readers.db.Query("EXPLAIN QUERY PLAN "+s.readers.stmts.sql(query), args...)
		must(t, err)
		defer rows.Close()
		var lines []string
		for rows.Next() {
			var a, b, c int
			var line string
			must(t, rows.Scan(&a, &b, &c, &line))
			lines = append(lines, line)
		}
		must(t, rows.Err())
		return strings.Join(lines, "\n")
	}
	enabled := true
	for _, sort := range []store.Sort{store.SortCreatedAt, store.SortName, store.SortLastRequest} {
		for _, reverse := range []bool{false, true} {
			for _, null := range []bool{false, true} {
				for _, from := range []*cursorPoint{nil, {id: "x", value: []byte("12345678")}, {id: "x", null: true}} {
					for name, f := range map[string]store.Filter{
						"all": {}, "owner": {UserID: "a"}, "config": {ConfigID: "a"}, "prefix": {Prefix: "a"}, "enabled": {Enabled: &enabled},
					} {
						l, err := newLister(store.List{Sort: sort, Reverse: reverse, Filter: f})
						must(t, err)
						l.from = from
						query, args, ok := l.part(null, 50)
						if !ok {
							continue
						}
						got := plan(query, args...)
						for line := range strings.SplitSeq(got, "\n") {
							wholeTable := strings.HasPrefix(line, "SCAN") && !strings.Contains(line, "USING")
							// What an index has narrowed may be sorted.
							sorted := strings.Contains(line, "TEMP B-TREE FOR ORDER BY") && (sort == store.SortCreatedAt || name == "all")
							if wholeTable || sorted {
								t.Errorf("%s by %s, reverse %v, null %v, cursor %v:\n%s", name, sort, reverse, null, from, got)
							}
						}
					}
				}
			}
		}
	}
	for _, query := range []string{
		byID, byHash,
		ownerInfo + ` WHERE o.user_id > ? ORDER BY o.user_id LIMIT ?`,
		plainKeys,
		leasesOf, accountLeases,
		expiring, expiredOf,
		overPrevious, previousUses,
		keysOfOwner,
		`DELETE FROM {p}owners WHERE user_id = ?`,
		usageDays, keyNumbers, usageHours, topOwners, askedOf, windowsOfKey, windowsOfOwner,
		rememberKeys + `id = ?`, usageOfOwner,
	} {
		args := make([]any, strings.Count(query, "?"))
		if query == byHash || query == byID || query == keyNumbers || query == usageOfOwner {
			args = args[:1]
		}
		got := plan(query, args...)
		for line := range strings.SplitSeq(got, "\n") {
			if strings.HasPrefix(line, "SCAN") && !strings.Contains(line, "USING") && !strings.Contains(line, "CONSTANT ROW") && line != "SCAN configs" {
				t.Errorf("%s\n%s", query, got)
			}
		}
	}
}
