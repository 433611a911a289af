package bench

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// static is Caddy's own answer.
type static struct{ caddyhttp.StaticResponse }

func (s static) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	return s.StaticResponse.ServeHTTP(w, r, next)
}

// BenchmarkStatic is a fixed answer with a body about as long as that of a
// refusal. BenchmarkRefused is compared with it.
func BenchmarkStatic(b *testing.B) {
	s := static{caddyhttp.StaticResponse{StatusCode: "401", Body: strings.Repeat("x", 100)}}
	measureEach(b, cycle([]string{"x"}), s, http.StatusUnauthorized)
}

// BenchmarkRefused is a request that is refused, with the answer to it.
func BenchmarkRefused(b *testing.B) {
	b.Run("malformed", func(b *testing.B) {
		g, _ := gate(b, nil)
		raw := unknown(b, 1)[0]
		measureEach(b, cycle([]string{raw[:len(raw)-1] + "!"}), g, http.StatusUnauthorized)
	})
	b.Run("mistyped", func(b *testing.B) {
		g, _ := gate(b, nil)
		raw := unknown(b, 1)[0]
		measureEach(b, cycle([]string{"xx_" + raw[3:]}), g, http.StatusUnauthorized)
	})
	b.Run("unknown", func(b *testing.B) {
		g, keys := gate(b, nil)
		create(b, keys, alice)
		measureEach(b, cycle(unknown(b, 100_000)), g, http.StatusUnauthorized)
	})
	b.Run("over_limit", func(b *testing.B) {
		g, keys := gate(b, nil)
		limited := limitedBy("fixed_window")
		limited.RateLimitMax, limited.RateLimitTimeWindow = new(int64(1)), new(30*24*60*minute)
		raw := create(b, keys, limited)
		verify(b, keys, raw)
		measureEach(b, cycle([]string{raw}), g, http.StatusTooManyRequests)
	})
	// The limit of invalid keys, before and after it is reached.
	for name, limit := range map[string]int64{"guess_counted": 1 << 40, "guess_limited": 1} {
		b.Run(name, func(b *testing.B) {
			g, keys := gate(b, object{"guess_limit": object{"max": limit, "window": "720h"}})
			create(b, keys, alice)
			if limit > 1 {
				measureEach(b, cycle(unknown(b, 100_000)), g, http.StatusUnauthorized)
				return
			}
			q := keyring.Request{ClientIP: netip.MustParseAddr("127.0.0.1"), CountGuess: true}
			for d := (keyring.Decision{}); d.Outcome != keyring.RateLimited; { // once the filter is there
				d, _ = keys.Verify(b.Context(), "!", &q)
			}
			measureEach(b, cycle(unknown(b, 100_000)), g, http.StatusTooManyRequests)
		})
	}
	b.Run("no_credits", func(b *testing.B) {
		g, keys := gate(b, nil)
		measureEach(b, cycle([]string{create(b, keys, spent)}), g, http.StatusTooManyRequests)
	})
}
