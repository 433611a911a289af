package sqlite_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
	"github.com/caddy-apikey/caddy-apikey/store/sqlite"
)

func backuper(s store.Store) store.Backuper { return s.(store.Backuper) }

// save writes a backup of a store to a file, and checks that nothing is left of the copy.
func save(t *testing.T, s store.Store, db, to string) {
	t.Helper()
	b, err := backuper(s).Backup(t.Context())
	must(t, err)
	info, err := os.Stat(db + ".sending")
	must(t, err)
	if info.Mode().Perm() != 0o600 || info.Size() != b.Size {
		t.Errorf("the copy has mode %o and %d bytes, want %d", info.Mode().Perm(), info.Size(), b.Size)
	}
	content, err := io.ReadAll(b)
	must(t, err)
	must(t, b.Close())
	if int64(len(content)) != b.Size {
		t.Errorf("%d bytes, want %d", len(content), b.Size)
	}
	write(t, to, string(content))
	absent(t, db+".sending")
}

func absent(t *testing.T, paths ...string) {
	t.Helper()
	for _, path := range paths {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is there (%v)", path, err)
		}
	}
}

// restoreTo puts a backup in the place of a database.
func restoreTo(t *testing.T, path, backup string) (r *sqlite.Restore, kept string) {
	t.Helper()
	r, err := opener(t, path).Restore(t.Context(), backup)
	must(t, err)
	kept, err = r.Finish()
	must(t, err)
	must(t, r.Close())
	absent(t, path+".restoring", path+"-wal", path+"-shm")
	info, err := os.Stat(path)
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the restored database has mode %o", info.Mode().Perm())
	}
	return r, kept
}

// balanced checks that no credit was made, and none has vanished.
func balanced(t *testing.T, c key.Credits) {
	t.Helper()
	if c.Granted != c.Remaining+c.Leased+c.Held+c.Spent+c.Forfeited+c.Expired-c.Debt {
		t.Errorf("the credits do not add up: %+v", c)
	}
}

// TestF10_backupWhileWriting makes backups while keys are made and credits are taken, and
// restores each elsewhere.
func TestF10_backupWhileWriting(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "keys.db")
	s := open(t, path)
	const granted = 1 << 30
	create(t, s, 0, granted)
	// It takes so many steps to copy that writes come in between: a copy that they made
	// begin anew would never end.
	var large []store.Entry
	for n := range 500 {
		k := newKey(1<<20 + n)
		k.Metadata = []byte(`{"m":"` + strings.Repeat("x", 16_000) + `"}`)
		large = append(large, store.Entry{Key: k})
	}
	_, err := s.Import(t.Context(), large, nil)
	must(t, err)
	account := store.OfKey(newKey(0).ID)
	const makers = 4
	var made [makers]atomic.Int64 // how many keys each has made
	var begun, taken atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	var work sync.WaitGroup
	defer work.Wait()
	defer stop()
	number := func(maker, i int) int { return 1 + maker + i*makers }
	for m := range makers {
		work.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				if _, err := s.Create(context.Background(), newKey(number(m, i)), key.Credits{}, store.KeyLimit{}, nil); err != nil {
					t.Error(err)
					return
				}
				made[m].Add(1)
			}
		})
		work.Go(func() {
			for ctx.Err() == nil {
				begun.Add(1)
				if got, err := s.MoveCredits(context.Background(), account, key.Move{Take: 1}, now); err != nil || !got.OK {
					t.Error(got, err)
					return
				}
				taken.Add(1)
			}
		})
	}
	for round := range 3 {
		for last := taken.Load(); taken.Load() < last+100; { // writes go on
			if t.Failed() {
				return
			}
		}
		var before [makers]int64
		for m := range made {
			before[m] = made[m].Load()
		}
		spent := taken.Load()
		backup, elsewhere := filepath.Join(dir, fmt.Sprint(round, ".backup")), filepath.Join(dir, fmt.Sprint(round), "keys.db")
		save(t, s, path, backup)
		most := begun.Load()
		if got := query(t, backup, "PRAGMA integrity_check"); got != "ok" {
			t.Fatalf("integrity: %s", got)
		}
		r, kept := restoreTo(t, elsewhere, backup)
		if kept != "" || r.Exists {
			t.Errorf("%+v, kept %q", r, kept)
		}
		restored := open(t, elsewhere)
		for m, n := range before {
			for i := range int(n) {
				if _, err := restored.Find(t.Context(), newKey(number(m, i)).Hash); err != nil {
					t.Fatalf("key %d, which was made before the backup: %v", number(m, i), err)
				}
			}
		}
		e, err := restored.Get(t.Context(), newKey(0).ID)
		must(t, err)
		balanced(t, e.Credits)
		if c := e.Credits; c.Spent < spent || c.Spent > most || c.Granted != granted {
			t.Errorf("%d credits are spent, want %d to %d: %+v", c.Spent, spent, most, c)
		}
		must(t, restored.Close())
	}
}

