package apikey

import (
	"fmt"
	"path/filepath"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"

	"github.com/caddy-apikey/caddy-apikey/store"
	"github.com/caddy-apikey/caddy-apikey/store/sqlite"
)

func init() {
	caddy.RegisterModule(&SQLite{})
}

// Store is the interface of modules in the namespace apikey.stores.
type Store interface {
	// Opener returns an opener of the store. It must not open anything yet.
	Opener(tablePrefix string) (store.Opener, error)
}

// SQLite stores keys in an SQLite file. It needs no setup: the file is created
// when it is first needed, readable by the user of the process only.
type SQLite struct {
	// Path is the path of the file. Placeholders such as {env.HOME} are replaced.
	// Default: apikey/apikey.db in Caddy's data directory.
	Path string `json:"path,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (*SQLite) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "apikey.stores.sqlite", New: func() caddy.Module { return new(SQLite) }}
}

// Opener implements Store.
func (s *SQLite) Opener(tablePrefix string) (store.Opener, error) {
	o, err := s.sqlite(tablePrefix)
	if err != nil { // not a nil pointer in an interface
		return nil, err
	}
	return o, nil
}

func (s *SQLite) sqlite(tablePrefix string) (*sqlite.Opener, error) {
	path := filepath.Join(caddy.AppDataDir(), "apikey", "apikey.db")
	if s.Path != "" {
		var err error
		if path, err = caddy.NewReplacer().ReplaceOrErr(s.Path, true, true); err != nil {
			return nil, fmt.Errorf("path of the SQLite file: %w", err)
		}
	}
	o, err := sqlite.New(sqlite.Options{Path: path, TablePrefix: tablePrefix, Notice: warnFile, Report: report})
	if err != nil {
		return nil, fmt.Errorf("SQLite file %s: %w", path, err)
	}
	return o, nil
}

// warnFile logs that other users could read or write a file of the database. It asks
// for the logger each time, because the store outlives the configuration that opened it.
func warnFile(n sqlite.FileNotice) {
	logger := caddy.Log().Named("apikey")
	fields := []zap.Field{zap.String("file", n.Path), zap.String("mode", fmt.Sprintf("%04o", n.Mode))}
	if n.Tightened {
		logger.Warn("other users could read a file of the database; its mode is now 0600", fields...)
		return
	}
	logger.Warn("other users can read or change a file of the database; give it to the user that runs this server, with mode 0600",
		append(fields, zap.String("reason", n.Reason))...)
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
		return d.Errf("store sqlite: unknown option %q", d.Val())
	}
	return nil
}

// Interface guards
var (
	_ Store                 = (*SQLite)(nil)
	_ caddyfile.Unmarshaler = (*SQLite)(nil)
)
