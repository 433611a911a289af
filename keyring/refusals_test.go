package keyring

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// shownLimits writes the limits of a decision as "name r/t", "!" for a full one, and
// begins with the one that refused.
func shownLimits(d Decision) string {
	parts := []string{d.Limit}
	for _, l := range d.Limits {
		full := ""
		if l.Full {
			full = "!"
		}
		parts = append(parts, fmt.Sprintf("%s%s(%s) %d/%d", l.Name, full, l.Scope, l.Remaining, l.Reset))
	}
	return strings.Join(parts, " | ")
}

// TestQ13_refuser: a refusal names the limit that refused and all that are full, and
// each limit shows its own state.
func TestQ13_refuser(t *testing.T) {
	g := newRig(t).with(tier("free", per(minute, 3), per(tenSeconds, 2)))
	step := func(raw string, cost int64, want string) Decision {
		t.Helper()
		d := g.verify(raw, Request{Cost: cost})
		if got := shownLimits(d); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		return d
	}
	raw := g.create(Draft{UserID: "a", RateLimitMax: ptr(int64(4)), RateLimitTimeWindow: ptr(int64(1000))}).Raw
	step(raw, 1, " | key(key) 3/1000 | 10s(owner) 1/10000 | minute(owner) 2/60000")
	step(raw, 1, " | key(key) 2/1000 | 10s(owner) 0/10000 | minute(owner) 1/60000")
	d := step(raw, 1, "10s | key(key) 2/1000 | 10s!(owner) 0/10000 | minute(owner) 1/60000")
	if l := d.Refuser(); l == nil || l.Name != "10s" || d.Detail() != "The limit per 10s of the owner's tier is reached." {
		t.Errorf("refuser %+v, detail %q", l, d.Detail())
	}
	g.clock.advance(10 * time.Second)
	step(raw, 1, " | key(key) 3/1000 | 10s(owner) 1/10000 | minute(owner) 0/50000")
	step(raw, 1, "minute | key(key) 3/1000 | 10s(owner) 1/10000 | minute!(owner) 0/50000")
	// Several are full: the one that has to be waited for longest is named.
	d = step(raw, 2, "minute | key(key) 3/1000 | 10s!(owner) 1/10000 | minute!(owner) 0/50000")
	if d.Wait != 50_000 || !d.Waitable {
		t.Errorf("wait %d, %v", d.Wait, d.Waitable)
	}
	// What never fits comes first, however long the others take.
	d = step(raw, 5, "key | key!(key) 3/1000 | 10s!(owner) 1/10000 | minute!(owner) 0/50000")
	if d.Waitable || d.Detail() != RateLimited.Title() {
		t.Errorf("waitable %v, detail %q", d.Waitable, d.Detail())
	}
	// Another key of the owner.
	other := g.create(Draft{UserID: "a", Remaining: ptr(int64(5))}).Raw
	step(other, 1, "minute | 10s(owner) 1/10000 | minute!(owner) 0/50000 | credits(key) 5/0")
}

// TestQ13_credits: where too few credits are left, the rate limits show what they had
// before the request.
func TestQ13_credits(t *testing.T) {
	for _, lease := range []int64{0, 10} {
		g := newRig(t)
		g.use(&Settings{Rules: DefaultRules(), Lease: lease, Tiers: []Tier{tier("t", per(Day, 9))}, DefaultTier: "t"})
		for _, algorithm := range []string{"fixed_window", "sliding_window", "token_bucket"} {
			raw := g.create(Draft{
				UserID: algorithm, RateLimitMax: ptr(int64(10)), RateLimitTimeWindow: ptr(int64(10_000)), RateLimitAlgorithm: &algorithm,
				Remaining: ptr(int64(3)), RefillAmount: ptr(int64(3)), RefillInterval: ptr(int64(60_000)),
			}).Raw
			untouched := "credits | key(key) 10/0 | day(owner) 9/0 | credits!(key) 3/60000"
			if got := shownLimits(g.want(raw, UsageExceeded, Request{Cost: 4})); got != untouched {
				t.Errorf("%s, lease %d: got %s, want %s", algorithm, lease, got, untouched)
			}
			before := g.want(raw, Allowed, Request{Cost: 2})
			d := g.want(raw, UsageExceeded, Request{Cost: 2})
			for i, l := range d.Limits {
				was := before.Limits[i]
				if l.Name != was.Name || l.Remaining != was.Remaining || l.Reset != was.Reset || l.Full != (l.Name == "credits") {
					t.Errorf("%s, lease %d: %+v, before the refusal %+v", algorithm, lease, l, was)
				}
			}
			if d.Detail() != UsageExceeded.Title() || d.Refuser().Scope != ScopeKey {
				t.Errorf("detail %q, refuser %+v", d.Detail(), d.Refuser())
			}
		}
	}
}

// TestQ13_bothFull: a full window and missing credits are both named.
func TestQ13_bothFull(t *testing.T) {
	g := newRig(t)
	raw := g.create(Draft{RateLimitMax: ptr(int64(1)), RateLimitTimeWindow: ptr(int64(1000)), Remaining: ptr(int64(1))}).Raw
	g.want(raw, Allowed)
	d := g.want(raw, RateLimited)
	if got, want := shownLimits(d), "key | key!(key) 0/1000 | credits!(key) 0/0"; got != want || d.Waitable || !d.Limits[1].Final {
		t.Errorf("got %s, waitable %v, want %s", got, d.Waitable, want)
	}
}
