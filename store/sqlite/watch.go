package sqlite

import (
	"io/fs"
	"os"
)

// watch notices when files of an open database are no longer the ones that
// were opened: moved away, deleted, or replaced by a restore. SQLite would go on
// writing into files that have no name any more, and every write would be lost
// to whoever starts next.
//
// It only ever calls os.Stat. Opening one of these files and closing it again
// would drop the locks that SQLite holds on it (a rule of POSIX).
type watch struct {
	path  string // of the database, for the message
	files []watched
}

type watched struct {
	path string
	info fs.FileInfo
}

// watchFiles begins to watch the database at path, its log and its lock. All
// of them must be there.
func watchFiles(path string) (*watch, error) {
	w := &watch{path: path}
	for _, suffix := range []string{"", "-wal", "-shm", lockSuffix} {
		info, err := os.Stat(path + suffix)
		if err != nil {
			return nil, err
		}
		w.files = append(w.files, watched{path + suffix, info})
	}
	return w, nil
}

// check returns an error that names the file that is gone.
func (w *watch) check() error {
	for i := range w.files {
		f := &w.files[i]
		info, err := os.Stat(f.path)
		if err != nil {
			return unavailable("%s has vanished or was replaced while in use: %w", f.path, err)
		}
		if !os.SameFile(info, f.info) {
			return unavailable("%s has vanished or was replaced while in use", f.path)
		}
	}
	return nil
}
