//go:build !windows

package sqlite

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// tighten takes the database and the files beside it away from other users, such as
// after a backup was restored with the usual mode. The names are changed, not opened:
// closing another descriptor of the database would drop SQLite's locks.
//
// What cannot be changed is told and no error. A file system may know no modes, and a
// volume may be shared by design: a server that starts no longer would help nobody.
func (o *Opener) tighten() {
	for _, suffix := range append([]string{""}, sideSuffixes...) {
		path := o.path + suffix
		info, err := os.Lstat(path)
		if err != nil || !info.Mode().IsRegular() { // nothing there, or SQLite rejects it
			continue
		}
		mode := info.Mode().Perm()
		n := FileNotice{Path: path, Mode: mode}
		switch owner := info.Sys().(*syscall.Stat_t).Uid; {
		case mode&^fileMode != 0:
			n.Tightened, n.Reason = tightenFile(path)
		case int(owner) != os.Geteuid() && os.Geteuid() != 0:
			n.Reason = fmt.Sprintf("it belongs to the user with the ID %d", owner)
		default:
			continue
		}
		o.notice(n)
	}
}

// giveTo gives a file to the user and the group of another one: what root makes in the
// folder of a server must be the server's.
func giveTo(path, like string) error {
	from, err := os.Lstat(path)
	if err != nil {
		return err
	}
	to, err := os.Stat(like)
	if err != nil {
		return err
	}
	was, is := from.Sys().(*syscall.Stat_t), to.Sys().(*syscall.Stat_t)
	// A folder may be anybody's, such as that of temporary files.
	if was.Uid == is.Uid || to.IsDir() && os.Geteuid() != 0 {
		return nil
	}
	if err := os.Lchown(path, int(is.Uid), int(is.Gid)); err != nil {
		return fmt.Errorf("cannot give the file to the user that %s belongs to: %w: run this as that user", like, err)
	}
	return nil
}

// tightenFile sets the mode of a file. It reports why the mode is not what it should be.
func tightenFile(path string) (tightened bool, reason string) {
	if err := os.Chmod(path, fileMode); err != nil {
		return false, fs.ErrPermission.Error() + ": the file belongs to another user, or is on a volume that does not allow it"
	}
	if info, err := os.Lstat(path); err != nil || info.Mode().Perm()&^fileMode != 0 {
		return false, "the file system does not keep modes"
	}
	return true, ""
}
