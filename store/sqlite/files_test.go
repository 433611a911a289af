package sqlite_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
	"github.com/caddy-apikey/caddy-apikey/store/sqlite"
)

const now int64 = 1_800_000_000_000

func opener(t *testing.T, path string) *sqlite.Opener {
	t.Helper()
	o, err := sqlite.New(sqlite.Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// open opens the store at path until the end of the test.
func open(t *testing.T, path string) store.Store {
	t.Helper()
	s, err := opener(t, path).Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil && !errors.Is(err, store.ErrClosed) {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// refused checks that Open fails with an error that names the file and says why.
func refused(t *testing.T, path string, why ...string) {
	t.Helper()
	s, err := opener(t, path).Open(t.Context())
	if err == nil {
		s.Close()
		t.Fatal("the store opened")
	}
	for _, part := range append([]string{path}, why...) {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not say %q", err, part)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("error %q is more than a line", err)
	}
}

func newKey(n int) *key.Key {
	return &key.Key{
		ID: fmt.Sprintf("%024x", n), ConfigID: key.DefaultConfig, UserID: "alice",
		Hash: key.HashOf(fmt.Sprint("raw key ", n)), Checksummed: true, Enabled: true, CreatedAt: now, UpdatedAt: now,
	}
}

func create(t *testing.T, s store.Store, n int, credits int64) store.Entry {
	t.Helper()
	c, err := s.Create(context.Background(), newKey(n), key.NewCredits(&credits, 0, 0, now), store.KeyLimit{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return *c.Entry
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, paths ...string) {
	t.Helper()
	for _, p := range paths {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
}

func TestNew_touchesNothing(t *testing.T) {
	dir := t.TempDir()
	o := opener(t, filepath.Join(dir, "a", "b", "keys.db"))
	if got, want := o.Identity(), "sqlite:"+filepath.Join(dir, "a", "b", "keys.db"); got != want {
		t.Errorf("identity %q, want %q", got, want)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("made %v", left)
	}
}

func TestNew_options(t *testing.T) {
	for _, o := range []sqlite.Options{
		{},
		{Path: "a\x00b"},
		{Path: "x", TablePrefix: "1a"},
		{Path: "x", TablePrefix: "a-b"},
		{Path: "x", TablePrefix: "a;b"},
		{Path: "x", TablePrefix: "ä"},
		{Path: "x", TablePrefix: "a\n"},
		{Path: "x", TablePrefix: "SQLite_x"},
		{Path: "x", TablePrefix: strings.Repeat("a", 33)},
	} {
		if _, err := sqlite.New(o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
	for _, prefix := range []string{"", "_", "a", "Ab_9", strings.Repeat("a", 32)} {
		if _, err := sqlite.New(sqlite.Options{Path: "x", TablePrefix: prefix}); err != nil {
			t.Errorf("%q: %v", prefix, err)
		}
	}
}

func TestIdentity_sameFileSameIdentity(t *testing.T) {
	dir := t.TempDir()
	sub := filepath.Join(dir, "sub")
	must(t, os.Mkdir(sub, 0o700))
	must(t, os.Symlink(sub, filepath.Join(dir, "link")))
	must(t, os.Symlink(filepath.Join("sub", "keys.db"), filepath.Join(dir, "direct")))
	must(t, os.Symlink("direct", filepath.Join(dir, "twice")))
	t.Chdir(dir)
	paths := []string{
		filepath.Join(sub, "keys.db"), filepath.Join(dir, "link", "keys.db"), filepath.Join(dir, "direct"),
		filepath.Join(dir, "twice"), "sub/keys.db", "./link/../sub//keys.db", "twice",
	}
	check := func() {
		t.Helper()
		want := opener(t, paths[0]).Identity()
		for _, p := range paths {
			if got := opener(t, p).Identity(); got != want {
				t.Errorf("%s: identity %q, want %q", p, got, want)
			}
		}
	}
	check() // before the file exists
	s := open(t, filepath.Join(dir, "twice"))
	check() // and after
	refused(t, filepath.Join(sub, "keys.db"), "in use")
	must(t, s.Close())
	open(t, filepath.Join(dir, "link", "keys.db"))

	must(t, os.Symlink("circle", filepath.Join(dir, "circle")))
	if _, err := sqlite.New(sqlite.Options{Path: "circle"}); err == nil {
		t.Error("a link to itself was taken")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestOpen_modes(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o755)) //nolint:gosec // a folder that is not ours
	path := filepath.Join(dir, "a", "b", "keys.db")
	s := open(t, path)
	create(t, s, 1, 5)
	for p, want := range map[string]fs.FileMode{
		dir: 0o755, filepath.Join(dir, "a"): 0o700, filepath.Join(dir, "a", "b"): 0o700,
		path: 0o600, path + "-wal": 0o600, path + "-shm": 0o600, path + ".lock": 0o600,
	} {
		info, err := os.Stat(p)
		must(t, err)
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %o, want %o", p, got, want)
		}
	}
	must(t, s.Close())
	names(t, filepath.Dir(path), "keys.db", "keys.db.lock") // -wal and -shm go with the last connection
}

// names checks what lies in a folder.
func names(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the folder holds %v, want %v", got, want)
	}
}

func TestOpen_oddPaths(t *testing.T) {
	for _, name := range []string{
		"with space", "question?mode=memory", "hash#x", "per%20cent", "100%", "amp&mode=ro", "semi;colon", "quote'\"", "ünï", "a+b", "bad\xffutf8", "file:x", ":memory:",
	} {
		t.Run(url.PathEscape(name), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), name)
			path := filepath.Join(dir, name)
			s := open(t, path)
			create(t, s, 1, 5)
			must(t, s.Close())
			names(t, dir, name, name+".lock")
			if _, err := open(t, path).Get(t.Context(), newKey(1).ID); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestOpen_leftoversOfACrash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	for _, suffix := range []string{"", "-wal", "-shm", "-journal"} {
		write(t, path+".new"+suffix, "half a database")
	}
	create(t, open(t, path), 1, 5)
	for _, suffix := range []string{"", "-wal", "-shm", "-journal"} {
		if _, err := os.Stat(path + ".new" + suffix); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", suffix, err)
		}
	}
}

func TestF5_missingFileIsNoNewDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	s := open(t, path)
	create(t, s, 1, 5)
	must(t, s.Close())
	remove(t, path)
	refused(t, path, "missing", path+".lock", "restore")
	refused(t, path, "missing") // a refusal changes nothing
	names(t, filepath.Dir(path), "keys.db.lock")

	write(t, path+"-wal", "an orphan")
	remove(t, path+".lock")
	refused(t, path, "missing", path+"-wal")
	remove(t, path+"-wal", path+".lock")
	st, err := open(t, path).Health(t.Context()) // asked for: an empty one
	must(t, err)
	if st.Keys != 0 {
		t.Errorf("%+v", st)
	}
}

func TestF5_notOurDatabase(t *testing.T) {
	for name, c := range map[string]struct {
		make func(t *testing.T, path string)
		why  string
	}{
		"empty":     {func(t *testing.T, path string) { write(t, path, "") }, "empty"},
		"directory": {func(t *testing.T, path string) { must(t, os.Mkdir(path, 0o700)) }, "directory"},
		"text":      {func(t *testing.T, path string) { write(t, path, "keys\n") }, "not an SQLite database"},
		"garbage":   {func(t *testing.T, path string) { write(t, path, strings.Repeat("\x00\xffgarbage", 9999)) }, "not an SQLite database"},
		"another program's": {func(t *testing.T, path string) {
			raw(t, path, "CREATE TABLE keys (id)", "PRAGMA application_id = 77")
		}, "another program"},
		"nobody's": {func(t *testing.T, path string) { raw(t, path, "CREATE TABLE keys (id)") }, "another program"},
		"newer": {func(t *testing.T, path string) {
			must(t, open(t, path).Close())
			raw(t, path, "INSERT INTO apikey_schema (version_id, is_applied) VALUES (99999, 1)")
		}, "newer version"},
		"another prefix": {func(t *testing.T, path string) {
			o, err := sqlite.New(sqlite.Options{Path: path, TablePrefix: "x_"})
			must(t, err)
			s, err := o.Open(t.Context())
			must(t, err)
			must(t, s.Close())
		}, "prefix"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "keys.db")
			c.make(t, path)
			before, _ := os.ReadFile(path)
			refused(t, path, c.why)
			if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
				t.Error("the file was changed")
			}
		})
	}
}

// raw runs statements on a database that no store has open.
func raw(t *testing.T, path string, statements ...string) {
	t.Helper()
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: "_pragma=busy_timeout(5000)"}).String())
	must(t, err)
	defer db.Close()
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

