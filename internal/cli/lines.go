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

// lines imports what an export wrote.
func (s *shipment) lines(in io.Reader) error {
	file := bufio.NewReaderSize(in, 1<<16)
	done := int64(0)
	for n := int64(1); ; n++ {
		line, size, err := readLine(file)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("reading the file: %w", err)
		}
		one := item{line: n, json: bytes.TrimSpace(line)}
		switch {
		case n == 1:
			err = checkHeader(one.json)
		case len(one.json) > 0:
			err = s.line(one)
		}
		if err != nil {
			return err
		}
		done += size
		s.bar.at(done)
	}
	if done == 0 {
		return errNoExport
	}
	if err := s.flush(); err != nil {
		return err
	}
	return s.checkEnd()
}

// readLine returns the next line and its size. Of one that fits into no request it
// returns the beginning, which is just too long. io.EOF means that there is no line.
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

// checkEnd tells a file that was cut off, or put together badly, from a whole one.
func (s *shipment) checkEnd() error {
	switch {
	case s.stated == nil:
		return errors.New("the export is cut off: its last line must be {\"end\":{\"owners\":n,\"keys\":n}}. What there is of it was dealt with")
	case *s.stated != s.counted:
		return fmt.Errorf("the export is not whole: its end tells of %d owners and %d keys, and there are %d and %d. What there is of it was dealt with",
			s.stated.Owners, s.stated.Keys, s.counted.Owners, s.counted.Keys)
	}
	return nil
}

var errNoExport = fmt.Errorf(`this is no export of caddy-apikey: its first line must be {"format":%q,"version":%d}`+
	"\nA database of Better Auth is imported with \"caddy apikey import better-auth\"", admin.ExportFormat, admin.ExportVersion)

func checkHeader(line []byte) error {
	var header admin.ExportHeader
	if json.Unmarshal(line, &header) != nil || header.Format != admin.ExportFormat {
		return errNoExport
	}
	if header.Version != admin.ExportVersion {
		return fmt.Errorf("this export is of version %d; this program reads version %d", header.Version, admin.ExportVersion)
	}
	return nil
}

// line sends one line on its way.
func (s *shipment) line(one item) error {
	var fields map[string]json.RawMessage
	if json.Unmarshal(one.json, &fields) != nil {
		fields = nil
	}
	if s.stated != nil {
		return fmt.Errorf("line %d stands behind the end of the export: nothing from there on was imported", one.line)
	}
	if ofOwner(one.json, fields) {
		s.counted.Owners++
		return s.ownerLine(one, fields)
	}
	if end, ok := fields["end"]; ok && len(fields) == 1 && json.Unmarshal(end, &s.stated) == nil && s.stated != nil {
		return nil
	}
	s.counted.Keys++
	if fields == nil && len(one.json) <= maxImport {
		return s.refuse(one, "key", "", "the line is not a JSON object")
	}
	s.keys = true
	return s.put(one)
}

// errOwner ends an import: keys whose owner stayed behind would get a new one, which
// is enabled, or one that is here and is enabled or limited otherwise.
var errOwner = errors.New("an owner could not be imported as it is, and its keys might open what they must not: nothing more was imported.\n" +
	"Change the owner here or in the file, and run it again: what is here already is left alone")

// ofOwner tells that a line was meant to be an owner's, however broken it is.
func ofOwner(line []byte, fields map[string]json.RawMessage) bool {
	for name := range fields {
		if strings.EqualFold(name, "owner") {
			return true
		}
	}
	return fields == nil && bytes.Contains(line, []byte(`"owner"`))
}

func (s *shipment) ownerLine(one item, fields map[string]json.RawMessage) error {
	owner, ok := fields["owner"]
	why := ""
	switch {
	case s.keys:
		why = "owners must come before all keys"
	case !ok || len(fields) != 1:
		why = `the line of an owner must be {"owner": …} and nothing else`
	default:
		one.owner, one.json = true, owner
		return s.put(one)
	}
	return errors.Join(s.refuse(one, "owner", "", why), errOwner)
}
