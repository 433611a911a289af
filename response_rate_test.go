package apikey

import (
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// TestRateHeadersOfSeveralLimits: an item for each limit, with what it has left by
// itself, and the tightest one in the legacy form.
func TestRateHeadersOfSeveralLimits(t *testing.T) {
	limits := []keyring.Limit{
		{Name: "key", Quota: 100, Window: 60_000, Remaining: 42, Reset: 17_000},
		{Name: "10s", Quota: 7, Window: 10_000, Remaining: 3, Reset: 9_001},
		{Name: "day", Quota: 1 << 52, Window: 23 * 3_600_000, Remaining: 1<<52 - 1, Reset: 1},
		{Name: "month", Quota: 3, Window: 30 * 24 * 3_600_000, Remaining: 3, Reset: 50_000},
		{Name: "credits", Quota: 5, Remaining: 5, Reset: 90_000},
	}
	h, d := http.Header{}, &keyring.Decision{Limits: limits}
	writeRateHeaders(h, rateBoth, d, false)
	for name, want := range map[string]string{
		"RateLimit-Policy":      `"key";q=100;w=60, "10s";q=7;w=10, "day";q=999999999999999;w=82800, "month";q=3;w=2592000, "credits";q=5`,
		"RateLimit":             `"key";r=42;t=17, "10s";r=3;t=10, "day";r=999999999999999;t=1, "month";r=3;t=50, "credits";r=5;t=90`,
		"X-RateLimit-Limit":     "3",
		"X-RateLimit-Remaining": "3",
		"X-RateLimit-Reset":     "50",
	} {
		if got := h.Values(name); len(got) != 1 || got[0] != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	h.Add("Ratelimit-Policy", "x") // what another handler adds must not reach into the other header
	if got := h.Get("RateLimit"); !strings.HasPrefix(got, `"key";r=42`) {
		t.Errorf("RateLimit: %q", got)
	}
	if n := testing.AllocsPerRun(100, func() { writeRateHeaders(h, rateDraft, d, false) }); n > 2 {
		t.Errorf("%v allocations", n)
	}
	huge := &keyring.Decision{Limits: []keyring.Limit{{Name: "key", Quota: 1 << 52, Remaining: 1 << 52}}}
	if writeRateHeaders(h, rateDraft, huge, false); h.Get("RateLimit") != `"key";r=999999999999999` {
		t.Errorf("RateLimit: %q", h.Get("RateLimit"))
	}
	for _, name := range []string{"", rateDraft, rateDraft11} {
		got := http.Header{}
		if writeRateHeaders(got, name, d, false); len(got) != 2 || got.Get("RateLimit") == "" {
			t.Errorf("rate_headers %q: %v", name, got)
		}
	}
}

// TestQ14_resets: a reset is left out of the legacy headers exactly where waiting
// never helps, also where an earlier gate has written one.
func TestQ14_resets(t *testing.T) {
	window := keyring.Limit{Name: "key", Quota: 5, Window: 60_000, Reset: 60_000}
	credits := keyring.Limit{Name: "credits", Quota: 5, Final: true}
	refilled := keyring.Limit{Name: "credits", Quota: 5, Reset: 90_000}
	left := func(l keyring.Limit, n int64) keyring.Limit { l.Remaining = n; return l }
	for _, tt := range []struct {
		name string
		d    keyring.Decision
		want string // limit, remaining, reset
	}{
		{"credits that never come back", keyring.Decision{Limits: []keyring.Limit{credits}, Limit: "credits"}, "5 0 -"},
		{"some of them left", keyring.Decision{Limits: []keyring.Limit{left(credits, 3)}}, "5 3 -"},
		{"beside a window with as much left", keyring.Decision{Limits: []keyring.Limit{left(window, 3), left(credits, 3)}}, "5 3 -"},
		{"beside a tighter window", keyring.Decision{Limits: []keyring.Limit{left(window, 2), left(credits, 3)}}, "5 2 60"},
		{"both used up", keyring.Decision{Limits: []keyring.Limit{window, credits}, Limit: "key"}, "5 0 -"},
		{"credits to come", keyring.Decision{Limits: []keyring.Limit{window, refilled}, Limit: "key", Waitable: true}, "5 0 90"},
		{"a cost above the maximum", keyring.Decision{Limits: []keyring.Limit{left(window, 5)}, Limit: "key"}, "5 5 -"},
		{"a full window", keyring.Decision{Limits: []keyring.Limit{window}, Limit: "key", Waitable: true}, "5 0 60"},
		{"an untouched window", keyring.Decision{Limits: []keyring.Limit{{Name: "key", Quota: 5, Remaining: 5}}}, "5 5 0"},
	} {
		for _, again := range []bool{false, true} {
			h := http.Header{}
			if again {
				h.Set("X-RateLimit-Limit", "9")
				h.Set("X-RateLimit-Reset", "9")
			}
			writeRateHeaders(h, rateLegacy, &tt.d, again)
			reset := "-"
			if list := h.Values("X-RateLimit-Reset"); list != nil {
				reset = strings.Join(list, ",")
			}
			if got := h.Get("X-RateLimit-Limit") + " " + h.Get("X-RateLimit-Remaining") + " " + reset; got != tt.want {
				t.Errorf("%s, again %v: got %s, want %s", tt.name, again, got, tt.want)
			}
		}
	}
}
