package sqlite

import (
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// maxLinks ends the search where symbolic links go round in a circle.
const maxLinks = 32

// resolve returns the absolute path of a file without symbolic links, also
// where the file or its folders do not exist yet: as it will be once they do.
func resolve(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return resolveAbs(abs, maxLinks)
}

func resolveAbs(path string, links int) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return real, err
	}
	dir, base := filepath.Split(path)
	if target, linkErr := os.Readlink(path); linkErr == nil { // a link to what does not exist yet
		if links == 0 {
			return "", err
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(dir, target)
		}
		return resolveAbs(filepath.Clean(target), links-1)
	}
	parent := filepath.Clean(dir)
	if parent == path || base == "" {
		return "", err
	}
	if parent, err = resolveAbs(parent, links); err != nil {
		return "", err
	}
	return filepath.Join(parent, base), nil
}

// dsn returns the data source name of path. Every character of the path that
// means something in a URI is escaped, and SQLite may not create the file: it
// would make an empty one where the database has vanished.
func dsn(path string, params ...string) string {
	p := filepath.ToSlash(path)
	if !strings.HasPrefix(p, "/") { // C:/…
		p = "/" + p
	}
	params = append([]string{"mode=rw", "_defensive=1", "_dqs=0"}, params...)
	u := url.URL{Scheme: "file", OmitHost: true, Path: p, RawQuery: strings.Join(params, "&")}
	return u.String()
}

// syncFile and syncDir push a file, or the names in a folder, onto the disk.
// They are never used on a database that is open: closing any descriptor of it
// would drop SQLite's locks.
func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
