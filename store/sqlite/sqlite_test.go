package sqlite_test

import (
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/caddy-apikey/caddy-apikey/store"
	"github.com/caddy-apikey/caddy-apikey/store/sqlite"
	"github.com/caddy-apikey/caddy-apikey/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Opener {
		o, err := sqlite.New(sqlite.Options{Path: filepath.Join(t.TempDir(), "keys.db")})
		if err != nil {
			t.Fatal(err)
		}
		return o
	})
}

// TestQ39_besideDeleted runs the suite beside the rows of deleted owners that have the same
// names, keys, hashes and counters, and which nothing clears.
func TestQ39_besideDeleted(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Opener {
		o, err := sqlite.New(sqlite.Options{Path: filepath.Join(t.TempDir(), "keys.db")})
		if err != nil {
			t.Fatal(err)
		}
		return &sqlite.UntidiedOpener{Opener: o, LeaveDeleted: storetest.LeaveDeleted}
	})
}

func TestStore_prefixed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	o, err := sqlite.New(sqlite.Options{Path: path, TablePrefix: "My_"})
	must(t, err)
	s, err := o.Open(t.Context())
	must(t, err)
	made := create(t, s, 1, 5)
	page, err := s.List(t.Context(), store.List{Sort: store.SortLastRequest})
	must(t, err)
	if len(page.Entries) != 1 || page.Entries[0].Key.ID != made.Key.ID {
		t.Errorf("%+v", page)
	}
	must(t, s.Close())
	if got := query(t, path, "SELECT count(*) FROM sqlite_schema WHERE name NOT LIKE 'My\\_%' ESCAPE '\\' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"); got != "0" {
		t.Errorf("%s names without the prefix", got)
	}
}

// expiredBefore is the same time for keys of all configurations.
func expiredBefore(t int64) store.Expired {
	return store.Expired{Before: func(string) int64 { return t }, Previous: t}
}
