package bench

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-apikey/caddy-apikey/keyring"
)

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
	g, keys := gate(b, nil)
	measure(b, create(b, keys, alice), g)
}

// BenchmarkGateRateLimit is BenchmarkGate with a rate limit on the key.
func BenchmarkGateRateLimit(b *testing.B) {
	eachAlgorithm(b, func(b *testing.B, limited keyring.Draft) {
		g, keys := gate(b, nil)
		measure(b, create(b, keys, limited), g)
	})
}

// BenchmarkGateTiers is BenchmarkGate with a rate limit on the key and three on
// the tier of its owner.
func BenchmarkGateTiers(b *testing.B) {
	g, keys := gate(b, tiers)
	measure(b, create(b, keys, limitedBy("fixed_window")), g)
}

// BenchmarkGateLease is BenchmarkGate with credits that are leased.
func BenchmarkGateLease(b *testing.B) {
	g, keys := gate(b, lease)
	measure(b, create(b, keys, metered), g)
}