func TestVanished(t *testing.T) {
	for name, lose := range map[string]func(t *testing.T, path string){
		"deleted": func(t *testing.T, path string) { remove(t, path) },
		"moved":   func(t *testing.T, path string) { must(t, os.Rename(path, path+".old")) },
		"replaced": func(t *testing.T, path string) {
			content, err := os.ReadFile(filepath.Join(filepath.Dir(path), "other.db"))
			must(t, err)
			must(t, os.Rename(path, path+".old"))
			write(t, path, string(content))
		},
		"log deleted":         func(t *testing.T, path string) { remove(t, path+"-wal") },
		"lock deleted":        func(t *testing.T, path string) { remove(t, path+".lock") },
		"shared mem. deleted": func(t *testing.T, path string) { remove(t, path+"-shm") },
	} {
		for _, settled := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", settled ", settled), func(t *testing.T) {
				dir := t.TempDir()
				other := open(t, filepath.Join(dir, "other.db"))
				must(t, other.Close())
				path := filepath.Join(dir, "keys.db")
				s := open(t, path)
				made := create(t, s, 1, 5)
				if settled { // the folder alone is looked at
					old := time.Now().Add(-time.Hour)
					must(t, os.Chtimes(dir, old, old))
					for range 3 {
						_, err := s.Create(t.Context(), newKey(2), key.Credits{}, store.KeyLimit{}, nil)
						must(t, err)
						_, err = s.Delete(t.Context(), newKey(2).ID, nil)
						must(t, err)
					}
				}
				lose(t, path)
				left := list(t, dir)

				_, err := s.MoveCredits(t.Context(), store.OfKey(made.Key.ID), key.Move{Take: 1}, now)
				vanished(t, err, path)
				_, err = s.Create(t.Context(), newKey(2), key.Credits{}, store.KeyLimit{}, nil)
				vanished(t, err, path)
				_, err = s.Health(t.Context())
				vanished(t, err, path)
				_, err = backuper(s).Backup(t.Context())
				vanished(t, err, path)
				if e, err := s.Get(t.Context(), made.Key.ID); err != nil || e.Credits.Remaining != 5 {
					t.Errorf("a write that was refused shows: %+v, %v", e.Credits, err)
				}
				if after := list(t, dir); fmt.Sprint(after) != fmt.Sprint(left) {
					t.Errorf("files appeared: %v, before %v", after, left)
				}
			})
		}
	}
}

func vanished(t *testing.T, err error, path string) {
	t.Helper()
	if !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), path) ||
		!strings.Contains(err.Error(), "has vanished or was replaced while in use") {
		t.Errorf("error %v", err)
	}
}

func list(t *testing.T, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func TestVanished_comesBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	s := open(t, path)
	made := create(t, s, 1, 5)
	must(t, os.Rename(path, path+".old"))
	if _, err := s.MoveCredits(t.Context(), store.OfKey(made.Key.ID), key.Move{Take: 1}, now); err == nil {
		t.Fatal("taken from a file that is not there")
	}
	must(t, os.Rename(path+".old", path))
	got, err := s.MoveCredits(t.Context(), store.OfKey(made.Key.ID), key.Move{Take: 1}, now)
	must(t, err)
	if !got.OK || got.Credits.Remaining != 4 {
		t.Errorf("%+v", got)
	}
}
