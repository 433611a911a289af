package apikey

import (
	"fmt"
	"path/filepath"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-apikey/caddy-apikey/store"
	"github.com/caddy-apikey/caddy-apikey/store/sqlite"
)

func init() {
	caddy.RegisterModule(&SQLite{})
}

// Store is what modules of the namespace apikey.stores implement.
type Store interface {
	// Opener returns a way to open the store that touches nothing yet.
	Opener(tablePrefix string) (store.Opener, error)
}

// SQLite keeps keys in an SQLite file. It needs no set-up: the file is made when
// it is first needed, readable for the owner of the process only.
type SQLite struct {
	// Path of the file. Placeholders such as {env.HOME} are allowed.
	// Default: apikey/apikey.db in Caddy's data directory.
	Path string `json:"path,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (*SQLite) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "apikey.stores.sqlite", New: func() caddy.Module { return new(SQLite) }}
}

// Opener implements Store.
func (s *SQLite) Opener(tablePrefix string) (store.Opener, error) {
	path := filepath.Join(caddy.AppDataDir(), "apikey", "apikey.db")
	if s.Path != "" {
		var err error
		if path, err = caddy.NewReplacer().ReplaceOrErr(s.Path, true, true); err != nil {
			return nil, fmt.Errorf("path of the SQLite file: %w", err)
		}
	}
	o, err := sqlite.New(sqlite.Options{Path: path, TablePrefix: tablePrefix})
	if err != nil {
		return nil, fmt.Errorf("SQLite file %s: %w", path, err)
	}
	return o, nil
}

// UnmarshalCaddyfile sets up the store from Caddyfile tokens. Syntax:
//
//	store sqlite [<file>]
func (s *SQLite) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // module name
	if d.NextArg() {
		s.Path = d.Val()
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	if d.NextBlock(d.Nesting()) {
		return d.Errf("the sqlite store has no option %q", d.Val())
	}
	return nil
}

// Interface guards
var (
	_ Store                 = (*SQLite)(nil)
	_ caddyfile.Unmarshaler = (*SQLite)(nil)
)
