package cli

import (
	"bytes"
	"fmt"
	"io"
	"os"

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

// exportFile writes an export to a file.
func (c *call) exportFile(path string) error {
	target, err := fileTarget(path)
	if err != nil {
		return fmt.Errorf("%w: without --output the export goes to standard output", err)
	}
	var lines int64
	err = c.replaceFile(path, target, func(f *os.File) (err error) {
		lines, err = c.exportTo(f, c.exportProgress())
		return err
	}, nil)
	if err == nil {
		c.note("Wrote %d owners and keys to %s.", lines-2, path) // the first line is the header, the last the end
	}
	return err
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
