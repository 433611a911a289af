//go:build !windows

package sqlite_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// example makes a database with some of everything and returns its files.
func example(t *testing.T) map[string][]byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys.db")
	s := open(t, path)
	for n := range 200 {
		k := newKey(n)
		k.UserID, k.Metadata = fmt.Sprint("owner ", n%9), []byte(`{"m":"`+strings.Repeat("x", n)+`"}`)
		if n%3 == 0 {
			k.Previous = []key.PreviousKey{{Hash: key.HashOf(fmt.Sprint("former ", n)), Until: now}}
		}
		credits := int64(n)
		if _, err := s.Create(t.Context(), k, key.NewCredits(&credits, 5, 1000, now), store.KeyLimit{}, nil); err != nil {
			t.Fatal(err)
		}
	}
	// While it is open, so that the log is part of it. A crash leaves such a pair.
	files := map[string][]byte{}
	must(t, copyByReading(t, path, files))
	must(t, s.Close())
	content, err := os.ReadFile(path)
	must(t, err)
	files["closed"] = content
	return files
}

// copyByReading reads the files of an open database by another process: in
// this one, closing them would drop the locks.
func copyByReading(t *testing.T, path string, files map[string][]byte) error {
	t.Helper()
	for _, suffix := range []string{"", "-wal"} {
		out, err := exec.Command("cat", path+suffix).Output() //nolint:gosec // a test's own path
		if err != nil {
			return err
		}
		files[suffix] = out
	}
	return nil
}

// survives opens a damaged database and uses it. It may refuse, and it may
// answer with errors; it may not panic, and may not know keys that nobody made.
func survives(t *testing.T, path string) (opened bool) {
	t.Helper()
	s, err := opener(t, path).Open(t.Context())
	if err != nil {
		if !strings.Contains(err.Error(), path) {
			t.Errorf("error %q names no file", err)
		}
		return false
	}
	defer s.Close()
	for i := range 40 {
		n := i * 7 // the last of them were never made
		for _, raw := range []string{fmt.Sprint("raw key ", n), fmt.Sprint("former ", n)} {
			h := key.HashOf(raw)
			e, err := s.Find(t.Context(), h)
			switch {
			case errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrUnavailable):
			case err != nil:
				t.Errorf("find: %v", err)
			case n >= 200:
				t.Errorf("key %d was never made", n)
			case !e.Key.Hash.Equal(h) && !slices.ContainsFunc(e.Key.Previous, func(f key.PreviousKey) bool { return f.Hash.Equal(h) }):
				t.Errorf("a hash found another key: %+v", e.Key)
			}
		}
	}
	for n := range 10 {
		_, _ = s.MoveCredits(t.Context(), store.OfKey(newKey(n).ID), key.Move{Take: 1}, now)
	}
	for _, sort := range []store.Sort{store.SortCreatedAt, store.SortName, store.SortLastRequest} {
		_, _ = s.List(t.Context(), store.List{Sort: sort, Limit: 500})
	}
	_, _ = s.Owners(t.Context(), 500, "")
	_, _ = s.DeleteExpired(t.Context(), expiredBefore(now), 10, nil)
	_, _ = s.Health(t.Context())
	return true
}

func TestF5_truncated(t *testing.T) {
	files := example(t)
	whole := files["closed"]
	for _, size := range []int{1, 15, 16, 99, 100, 101, 511, 512, 1024, 4095, 4096, 4097, 8192, len(whole) / 2, len(whole) - 4096, len(whole) - 1} {
		path := filepath.Join(t.TempDir(), "keys.db")
		write(t, path, string(whole[:size]))
		opened := survives(t, path)
		if size < 4096 && opened {
			t.Errorf("%d bytes were taken for a database", size)
		}
	}
}

func TestF5_flippedBytes(t *testing.T) {
	t.Parallel()
	rounds := 200
	if testing.Short() {
		rounds = 20
	}
	files := example(t)
	r := rand.New(rand.NewPCG(1, 2))
	opened := 0
	for range rounds {
		content := slices.Clone(files["closed"])
		for range 1 + r.IntN(4) {
			content[r.IntN(len(content))] ^= byte(1 + r.IntN(255))
		}
		path := filepath.Join(t.TempDir(), "keys.db")
		write(t, path, string(content))
		if survives(t, path) {
			opened++
		}
	}
	t.Logf("%d of %d opened", opened, rounds)
}

func TestF5_log(t *testing.T) {
	files := example(t)
	if len(files["-wal"]) < 32 {
		t.Fatal("the example has no log")
	}
	damage := map[string]func([]byte) []byte{
		"whole":     func(b []byte) []byte { return b },
		"deleted":   func([]byte) []byte { return nil },
		"half":      func(b []byte) []byte { return b[:len(b)/2] },
		"torn":      func(b []byte) []byte { return b[:len(b)-100] },
		"no header": func(b []byte) []byte { return append(make([]byte, 32), b[32:]...) },
		"flipped":   func(b []byte) []byte { b[len(b)/2] ^= 0xff; return b },
		"garbage":   func([]byte) []byte { return []byte(strings.Repeat("garbage", 999)) },
	}
	for name, f := range damage {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "keys.db")
			write(t, path, string(files[""]))
			if log := f(slices.Clone(files["-wal"])); log != nil {
				write(t, path+"-wal", string(log))
			}
			survives(t, path)
			if name == "whole" {
				s := open(t, path)
				st, err := s.Health(t.Context())
				must(t, err)
				if st.Keys != 200 {
					t.Errorf("%d keys survived a crash, want 200", st.Keys)
				}
				must(t, s.Close())
			}
		})
	}
}

// asNobody opens the store in a process without root's rights, and returns what it says.
func asNobody(t *testing.T, path string) string {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc/self/exe")
	}
	// Not os.Args[0]: the folder of the test binary may be closed to others.
	cmd := exec.Command("/proc/self/exe") //nolint:gosec // ourselves
	cmd.Env = append(os.Environ(), childVar+"=hold:"+path)
	cmd.Dir = "/"
	if os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Errorf("it opened: %s", out)
	}
	return string(out)
}

func TestF4_readOnly(t *testing.T) {
	for name, c := range map[string]struct {
		file, folder, lock os.FileMode
		missing            bool
	}{
		"file":                    {0o444, 0o777, 0o666, false},
		"unreadable file":         {0o000, 0o777, 0o666, false},
		"folder":                  {0o666, 0o555, 0o666, false},
		"folder, first run":       {0, 0o555, 0, true},
		"lock file":               {0o666, 0o777, 0o444, false},
		"folder above, first run": {0, 0o555, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir, err := os.MkdirTemp("/tmp", "apikey-f4-")
			must(t, err)
			t.Cleanup(func() { _ = os.Chmod(dir, 0o700); _ = os.RemoveAll(dir) }) //nolint:gosec // to remove it
			path := filepath.Join(dir, "keys.db")
			if !c.missing {
				s := open(t, path)
				create(t, s, 1, 5)
				must(t, s.Close())
				must(t, os.Chmod(path, c.file))
				must(t, os.Chmod(path+".lock", c.lock))
			}
			must(t, os.Chmod(dir, c.folder))
			if name == "folder above, first run" {
				path = filepath.Join(dir, "sub", "keys.db")
			}
			got := asNobody(t, path)
			if !strings.Contains(got, path) || strings.Contains(got, "panic") || strings.Count(got, "\n") != 1 {
				t.Errorf("it says %q", got)
			}
			t.Log(got)
		})
	}
}
