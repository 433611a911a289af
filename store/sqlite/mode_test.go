//go:build !windows

package sqlite_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/store/sqlite"
)

// openNoticed opens the store at path and returns what it told about its files.
func openNoticed(t *testing.T, path string) (notices []sqlite.FileNotice) {
	t.Helper()
	o, err := sqlite.New(sqlite.Options{Path: path, Notice: func(n sqlite.FileNotice) { notices = append(notices, n) }})
	if err != nil {
		t.Fatal(err)
	}
	s, err := o.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return notices
}

// A restored database is taken away from other users, with the files that SQLite keeps
// beside it, whatever was wrong with its mode.
func TestQ44_ModeIsTightened(t *testing.T) {
	for _, mode := range []os.FileMode{0o644, 0o640, 0o666, 0o660, 0o700, 0o606} {
		t.Run(mode.String(), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "keys.db")
			if told := openNoticed(t, filepath.Join(t.TempDir(), "fresh.db")); told != nil {
				t.Errorf("told of a new database: %+v", told)
			}
			s, err := opener(t, path).Open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			create(t, s, 1, 5)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
			told := openNoticed(t, path)
			if len(told) == 0 || told[0] != (sqlite.FileNotice{Path: path, Mode: mode, Tightened: true}) {
				t.Errorf("told %+v", told)
			}
			for _, suffix := range []string{"", "-wal", "-shm"} {
				if info, err := os.Stat(path + suffix); err != nil {
					t.Error(err)
				} else if info.Mode().Perm() != 0o600 {
					t.Errorf("%s has mode %v", suffix, info.Mode())
				}
			}
		})
	}
}

// Files beside the database that were restored with it are tightened even if the
// database itself has the right mode.
func TestQ44_FilesBesideAreTightened(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	s := open(t, path)
	create(t, s, 1, 5)
	copied := filepath.Join(t.TempDir(), "copy.db")
	for _, suffix := range []string{"", "-wal"} { // as it is while the server runs
		b, err := os.ReadFile(path + suffix) //nolint:gosec // the descriptor's locks do not matter: nobody else has the file
		if err != nil {
			t.Fatal(err)
		}
		mode := os.FileMode(0o600)
		if suffix != "" {
			mode = 0o644
		}
		if err := os.WriteFile(copied+suffix, b, mode); err != nil {
			t.Fatal(err)
		}
	}
	told := openNoticed(t, copied)
	if len(told) != 1 || told[0].Path != copied+"-wal" || told[0].Mode != 0o644 || !told[0].Tightened {
		t.Errorf("told %+v", told)
	}
	if info, err := os.Stat(copied + "-wal"); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// A file of another program is refused as it is.
func TestQ44_ForeignFileIsLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "other.db")
	if err := os.WriteFile(path, []byte("not a database, but something of another program's"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	refused(t, path)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// A file that belongs to another user is told of, and the store opens.
func TestQ44_FileOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}
	const user = 65534
	dir, err := os.MkdirTemp("", "apikey-owner")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "keys.db")
	s, err := opener(t, path).Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	// The folder and the lock are the user's; the database stays root's.
	for _, name := range []string{dir, path + ".lock"} {
		if err := os.Chown(name, user, user); err != nil {
			t.Fatal(err)
		}
	}
	// The rights of this process are given up for a moment: files that belong to root
	// cannot be changed then.
	if err := syscall.Seteuid(user); err != nil {
		t.Skip(err)
	}
	told := openNoticed(t, path)
	if err := syscall.Seteuid(0); err != nil {
		t.Fatal(err)
	}
	if len(told) == 0 || told[0].Path != path || told[0].Mode != 0o666 || told[0].Tightened || told[0].Reason == "" {
		t.Errorf("told %+v", told)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
}
