package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
	"github.com/caddy-apikey/caddy-apikey/internal/betterauthdb"
)

func (h *Host) importKeys() *cobra.Command {
	var dryRun bool
	cmd := h.command("import FILE|- [flags]", "Imports owners and keys from an export or another system", oneArg("the file to import, or - for standard input"), func(c *call) error {
		in, size, err := c.openInput(c.args[0])
		if err != nil {
			return err
		}
		defer in.Close()
		run := c.newImport(size, dryRun)
		export := exportReader{run: run}
		return run.end(export.importAll(in))
	})
	cmd.Long = `Imports the owners and keys of an export into a running server. Keys keep their
ids, hashes, credits and rate limit windows.

An import changes nothing that exists, so it can be repeated. Records that exist are
counted; a record that exists with another raw key or other settings is a conflict.
A key that was deleted here comes back: revoke, do not delete, while you still
import. Exit status 1 means that something could not be imported; the report says
what and why.`
	cmd.Example = `  caddy apikey import keys.ndjson --dry-run
  gunzip < keys.ndjson.gz | caddy apikey import -
  caddy apikey import better-auth sqlite.db`
	importFlags(cmd)
	define(cmd.Flags(), "dry-run", variable(&dryRun, parseBool), dryRunUsage)
	cmd.AddCommand(h.importBetterAuth())
	return cmd
}

// importFlags sets up what all imports share: they read a file.
func importFlags(cmd *cobra.Command) {
	setFormats(cmd, []string{asTable, asJSON})
	cmd.ValidArgsFunction = nil // the shell completes names of files
}

const dryRunUsage = "report what would happen, and write nothing; duplicates in the file may go unnoticed"

// openInput opens a file or standard input, whose size is unknown.
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

// record is an owner or key to import.
type record struct {
	id    string
	line  int64 // in the file; 0 if it is not from a file
	owner bool
	json  json.RawMessage
	notes []betterauthdb.Note
	// config is the configuration of a key from another system. The server's error
	// about an unknown one does not name it.
	config string
}

// maxImport is the size of the records in one request. It leaves room for the rest
// of the body.
const maxImport = admin.MaxImportBody - 1<<16

// importRun sends records to the server in batches and reports the results.
type importRun struct {
	*report
	bar      *progress
	batch    []record // either owners or keys
	size     int      // of the batch in bytes
	answered bool     // the server has answered a request
}

func (c *call) newImport(total int64, dryRun bool) *importRun {
	return &importRun{report: newReport(c, dryRun), bar: c.progress(total)}
}

// put adds a record to the batch, and sends the batch first if the record does not
// fit. A record that is too long for any request is rejected.
func (r *importRun) put(rec record) error {
	if len(rec.json) > maxImport {
		return r.reject(rec, "key", "", fmt.Sprintf("the record is longer than %d bytes", maxImport))
	}
	full := len(r.batch) == admin.MaxImport || r.size+len(rec.json) > maxImport
	if len(r.batch) > 0 && (full || r.batch[0].owner != rec.owner) {
		if err := r.flush(); err != nil {
			return err
		}
	}
	r.batch = append(r.batch, rec)
	r.size += len(rec.json) + 1
	return nil
}

// reject reports a record as invalid without sending it.
func (r *importRun) reject(rec record, kind, field, reason string) error {
	result := admin.ImportResult{Kind: kind, Status: "invalid", Field: field, Error: reason}
	if rec.id != "" {
		result.ID = &rec.id
	}
	return r.add(rec, result)
}

// flush sends the batch.
func (r *importRun) flush() error {
	if len(r.batch) == 0 {
		return nil
	}
	in := admin.ImportKeys{DryRun: &r.dryRun}
	for _, rec := range r.batch {
		if rec.owner {
			in.Owners = append(in.Owners, api.Each[admin.OwnerRecord]{Raw: rec.json})
		} else {
			in.Keys = append(in.Keys, api.Each[admin.KeyRecord]{Raw: rec.json})
		}
	}
	a, err := r.send(in)
	if err != nil {
		return err
	}
	if len(a.Value.Results) != len(r.batch) {
		return errors.New("the response does not have a result for every record")
	}
	for i, rec := range r.batch {
		if err := r.add(rec, a.Value.Results[i]); err != nil {
			return err
		}
	}
	if r.batch[0].owner && a.Value.Invalid+a.Value.Conflicts > 0 {
		return errOwner
	}
	r.batch, r.size = r.batch[:0], 0
	return nil
}

// end prints the report, even after an error, because records that were imported
// before it stay. Such an error is not printed as a response of the API.
func (r *importRun) end(err error) error {
	r.bar.end()
	switch {
	case err == nil:
		return r.close()
	case r.total() == 0:
		return err
	default:
		message := describe(err)
		if r.temporary(err) {
			message += "\nThe import is incomplete. Run it again: existing records are left alone."
		}
		return errors.Join(errors.New(message), r.print())
	}
}
