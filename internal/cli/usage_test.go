package cli

import (
	"strings"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
)

func TestChart(t *testing.T) {
	days := []admin.UsageDay{
		{Date: "2026-11-18"},
		{Date: "2026-11-19", Allowed: 1},
		{Date: "2026-11-20", Allowed: 50_000, Limited: 25_000, Denied: 25_000},
		{Date: "2026-11-21", Denied: 10_000},
	}
	want := `DATE        ALLOWED  LIMITED  DENIED
2026-11-18        0        0       0
2026-11-19        1        0       0  #
2026-11-20    50000    25000   25000  ##########xxxxxxxxxx
2026-11-21        0        0   10000  xx

# allowed, x limited or denied`
	if got := chart(days, 58); got != want {
		t.Errorf("got\n%s want\n%s", got, want)
	}
	for _, width := range []int{0, 48, 80, 200, 1000} {
		for _, line := range strings.Split(chart(days, width), "\n") {
			if len(line) > max(width, 48) {
				t.Errorf("a line of %d in %d columns: %s", len(line), width, line)
			}
		}
	}
	if got := chart(days[:1], 80); strings.Contains(got, "  #") {
		t.Errorf("a bar for nothing:\n%s", got)
	}
}

func TestUsageReport(t *testing.T) {
	tier, day, minute := "free", int64(1000), int64(10)
	u := admin.Usage{Tier: &tier, Usage: admin.UsageSums{Today: 42, Month: 1200}, Limits: admin.UsageLimits{PerDay: &day, PerMinute: &minute}}
	want := "Tier:        free\nToday:       42 of 1000\nThis month:  1200\nPer minute:  at most 10\n"
	if got := usageReport(u, 80); !strings.HasPrefix(got, want) {
		t.Errorf("got\n%s", got)
	}
}