// TestF10_leases: credits that are leased when a backup is made are lost with it, as after
// a crash.
func TestF10_leases(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, backup := filepath.Join(dir, "keys.db"), filepath.Join(dir, "backup")
	s := open(t, path)
	made := create(t, s, 1, 1000)
	account, holder := store.OfKey(made.Key.ID), key.Holder{Name: "local", Epoch: 1}
	move := func(m key.Move) {
		t.Helper()
		m.Holder = holder
		_, err := s.MoveCredits(t.Context(), account, m, now)
		must(t, err)
	}
	move(key.Move{Take: 5, Lease: 30})
	move(key.Move{Used: 10})
	save(t, s, path, backup)
	move(key.Move{Used: 20}) // after it
	must(t, s.Close())

	restoreTo(t, path, backup)
	s = open(t, path)
	_, err := s.ForfeitLeases(t.Context(), holder.Name, nil)
	must(t, err) // as the keyring does before it leases
	a, err := s.Account(t.Context(), account)
	must(t, err)
	balanced(t, a.Credits)
	if c := a.Credits; c.Remaining != 965 || c.Leased != 0 || c.Forfeited != 20 || c.Spent != 15 || len(a.Leases) != 0 {
		t.Errorf("%+v", a)
	}
	if _, err := s.MoveCredits(t.Context(), account, key.Move{Used: 1, Holder: holder}, now); !errors.Is(err, key.ErrNotLeased) {
		t.Errorf("settled what is forfeited: %v", err)
	}
}

func TestBackup_oneAtATime(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys.db")
	s := open(t, path)
	b, err := backuper(s).Backup(t.Context())
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	waiting := make(chan error)
	go func() {
		_, err := backuper(s).Backup(ctx)
		waiting <- err
	}()
	cancel()
	if err := <-waiting; !errors.Is(err, context.Canceled) || !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("a second backup: %v", err)
	}
	must(t, b.Close())
	if b.Close() == nil {
		t.Error("closed twice")
	}
	save(t, s, path, path+".backup")

	b, err = backuper(s).Backup(t.Context())
	must(t, err)
	go func() {
		_, err := backuper(s).Backup(t.Context())
		waiting <- err
	}()
	must(t, s.Close()) // does not wait for either
	if err := <-waiting; !errors.Is(err, store.ErrClosed) {
		t.Errorf("after the store was closed: %v", err)
	}
	must(t, b.Close())
	absent(t, path+".sending")
}

func TestBackup_leftoversOfACrash(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys.db")
	must(t, open(t, path).Close())
	left := []string{path + ".sending", path + ".sending-journal", path + ".restoring", path + ".restoring-wal"}
	for _, l := range left {
		write(t, l, "half a database")
	}
	s := open(t, path)
	absent(t, left...)
	write(t, left[0], "half a database") // that of a copy which could not be removed
	save(t, s, path, path+".backup")
}

// stopped makes a database with three keys that no process has open, and a backup of it from
// before the third.
func stopped(t *testing.T) (path, backup string) {
	t.Helper()
	path, backup = filepath.Join(t.TempDir(), "keys.db"), filepath.Join(t.TempDir(), "backup")
	s := open(t, path)
	create(t, s, 1, 5)
	create(t, s, 2, 5)
	save(t, s, path, backup)
	create(t, s, 3, 5)
	must(t, s.Close())
	return path, backup
}

func TestF10_restore(t *testing.T) {
	t.Parallel()
	path, backup := stopped(t)
	r, err := opener(t, path).Restore(t.Context(), backup)
	must(t, err)
	if !r.Exists || r.Keys != 2 || r.Replaces != 3 || r.Path != path {
		t.Errorf("%+v", r)
	}
	refused(t, path, "in use", "this process already") // until it is closed
	must(t, r.Close())
	absent(t, path+".restoring")
	if _, err := open(t, path).Get(t.Context(), newKey(3).ID); err != nil {
		t.Errorf("a restore that did not end has changed something: %v", err)
	}
}

