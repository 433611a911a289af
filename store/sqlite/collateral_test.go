package sqlite_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
	"github.com/caddy-apikey/caddy-apikey/store/sqlite"
)

// TestA6_collateral compares every cell of every table around each call.
func TestA6_collateral(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	s := sqlite.OpenUntidied(t, path)
	t.Cleanup(func() { must(t, s.Close()) })
	for n := range 6 {
		k := newKey(n)
		k.UserID = []string{"alice", "bob"}[n%2]
		k.Previous = []key.PreviousKey{{Hash: key.HashOf(fmt.Sprint("former ", n)), Until: now + 1000}}
		k.ExpiresAt = now + 5000
		credits := int64(10)
		if _, err := s.Create(t.Context(), k, key.NewCredits(&credits, 20, 1000, now), store.KeyLimit{}, nil); err != nil {
			t.Fatal(err)
		}
	}
	id := func(n int) string { return newKey(n).ID }
	change := func(n int, f func(*store.Entry)) error {
		_, err := s.Update(t.Context(), id(n), func(e *store.Entry) error {
			e.Key = e.Key.Clone()
			f(e)
			return nil
		}, nil)
		return err
	}
	row := func(table, id string, columns ...string) (cells []string) {
		for _, c := range columns {
			cells = append(cells, table+"/"+id+"/"+c)
		}
		return cells
	}
	whole := func(table, id string) []string { return []string{table + "/" + id + "/*"} }
	join := func(lists ...[]string) (all []string) {
		for _, l := range lists {
			all = append(all, l...)
		}
		return all
	}
	counts := func(state string) []string { return row("key_counts", "default "+state, "n") }
	everything := func(n int) []string {
		return join(whole("keys", id(n)), whole("accounts", id(n)), whole("previous_hashes", hashText(fmt.Sprint("former ", n))))
	}
	ctx := t.Context()
	db := readOnly(t, path)
	defer db.Close()
	for _, step := range []struct {
		name string
		call func() error
		want []string

		changes bool // takes a revision
	}{
		{"reads", func() error {
			_, _ = s.Get(ctx, id(1))
			_, _ = s.Find(ctx, newKey(1).Hash)
			_, _ = s.List(ctx, store.List{Sort: store.SortName})
			_, _ = s.Owners(ctx, 9, "")
			_, _ = s.HasPlainKeys(ctx)
			_, err := s.Health(ctx)
			return err
		}, nil, false},
		{"take", func() error { _, err := s.MoveCredits(ctx, store.OfKey(id(1)), key.Move{Take: 3}, now); return err }, row("accounts", id(1), "remaining", "spent", "version"), false},
		{"refused take", func() error {
			_, err := s.MoveCredits(ctx, store.OfKey(id(1)), key.Move{Take: 99}, now+9000)
			return err
		}, nil, false},
		{"take nothing", func() error { _, err := s.MoveCredits(ctx, store.OfKey(id(1)), key.Move{Take: 0}, now); return err }, nil, false},
		{"give", func() error { _, err := s.MoveCredits(ctx, store.OfKey(id(1)), key.Move{Give: 1}, now); return err }, row("accounts", id(1), "remaining", "spent", "version"), false},
		{"take with refill", func() error {
			_, err := s.MoveCredits(ctx, store.OfKey(id(1)), key.Move{Take: 3}, now+1000)
			return err
		}, row("accounts", id(1), "remaining", "spent", "granted", "peak", "last_refill_at", "version"), false},
		{"lease", func() error {
			_, err := s.MoveCredits(ctx, store.OfKey(id(1)), key.Move{Lease: 1, Holder: key.Holder{Name: "here"}}, now)
			return err
		}, join(row("accounts", id(1), "remaining", "leased", "version"), whole("leases", id(1))), false},
		{"forfeit", func() error { _, err := s.ForfeitLeases(ctx, "here", nil); return err }, join(row("accounts", id(1), "leased", "forfeited", "version"), whole("leases", id(1))), false},
		{"forfeit nothing", func() error { _, err := s.ForfeitLeases(ctx, "here", nil); return err }, nil, false},
		{"counters", func() error {
			return s.SaveCounters(ctx, []store.Counters{
				{Subject: store.OfKey(id(2)), LastRequest: now, Windows: []store.Window{{Unit: store.UnitRate, State: []byte("x")}}}, {Subject: store.OfKey("nobody"), LastRequest: now},
			})
		}, join(whole("last_uses", id(2)), whole("windows", "key "+id(2))), false},
		{"counters of previous keys", func() error {
			return s.SaveCounters(ctx, []store.Counters{{Subject: store.OfKey(id(4)), LastRequest: now, Previous: []store.PreviousUse{
				{Hash: key.HashOf("former 4"), LastRequest: now}, {Hash: key.HashOf("former 5"), LastRequest: now},
			}}})
		}, join(whole("last_uses", id(4)), row("previous_hashes", hashText("former 4"), "last_request")), false},
		{"usage", func() error {
			return s.SaveUsage(ctx, store.UsageBatch{Writer: "w", Number: 1, Used: []store.Used{
				{KeyID: id(0), UserID: "alice", Day: 20261121, Uses: store.Uses{Allowed: 1}},
				{KeyID: id(1), UserID: "bob", Day: 20261121, Uses: store.Uses{Allowed: 1}},
				{KeyID: id(1), UserID: "nobody", Day: 20261121, Uses: store.Uses{Allowed: 1}},
			}})
		}, join(whole("usage_journal", "1"), whole("usage_writers", "w")), false},
		{"more usage", func() error {
			return s.SaveUsage(ctx, store.UsageBatch{Writer: "w", Number: 2, Used: []store.Used{
				{KeyID: id(1), UserID: "bob", Day: 20261121, Uses: store.Uses{Allowed: -1, Denied: 1}},
			}})
		}, join(whole("usage_journal", "2"), row("usage_writers", "w", "number")), false},
		{"the same usage again", func() error {
			return s.SaveUsage(ctx, store.UsageBatch{Writer: "w", Number: 2, Used: []store.Used{
				{KeyID: id(1), UserID: "bob", Day: 20261121, Uses: store.Uses{Allowed: 1}},
			}})
		}, nil, false},
		{"owner counters", func() error {
			return s.SaveCounters(ctx, []store.Counters{
				{Subject: store.OfOwner("alice"), Windows: []store.Window{{Unit: "day", State: []byte("x")}}},
				{Subject: store.OfOwner("nobody"), Windows: []store.Window{{Unit: "day", State: []byte("x")}}},
			})
		}, whole("windows", "owner alice"), false},
		{"disable", func() error { return change(2, func(e *store.Entry) { e.Key.Enabled = false }) }, join(row("keys", id(2), "enabled", "doc", "revision"), counts("enabled"), whole("key_counts", "default disabled")), true},
		{"no change", func() error { return change(2, func(*store.Entry) {}) }, nil, false},
		{"top up", func() error { return change(2, func(e *store.Entry) { e.Credits, _ = e.Credits.Add(5, now) }) }, join(row("accounts", id(2), "remaining", "granted", "peak", "version"), row("keys", id(2), "revision")), true},
		{"move", func() error { return change(2, func(e *store.Entry) { e.Key.UserID = "carol" }) }, join(row("keys", id(2), "owner", "doc", "revision"), whole("owners", "carol"), row("owners", "alice", "key_count")), true},
		{"rotate", func() error {
			return change(3, func(e *store.Entry) {
				e.Key.Previous = append(e.Key.Previous[:1:1], key.PreviousKey{Hash: e.Key.Hash, Until: now})
				e.Key.Hash = key.HashOf("rotated")
			})
		}, join(row("keys", id(3), "hash", "doc", "revision"), whole("previous_hashes", hashText("raw key 3"))), true},
		{"owner", func() error {
			_, err := s.PutOwner(ctx, "bob", now+5, func(o *key.Owner) error { o.Enabled = false; return nil }, nil)
			return err
		}, row("owners", "bob", "enabled", "updated_at", "revision"), true},
		{"create", func() error { _, err := s.Create(ctx, newKey(9), key.Credits{}, store.KeyLimit{}, nil); return err }, join(whole("keys", id(9)), counts("enabled"), row("owners", "alice", "key_count")), true},
		{"refused create", func() error {
			k := newKey(10)
			k.Hash = newKey(9).Hash
			k.UserID = "dave"
			_, _ = s.Create(ctx, k, key.Credits{}, store.KeyLimit{}, nil)
			return nil
		}, nil, false},
		{"import", func() error {
			_, err := s.Import(ctx, []store.Entry{{Key: newKey(9)}, {Key: newKey(11), LastRequest: now}, {Key: newKey(1)}}, nil)
			return err
		}, join(whole("keys", id(11)), whole("last_uses", id(11)), counts("enabled"), row("owners", "alice", "key_count")), true},
		{"import of what exists", func() error {
			_, err := s.Import(ctx, []store.Entry{{Key: newKey(9)}, {Key: newKey(11)}}, nil)
			return err
		}, nil, false},
		{"delete", func() error { _, err := s.Delete(ctx, id(9), nil); return err }, join(whole("keys", id(9)), whole("past_keys", id(9)), counts("enabled"), row("owners", "alice", "key_count")), true},
		{"nothing expired", func() error { _, err := s.DeleteExpired(ctx, expiredBefore(now), 9, nil); return err }, nil, false},
		{
			"delete owner", func() error { _, err := s.DeleteOwner(ctx, "alice", nil); return err },
			join(whole("owners", "alice"), whole("owners", "<nil>"), whole("windows", "owner alice"), whole("windows", "<nil>")), true,
		},
		{"clear its keys", func() error { _, err := s.Clear(ctx); return err }, join(everything(0), everything(4), whole("last_uses", id(4)),
			whole("keys", id(11)), whole("last_uses", id(11)), row("owners", "<nil>", "key_count"), counts("enabled")), false},
		{"clear its past keys", func() error { _, err := s.Clear(ctx); return err }, whole("past_keys", id(9)), false},
		{"clear the rest", func() error { _, err := s.Clear(ctx); return err }, join(whole("owners", "<nil>"), whole("windows", "<nil>")), false},
		{"nothing to clear", func() error { _, err := s.Clear(ctx); return err }, nil, false},
	} {
		before := dump(t, db)
		if err := step.call(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		diff := cells(before, dump(t, db))
		if step.changes {
			step.want = append(step.want, row("revision", "1", "last")...)
		}
		used := map[string]bool{}
		for cell := range diff {
			table := cell[:strings.LastIndex(cell, "/")] + "/*"
			switch {
			case slices.Contains(step.want, cell):
				used[cell] = true
			case slices.Contains(step.want, table):
				used[table] = true
			default:
				t.Errorf("%s changed %s", step.name, cell)
			}
		}
		for _, w := range step.want {
			if !used[w] {
				t.Errorf("%s did not change %s", step.name, w)
			}
		}
	}
}

// hashText is how dump names a row whose first column is a hash.
func hashText(raw string) string {
	h := key.HashOf(raw)
	return fmt.Sprint(h[:])
}
