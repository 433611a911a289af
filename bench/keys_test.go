package bench

import (
	"testing"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// Limits that are never reached.
const (
	plenty = int64(1) << 50
	minute = int64(60_000)
)

var (
	alice   = keyring.Draft{UserID: "alice"}
	metered = keyring.Draft{UserID: "alice", Remaining: new(plenty)}
	spent   = keyring.Draft{UserID: "alice", Remaining: new(int64(0))}

	lease = object{"credits": object{"mode": "lease", "max": 1000}}
	tiers = object{
		"tiers": []object{{"name": "pro", "limits": []object{
			{"max": plenty, "per": "1m"}, {"max": plenty, "per": "day"}, {"max": plenty, "per": "month"},
		}}},
		"default_tier": "pro",
	}
)

// limitedBy is a key with a rate limit.
func limitedBy(algorithm string) keyring.Draft {
	return keyring.Draft{
		UserID: "alice", RateLimitMax: new(plenty), RateLimitTimeWindow: new(minute), RateLimitAlgorithm: &algorithm,
	}
}

func eachAlgorithm(b *testing.B, f func(*testing.B, keyring.Draft)) {
	for _, algorithm := range []string{"fixed_window", "sliding_window", "token_bucket"} {
		b.Run(algorithm, func(b *testing.B) { f(b, limitedBy(algorithm)) })
	}
}

// unknown returns n well-formed keys that nobody knows.
func unknown(b *testing.B, n int) []string {
	b.Helper()
	raws := make([]string, n)
	for i := range raws {
		var err error
		if raws[i], err = (key.Random{}).Generate("ak_", key.DefaultLength, true); err != nil {
			b.Fatal(err)
		}
	}
	return raws
}

// cycle goes round.
func cycle(raws []string) func() string {
	i := 0
	return func() string {
		i = (i + 1) % len(raws)
		return raws[i]
	}
}
