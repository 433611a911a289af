package sqlite

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	sqlite3 "modernc.org/sqlite/lib"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

const now int64 = 1_800_000_000_000

func openHooked(t testing.TB, h hooks) *Store {
	t.Helper()
	o, err := New(Options{Path: filepath.Join(t.TempDir(), "keys.db")})
	must(t, err)
	o.hooks = h
	o.hooks.noTidying = true // it would write as well
	s, err := o.Open(t.Context())
	must(t, err)
	t.Cleanup(func() {
		if err := s.Close(); err != nil && !errors.Is(err, store.ErrClosed) {
			t.Error(err)
		}
	})
	return s.(*Store)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func testKey(n int) *key.Key {
	return &key.Key{
		ID: fmt.Sprintf("%024x", n), ConfigID: key.DefaultConfig, UserID: "alice",
		Hash: key.HashOf(fmt.Sprint(n)), Enabled: true, CreatedAt: now, UpdatedAt: now,
	}
}

func createTest(t *testing.T, s *Store, n int, credits int64) {
	t.Helper()
	_, err := s.Create(t.Context(), testKey(n), key.NewCredits(&credits, 0, 0, now), store.KeyLimit{}, nil)
	must(t, err)
}

// held stops the writer inside a job until release is called, so that what is
// submitted meanwhile becomes one batch.
func held(t *testing.T, s *Store) (release func()) {
	t.Helper()
	inside, free := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- s.write(context.Background(), func(*writerConn) error {
			close(inside)
			<-free
			return nil
		})
	}()
	<-inside
	return sync.OnceFunc(func() {
		close(free)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// waitBacklog waits until n jobs are in the queue.
func waitBacklog(t *testing.T, s *Store, n int) {
	t.Helper()
	for len(s.writer.queue) < n {
		if t.Context().Err() != nil {
			t.Fatal("the queue never filled")
		}
		select {
		case <-t.Context().Done():
		default:
			yieldNow()
		}
	}
}

func TestGroupCommit(t *testing.T) {
	s := openHooked(t, hooks{})
	createTest(t, s, 1, 1000)
	createTest(t, s, 2, 1000)
	release := held(t, s)
	before := s.writer.commits.Load()
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			if _, err := s.MoveCredits(t.Context(), store.OfKey(testKey(1+i%2).ID), key.Move{Take: 1}, now); err != nil {
				t.Error(err)
			}
		})
	}
	waitBacklog(t, s, 200)
	release()
	wg.Wait()
	if n := s.writer.commits.Load() - before; n != 2 { // the held job's, and one for all
		t.Errorf("200 debits took %d commits", n-1)
	}
	for n := 1; n <= 2; n++ {
		e, err := s.Get(t.Context(), testKey(n).ID)
		must(t, err)
		if e.Credits.Remaining != 900 || e.Credits.Version != 101 {
			t.Errorf("key %d: %+v", n, e.Credits)
		}
	}
}

