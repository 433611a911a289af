package sqlite

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// While the folder is as it was, its files are looked at once a second.
func TestWatch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	for _, suffix := range []string{"", "-wal", "-shm", lockSuffix} {
		must(t, os.WriteFile(path+suffix, nil, 0o600))
	}
	w, err := watchFiles(path)
	must(t, err)
	must(t, w.check())
	if w.folder != nil {
		t.Error("a folder that has just changed is trusted")
	}
	old := time.Now().Add(-time.Minute)
	must(t, os.Chtimes(filepath.Dir(path), old, old))
	must(t, w.check())
	if w.folder == nil {
		t.Fatal("a folder that has not changed for a minute is not trusted")
	}
	looked := w.lookedAt
	must(t, w.check())
	if w.lookedAt != looked {
		t.Error("the files were looked at again")
	}
	w.lookedAt = looked.Add(-watchEvery)
	must(t, w.check())
	if !w.lookedAt.After(looked) {
		t.Error("the files were not looked at again")
	}
	must(t, os.Rename(path+"-wal", path+"-gone"))
	for range 2 {
		if w.check() == nil {
			t.Error("a file is gone and nobody noticed")
		}
	}
	must(t, os.WriteFile(path+"-wal", nil, 0o600))
	must(t, os.Chtimes(filepath.Dir(path), old, old))
	if w.check() == nil {
		t.Error("another file took the place of one")
	}
}
