package keyring

import (
	"encoding/binary"
	"net/netip"
	"sync"

	"github.com/caddy-apikey/caddy-apikey/ratelimit"
)

const (
	// guessLimit is the name of Settings.GuessLimit among the limits.
	guessLimit = "guess"
	// maxGuessers is of how many addresses invalid keys are counted at a time.
	maxGuessers = 100_000
)

// guesser is where invalid keys come from: an IPv4 address, or the first 64 bits of an IPv6
// address, since whoever has one address of such a network has all of them.
type guesser struct {
	bits uint64
	v4   bool
}

func guesserOf(ip netip.Addr) guesser {
	b := ip.As16()
	if ip.Is4() || ip.Is4In6() {
		return guesser{uint64(binary.BigEndian.Uint32(b[12:])), true}
	}
	return guesser{binary.BigEndian.Uint64(b[:8]), false}
}

// guesses count the invalid keys of each address, in fixed windows. They are not stored.
type guesses struct {
	mu sync.Mutex
	of map[guesser]*ratelimit.State
	// order has the addresses in the order in which their windows began. All windows are of
	// the same length, so that those which end first are in front.
	order []guesser
}

// take counts an invalid key, unless the limit is reached.
func (g *guesses) take(who guesser, limit ratelimit.Policy, clock func() instant) ratelimit.Verdict {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := clock().monotonic
	g.sweep(limit, now)
	state := g.of[who]
	if state == nil {
		if len(g.order) == maxGuessers {
			g.drop()
		}
		if g.of == nil {
			g.of = map[guesser]*ratelimit.State{}
		}
		state = new(ratelimit.State)
		g.of[who] = state
		g.order = append(g.order, who)
	}
	return state.Take(limit, now, 1)
}

// sweep removes the addresses whose windows have ended.
func (g *guesses) sweep(limit ratelimit.Policy, now int64) {
	for len(g.order) > 0 {
		if !g.of[g.order[0]].Idle(limit, now) {
			return
		}
		g.drop()
	}
	g.of, g.order = nil, nil // a map does not shrink
}

// drop removes the address whose window began first.
func (g *guesses) drop() {
	delete(g.of, g.order[0])
	g.order = g.order[1:]
}

// limitGuess counts an invalid key against the address that it came from. Beyond the limit
// the decision becomes a refusal for that, whatever is wrong with the key, unless the key is
// known: it is not a guess then, and its holder has to know what is wrong. A valid key
// never gets here, so that nobody can lock it out.
func (s *Service) limitGuess(d *Decision, q *Request) {
	limit := s.set.GuessLimit
	// Without the filter, each unknown key costs a look-up that the limit cannot spare.
	if d.Outcome != Invalid || !q.CountGuess || limit.Max == 0 || !q.ClientIP.IsValid() || s.engine.cache.members.current.Load() == nil {
		return
	}
	v := s.engine.guesses.take(guesserOf(q.ClientIP), limit, s.engine.clock)
	if v.OK || d.rec != nil {
		return
	}
	d.refuse(RateLimited, v.Wait, true)
	d.Limit = guessLimit
	d.Limits = []Limit{{
		Name: guessLimit, Scope: ScopeAddress, Quota: limit.Max, Window: limit.Window,
		Remaining: v.Remaining, Reset: v.Reset, Full: true,
	}}
}