// TestF10_restoreInterrupted: whatever is left of a restore that did not end can be restored
// again.
func TestF10_restoreInterrupted(t *testing.T) {
	t.Parallel()
	path, backup := stopped(t)
	must(t, os.Rename(path, path+".2026-11-27T01-02-03.000Z")) // and then the power failed
	write(t, path+"-wal", "the log that goes with it")
	write(t, path+".restoring", "half a database")
	refused(t, path, "missing")
	if r, kept := restoreTo(t, path, backup); r.Exists || kept != "" {
		t.Errorf("%+v, kept %q", r, kept)
	}
	if _, err := open(t, path).Get(t.Context(), newKey(2).ID); err != nil {
		t.Error(err)
	}
}

// TestF10_refused restores what is no backup, or not a whole one, and what must not be
// replaced. The database stays as it is.
func TestF10_refused(t *testing.T) {
	t.Parallel()
	path, good := stopped(t)
	content, err := os.ReadFile(good)
	must(t, err)
	pages := len(content) / 4096
	for name, c := range map[string]struct {
		make func(t *testing.T, backup string)
		why  string
	}{
		"missing":   {func(*testing.T, string) {}, "no such file"},
		"empty":     {func(t *testing.T, b string) { write(t, b, "") }, "empty"},
		"directory": {func(t *testing.T, b string) { must(t, os.Mkdir(b, 0o700)) }, "not a regular file"},
		"text":      {func(t *testing.T, b string) { write(t, b, strings.Repeat("keys\n", 9999)) }, "not an SQLite database"},
		"foreign":   {func(t *testing.T, b string) { raw(t, b, "CREATE TABLE keys (id)") }, "another program"},
		"newer": {func(t *testing.T, b string) {
			write(t, b, string(content))
			raw(t, b, "INSERT INTO apikey_schema (version_id, is_applied) VALUES (99999, 1)")
		}, "newer version"},
		"truncated":      {func(t *testing.T, b string) { write(t, b, string(content[:len(content)/2])) }, "damaged"},
		"one page short": {func(t *testing.T, b string) { write(t, b, string(content[:len(content)-4096])) }, "damaged"},
		"another hash than in its index": {func(t *testing.T, b string) {
			h := newKey(1).Hash
			write(t, b, strings.Replace(string(content), string(h[:]), strings.Repeat("x", len(h)), 1))
		}, "damaged"},
		"damaged": {func(t *testing.T, b string) {
			// Far from the schema, where a start does not notice.
			damaged := slices.Clone(content)
			for page := pages / 2; page < pages; page++ {
				copy(damaged[page*4096:], strings.Repeat("damaged ", 100))
			}
			write(t, b, string(damaged))
		}, "damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			backup := filepath.Join(t.TempDir(), "backup")
			c.make(t, backup)
			r, err := opener(t, path).Restore(t.Context(), backup)
			if err == nil {
				r.Close()
				t.Fatal("it was taken")
			}
			if !strings.Contains(err.Error(), c.why) || !strings.Contains(err.Error(), backup) {
				t.Errorf("error %q does not say %q and %s", err, c.why, backup)
			}
			names(t, filepath.Dir(path), "keys.db", "keys.db.lock")
		})
	}
	t.Run("a server has the database", func(t *testing.T) {
		s := open(t, path)
		_, err := opener(t, path).Restore(t.Context(), good)
		if err == nil || !containsAll(err.Error(), "in use", fmt.Sprint("pid ", os.Getpid()), path+".lock", "stop Caddy first") {
			t.Errorf("error %v", err)
		}
		if _, err := s.Get(t.Context(), newKey(3).ID); err != nil {
			t.Error(err)
		}
	})
}

func containsAll(text string, parts ...string) bool {
	return !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(text, p) })
}

// TestF10_restoreOverDamage: a database that cannot be read is replaced, and kept.
func TestF10_restoreOverDamage(t *testing.T) {
	t.Parallel()
	path, backup := stopped(t)
	write(t, path, "what a bad disk has left")
	write(t, path+"-wal", "")
	r, kept := restoreTo(t, path, backup)
	absent(t, kept+"-wal")
	if !r.Exists || r.Replaces != -1 {
		t.Errorf("%+v", r)
	}
	if got, _ := os.ReadFile(kept); string(got) != "what a bad disk has left" {
		t.Errorf("%s has %q", kept, got)
	}
	if _, err := open(t, path).Get(t.Context(), newKey(2).ID); err != nil {
		t.Error(err)
	}
}