// TestBatch_failedJobHarmsNobody puts failing writes of all kinds between
// writes that are right, in one transaction.
func TestBatch_failedJobHarmsNobody(t *testing.T) {
	s := openHooked(t, hooks{})
	createTest(t, s, 1, 1000)
	release := held(t, s)
	before := s.writer.commits.Load()
	mine := errors.New("mine")
	var wg sync.WaitGroup
	var queuedNow int
	submit := func(want error, f func() error) {
		wg.Go(func() {
			if err := f(); !errors.Is(err, want) || (want == nil && err != nil) {
				t.Errorf("error %v, want %v", err, want)
			}
		})
		queuedNow++
		waitBacklog(t, s, queuedNow) // keeps the order
	}
	take := func() error {
		_, err := s.MoveCredits(t.Context(), store.OfKey(testKey(1).ID), key.Move{Take: 1}, now)
		return err
	}
	update := func(end func() error) func() error {
		return func() error {
			_, err := s.Update(t.Context(), testKey(1).ID, func(e *store.Entry) error {
				e.Credits, _ = e.Credits.Add(100, now)
				return end()
			}, nil)
			return err
		}
	}
	submit(nil, take)
	submit(mine, update(func() error { return mine }))
	submit(nil, take)
	submit(store.ErrExists, func() error {
		_, err := s.Create(t.Context(), testKey(1), key.Credits{}, store.KeyLimit{}, nil)
		return err
	})
	submit(nil, func() error {
		_, err := s.Create(t.Context(), testKey(2), key.Credits{}, store.KeyLimit{}, nil)
		return err
	})
	submit(store.ErrNotFound, func() error {
		_, err := s.MoveCredits(t.Context(), store.OfKey("nobody"), key.Move{Take: 1}, now)
		return err
	})
	submit(nil, take)
	submit(store.ErrUnavailable, func() error { // a CHECK in the middle of a job that had written
		return s.write(t.Context(), func(w *writerConn) error {
			if _, err := w.exec("UPDATE {p}accounts SET remaining = 5, granted = spent + 5"); err != nil {
				return err
			}
			_, err := w.exec("UPDATE {p}accounts SET remaining = -5, granted = spent - 5")
			return failed("test", err)
		})
	})
	submit(nil, update(func() error { return nil }))
	submit(nil, take)
	submit(store.ErrNotFound, func() error { _, err := s.Delete(t.Context(), "nobody", nil); return err })
	submit(nil, func() error { // a panic, which is its caller's
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		return s.write(t.Context(), func(w *writerConn) error {
			if _, err := w.exec("UPDATE {p}accounts SET remaining = 7, granted = spent + 7"); err != nil {
				return err
			}
			panic("mine")
		})
	})
	submit(nil, take)
	release()
	wg.Wait()
	if n := s.writer.commits.Load() - before; n != 2 {
		t.Errorf("%d commits, want one for all", n-1)
	}
	e, err := s.Get(t.Context(), testKey(1).ID)
	must(t, err)
	if e.Credits.Remaining != 1000-5+100 {
		t.Errorf("%d credits are left", e.Credits.Remaining)
	}
	_, err = s.Get(t.Context(), testKey(2).ID)
	must(t, err)
}

func TestCommitFails(t *testing.T) {
	var fail atomic.Bool
	s := openHooked(t, hooks{beforeCommit: func() error {
		if fail.Load() {
			return errors.New("no commit today")
		}
		return nil
	}})
	createTest(t, s, 1, 1000)
	fail.Store(true)
	release := held(t, s)
	_ = release
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			var err error
			if i%2 == 0 {
				_, err = s.MoveCredits(t.Context(), store.OfKey(testKey(1).ID), key.Move{Take: 1}, now)
			} else {
				_, err = s.Create(t.Context(), testKey(100+i/4), key.Credits{}, store.KeyLimit{}, nil) // half of them exist by then
			}
			if !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("error %v", err)
			}
		})
	}
	waitBacklog(t, s, 20)
	fail.Store(false) // the held job itself may pass
	failAfter := sync.OnceFunc(func() { fail.Store(true) })
	s.writer.hooks.beforeCommit = func() error {
		if fail.Load() {
			return errors.New("no commit today")
		}
		failAfter()
		return nil
	}
	release()
	wg.Wait()
	fail.Store(false)
	e, err := s.Get(t.Context(), testKey(1).ID)
	must(t, err)
	st, err := s.Health(t.Context())
	must(t, err)
	if e.Credits.Remaining != 1000 || st.Keys != 1 {
		t.Errorf("something of a failed batch is stored: %+v, %d keys", e.Credits, st.Keys)
	}
	got, err := s.MoveCredits(t.Context(), store.OfKey(testKey(1).ID), key.Move{Take: 1}, now)
	must(t, err)
	if got.Credits.Remaining != 999 || got.Credits.Version != 2 {
		t.Errorf("the next batch does not start clean: %+v", got)
	}
}

