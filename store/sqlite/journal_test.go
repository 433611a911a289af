package sqlite

import (
	"context"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// TestFold_crash breaks off in the middle of foldings, by copies of the files as a
// crash leaves them: every increment counts exactly once, before and after.
func TestFold_crash(t *testing.T) {
	s := openHooked(t, hooks{})
	const keys = 30
	for n := range keys {
		createTest(t, s, n, 1)
	}
	want := map[string]store.Uses{}
	var asked []store.Asked
	r := rand.New(rand.NewPCG(1, 2))
	number := int64(0)
	save := func(s *Store) {
		t.Helper()
		number++
		b := store.UsageBatch{Writer: "w", Number: number, Asked: asked}
		for range 40 {
			u := store.Used{KeyID: testKey(r.IntN(keys)).ID, UserID: "alice", Day: 20261120 + r.Int32N(3), Uses: store.Uses{Allowed: r.Int64N(9), Limited: r.Int64N(3)}}
			b.Used = append(b.Used, u)
			sum := want[u.KeyID]
			sum.Add(u.Uses)
			want[u.KeyID] = sum
			all := want["alice"]
			all.Add(u.Uses)
			want["alice"] = all
		}
		b.Hours = []store.HourUses{{Hour: 5, Outcome: "allowed", N: 1}}
		must(t, s.SaveUsage(t.Context(), b))
		must(t, s.SaveUsage(t.Context(), b)) // its answer was lost
	}
	check := func(s *Store) {
		t.Helper()
		for id, sum := range want {
			of := store.OfKey(id)
			if id == "alice" {
				of = store.OfOwner(id)
			}
			days, err := s.Usage(t.Context(), of, 0, 99991231)
			must(t, err)
			var got store.Uses
			for _, d := range days {
				got.Add(d.Uses)
			}
			if got != sum {
				t.Fatalf("%s: %+v, want %+v", id, got, sum)
			}
		}
		hours, err := s.Hours(t.Context(), 0, 9)
		must(t, err)
		if len(hours) != 1 || hours[0].N != number {
			t.Fatalf("%+v after %d batches", hours, number)
		}
		top, err := s.TopOwners(t.Context(), 20261120)
		must(t, err)
		days, err := s.Usage(t.Context(), store.OfOwner("alice"), 20261120, 20261120)
		must(t, err)
		if len(top) != 1 || top[0].Uses != days[0].Uses {
			t.Fatalf("%+v, want %+v", top, days)
		}
	}
	for round := range 12 {
		save(s)
		save(s)
		check(s)
		s.foldPart = 7 + round
		more, err := s.foldSome(t.Context())
		must(t, err)
		if !more {
			t.Fatal("the first part was all")
		}
		check(s)
		save(s)
		if round%2 == 0 {
			_, err := s.foldSome(t.Context())
			must(t, err)
		}
		check(s)
		if round%3 == 0 {
			s = crash(t, s)
			check(s)
		}
		for more := true; more; check(s) {
			s.foldPart = 50
			more, err = s.foldSome(t.Context())
			must(t, err)
		}
	}
	s.foldPart = foldSize
	for more := true; more; {
		var err error
		more, err = s.foldSome(t.Context())
		must(t, err)
	}
	check(s)
	must(t, s.write(t.Context(), func(w *writerConn) error {
		var left int
		err := w.row("SELECT (SELECT count(*) FROM {p}usage_journal) + (SELECT count(*) FROM {p}usage_fold)", nil, &left)
		if left != 0 {
			t.Errorf("%d rows are left in the journal", left)
		}
		return err
	}))
}

// crash opens the files of a store as they are, elsewhere.
func crash(t *testing.T, s *Store) *Store {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys.db")
	must(t, s.write(context.Background(), func(*writerConn) error { // nobody writes now
		for _, suffix := range []string{"", "-wal", lockSuffix} {
			content, err := readByAnother(s.path + suffix)
			if err != nil {
				return err
			}
			if err := os.WriteFile(path+suffix, content, fileMode); err != nil {
				return err
			}
		}
		return nil
	}))
	o, err := New(Options{Path: path})
	must(t, err)
	opened, err := o.Open(t.Context())
	must(t, err)
	t.Cleanup(func() { _ = opened.Close() })
	return opened.(*Store)
}

// readByAnother reads a file of an open database by another process: in this one,
// closing it would drop the locks.
func readByAnother(path string) ([]byte, error) { return exec.Command("cat", path).Output() } //nolint:gosec // a test's own path

func TestBatch_form(t *testing.T) {
	b := &journalBatch{
		used: []journalUse{
			{1, 9, 20261121, store.Uses{Allowed: key.MaxCount, Limited: -5}}, {7, 3, 20251231, store.Uses{Denied: 1}}, {7, 4, 20261121, store.Uses{}},
		},
		hours: []store.HourUses{{Hour: 500_000, Outcome: "allowed", Tier: "gold", N: 3}, {}},
		asked: []journalAsked{{1 << 40, "files:read"}},
	}
	raw := b.encode()
	got, err := decodeBatch(raw)
	if err != nil || !reflect.DeepEqual(got, b) {
		t.Fatalf("%+v, %v", got, err)
	}
	for i := range raw {
		if _, err := decodeBatch(raw[:i]); err == nil {
			t.Errorf("the first %d of %d bytes are read", i, len(raw))
		}
	}
	unknown := []byte(string(raw[:3]) + "bllowed" + string(raw[10:]))
	if _, err := decodeBatch(unknown); err == nil {
		t.Error("a count of an unknown name is read")
	}
	if n := len((&journalBatch{used: make([]journalUse, 1000)}).encode()) / 1000; n > 8 {
		t.Errorf("%d bytes an increment", n)
	}
}
