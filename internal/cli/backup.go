package cli

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/caddy-apikey/caddy-apikey/store/sqlite"
)

func (h *Host) backup() *cobra.Command {
	var keep int64
	cmd := h.command("backup FILE [flags]", "Writes a backup of the database of a running server", oneArg("the file to write"), func(c *call) error {
		return c.backupTo(c.args[0], int(keep))
	})
	cmd.Long = `Writes a copy of the database of a running server, with all changes that were
answered before. FILE gets mode 0600 and appears when it is complete; an earlier
backup of that name is replaced, and no other file is. "caddy apikey restore" puts
a backup back.

A backup contains the hashes of the raw keys, credits, limits and usage statistics,
and no raw keys, which are not stored.`
	setFormats(cmd, plainFormats)
	cmd.ValidArgsFunction = nil // the shell completes names of files
	cmd.Example = `  caddy apikey backup /backup/apikey.db
  caddy apikey backup /backup/apikey.db --keep 7`
	define(cmd.Flags(), "keep", variable(&keep, parseKeep), "keep the `NUMBER` backups before this one, as FILE.TIME, and delete those before them (default: keep none, delete none)")
	return cmd
}

func parseKeep(s string) (int64, error) {
	n, err := parseNumber(s)
	if err != nil || n < 1 || n > 10_000 {
		return 0, errors.New("must be an integer from 1 to 10000")
	}
	return n, nil
}

func (c *call) backupTo(path string, keep int) error {
	target, err := backupTarget(path)
	if err != nil {
		return err
	}
	var size int64
	err = c.replaceFile(path, target, func(f *os.File) (err error) {
		size, err = c.receiveBackup(f)
		return err
	}, func() error { return keepBackup(target, keep) })
	if err != nil {
		return err
	}
	c.note("Wrote a backup of %s to %s.", humanize.Bytes(uint64(size)), path) //nolint:gosec // a count
	if keep == 0 {
		return nil
	}
	if err := deleteBackups(target, keep); err != nil {
		return fmt.Errorf("the backup was written, but older ones could not be deleted: %w", err)
	}
	return nil
}

// backupTarget returns the file that a backup replaces. A link is followed. What is not a
// backup stays, above all a database that is in use.
func backupTarget(path string) (string, error) {
	if path == "-" {
		return "", WrongUsage("a backup goes to a file, not to standard output")
	}
	target, err := fileTarget(path)
	if err != nil {
		return "", err
	}
	if _, err := os.Lstat(target + ".lock"); err == nil {
		return "", fmt.Errorf("%s is the database of a server, not a backup, because there is %[1]s.lock: choose another file", path)
	}
	f, err := os.Open(target)
	if errors.Is(err, fs.ErrNotExist) {
		return target, nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close() //nolint:errcheck // only read
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if _, err := readBackupHeader(f); err != nil && info.Size() > 0 {
		return "", fmt.Errorf("%s exists and is not a backup: choose another file", path)
	}
	return target, nil
}

// receiveBackup writes a backup to a file, and checks that all of it has come.
func (c *call) receiveBackup(f *os.File) (int64, error) {
	body, size, err := c.client.Backup(c.ctx)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	bar := c.progress(size)
	defer bar.end()
	n, err := io.Copy(f, io.TeeReader(body, &byteCounter{bar: bar}))
	if err != nil {
		if errors.As(err, new(*fs.PathError)) { // of the file, which it names
			return n, err
		}
		return n, fmt.Errorf("the backup broke off after %s: %w", humanize.Bytes(uint64(n)), err) //nolint:gosec // a count
	}
	// HTTP reports a connection that breaks, but not every server in between passes that on.
	want, err := readBackupHeader(f)
	switch {
	case err != nil:
		return n, err
	case n != want:
		return n, fmt.Errorf("the backup is incomplete: %d of %d bytes were received", n, want)
	}
	return n, nil
}

type byteCounter struct {
	n   int64
	bar *progress
}

func (b *byteCounter) Write(p []byte) (int, error) {
	b.n += int64(len(p))
	b.bar.at(b.n)
	return len(p), nil
}

// readBackupHeader reads the header of a database, as SQLite's documentation of its file
// format has it, and returns how long the file must be.
func readBackupHeader(r io.ReaderAt) (size int64, err error) {
	header := make([]byte, 100)
	if _, err := r.ReadAt(header, 0); err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	if !bytes.HasPrefix(header, []byte("SQLite format 3\x00")) || binary.BigEndian.Uint32(header[68:]) != sqlite.ApplicationID {
		return 0, errors.New("what was received is not a backup")
	}
	page := int64(binary.BigEndian.Uint16(header[16:]))
	if page == 1 {
		page = 1 << 16
	}
	return page * int64(binary.BigEndian.Uint32(header[28:])), nil
}

// keepBackup gives the present backup the name of an earlier one, if it is to be kept.
func keepBackup(target string, keep int) error {
	info, err := os.Stat(target)
	if keep == 0 || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for t := info.ModTime().UTC(); ; t = t.Add(time.Millisecond) {
		name := target + "." + t.Format(sqlite.KeptLayout)
		if _, err := os.Lstat(name); errors.Is(err, fs.ErrNotExist) {
			return os.Rename(target, name)
		} else if err != nil {
			return err
		}
	}
}

// deleteBackups deletes all but the last earlier backups.
func deleteBackups(target string, keep int) error {
	entries, err := os.ReadDir(filepath.Dir(target)) // sorted by name
	if err != nil {
		return err
	}
	entries = slices.DeleteFunc(entries, func(e os.DirEntry) bool {
		text, ok := strings.CutPrefix(e.Name(), filepath.Base(target)+".")
		_, err := time.Parse(sqlite.KeptLayout, text)
		return !ok || err != nil || !e.Type().IsRegular()
	})
	for len(entries) > keep {
		if err := os.Remove(filepath.Join(filepath.Dir(target), entries[0].Name())); err != nil {
			return err
		}
		entries = entries[1:]
	}
	return nil
}