// TestF2_doubt loses trust in the connection, as a failed fsync does, and
// checks that no write passes before a new connection has proved itself.
func TestF2_doubt(t *testing.T) {
	s := openHooked(t, hooks{})
	createTest(t, s, 1, 1000)
	must(t, s.write(t.Context(), func(w *writerConn) error { s.writer.doubt = errors.New("fsync failed"); return nil }))
	old := s.writer.conn.db
	got, err := s.MoveCredits(t.Context(), store.OfKey(testKey(1).ID), key.Move{Take: 1}, now)
	must(t, err)
	if got.Credits.Remaining != 999 {
		t.Errorf("%+v", got)
	}
	must(t, s.write(t.Context(), func(w *writerConn) error {
		if w.db == old {
			t.Error("the connection is the old one")
		}
		var sync, keys int
		if err := w.row("PRAGMA synchronous", nil, &sync); err != nil {
			return err
		}
		if err := w.row("PRAGMA foreign_keys", nil, &keys); err != nil {
			return err
		}
		if sync != 2 || keys != 1 {
			t.Errorf("synchronous %d, foreign keys %d", sync, keys)
		}
		return nil
	}))
}

func TestCallerGone(t *testing.T) {
	s := openHooked(t, hooks{})
	createTest(t, s, 1, 10)
	release := held(t, s)
	defer release()
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error, 2)
	go func() { _, err := s.MoveCredits(ctx, store.OfKey(testKey(1).ID), key.Move{Take: 1}, now); errs <- err }()
	go func() {
		_, err := s.Create(ctx, testKey(2), key.Credits{}, store.KeyLimit{}, nil)
		errs <- err
	}()
	waitBacklog(t, s, 2)
	cancel()
	for range 2 {
		if err := <-errs; !errors.Is(err, store.ErrUnavailable) || !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "nothing was written") {
			t.Errorf("error %v", err)
		}
	}
	release()
	_, err := s.Get(t.Context(), testKey(2).ID) // read after the queue has run: Health goes through it
	if _, healthErr := s.Health(t.Context()); healthErr != nil {
		t.Error(healthErr)
	}
	if !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a key whose caller was told that nothing was written: %v", err)
	}
	e, err := s.Get(t.Context(), testKey(1).ID)
	must(t, err)
	if e.Credits.Remaining != 10 {
		t.Errorf("%d credits left", e.Credits.Remaining)
	}
}

func TestQueueIsBounded(t *testing.T) {
	s := openHooked(t, hooks{})
	createTest(t, s, 1, 1_000_000)
	release := held(t, s)
	defer release()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range queueSize + 50 {
		wg.Go(func() { _, _ = s.MoveCredits(ctx, store.OfKey(testKey(1).ID), key.Move{Take: 1}, now) })
	}
	waitBacklog(t, s, queueSize)
	cancel()
	wg.Wait() // also those who found no room
}

func TestReadersCannotWrite(t *testing.T) {
	s := openHooked(t, hooks{})
	createTest(t, s, 1, 10)
	for _, q := range []string{
		"DELETE FROM keys", "UPDATE accounts SET remaining = 99", "CREATE TABLE x (y)", "PRAGMA user_version = 5",
		"INSERT INTO owners (user_id, enabled, created_at, updated_at, revision) VALUES ('x', 1, 1, 1, 1)",
	} {
		if _, err := s.readers.db.Exec(q); primaryCode(err) != sqlite3.SQLITE_READONLY {
			t.Errorf("%s: error %v", q, err)
		}
	}
}

func TestConnectionSettings(t *testing.T) {
	s := openHooked(t, hooks{})
	must(t, s.write(t.Context(), func(w *writerConn) error {
		for pragma, want := range map[string]string{
			"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "5000",
			"application_id": fmt.Sprint(ApplicationID), "trusted_schema": "0", "cell_size_check": "1",
		} {
			var got string
			if err := w.row("PRAGMA "+pragma, nil, &got); err != nil {
				return err
			}
			if got != want {
				t.Errorf("%s = %s, want %s", pragma, got, want)
			}
		}
		return nil
	}))
}

// TestLostUpdateGuard shows that the guard on the version holds by itself.
func TestLostUpdateGuard(t *testing.T) {
	s := openHooked(t, hooks{})
	createTest(t, s, 1, 10)
	err := s.write(t.Context(), func(w *writerConn) error {
		of, err := findAccount(w, store.OfKey(testKey(1).ID))
		if err != nil {
			return err
		}
		c, err := readCredits(w, of)
		if err != nil {
			return err
		}
		c.Version++
		if err := writeCredits(w, of, c, 1); err != nil {
			return err
		}
		return writeCredits(w, of, c, 1) // read before the first write
	})
	if !errors.Is(err, errLostUpdate) || !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("error %v", err)
	}
}
