package cli

import (
	"encoding/json"
	"errors"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
	"github.com/caddy-apikey/caddy-apikey/internal/betterauthdb"
)

func (h *Host) importKeys() *cobra.Command {
	var dryRun bool
	cmd := h.command("import <file|-> [flags]", "Imports owners and keys from an export, or from elsewhere", oneArg("the file to import, or - for standard input"), func(c *call) error {
		in, size, err := c.openInput(c.args[0])
		if err != nil {
			return err
		}
		defer in.Close()
		run := c.newImport(size, dryRun)
		return run.end(run.lines(in))
	})
	cmd.Long = `Imports owners and keys from what caddy apikey export wrote, into a server that
runs. Keys keep their ids, hashes, credits and windows.

Nothing that exists is changed, so an import can be repeated: what is there
already is counted as such, and what is there with another raw key or another
standing is a conflict. What was deleted here comes back: revoke, do not delete,
while you still import. Exit status 1 tells that something could not be imported;
the report tells what and why.`
	cmd.Example = `  caddy apikey import keys.ndjson --dry-run
  gunzip < keys.ndjson.gz | caddy apikey import -
  caddy apikey import better-auth sqlite.db`
	define(cmd.Flags(), "dry-run", variable(&dryRun, parseBool), dryRunUsage)
	cmd.AddCommand(h.importBetterAuth())
	return cmd
}

const dryRunUsage = "report what would happen, and write nothing; what comes twice in the file may not be seen"

// openInput opens a file or standard input. The size of the latter is not known.
func (c *call) openInput(name string) (io.ReadCloser, int64, error) {
	if name == "-" {
		return io.NopCloser(c.InOrStdin()), 0, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

// item is one record on its way to the server.
type item struct {
	id    string
	line  int64 // of the file; 0: it is of no file
	owner bool
	json  json.RawMessage
	notes []betterauthdb.Note
	// config is the configuration of a key that comes from elsewhere: the server
	// does not repeat one that it does not know.
	config string
}

// maxImport is how many bytes of records go into one request: what is around
// them is short.
const maxImport = admin.MaxImportBody - 1<<16

// shipment is one run of an import.
type shipment struct {
	*report
	bar   *progress
	items []item // of one kind, for the next request
	size  int
	keys  bool // keys have come: owners are too late

	answered bool // by the server, once

	counted admin.ExportCounts  // lines of a file
	stated  *admin.ExportCounts // what its end says
}

func (c *call) newImport(total int64, dryRun bool) *shipment {
	return &shipment{report: newReport(c, dryRun), bar: c.progress(total)}
}

// put adds an item to the next request. Owners and keys go in different ones. What
// fits into none is refused, and the rest goes on.
func (s *shipment) put(one item) error {
	if len(one.json) > maxImport {
		return s.refuse(one, "key", "", sprintf("the record is longer than %d bytes", maxImport))
	}
	full := len(s.items) == admin.MaxImport || s.size+len(one.json) > maxImport
	if len(s.items) > 0 && (full || s.items[0].owner != one.owner) {
		if err := s.flush(); err != nil {
			return err
		}
	}
	s.items = append(s.items, one)
	s.size += len(one.json) + 1
	return nil
}

// refuse notes a record that is not sent at all.
func (s *shipment) refuse(one item, kind, field, why string) error {
	result := admin.ImportResult{Kind: kind, Status: "invalid", Field: field, Error: why}
	if one.id != "" {
		result.ID = &one.id
	}
	return s.add(one, result)
}

// flush sends what waits.
func (s *shipment) flush() error {
	if len(s.items) == 0 {
		return nil
	}
	in := admin.ImportKeys{DryRun: &s.dryRun}
	for _, one := range s.items {
		if one.owner {
			in.Owners = append(in.Owners, api.Each[admin.OwnerRecord]{Raw: one.json})
		} else {
			in.Keys = append(in.Keys, api.Each[admin.KeyRecord]{Raw: one.json})
		}
	}
	a, err := s.send(in)
	if err != nil {
		return err
	}
	if len(a.Value.Results) != len(s.items) {
		return errors.New("the server did not answer for every record")
	}
	for i, one := range s.items {
		if err := s.add(one, a.Value.Results[i]); err != nil {
			return err
		}
	}
	if s.items[0].owner && a.Value.Invalid+a.Value.Conflicts > 0 {
		return errOwner
	}
	s.items, s.size = s.items[:0], 0
	return nil
}

// end closes the report. What was imported before an error stays, so the report
// tells of it; the error is then no answer of the API on its own.
func (s *shipment) end(err error) error {
	s.bar.end()
	switch {
	case err == nil:
		return s.close()
	case s.total() == 0:
		return err
	default:
		said := describe(err)
		if s.passing(err) {
			said += "\nThe import ended early. Run it again: what is here already is left alone."
		}
		return errors.Join(errors.New(said), s.finish())
	}
}
