package admin

import (
	"bufio"
	"io"

	"github.com/caddy-apikey/caddy-apikey/internal/strictjson"
	"github.com/caddy-apikey/caddy-apikey/keyring"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// ExportFormat and ExportVersion stand in the first line of an export.
const (
	ExportFormat  = "caddy-apikey"
	ExportVersion = 1
)

// ExportHeader is the first line of an export. Then come lines {"owner": …}, each
// an OwnerRecord, then those of keys, each a KeyRecord, and an ExportEnd.
type ExportHeader struct {
	Format  string `json:"format"`
	Version int    `json:"version"`
}

// ExportedOwner is the line of an owner.
type ExportedOwner struct {
	Owner OwnerRecord `json:"owner"`
}

// stream is an answer that is written while it is read: JSON, an object a line.
type stream func(io.Writer) error

// ExportEnd is the last line of an export: a file without it is cut off.
type ExportEnd struct {
	End ExportCounts `json:"end"`
}

// ExportCounts is how many lines of each kind there are.
type ExportCounts struct {
	Owners int64 `json:"owners"`
	Keys   int64 `json:"keys"`
}

const streamType = "application/x-ndjson"

// exportKeys is the only call whose answer holds hashes: a backup without them
// would bring back no key that works.
func exportKeys(c *call) (stream, error) {
	return func(w io.Writer) error {
		line := func(v any) error {
			b, err := strictjson.MarshalLine(v)
			if err == nil {
				_, err = w.Write(b)
			}
			return err
		}
		if err := line(ExportHeader{ExportFormat, ExportVersion}); err != nil {
			return err
		}
		var n ExportCounts
		err := c.svc.Export(c.Context(),
			func(o keyring.OwnerRecord) error { n.Owners++; return line(ExportedOwner{ownerRecordOf(o)}) },
			func(e store.Entry) error { n.Keys++; return line(recordOf(e)) })
		if err != nil {
			return err
		}
		return line(ExportEnd{n})
	}, nil
}

// held is how much of a stream is held back before the answer begins, so that a
// store that cannot be read is still answered with an error.
const held = 64 << 10

// send writes a stream. began tells that the answer is on its way; where it fails
// after that, only breaking off tells the caller.
func (s stream) send(w io.Writer) (began bool, err error) {
	counted := &counter{w: w}
	b := bufio.NewWriterSize(counted, held)
	if err = s(b); err == nil {
		err = b.Flush()
	}
	return counted.n > 0, err
}

// counter counts what is written.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
