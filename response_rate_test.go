package apikey

import (
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// TestRateHeadersOfSeveralLimits: an item for each limit, of which none promises
// more than the tightest, and that one in the legacy form.
func TestRateHeadersOfSeveralLimits(t *testing.T) {
	limits := []keyring.Limit{
		{Name: "key", Quota: 100, Window: 60_000, Remaining: 42, Reset: 17_000},
		{Name: "10s", Quota: 7, Window: 10_000, Remaining: 3, Reset: 9_001},
		{Name: "day", Quota: 1 << 52, Window: 23 * 3_600_000, Remaining: 1<<52 - 1, Reset: 1},
		{Name: "month", Quota: 3, Window: 30 * 24 * 3_600_000, Remaining: 3, Reset: 50_000},
		{Name: "credits", Quota: 5, Remaining: 5},
	}
	h := http.Header{}
	writeRateHeaders(h, rateBoth, limits, false)
	for name, want := range map[string]string{
		"RateLimit-Policy":      `"key";q=100;w=60, "10s";q=7;w=10, "day";q=999999999999999;w=82800, "month";q=3;w=2592000, "credits";q=5`,
		"RateLimit":             `"key";r=3;t=17, "10s";r=3;t=10, "day";r=3;t=1, "month";r=3;t=50, "credits";r=3`,
		"X-RateLimit-Limit":     "3",
		"X-RateLimit-Remaining": "3",
		"X-RateLimit-Reset":     "50",
	} {
		if got := h.Values(name); len(got) != 1 || got[0] != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	h.Add("Ratelimit-Policy", "x") // what another handler adds must not reach into the other header
	if got := h.Get("RateLimit"); !strings.HasPrefix(got, `"key";r=3`) {
		t.Errorf("RateLimit: %q", got)
	}
	if n := testing.AllocsPerRun(100, func() { writeRateHeaders(h, rateDraft, limits, false) }); n > 2 {
		t.Errorf("%v allocations", n)
	}
	huge := []keyring.Limit{{Name: "key", Quota: 1 << 52, Remaining: 1 << 52}}
	if writeRateHeaders(h, rateDraft, huge, false); h.Get("RateLimit") != `"key";r=999999999999999` {
		t.Errorf("RateLimit: %q", h.Get("RateLimit"))
	}
}
