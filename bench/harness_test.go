// Package bench measures the gate against a floor: the work that no gate can do
// without. Run it with
//
//	go test -bench . -benchmem ./bench
package bench

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	apikey "github.com/caddy-apikey/caddy-apikey"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

var done = caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil })

// newRequest makes a request as Caddy hands it to its first handler.
func newRequest(raw string) (*http.Request, *caddy.Replacer) {
	r := httptest.NewRequest(http.MethodGet, "http://localhost/some/path?q=1", nil)
	r.Header.Set("User-Agent", "bench")
	r.Header.Set("Accept", "*/*")
	r.Header.Set("X-Api-Key", raw)
	repl := caddy.NewReplacer()
	ctx := context.WithValue(r.Context(), caddy.ReplacerCtxKey, repl)
	ctx = context.WithValue(ctx, caddyhttp.VarsCtxKey, map[string]any{caddyhttp.ClientIPVarKey: "127.0.0.1"})
	return r.WithContext(ctx), repl
}

// object is a piece of configuration.
type object = map[string]any

// service starts an app with the options of config and the store at path. It ends
// with stop, or with the benchmark. What this build has no option for is skipped.
func service(b *testing.B, config object, path string) (ctx caddy.Context, keys *keyring.Service, stop func()) {
	b.Helper()
	app := object{"store": object{"store": "sqlite", "path": path}}
	maps.Copy(app, config)
	raw, err := json.Marshal(app)
	if err != nil {
		b.Fatal(err)
	}
	if err := caddy.StrictUnmarshalJSON(raw, new(apikey.App)); err != nil && strings.Contains(err.Error(), "unknown field") {
		b.Skip(err)
	}
	if ctx, err = caddy.ProvisionContext(&caddy.Config{AppsRaw: caddy.ModuleMap{"apikey": raw}}); err != nil {
		b.Fatal(err)
	}
	mod, err := ctx.App("apikey")
	if err != nil {
		b.Fatal(err)
	}
	if err := mod.(caddy.App).Start(); err != nil {
		b.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		if err := mod.(caddy.CleanerUpper).Cleanup(); err != nil {
			b.Error(err)
		}
		awaitClosed(b, path)
	})
	b.Cleanup(stop)
	return ctx, mod.(*apikey.App).Service(), stop
}

// awaitClosed waits until the store at path is closed, which goes on after the app
// has ended: its folder must not be removed before. SQLite deletes the log when the
// last connection has written what was counted and is closed.
func awaitClosed(b *testing.B, path string) {
	b.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(path + "-wal"); errors.Is(err, fs.ErrNotExist) {
			return
		}
		if time.Now().After(deadline) {
			b.Fatalf("%s is still open", path)
		}
	}
}

// gate provisions a gate with a store of its own.
func gate(b *testing.B, config object) (*apikey.Gate, *keyring.Service) {
	b.Helper()
	ctx, keys, _ := service(b, config, filepath.Join(b.TempDir(), "keys.db"))
	g := new(apikey.Gate)
	if err := g.Provision(ctx); err != nil {
		b.Fatal(err)
	}
	return g, keys
}

// measure calls a handler with one request over and over. What the request and
// the response carry is put back each time, outside of what is compared: the
// floor pays for it too.
func measure(b *testing.B, raw string, h caddyhttp.MiddlewareHandler) {
	b.Helper()
	measureEach(b, func() string { return raw }, h, http.StatusOK)
}

// measureEach is measure with another key for each request, and the status that
// each response must have.
func measureEach(b *testing.B, next func() string, h caddyhttp.MiddlewareHandler, status int) {
	b.Helper()
	b.ReportAllocs()
	w := httptest.NewRecorder()
	r, _ := newRequest("")
	base := r.Context()
	key := r.Header["X-Api-Key"]
	for b.Loop() {
		repl := caddy.NewReplacer()
		ctx := context.WithValue(base, caddy.ReplacerCtxKey, repl)
		ctx = context.WithValue(ctx, caddyhttp.VarsCtxKey, map[string]any{caddyhttp.ClientIPVarKey: "127.0.0.1"})
		r := r.WithContext(ctx)
		key[0] = next()
		r.Header["X-Api-Key"] = key
		clear(w.Header())
		w.Body.Reset()
		if err := h.ServeHTTP(w, r, done); err != nil {
			b.Fatal(err)
		}
	}
	if w.Code != status {
		b.Fatalf("status %d", w.Code)
	}
}

func create(b *testing.B, keys *keyring.Service, d keyring.Draft) string {
	b.Helper()
	issued, err := keys.As(keyring.Actor{Kind: keyring.ActorOperator}).Create(context.Background(), d)
	if err != nil {
		b.Fatal(err)
	}
	return issued.Raw
}
