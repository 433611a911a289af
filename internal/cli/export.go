package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
)

func (h *Host) export() *cobra.Command {
	var output string
	cmd := h.command("export [flags]", "Writes all owners and keys, with their hashes, as lines of JSON", noArgs, func(c *call) error {
		if output == "" || output == "-" {
			_, err := c.exportTo(c.OutOrStdout(), nil)
			return err
		}
		return c.exportFile(output)
	})
	cmd.Long = `Writes all owners and keys as lines of JSON for "caddy apikey import": to move to
another server, or as a backup. An export contains the hashes of the raw keys, so
that the keys work where it is imported. It contains no raw keys, which are not
stored, and no usage statistics.`
	setFormats(cmd, []string{asTable, asJSON, asNDJSON})
	cmd.Example = `  caddy apikey export --output keys.ndjson
  caddy apikey export | gzip > keys.ndjson.gz`
	cmd.Flags().StringVar(&output, "output", "", "`FILE` to write, with mode 0600; it appears when it is complete; - is standard output")
	return cmd
}

// exportFile writes a file that is complete or absent, even if it is interrupted.
func (c *call) exportFile(path string) (err error) {
	target, err := exportTarget(path)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(c.ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	c.ctx = ctx
	f, err := os.CreateTemp(filepath.Dir(target), filepath.Base(target)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	lines, err := c.exportTo(f, c.exportProgress())
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s was not written: interrupted", path)
	case err != nil:
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), target); err != nil {
		return err
	}
	c.note("Wrote %d owners and keys to %s.", lines-2, path) // the first line is the header, the last the end
	return nil
}

// exportTarget returns the file that an export replaces. A link is followed, and
// only a regular file is replaced.
func exportTarget(path string) (string, error) {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return path, nil
	}
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	info, err := os.Stat(target)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s exists and is not a regular file: without --output the export goes to standard output", path)
	}
	return target, nil
}

// exportProgress returns a bar for the current number of keys.
func (c *call) exportProgress() *progress {
	a, err := c.client.Health(c.ctx)
	if err != nil {
		return nil // the export will fail and report it
	}
	return c.progress(a.Value.Keys)
}

// exportTo copies an export and counts its lines.
func (c *call) exportTo(w io.Writer, bar *progress) (lines int64, err error) {
	body, err := c.client.ExportKeys(c.ctx)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	defer bar.end()
	counter := &lineCounter{bar: bar}
	if _, err := io.Copy(io.MultiWriter(w, counter), body); err != nil {
		return counter.lines, fmt.Errorf("copying the export: %w", err)
	}
	return counter.lines, nil
}

// lineCounter counts the lines that are written to it.
type lineCounter struct {
	lines int64
	bar   *progress
}

func (c *lineCounter) Write(p []byte) (int, error) {
	c.lines += int64(bytes.Count(p, []byte("\n")))
	c.bar.at(c.lines)
	return len(p), nil
}
