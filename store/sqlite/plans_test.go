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
	for _, sort := range []store.Sort{store.SortCreatedAt, store.SortName, store.SortLastRequest, store.SortExpiresAt} {
		for _, reverse := range []bool{false, true} {
			for _, null := range []bool{false, true} {
				for _, from := range []*cursorPoint{nil, {id: "x", value: []byte("12345678")}, {id: "x", null: true}} {
					for name, f := range map[string]store.Filter{
						"all": {}, "owner": {UserID: "a"}, "config": {ConfigID: "a"}, "prefix": {Prefix: "a"}, "enabled": {Enabled: &enabled},
					} {
						for _, keys := range []int64{maxCounted, maxCounted + 1} { // that pass the filter
							l, err := newLister(store.List{Sort: sort, Reverse: reverse, Filter: f})
							must(t, err)
							l.from, l.bound = from, keys
							few := keys <= maxCounted && len(l.choices) > 0
							for i := range l.choices {
								l.use(&l.choices[i], true)
							}
							l.clearing = reverse
							if part, ok := l.part(null); ok {
								query, args := part.page(50)
								got := plan(query, args...)
								for line := range strings.SplitSeq(got, "\n") {
									// Of a table that is read in the order of an index, a bounded part is.
									wholeTable := strings.HasPrefix(line, "SCAN") && !strings.Contains(line, "USING") && line != "SCAN x"
									// Few keys, which an index has narrowed, may be sorted.
									sorted := strings.Contains(line, "TEMP B-TREE FOR ORDER BY") && !few
									if wholeTable || sorted {
										t.Errorf("%s by %s, reverse %v, null %v, cursor %v, %d keys: %q\n%s", name, sort, reverse, null, from, keys, line, got)
									}
								}
							}
						}
					}
				}
			}
		}
	}
	for _, query := range []string{
		byID, findByID, findByHash, ownerByNumber,
		ownerInfo + ` WHERE o.user_id > ? ORDER BY o.user_id LIMIT ?`,
		plainKeys, presentHashes,
		leasesOf, accountLeases,
		expiring, expiredOf, disabling, disabledOf,
		overPrevious, previousUses,
		markDeleted, deletedOwner, keysOfDeleted, pastKeysOfDeleted, inTheWay,
		`DELETE FROM {p}keys WHERE num IN ` + listed, `DELETE FROM {p}past_keys WHERE num IN ` + listed, usageOfKeys + listed,
		usageDays, keyNumbers, usageHours, topOwners, askedOf, windowsOfKey, windowsOfOwner,
		rememberKeys + `num = ?`, usageOfOwner, keptNumbers, keyCounts,
		dueDeliveries, nextDelivery, anyOld, oldPending, oldDead,
	} {
		args := make([]any, strings.Count(query, "?"))
		if query == byID || query == findByID || query == findByHash || query == ownerByNumber || query == keyNumbers || query == keptNumbers {
			args = args[:1]
		}
		if query == inTheWay {
			args = args[:2]
		}
		got := plan(query, args...)
		for line := range strings.SplitSeq(got, "\n") {
			if strings.HasPrefix(line, "SCAN") && !strings.Contains(line, "USING") && !strings.Contains(line, "CONSTANT ROW") && line != "SCAN configs" && line != "SCAN c" && !strings.Contains(line, "SCAN json_each") {
				t.Errorf("%s\n%s", query, got)
			}
		}
	}
	inOrder := []string{presentHashes, pastHashes, dueDeliveries, oldPending, oldDead}
	for moment, query := range passed {
		inOrder = append(inOrder, query)
		if got := plan(query, 1, "", 1, 1); strings.Contains(got, "SCAN") {
			t.Errorf("%s\n%s", moment, got)
		}
	}
	for _, query := range inOrder {
		args := make([]any, strings.Count(query, "?"))
		if strings.Contains(query, "?4") {
			args = args[:4]
		}
		if got := plan(query, args...); strings.Contains(got, "TEMP B-TREE") {
			t.Errorf("%s\n%s", query, got)
		}
	}
}
