package sqlite

import (
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// watch notices when files of an open database are no longer the ones that
// were opened: moved away, deleted, or replaced by a restore. SQLite would go on
// writing into files that have no name any more, and every write would be lost
// to whoever starts next.
//
// It only ever calls os.Stat. Opening one of these files and closing it again
// would drop the locks that SQLite holds on it (a rule of POSIX).
//
// A name in a folder cannot change without the time of the folder. So each check looks at
// the folder, and at the files only where the folder has changed, or has been looked at
// for the last time a second ago. A check once a second alone would let writes into
// a file that is gone for so long.
type watch struct {
	path  string // of the database, for the message
	files []watched

	folder   fs.FileInfo // before the files were looked at; nil: they must be
	lookedAt time.Time
}

type watched struct {
	path string
	info fs.FileInfo
}

const (
	// watchEvery is for how long the files are taken to be there while their folder is
	// as it was.
	watchEvery = time.Second
	// folderSettled is for how long a folder must not have changed for its time to tell
	// the next change. Its clock may be as coarse as two seconds.
	folderSettled = 3 * time.Second
)

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

// check returns an error that names the file that is gone. Only the writer calls it.
func (w *watch) check() error {
	folder, err := os.Stat(filepath.Dir(w.path))
	if err == nil && w.folder != nil && time.Since(w.lookedAt) < watchEvery &&
		os.SameFile(folder, w.folder) && folder.ModTime().Equal(w.folder.ModTime()) {
		return nil
	}
	w.folder = nil
	if err := w.checkFiles(); err != nil {
		return err
	}
	if now := time.Now(); err == nil && now.Sub(folder.ModTime()) > folderSettled {
		w.folder, w.lookedAt = folder, now
	}
	return nil
}

func (w *watch) checkFiles() error {
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
