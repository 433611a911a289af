//go:build !windows

package sqlite_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/store"
)

// TestF10_restoreOverALog restores in place of a database that a crash has left with a log.
func TestF10_restoreOverALog(t *testing.T) {
	t.Parallel()
	_, backup := stopped(t)
	path := filepath.Join(t.TempDir(), "keys.db")
	files := map[string][]byte{}
	crashed := open(t, filepath.Join(t.TempDir(), "keys.db"))
	for n := range 50 {
		create(t, crashed, 100+n, 5)
	}
	must(t, copyByReading(t, openPath(t, crashed), files))
	write(t, path, string(files[""]))
	write(t, path+"-wal", string(files["-wal"]))
	write(t, path+"-shm", "what a crash leaves")
	r, kept := restoreTo(t, path, backup)
	if r.Replaces != 50 && r.Replaces != -1 {
		t.Errorf("%+v", r)
	}
	s := open(t, path)
	must(t, s.Close())
	if _, err := open(t, path).Get(t.Context(), newKey(2).ID); err != nil {
		t.Error(err)
	}
	// What was replaced is whole, under its new name.
	st, err := open(t, kept).Health(t.Context())
	must(t, err)
	if st.Keys != 50 {
		t.Errorf("the database that was replaced has %d keys", st.Keys)
	}
}

func openPath(t *testing.T, s store.Store) string {
	t.Helper()
	st, err := s.Health(t.Context())
	must(t, err)
	return st.Database
}

// TestF10_restoreACopyWithALog restores from the files of a database that were copied by
// other means.
func TestF10_restoreACopyWithALog(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "keys.db"))
	create(t, s, 1, 5)
	files := map[string][]byte{}
	must(t, copyByReading(t, openPath(t, s), files))
	backup, path := filepath.Join(t.TempDir(), "copy"), filepath.Join(t.TempDir(), "keys.db")
	write(t, backup, string(files[""]))
	write(t, backup+"-wal", string(files["-wal"]))
	if r, _ := restoreTo(t, path, backup); r.Keys != 1 {
		t.Errorf("%+v", r)
	}
	if got, _ := os.ReadFile(backup + "-wal"); !slices.Equal(got, files["-wal"]) {
		t.Error("the copy was written to")
	}
}

// TestF10_noRoomForTheCopy makes backups until the disk of the database has no room for
// one. The database goes on.
func TestF10_noRoomForTheCopy(t *testing.T) {
	t.Parallel()
	if out, err := exec.Command("unshare", "-Urm", "true").CombinedOutput(); err != nil {
		t.Skipf("unshare: %v: %s", err, out)
	}
	dir := t.TempDir()
	_, out, _ := child(t, "backup", filepath.Join(dir, "keys.db"), "unshare", "-Urm", "sh", "-c", `mount -t tmpfs -o size=8m none "$0" && exec "$@"`, dir)
	var lines []string
	for out.Scan() {
		lines = append(lines, out.Text())
	}
	got := strings.Join(lines, "\n")
	if !containsAll(got, "failed", "disk", "keys.db.sending") || !strings.HasSuffix(got, "left keys.db\nleft keys.db-shm\nleft keys.db-wal\nleft keys.db.lock") {
		t.Errorf("%s", got)
	}
}

// TestF10_restoreAsRoot: what root restores belongs to the user of the server.
func TestF10_restoreAsRoot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	const nobody = 65534
	path, backup := stopped(t)
	home := t.TempDir()
	fresh := filepath.Join(home, "data", "apikey", "keys.db")
	for _, p := range []string{path, home} {
		must(t, os.Chown(p, nobody, nobody))
	}
	if _, err := opener(t, fresh).Restore(t.Context(), filepath.Join(home, "no backup")); err == nil {
		t.Error("restored from nothing")
	}
	for _, p := range []string{path, fresh} {
		restoreTo(t, p, backup)
		files := []string{p, p + ".lock"}
		if p == fresh {
			files = append(files, filepath.Dir(p), filepath.Dir(filepath.Dir(p)))
		}
		for _, file := range files {
			info, err := os.Stat(file)
			must(t, err)
			if owner := info.Sys().(*syscall.Stat_t).Uid; owner != nobody {
				t.Errorf("%s belongs to the user %d", file, owner)
			}
		}
	}
}
