// Package bench measures the gate against a floor: the work that no gate can do
// without. Run it with
//
//	go test -bench . -benchmem ./bench
package bench

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

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

// gate provisions a gate with a store of its own.
func gate(b *testing.B, config string) (*apikey.Gate, *keyring.Service) {
	b.Helper()
	store := map[string]string{"store": "sqlite", "path": filepath.Join(b.TempDir(), "keys.db")}
	raw, err := json.Marshal(map[string]any{"store": store})
	if err != nil {
		b.Fatal(err)
	}
	ctx, err := caddy.ProvisionContext(&caddy.Config{AppsRaw: caddy.ModuleMap{"apikey": raw}})
	if err != nil {
		b.Fatal(err)
	}
	mod, err := ctx.App("apikey")
	if err != nil {
		b.Fatal(err)
	}
	app := mod.(*apikey.App)
	if err := app.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := app.Cleanup(); err != nil {
			b.Error(err)
		}
	})
	g := new(apikey.Gate)
	if err := json.Unmarshal([]byte(config), g); err != nil {
		b.Fatal(err)
	}
	if err := g.Provision(ctx); err != nil {
		b.Fatal(err)
	}
	return g, app.Service()
}

// measure calls a handler with one request over and over. What the request and
// the response carry is put back each time, outside of what is compared: the
// floor pays for it too.
func measure(b *testing.B, raw string, h caddyhttp.MiddlewareHandler) {
	b.Helper()
	b.ReportAllocs()
	w := httptest.NewRecorder()
	r, _ := newRequest(raw)
	base := r.Context()
	key := r.Header["X-Api-Key"]
	for b.Loop() {
		repl := caddy.NewReplacer()
		ctx := context.WithValue(base, caddy.ReplacerCtxKey, repl)
		ctx = context.WithValue(ctx, caddyhttp.VarsCtxKey, map[string]any{caddyhttp.ClientIPVarKey: "127.0.0.1"})
		r := r.WithContext(ctx)
		r.Header["X-Api-Key"] = key
		clear(w.Header())
		if err := h.ServeHTTP(w, r, done); err != nil {
			b.Fatal(err)
		}
	}
	if w.Code != http.StatusOK {
		b.Fatalf("status %d", w.Code)
	}
}

// floor does what no gate can do without: SHA-256 of the raw key, one look-up in
// a map, one placeholder and two response headers.
type floor struct{ owners map[[sha256.Size]byte]string }

func (f floor) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	owner, ok := f.owners[sha256.Sum256([]byte(r.Header["X-Api-Key"][0]))]
	if !ok {
		return caddyhttp.Error(http.StatusUnauthorized, nil)
	}
	r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer).Set("http.auth.user.id", owner)
	h := w.Header()
	h["Ratelimit"] = []string{`"key";r=42;t=17`}
	h["Ratelimit-Policy"] = []string{`"key";q=100;w=60`}
	return next.ServeHTTP(w, r)
}

type bare struct{}

func (bare) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	return next.ServeHTTP(w, r)
}

// BenchmarkNothing is the frame around the other benchmarks.
func BenchmarkNothing(b *testing.B) { measure(b, "x", bare{}) }

// BenchmarkFloor is what BenchmarkGate is compared with.
func BenchmarkFloor(b *testing.B) {
	f := floor{map[[sha256.Size]byte]string{}}
	var raw string
	for i := range 1000 {
		raw = fmt.Sprintf("ak_%061d", i)
		f.owners[sha256.Sum256([]byte(raw))] = "alice"
	}
	measure(b, raw, f)
}

// BenchmarkGate is a warm request with a valid key.
func BenchmarkGate(b *testing.B) {
	g, keys := gate(b, `{}`)
	measure(b, create(b, keys, keyring.Draft{UserID: "alice"}), g)
}

// BenchmarkGateRateLimit is BenchmarkGate with a rate limit on the key.
func BenchmarkGateRateLimit(b *testing.B) {
	for _, algorithm := range []string{"fixed_window", "sliding_window", "token_bucket"} {
		b.Run(algorithm, func(b *testing.B) {
			g, keys := gate(b, `{}`)
			limit, window := int64(1)<<52, int64(60_000)
			measure(b, create(b, keys, keyring.Draft{
				UserID: "alice", RateLimitMax: &limit, RateLimitTimeWindow: &window, RateLimitAlgorithm: &algorithm,
			}), g)
		})
	}
}

func create(b *testing.B, keys *keyring.Service, d keyring.Draft) string {
	b.Helper()
	issued, err := keys.Create(context.Background(), d)
	if err != nil {
		b.Fatal(err)
	}
	return issued.Raw
}
