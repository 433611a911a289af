package main

import (
	"crypto/sha256"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() { caddy.RegisterModule(&floorHandler{}) }

// floorHandler does what no gate can do without: SHA-256 of the raw key, one look-up in
// a map, one placeholder and two response headers. Its row shows how much of the
// distance to a bare Caddy is not the gate's.
type floorHandler struct{ owners map[[sha256.Size]byte]string }

// CaddyModule implements caddy.Module.
func (*floorHandler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.bench_floor", New: func() caddy.Module {
		return &floorHandler{map[[sha256.Size]byte]string{}}
	}}
}

// ServeHTTP implements caddyhttp.MiddlewareHandler. It lets in whoever comes.
func (f *floorHandler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	owner, ok := f.owners[sha256.Sum256([]byte(r.Header["X-Api-Key"][0]))]
	if !ok {
		owner = "alice"
	}
	r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer).Set("http.auth.user.id", owner)
	h := w.Header()
	h["Ratelimit"] = []string{`"key";r=42;t=17`}
	h["Ratelimit-Policy"] = []string{`"key";q=100;w=60`}
	return next.ServeHTTP(w, r)
}
