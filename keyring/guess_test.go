package keyring

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/ratelimit"
)

// guessRig is a rig with a limit of guesses, and a raw key that nobody has.
func guessRig(t *testing.T, limit int64) (g *rig, unknown func() string) {
	g = newRig(t)
	g.use(&Settings{Rules: DefaultRules(), GuessLimit: ratelimit.Policy{Max: limit, Window: 60_000}})
	return g, func() string {
		raw, err := key.Random{}.Generate("ak_", 64, true)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
}

// from is a request from an address.
func from(ip string) Request {
	return Request{Cost: 1, ClientIP: netip.MustParseAddr(ip), CountGuess: true}
}

// guessedFrom reports how many invalid keys have come from an address.
func (g *rig) guessedFrom(ip string) int64 {
	r := &g.engine.guesses
	r.mu.Lock()
	defer r.mu.Unlock()
	state := r.of[networkOf(netip.MustParseAddr(ip))]
	if state == nil {
		return 0
	}
	return state.Count(ratelimit.Policy{Max: 1, Window: 60_000}, g.engine.clock().monotonic)
}

// TestD4_GuessLimit: beyond the limit, malformed, mistyped and unknown keys get the same
// refusal, which the store is not asked for and which does not extend the window.
func TestD4_GuessLimit(t *testing.T) {
	g, unknown := guessRig(t, 3)
	valid := g.create(Draft{}).Raw
	typo := "xx_" + unknown()[3:]
	g.want("!", Invalid, from("192.0.2.1"))
	g.want(typo, Invalid, from("192.0.2.1"))
	g.want(unknown(), Invalid, from("192.0.2.1"))
	g.clock.advance(20 * time.Second)
	g.spy.finds.Store(0)
	// One that the filter takes for stored is looked up once, and so excluded by the cache.
	for range 5 {
		for _, raw := range []string{"!", typo, strings.Repeat("x", 5000), unknown()} {
			d := g.want(raw, RateLimited, from("192.0.2.1"))
			if got, want := shownLimits(d), "guess | guess!(address) 0/40000"; got != want || d.Wait != 40_000 || !d.Waitable || d.Limits[0].Quota != 3 || d.Limits[0].Window != 60_000 {
				t.Errorf("got %s, wait %d, limits %+v, want %s", got, d.Wait, d.Limits, want)
			}
			if d.Detail() != "Too many invalid API keys came from this address." || d.Key() != nil {
				t.Errorf("detail %q, key %v", d.Detail(), d.Key())
			}
		}
	}
	g.clock.advance(30 * time.Second)
	if finds := g.spy.finds.Load(); finds > 1 {
		t.Errorf("%d look-ups for refusals", finds)
	}
	// What is valid passes, and is not counted.
	for range 5 {
		g.want(valid, Allowed, from("192.0.2.1"))
	}
	g.want("!", RateLimited, from("192.0.2.1"))
	g.clock.advance(9_999 * time.Millisecond)
	g.want("!", RateLimited, from("192.0.2.1"))
	g.clock.advance(time.Millisecond) // the refusals have not extended the window
	g.want("!", Invalid, from("192.0.2.1"))
}

// TestD4_ColdKey: a valid key that is not in memory is looked up beyond the limit as well.
func TestD4_ColdKey(t *testing.T) {
	g, unknown := guessRig(t, 1)
	valid := g.create(Draft{}).Raw
	g.want(unknown(), Invalid, from("192.0.2.1"))
	for range 3 {
		g.evict()
		g.want(unknown(), RateLimited, from("192.0.2.1"))
		before := g.spy.finds.Load()
		g.want(valid, Allowed, from("192.0.2.1"))
		if g.spy.finds.Load() != before+1 {
			t.Fatal("the key was in memory: this shows nothing")
		}
	}
	g.want(g.create(Draft{}).Raw, Allowed, from("192.0.2.1")) // made after the limit was reached
}

// TestD4_KnownKeys: a key that is stored and refused gets its reason beyond the limit, and
// counts only where it is INVALID_API_KEY.
func TestD4_KnownKeys(t *testing.T) {
	g, _ := guessRig(t, 2)
	k := g.create(Draft{})
	g.update(k.Key.ID, Patch{Enabled: to(false)})
	for range 5 {
		g.want(k.Raw, Disabled, from("192.0.2.1"))
	}
	if n := g.guessedFrom("192.0.2.1"); n != 0 {
		t.Errorf("%d guesses are counted for a disabled key", n)
	}
	other := from("192.0.2.1")
	other.ConfigIDs = []string{"other"}
	live := g.create(Draft{}).Raw
	for range 3 {
		if d := g.want(live, Invalid, other); d.Key() == nil {
			t.Fatal("the key was not found: this shows nothing")
		}
	}
	g.want("!", RateLimited, from("192.0.2.1"))
	g.want(k.Raw, Disabled, from("192.0.2.1"))
}

// TestD4_Addresses: addresses of one /64 and the two forms of an IPv4 address share a count;
// others do not.
func TestD4_Addresses(t *testing.T) {
	for _, c := range []struct {
		name, one, two string
		shared         bool
	}{
		{"rotation in a /64", "2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", true},
		{"zones", "fe80::1%eth0", "fe80::1%eth1", true},
		{"the next /64", "2001:db8:1:2::1", "2001:db8:1:3::1", false},
		{"mapped", "192.0.2.1", "::ffff:192.0.2.1", true},
		{"the next IPv4 address", "192.0.2.1", "192.0.2.2", false},
		{"two mapped addresses", "::ffff:192.0.2.1", "::ffff:192.0.2.2", false},
		{"an IPv6 address with the bits of an IPv4 address", "192.0.2.1", "0:0:c000:201::1", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			g, _ := guessRig(t, 1)
			g.want("!", Invalid, from(c.one))
			g.want("!", RateLimited, from(c.one))
			want := Invalid
			if c.shared {
				want = RateLimited
			}
			g.want("!", want, from(c.two))
		})
	}
	g, _ := guessRig(t, 20)
	ip, limited := netip.MustParseAddr("2001:db8:1:2::").As16(), 0
	for i := range uint64(1000) {
		binary.BigEndian.PutUint64(ip[8:], i*0x9e3779b97f4a7c15)
		if g.verify("!", Request{ClientIP: netip.AddrFrom16(ip), CountGuess: true}).Outcome == RateLimited {
			limited++
		}
	}
	if limited != 980 {
		t.Errorf("%d of 1000 keys from a /64 are limited, want 980", limited)
	}
}

