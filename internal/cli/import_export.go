package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
)

// exportReader imports the lines of an export.
type exportReader struct {
	run      *importRun
	keysSeen bool
	counted  admin.ExportCounts  // owners and keys that were read
	stated   *admin.ExportCounts // owners and keys according to the last line; nil until it is read
}

func (r *exportReader) importAll(in io.Reader) error {
	file := bufio.NewReaderSize(in, 1<<16)
	read := int64(0)
	for n := int64(1); ; n++ {
		line, size, err := readLine(file)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("reading the file: %w", err)
		}
		rec := record{line: n, json: bytes.TrimSpace(line)}
		switch {
		case n == 1:
			err = checkHeader(rec.json)
		case len(rec.json) > 0:
			err = r.importLine(rec)
		}
		if err != nil {
			return err
		}
		read += size
		r.run.bar.at(read)
	}
	if read == 0 {
		return errNoExport
	}
	if err := r.run.flush(); err != nil {
		return err
	}
	return r.checkEnd()
}

// readLine returns the next line and its size, or io.EOF if there is none. A line
// that is too long for a request is cut to one byte more than the limit.
func readLine(in *bufio.Reader) (line []byte, size int64, err error) {
	for {
		part, err := in.ReadSlice('\n')
		size += int64(len(part))
		line = append(line, part[:min(len(part), maxImport+1-len(line))]...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && size > 0:
			return line, size, nil
		default:
			return line, size, err
		}
	}
}

// checkEnd reports an export that is not complete.
func (r *exportReader) checkEnd() error {
	switch {
	case r.stated == nil:
		return errors.New("the export is cut off: its last line must be {\"end\":{\"owners\":n,\"keys\":n}}. The part before that was imported")
	case *r.stated != r.counted:
		return fmt.Errorf("the export is incomplete: its last line states %d owners and %d keys, but it contains %d and %d, which were imported",
			r.stated.Owners, r.stated.Keys, r.counted.Owners, r.counted.Keys)
	}
	return nil
}

var errNoExport = fmt.Errorf(`this is not an export of caddy-apikey: its first line must be {"format":%q,"version":%d}.`+
	"\nTo import a database of Better Auth, use \"caddy apikey import better-auth\"", admin.ExportFormat, admin.ExportVersion)

func checkHeader(line []byte) error {
	var header admin.ExportHeader
	if json.Unmarshal(line, &header) != nil || header.Format != admin.ExportFormat {
		return errNoExport
	}
	if header.Version != admin.ExportVersion {
		return fmt.Errorf("this export has version %d; only version %d is supported", header.Version, admin.ExportVersion)
	}
	return nil
}

func (r *exportReader) importLine(rec record) error {
	var fields map[string]json.RawMessage
	if json.Unmarshal(rec.json, &fields) != nil {
		fields = nil
	}
	if r.stated != nil {
		return fmt.Errorf("line %d comes after the end of the export: this line and the rest were not imported", rec.line)
	}
	if isOwner(rec.json, fields) {
		r.counted.Owners++
		return r.importOwner(rec, fields)
	}
	if end, ok := fields["end"]; ok && len(fields) == 1 && json.Unmarshal(end, &r.stated) == nil && r.stated != nil {
		return nil
	}
	r.counted.Keys++
	if fields == nil && len(rec.json) <= maxImport {
		return r.run.reject(rec, "key", "", "the line is not a JSON object")
	}
	r.keysSeen = true
	return r.run.put(rec)
}

// errOwner ends an import. Without their owner, the imported keys would belong to a
// new one, which is enabled, or to an existing one with other limits.
var errOwner = errors.New("an owner could not be imported as it is in the file, and its keys could allow too much: nothing more was imported.\n" +
	"Change the owner here or in the file, and import again: existing records are left alone")

// isOwner reports whether a line is meant to be an owner, even if it is malformed.
func isOwner(line []byte, fields map[string]json.RawMessage) bool {
	for name := range fields {
		if strings.EqualFold(name, "owner") {
			return true
		}
	}
	return fields == nil && bytes.Contains(line, []byte(`"owner"`))
}

func (r *exportReader) importOwner(rec record, fields map[string]json.RawMessage) error {
	owner, ok := fields["owner"]
	reason := ""
	switch {
	case r.keysSeen:
		reason = "owners must come before all keys"
	case !ok || len(fields) != 1:
		reason = `the line of an owner must be {"owner": …} and nothing else`
	default:
		rec.owner, rec.json = true, owner
		return r.run.put(rec)
	}
	return errors.Join(r.run.reject(rec, "owner", "", reason), errOwner)
}
