package bench

import (
	"net/http"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
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
	b.Run("no_credits", func(b *testing.B) {
		g, keys := gate(b, nil)
		measureEach(b, cycle([]string{create(b, keys, spent)}), g, http.StatusTooManyRequests)
	})
}
