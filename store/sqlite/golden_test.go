package sqlite_test

import (
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/ratelimit"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// The golden database is one that this version has made, with every kind of key and
// owner. All later versions must read from it what is written below. Before the
// first release, a change of the schema makes it anew:
//
//	go test ./store/sqlite -run TestGolden -update
//
// After that it stays as it is, and a schema that follows gets a file of its own.
const golden = "testdata/golden.db"

var update = flag.Bool("update", false, "make the golden database anew")

// goldenKeys are the keys of the golden database, with what is stored beside them.
func goldenKeys() (all []store.Entry) {
	add := func(c key.Credits, last int64, windows []store.Window, change func(*key.Key)) {
		k := newKey(len(all))
		k.Hash = key.HashOf("golden_" + k.ID) // TestR7_golden in e2e sends these raw keys
		k.Checksummed = true
		change(k)
		all = append(all, store.Entry{Key: k, Credits: c, LastRequest: last, Windows: windows})
	}
	limited := func(n int64) key.Credits { return key.NewCredits(&n, 0, 0, now) }
	add(key.Credits{}, 0, nil, func(*key.Key) {})
	add(key.Credits{}, 0, nil, func(k *key.Key) { // nothing and empty are kept apart
		k.Name, k.Prefix, k.Start = ptr(""), ptr(""), ptr("")
		k.Permissions, k.AllowedIPs, k.Metadata = key.Permissions{}, []netip.Prefix{}, json.RawMessage(`{}`)
		k.Checksummed = false
	})
	var state ratelimit.State
	state.Take(ratelimit.Policy{Algorithm: ratelimit.SlidingWindow, Max: 100, Window: 60_000}, now, 7)
	window, _ := state.AppendBinary(nil)
	secret := key.HashOf("secret")
	add(key.Credits{
		Limited: true, Remaining: 7, Spent: 90, Forfeited: 3, Granted: 100, Peak: 70, Reported: 80,
		Unit: key.UnitTokens, RefillAmount: 50, RefillInterval: 86_400_000, RefillFrom: now - 5, LastRefillAt: now - 4,
	}, now+9, []store.Window{{Unit: "60000ms", State: []byte{1}}, {Unit: store.UnitRate, State: window}}, func(k *key.Key) {
		k.ConfigID, k.UserID = "other", "Ünïcode 👩‍👩‍👧 владелец"
		k.Name, k.Prefix, k.Start = ptr("naïve \u202eRTL\u202c 名前 '; DROP TABLE keys; -- \"%_\\"), ptr("ak_"), ptr("ak_012345678")
		k.SecretHash = &secret
		k.Previous = []key.PreviousKey{
			{Hash: key.HashOf("golden_before"), Until: now - 9},
			{Hash: key.HashOf("golden_last"), Start: "ak_987654321", Until: key.MaxTime, Checksummed: true, LastRequest: now + 3},
		}
		k.Permissions = key.Permissions{"files": {"write", "read"}, "*": {"*"}, "none": {}}
		k.Metadata = json.RawMessage(`{ "z": 1.50, "a" :[null, "\u0000", "é", 12345678901234567890] }`)
		k.AllowedIPs = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::1/128")}
		k.ExpiresAt, k.RotatedAt, k.UpdatedAt = key.MaxTime, now+2, now+1
		k.RateLimitEnabled, k.RateLimitMax, k.RateLimitTimeWindow = true, key.MaxCount, key.MaxCount
		k.RateLimitAlgorithm = ratelimit.SlidingWindow
	})
	for _, by := range []key.DisabledBy{key.DisabledByOwner, key.DisabledByOperator, key.DisabledByLeak} {
		add(limited(0), 0, nil, func(k *key.Key) { k.Enabled, k.DisabledBy = false, by })
	}
	add(limited(key.MaxCount), 1, nil, func(k *key.Key) {
		k.RateLimitMax, k.RateLimitTimeWindow, k.RateLimitAlgorithm = 5, 1000, ratelimit.TokenBucket
	})
	return all
}

func goldenOwners() []store.OwnerEntry {
	return []store.OwnerEntry{
		{
			Owner:   key.Owner{UserID: "alice", Tier: ptr("gold"), CreatedAt: now, UpdatedAt: now + 1},
			Windows: []store.Window{{Unit: "60000ms", State: []byte{1, 2}}, {Unit: "month", State: []byte{3}}},
		},
		{Owner: key.Owner{UserID: "nobody's", Enabled: true, CreatedAt: now, UpdatedAt: now}},
	}
}

var goldenUsage = []store.Used{
	{KeyID: newKey(0).ID, UserID: "alice", Day: 20261121, Uses: store.Uses{Allowed: 1, Limited: 2, Denied: 3}},
	{KeyID: "deleted", UserID: "alice", Day: 20261122, Uses: store.Uses{Allowed: 4}},
}

var (
	goldenHours = []store.HourUses{{Hour: 500_000, Outcome: "allowed", Tier: "gold", N: 3}}
	goldenAsked = []store.Asked{{KeyID: newKey(0).ID, Permission: "files:read"}}
)

// The account of an owner, with a hold, a debt and a lease.
var (
	goldenLeased  = store.OfOwner("nobody's")
	goldenLease   = store.Lease{Holder: key.Holder{Name: "here", Epoch: 3, Until: now}, Amount: 5}
	goldenCredits = key.Credits{
		Limited: true, Remaining: 78, Leased: 5, Held: 7, Debt: 1, Spent: 11, Granted: 100, Peak: 100,
		Unit: key.UnitUSD, Version: 3,
	}
)

func ptr[T any](v T) *T { return &v }

func makeGolden(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	s := open(t, path)
	_, err := s.ImportOwners(t.Context(), goldenOwners(), nil)
	must(t, err)
	_, err = s.Import(t.Context(), goldenKeys(), nil)
	must(t, err)
	deleted := newKey(99)
	deleted.ID = "deleted"
	_, err = s.Create(t.Context(), deleted, key.Credits{}, store.KeyLimit{}, nil)
	must(t, err)
	_, err = s.Delete(t.Context(), deleted.ID, nil)
	must(t, err)
	_, err = s.UpdateAccount(t.Context(), goldenLeased, func(c *key.Credits) error {
		*c = key.Credits{Limited: true, Remaining: 90, Debt: 1, Spent: 11, Granted: 100, Peak: 100, Unit: key.UnitUSD}
		return nil
	})
	must(t, err)
	_, err = s.MoveCredits(t.Context(), goldenLeased, key.Move{Hold: 7, Lease: 5, Holder: goldenLease.Holder}, now)
	must(t, err)
	// The first batch is folded by the next start, the second stays in the journal.
	must(t, s.SaveUsage(t.Context(), store.UsageBatch{Writer: "w", Number: 6, Used: goldenUsage[:1], Hours: goldenHours, Asked: goldenAsked}))
	must(t, s.Close())
	s = open(t, path)
	for query(t, path, "SELECT count(*) FROM usage_journal") != "0" {
		time.Sleep(time.Millisecond)
	}
	must(t, s.SaveUsage(t.Context(), store.UsageBatch{Writer: "w", Number: 7, Used: goldenUsage[1:]}))
	must(t, s.Close())
	content, err := os.ReadFile(path)
	must(t, err)
	must(t, os.MkdirAll(filepath.Dir(golden), 0o755))
	must(t, os.WriteFile(golden, content, 0o644))
}

// copyOfGolden keeps SQLite from making files beside the golden database.
func copyOfGolden(t *testing.T) (path string) {
	t.Helper()
	content, err := os.ReadFile(golden)
	must(t, err)
	path = filepath.Join(t.TempDir(), "keys.db")
	must(t, os.WriteFile(path, content, 0o600))
	return path
}

func TestGolden(t *testing.T) {
	if *update {
		makeGolden(t)
	}
	s := open(t, copyOfGolden(t))
	defer s.Close()
	ctx := t.Context()

	owners := map[string]store.OwnerEntry{}
	for _, o := range goldenOwners() {
		owners[o.UserID] = o
		got, err := s.Owner(ctx, o.UserID)
		must(t, err)
		windows, err := s.Windows(ctx, store.OfOwner(o.UserID))
		must(t, err)
		o.Revision = got.Revision
		if !reflect.DeepEqual(got.Owner, o.Owner) || !reflect.DeepEqual(windows, o.Windows) {
			t.Errorf("owner %s: %+v with %+v", o.UserID, got.Owner, windows)
		}
	}
	want := goldenKeys()
	page, err := s.List(ctx, store.List{Limit: 500})
	must(t, err)
	if len(page.Entries) != len(want) {
		t.Fatalf("%d keys, want %d", len(page.Entries), len(want))
	}
	for _, w := range want {
		i := slices.IndexFunc(page.Entries, func(e store.Entry) bool { return e.Key.ID == w.Key.ID })
		if i < 0 {
			t.Errorf("key %s is missing", w.Key.ID)
			continue
		}
		hashes := []key.Hash{w.Key.Hash}
		for _, p := range w.Key.Previous {
			hashes = append(hashes, p.Hash)
		}
		got := []store.Entry{page.Entries[i]}
		for _, h := range hashes {
			e, err := s.Find(ctx, h)
			must(t, err)
			got = append(got, e)
		}
		if o, ok := owners[w.Key.UserID]; ok {
			w.Owner = o.Owner
		} else {
			w.Owner = key.Owner{UserID: w.Key.UserID, Enabled: true, CreatedAt: w.Key.CreatedAt, UpdatedAt: w.Key.CreatedAt}
		}
		for _, e := range got {
			e.Key.Revision, e.Credits.Version, e.Owner.Revision = 0, 0, 0
			for _, d := range []struct{ got, want any }{{*e.Key, *w.Key}, {e.Credits, w.Credits}, {e.LastRequest, w.LastRequest}, {e.Windows, w.Windows}, {e.Owner, w.Owner}} {
				if !reflect.DeepEqual(d.got, d.want) {
					t.Errorf("key %s:\n%+v, want\n%+v", w.Key.ID, d.got, d.want)
				}
			}
		}
	}
	for _, u := range goldenUsage {
		days, err := s.Usage(ctx, store.OfKey(u.KeyID), 0, 99991231)
		must(t, err)
		if want := []store.DayUses{{Day: u.Day, Uses: u.Uses}}; !slices.Equal(days, want) {
			t.Errorf("usage of %s: %+v", u.KeyID, days)
		}
	}
	must(t, s.SaveUsage(ctx, store.UsageBatch{Writer: "w", Number: 7, Used: goldenUsage})) // written before
	days, err := s.Usage(ctx, store.OfOwner("alice"), 0, 99991231)
	must(t, err)
	if len(days) != 2 || days[0].Denied != 3 {
		t.Errorf("usage of the owner: %+v", days)
	}
	if a, err := s.Account(ctx, goldenLeased); err != nil || len(a.Leases) != 1 || a.Leases[0] != goldenLease || a.Credits != goldenCredits {
		t.Errorf("%+v, %v", a, err)
	}
	statistics := s.(store.Statistics)
	hours, err := statistics.Hours(ctx, 0, 1<<40)
	must(t, err)
	asked, err := statistics.AskedPermissions(ctx, newKey(0).ID)
	must(t, err)
	top, err := statistics.TopOwners(ctx, 20261121)
	must(t, err)
	if !slices.Equal(hours, goldenHours) || !slices.Equal(asked, []string{"files:read"}) || len(top) != 1 || top[0].UserID != "alice" {
		t.Errorf("hours %+v, asked for %v, owners %+v", hours, asked, top)
	}
}

// TestGolden_names: what is written is written by name.
func TestGolden_names(t *testing.T) {
	doc := query(t, copyOfGolden(t), "SELECT group_concat(doc) FROM keys")
	for _, name := range []string{`"disabledBy":"leak"`, `"rateLimitAlgorithm":"sliding_window"`, `"rateLimitAlgorithm":"token_bucket"`} {
		if !strings.Contains(doc, name) {
			t.Errorf("%s is not written", name)
		}
	}
}
