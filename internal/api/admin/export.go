package admin

import (
	"io"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
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

// ExportEnd is the last line of an export: a file without it is cut off.
type ExportEnd struct {
	End ExportCounts `json:"end"`
}

// ExportCounts is how many lines of each kind there are.
type ExportCounts struct {
	Owners int64 `json:"owners"`
	Keys   int64 `json:"keys"`
}

// exportLines describes an export in the OpenAPI document.
const exportLines = "one JSON object a line: " +
	`{"format":"caddy-apikey","version":1}, then {"owner":OwnerRecord} for every owner, then a KeyRecord for every key, then {"end":{"owners":n,"keys":n}} with how many there are`

// exportKeys is the only call whose answer holds hashes: a backup without them
// would bring back no key that works.
func exportKeys(c *api.Call) (api.Stream, error) {
	return func(w io.Writer) error {
		line := func(v any) error {
			b, err := api.MarshalLine(v)
			if err == nil {
				_, err = w.Write(b)
			}
			return err
		}
		if err := line(ExportHeader{ExportFormat, ExportVersion}); err != nil {
			return err
		}
		var n ExportCounts
		err := c.Keys.Export(c.Context(),
			func(o keyring.OwnerRecord) error { n.Owners++; return line(ExportedOwner{ownerRecordOf(o)}) },
			func(e store.Entry) error { n.Keys++; return line(recordOf(e)) })
		if err != nil {
			return err
		}
		return line(ExportEnd{n})
	}, nil
}
