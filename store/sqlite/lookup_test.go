package sqlite

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// heldLookups takes the connections of look-ups away until release is called.
func heldLookups(s *Store) (release func()) {
	q := s.lookups
	q.mu.Lock()
	held := q.free
	q.free = nil
	q.mu.Unlock()
	return sync.OnceFunc(func() {
		for _, f := range held {
			q.release(f)
		}
	})
}

func (q *lookups) counts() (waiting, free int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting), len(q.free)
}

func waitLookups(t *testing.T, s *Store, n int) {
	t.Helper()
	for {
		if waiting, _ := s.lookups.counts(); waiting >= n {
			return
		}
		if t.Context().Err() != nil {
			t.Fatal("nobody waits")
		}
		runtime.Gosched()
	}
}

func TestLookups_share(t *testing.T) {
	s := openHooked(t, hooks{})
	for i := range 40 {
		createTest(t, s, i, int64(i)+1)
	}
	release := heldLookups(s)
	defer release()
	before := s.lookups.batches.Load()
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			e, err := s.Find(t.Context(), testKey(i).Hash)
			if err != nil || e.Key.ID != testKey(i).ID || e.Credits.Remaining != int64(i)+1 {
				t.Errorf("key %d: %+v, %v", i, e.Key, err)
			}
		})
	}
	waitLookups(t, s, 40)
	release()
	wg.Wait()
	if n := s.lookups.batches.Load() - before; n > 6 { // 3, or a few more where the end was scattered
		t.Errorf("40 look-ups took %d transactions", n)
	}
}

// What is wrong with one key is the error of who looked for it.
func TestLookups_failAlone(t *testing.T) {
	s := openHooked(t, hooks{})
	for i := range 10 {
		createTest(t, s, i, 1)
	}
	must(t, s.write(t.Context(), func(w *writerConn) error {
		_, err := w.exec(`INSERT INTO owners (user_id, enabled, created_at, updated_at, revision) VALUES ('bob', 1, 1, 1, 1)`)
		if err == nil {
			_, err = w.exec(`UPDATE keys SET owner = (SELECT num FROM owners WHERE user_id = 'bob') WHERE id = ?`, testKey(3).ID)
		}
		return err
	}))
	release := heldLookups(s)
	defer release()
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			_, err := s.Find(t.Context(), testKey(i).Hash)
			var want error
			switch {
			case i == 3:
				want = store.ErrUnavailable
			case i >= 10:
				want = store.ErrNotFound
			}
			if !errors.Is(err, want) {
				t.Errorf("key %d: %v, want %v", i, err, want)
			}
		})
	}
	waitLookups(t, s, 12)
	release()
	wg.Wait()
}

// A caller that does not wait any more is freed, whether it would have led or not, and
// takes no connection along.
func TestLookups_callerGone(t *testing.T) {
	s := openHooked(t, hooks{})
	createTest(t, s, 1, 1)
	release := heldLookups(s)
	defer release()
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error, 20)
	for range 20 {
		go func() { _, err := s.Find(ctx, testKey(1).Hash); errs <- err }()
	}
	waitLookups(t, s, 20)
	cancel()
	for range 20 {
		if err := <-errs; !errors.Is(err, context.Canceled) || !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("error %v", err)
		}
	}
	release()
	for range 300 {
		release := heldLookups(s)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for i := range 20 {
			ctx := ctx
			if i%3 == 0 {
				ctx = t.Context()
			}
			wg.Go(func() {
				if _, err := s.Find(ctx, testKey(1).Hash); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			})
		}
		waitLookups(t, s, 20)
		wg.Go(cancel)
		release()
		wg.Wait()
		if waiting, free := s.lookups.counts(); waiting != 0 || free != finderCount {
			t.Fatalf("%d look-ups wait, %d connections are free", waiting, free)
		}
	}
}

// Where reading is slow, as from a disk that has to be read, nobody waits for the look-ups
// that share the transaction and come later.
func TestLookups_slow(t *testing.T) {
	s := openHooked(t, hooks{})
	const n = 8
	for i := range n {
		createTest(t, s, i, 1)
	}
	var read int
	answered := make(chan error, n)
	s.lookups.reading = func(*lookup) {
		switch read++; {
		case read <= 2:
			for began := time.Now(); time.Since(began) <= slowBatch; {
				runtime.Gosched()
			}
		case read > 3: // the second one and the third can be answered
			if err := <-answered; err != nil {
				t.Error(err)
			}
		}
	}
	other := s.lookups.free[1]
	s.lookups.free = s.lookups.free[:1] // so that there is one batch
	defer s.lookups.release(other)
	release := heldLookups(s)
	defer release()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			_, err := s.Find(t.Context(), testKey(i).Hash)
			answered <- err
		})
	}
	waitLookups(t, s, n)
	release()
	wg.Wait()
}

// A panic while a batch is read is the batch's error, and the connection is not used again.
func TestLookups_panic(t *testing.T) {
	s := openHooked(t, hooks{})
	createTest(t, s, 1, 1)
	for _, f := range s.lookups.free {
		f.batch = []*lookup{nil}
		if err := s.lookups.read(f); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("error %v", err)
		}
		if f.db != 0 {
			t.Error("the connection is kept")
		}
	}
	for range 3 {
		_, err := s.Find(t.Context(), testKey(1).Hash)
		must(t, err)
	}
}

// Whoever looks a key up after its owner was changed sees the change, whatever other
// look-ups read meanwhile.
func TestLookups_ownerChanges(t *testing.T) {
	s := openHooked(t, hooks{})
	for i := range 32 {
		createTest(t, s, i, 1)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			for ctx.Err() == nil {
				_, _ = s.Find(ctx, testKey(i).Hash)
			}
		})
	}
	defer wg.Wait()
	defer cancel()
	for n := range 500 {
		tier := fmt.Sprint("tier ", n)
		change, err := s.PutOwner(t.Context(), "alice", now, func(o *key.Owner) error { o.Tier = &tier; return nil }, nil)
		must(t, err)
		e, err := s.Find(t.Context(), testKey(n%32).Hash)
		must(t, err)
		if e.Owner.Tier == nil || *e.Owner.Tier != tier || e.Owner.Revision != change.Revision {
			t.Fatalf("after change %d: %+v", n, e.Owner)
		}
	}
}

// An owner that was read before a change that has ended since is not kept.
func TestOwnerCache(t *testing.T) {
	var c ownerCache
	old := ownerRecord{user: 1, revision: 1}
	before := c.changes()
	c.forget([]int64{7})
	c.put(7, &old, before)
	if _, ok := c.get(7); ok {
		t.Error("an old owner is kept")
	}
	c.put(7, &old, c.changes())
	if _, ok := c.get(7); !ok {
		t.Error("an owner is not kept")
	}
	c.forget([]int64{allOwners})
	if _, ok := c.get(7); ok {
		t.Error("an owner is kept after many changes")
	}
	for i := range int64(cachedOwners + 10) {
		c.put(i+1, &old, c.changes())
	}
	if n := len(c.records); n > cachedOwners {
		t.Errorf("%d owners are kept", n)
	}
}