// TestD4_NotCounted: without an address, for a question that is not to be counted, without
// the filter and without the option, nothing is limited.
func TestD4_NotCounted(t *testing.T) {
	g, unknown := guessRig(t, 1)
	for _, q := range []Request{{Cost: 1, CountGuess: true}, {Cost: 1, ClientIP: netip.MustParseAddr("192.0.2.1"), DryRun: true}} {
		for range 3 {
			g.want("!", Invalid, q)
		}
	}
	members := &g.engine.cache.members
	filter := members.current.Swap(nil)
	for range 3 {
		g.want("!", Invalid, from("192.0.2.1"))
		g.want(unknown(), Invalid, from("192.0.2.1"))
	}
	members.current.Store(filter)
	g.want("!", Invalid, from("192.0.2.1"))
	g.want("!", RateLimited, from("192.0.2.1"))
	limited := g.Editor
	g.use(&Settings{Rules: DefaultRules()})
	g.want("!", Invalid, from("192.0.2.1"))
	g.Editor = limited
	g.want("!", RateLimited, from("192.0.2.1")) // the counts belong to the engine
}

// TestD4_Bounded: no more than so many addresses are counted, the oldest goes, and what has
// ended leaves memory.
func TestD4_Bounded(t *testing.T) {
	g, _ := guessRig(t, 1)
	at := func(i int) string { return fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255) }
	for i := range maxNetworks {
		g.want("!", Invalid, from(at(i)))
	}
	g.want("!", RateLimited, from(at(0)))
	g.want("!", Invalid, from("192.0.2.1"))
	r := &g.engine.guesses
	if len(r.of) != maxNetworks || len(r.order) != maxNetworks || cap(r.order) > 2*maxNetworks {
		t.Errorf("%d addresses, %d in order, of %d", len(r.of), len(r.order), cap(r.order))
	}
	g.want("!", RateLimited, from(at(1)))
	g.want("!", Invalid, from(at(0))) // that was the oldest, although it was seen again
	g.clock.advance(time.Minute)
	g.want("!", Invalid, from("192.0.2.2"))
	if len(r.of) != 1 || !slices.Equal(r.order, []network{networkOf(netip.MustParseAddr("192.0.2.2"))}) {
		t.Errorf("%d addresses after all windows have ended", len(r.of))
	}
}

// TestD4_Observed: a refusal by the limit is told as RATE_LIMITED, of no key.
func TestD4_Observed(t *testing.T) {
	g := newRig(t)
	o := new(watcher)
	g.use(&Settings{Rules: DefaultRules(), GuessLimit: ratelimit.Policy{Max: 1, Window: 60_000}, Observers: []Observer{o}})
	g.want("!", Invalid, from("192.0.2.1"))
	g.want("!", RateLimited, from("192.0.2.1"))
	d := Refusal(Invalid)
	q := from("192.0.2.1")
	g.Refused(&d, &q)
	if d.Outcome != RateLimited || d.Limit != "guess" {
		t.Errorf("a refusal of the caller's own: %+v", d)
	}
	if want := []string{"invalid_api_key -   0", "rate_limited -  guess 0", "rate_limited -  guess 0"}; !slices.Equal(o.decided, want) {
		t.Errorf("told %q, want %q", o.decided, want)
	}
}

// TestGuessLimit_allocations: a refusal by the limit allocates only what it shows, and the
// limit costs a valid key nothing.
func TestGuessLimit_allocations(t *testing.T) {
	g, unknown := guessRig(t, 1)
	valid, raw, q := g.create(Draft{}).Raw, unknown(), from("192.0.2.1")
	g.want(raw, Invalid, q)
	g.want(valid, Allowed, q)
	for _, c := range []struct {
		name, raw string
		want      float64
	}{{"valid", valid, 0}, {"malformed", "!", 1}, {"unknown", raw, 1}} {
		var d Decision
		if n := testing.AllocsPerRun(100, func() {
			d = Decision{}
			if err := g.VerifyInto(t.Context(), c.raw, &q, &d); err != nil {
				t.Fatal(err)
			}
		}); n > c.want {
			t.Errorf("%s: %v allocations, want %v", c.name, n, c.want)
		}
	}
}
