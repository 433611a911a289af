package sqlite

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// A folding that fails is reported, loses nothing, and is made up for.
func TestFold_failureIsReported(t *testing.T) {
	var fail atomic.Bool
	reports := make(chan error, 100)
	o, err := New(Options{Path: filepath.Join(t.TempDir(), "keys.db"), Report: func(err error) { reports <- err }})
	must(t, err)
	o.hooks = hooks{beforeCommit: func() error {
		if fail.Load() {
			return errors.New("no commit today")
		}
		return nil
	}}
	opened, err := o.Open(t.Context())
	must(t, err)
	s := opened.(*Store)
	defer s.Close()
	createTest(t, s, 1, 1)
	must(t, s.SaveUsage(t.Context(), usageOf(1, 1)))
	fail.Store(true)
	s.foldNow <- struct{}{}
	for told := false; !told; {
		select {
		case err := <-reports: // the index of keys is behind as well
			if !strings.Contains(err.Error(), "no commit today") {
				t.Errorf("error %v", err)
			}
			told = strings.Contains(err.Error(), "journal")
		case <-time.After(10 * time.Second):
			t.Fatal("nothing is reported")
		}
	}
	fail.Store(false)
	checkUsage(t, s, 1, 1)
	s.foldNow <- struct{}{}
	for began := time.Now(); s.unfolded.Load() > 0; {
		if time.Since(began) > 10*time.Second {
			t.Fatalf("%d items are not folded", s.unfolded.Load())
		}
		time.Sleep(time.Millisecond)
	}
	checkUsage(t, s, 1, 1)
}

func usageOf(number int64, keys ...int) store.UsageBatch {
	b := store.UsageBatch{Writer: "w", Number: number}
	for _, n := range keys {
		b.Used = append(b.Used, store.Used{KeyID: testKey(n).ID, UserID: "alice", Day: 20261120, Uses: store.Uses{Allowed: 1}})
	}
	return b
}

func checkUsage(t *testing.T, s *Store, n int, want int64) {
	t.Helper()
	days, err := s.Usage(t.Context(), store.OfKey(testKey(n).ID), 0, 99991231)
	must(t, err)
	if len(days) != 1 || days[0].Allowed != want {
		t.Errorf("key %d: %+v, want %d", n, days, want)
	}
}

// Whoever adds to a journal that is full folds as much as is added.
func TestFold_bound(t *testing.T) {
	s := openHooked(t, hooks{})
	const keys = 300
	for n := range keys {
		createTest(t, s, n, 1)
	}
	s.maxUnfolded, s.foldPart = 50, 25
	for i := range int64(60) {
		var some []int
		for n := range 20 {
			some = append(some, (int(i)*20+n)%keys)
		}
		must(t, s.SaveUsage(t.Context(), usageOf(i+1, some...)))
		if n := s.unfolded.Load(); n > 50+21 {
			t.Fatalf("%d items are in the journal", n)
		}
	}
	for n := range keys {
		checkUsage(t, s, n, 4)
	}
	days, err := s.Usage(t.Context(), store.OfOwner("alice"), 0, 99991231)
	must(t, err)
	if len(days) != 1 || days[0].Allowed != 4*keys {
		t.Errorf("%+v", days)
	}
}

// TestFold_topOwners: as counts grow and fall, the top of a day is as if all owners of a
// folding were compared with all of it.
func TestFold_topOwners(t *testing.T) {
	s := openHooked(t, hooks{})
	const day, owners = 20261120, store.MaxTopOwners + 50
	name := func(i int) string { return fmt.Sprintf("owner%03d", i) }
	number := int64(0)
	add := func(counts map[int]int64) {
		t.Helper()
		number++
		b := store.UsageBatch{Writer: "w", Number: number}
		for i, n := range counts {
			b.Used = append(b.Used, store.Used{KeyID: name(i), UserID: name(i), Day: day, Uses: store.Uses{Allowed: n}})
		}
		must(t, s.SaveUsage(t.Context(), b))
		for more := true; more; {
			var err error
			more, err = s.foldSome(t.Context())
			must(t, err)
		}
	}
	counts := map[int]int64{}
	for i := range owners {
		k := testKey(i)
		k.ID, k.UserID = name(i), name(i)
		_, err := s.Create(t.Context(), k, key.Credits{}, store.KeyLimit{}, nil)
		must(t, err)
		counts[i] = int64(100 + i)
	}
	add(counts)
	// One rises just above the last one of the top, and one of the top falls below it.
	add(map[int]int64{49: 2, owners - 1: -140})
	top, err := s.TopOwners(t.Context(), day)
	must(t, err)
	got := map[string]int64{}
	for _, o := range top {
		got[o.UserID] = o.Allowed
	}
	if got[name(49)] != 151 || got[name(owners-2)] != int64(100+owners-2) || got[name(50)] != 150 {
		t.Errorf("%d, %d and %d", got[name(49)], got[name(owners-2)], got[name(50)])
	}
	if n, there := got[name(owners-1)]; there && n != int64(100+owners-1-140) {
		t.Errorf("one that has fallen still has %d", n)
	}
}
