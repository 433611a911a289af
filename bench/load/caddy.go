package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp" // static_response, and the app http

	apikey "github.com/caddy-apikey/caddy-apikey"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// sites are the addresses of the sides: with the gate, without it, and with the floor in its
// place.
type sites struct{ gate, bare, floor string }

// Ports are below those that systems give to outgoing connections (Linux: from 32768 on).
// Else a connection of the client could take one while no server has it.
const firstPort, lastPort = 10_000, 32_000

// newSites finds free ports.
func newSites() (s sites, err error) {
	port := firstPort + rand.IntN(lastPort-firstPort-1000)
	for _, addr := range []*string{&s.gate, &s.bare, &s.floor} {
		for *addr == "" {
			if port++; port > lastPort {
				return s, errors.New("no port is free")
			}
			free := fmt.Sprintf("127.0.0.1:%d", port)
			if l, err := net.Listen("tcp", free); err == nil {
				*addr = free
				if err := l.Close(); err != nil {
					return s, err
				}
			}
		}
	}
	return s, nil
}

// body is what both sides answer to a request that passes.
const body = "Hello, world!\n"

func respond(status int, body string) object {
	return object{"handler": "static_response", "status_code": status, "body": body}
}

// pass is what answers a request that passes.
func pass() object { return respond(http.StatusOK, body) }

// config is the configuration of a Caddy with some sites: an address and its handlers. There
// are no access logs, and there is no admin endpoint. A nil app is none.
func config(app object, sites map[string][]object) ([]byte, error) {
	servers := object{}
	for addr, handle := range sites {
		servers[addr] = server(addr, handle)
	}
	apps := object{"http": object{"servers": servers}}
	if app != nil {
		apps["apikey"] = app
	}
	return json.Marshal(object{
		"admin":   object{"disabled": true, "config": object{"persist": false}},
		"logging": object{"logs": object{"default": object{"level": "ERROR"}}},
		"apps":    apps,
	})
}

func server(addr string, handle []object) object {
	return object{
		"listen": []string{addr}, "protocols": []string{"h1"}, "automatic_https": object{"disable": true},
		"idle_timeout": "1h", "read_header_timeout": "1h", // a side waits while others warm up
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

// load loads the configuration of a row. bare answers on the other side.
func (b *bench) load(r *row, path string, bare object) error {
	gate := []object{{"handler": "apikey"}, pass()}
	if r.front != nil {
		gate = append(slices.Clone(r.front), pass())
	}
	cfg, err := config(appConfig(r.app, path), map[string][]object{
		b.sites.gate: gate, b.sites.bare: {bare}, b.sites.floor: {{"handler": "bench_floor"}, pass()},
	})
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
