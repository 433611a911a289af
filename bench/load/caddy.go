package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp" // static_response, and the app http

	apikey "github.com/caddy-apikey/caddy-apikey"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// sites are the addresses of the two sides.
type sites struct{ gate, bare string }

// newSites finds two free ports.
func newSites() (s sites, err error) {
	for _, addr := range []*string{&s.gate, &s.bare} {
		l, lerr := net.Listen("tcp", "127.0.0.1:0")
		if lerr != nil {
			return s, lerr
		}
		defer func() { err = errors.Join(err, l.Close()) }()
		*addr = l.Addr().String()
	}
	return s, nil
}

// body is what both sides answer to a request that passes.
const body = "Hello, world!\n"

func respond(status int, body string) object {
	return object{"handler": "static_response", "status_code": status, "body": body}
}

// config is the configuration of a Caddy with both sites. There are no access
// logs on either side, and no admin endpoint.
func (s *sites) config(app object, gate, bare []object) ([]byte, error) {
	return json.Marshal(object{
		"admin":   object{"disabled": true, "config": object{"persist": false}},
		"logging": object{"logs": object{"default": object{"level": "ERROR"}}},
		"apps": object{
			"apikey": app,
			"http":   object{"servers": object{"gate": server(s.gate, gate), "bare": server(s.bare, bare)}},
		},
	})
}

func server(addr string, handle []object) object {
	return object{
		"listen": []string{addr}, "protocols": []string{"h1"}, "automatic_https": object{"disable": true},
		"routes": []object{{"handle": handle}},
	}
}

// appConfig is that of a row, with its store.
func appConfig(extra object, path string) object {
	app := object{"store": object{"store": "sqlite", "path": path}}
	for name, value := range extra {
		app[name] = value
	}
	return app
}

// unsupported reports why this build does not know an option of a row, or nil.
func unsupported(extra object) error {
	for name, value := range extra {
		raw, err := json.Marshal(object{name: value})
		if err != nil {
			return err
		}
		err = caddy.StrictUnmarshalJSON(raw, new(apikey.App))
		if err != nil && strings.Contains(err.Error(), "unknown field") {
			return fmt.Errorf("this build has no option %q", name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// load loads the configuration of a row. refusal is the length of the body that
// the other side answers with where the gate refuses.
func (b *bench) load(r *row, path string, refusal int) error {
	pass := []object{respond(http.StatusOK, body)}
	front, bare := r.front, pass
	if front == nil {
		front = []object{{"handler": "apikey"}}
	}
	gate := slices.Concat(front, pass)
	if r.status != 0 {
		bare = []object{respond(r.status, strings.Repeat("x", refusal))}
	}
	cfg, err := b.sites.config(appConfig(r.app, path), gate, bare)
	if err != nil {
		return err
	}
	return caddy.Load(cfg, true)
}

// service returns the keys of the configuration that is loaded.
func service() (*keyring.Service, error) {
	app, err := caddy.ActiveContext().AppIfConfigured("apikey")
	if err != nil {
		return nil, err
	}
	return app.(*apikey.App).Service(), nil
}
