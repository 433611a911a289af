package sqlite_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

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
	fresh := filepath.Join(t.TempDir(), "keys.db")
	for _, p := range []string{path, filepath.Dir(fresh)} {
		must(t, os.Chown(p, nobody, nobody))
	}
	for _, p := range []string{path, fresh} {
		restoreTo(t, p, backup)
		for _, file := range []string{p, p + ".lock"} {
			info, err := os.Stat(file)
			must(t, err)
			if owner := info.Sys().(*syscall.Stat_t).Uid; owner != nobody {
				t.Errorf("%s belongs to the user %d", file, owner)
			}
		}
	}
}
