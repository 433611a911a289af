package keyring

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// least returns the least that one of the limits has left: so much passes now, at a
// cost of 1 each, and no more.
func least(limits []Limit) int64 {
	return slices.MinFunc(limits, func(a, b Limit) int { return cmp.Compare(a.Remaining, b.Remaining) }).Remaining
}

// TestRateHeadersPromise: whatever limits, tiers and credits there are, and whatever
// was used before, exactly so many requests pass at that instant as the limits of the
// last one say.
func TestRateHeadersPromise(t *testing.T) {
	g := newRig(t)
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		count := func(name string) int64 { return rapid.Int64Range(1, 40).Draw(t, name) }
		some := func(name string) bool { return rapid.Bool().Draw(t, name) }
		owner, set := fmt.Sprint("owner ", n), &Settings{Rules: DefaultRules()}
		if some("lease") {
			set.Lease = count("most leased")
		}
		if some("tier") {
			units := []TierLimit{per(minute, count("minute")), per(tenSeconds, count("10s")), per(Day, count("day")), per(Month, count("month"))}
			at := rapid.IntRange(0, 3).Draw(t, "first")
			set.Tiers, set.DefaultTier = []Tier{tier("t", units[at:rapid.IntRange(at, 4).Draw(t, "end")]...)}, "t"
		}
		g.use(set)
		var keys []Issued
		for i := range 2 {
			d := Draft{UserID: owner}
			if i == 1 || some("limited") {
				d.RateLimitMax, d.RateLimitTimeWindow = ptr(count("maximum")), ptr(1000*count("window"))
				d.RateLimitAlgorithm = ptr(rapid.SampledFrom([]string{"fixed_window", "sliding_window", "token_bucket"}).Draw(t, "algorithm"))
			}
			if some("credits") {
				d.Remaining = ptr(count("remaining"))
				if some("refill") {
					d.RefillAmount, d.RefillInterval = ptr(count("amount")), ptr(1000*count("interval"))
				}
			}
			keys = append(keys, g.create(d))
		}
		last := Decision{Outcome: Invalid}
		raw := ""
		for range rapid.IntRange(1, 30).Draw(t, "requests") {
			g.clock.advance(time.Duration(rapid.SampledFrom([]int64{0, 0, 1, 700, 15_000}).Draw(t, "later")) * time.Millisecond)
			raw = keys[rapid.IntRange(0, 1).Draw(t, "key")].Raw
			last = g.verify(raw, Request{Cost: rapid.Int64Range(0, 5).Draw(t, "cost")})
		}
		if len(last.Limits) == 0 {
			return
		}
		promised := least(last.Limits)
		if passed := g.drain(raw); int64(passed) != promised {
			t.Fatalf("%d passed, of %+v", passed, last.Limits)
		}
		if d := g.want(raw, Allowed, Request{}); least(d.Limits) != 0 {
			t.Fatalf("nothing passes, of %+v", d.Limits)
		}
	})
}
