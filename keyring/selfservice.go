package keyring

import (
	"sync"
	"time"

	"github.com/caddy-apikey/caddy-apikey/ratelimit"
)

// SelfServiceLimit is the name of the budget of Spend in rate headers.
const SelfServiceLimit = "self-service"

// selfServicePolicy is that budget, of each key and each person.
var selfServicePolicy = ratelimit.Policy{Algorithm: ratelimit.FixedWindow, Max: 60, Window: time.Minute.Milliseconds()}

// budgets count the calls of the self-service API that take nothing of a key. They
// are not stored. Who gets one has been identified, so that there are no more than
// keys and persons who called within the last two windows.
type budgets struct {
	mu    sync.Mutex
	of    map[spender]*ratelimit.State
	swept int64 // when those that had ended were removed
}

// spender is who a budget belongs to: a key or, without one, a person.
type spender struct{ keyID, person string }

// take counts a call.
func (b *budgets) take(who spender, clock func() instant) ratelimit.Verdict {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := clock().monotonic
	b.sweep(now)
	state := b.of[who]
	if state == nil {
		if b.of == nil {
			b.of = map[spender]*ratelimit.State{}
		}
		state = new(ratelimit.State)
		b.of[who] = state
	}
	return state.Take(selfServicePolicy, now, 1)
}

// sweep removes what has ended, once a window.
func (b *budgets) sweep(now int64) {
	if passed := now - b.swept; passed >= 0 && passed < selfServicePolicy.Window {
		return
	}
	b.swept = now
	for who, state := range b.of {
		if state.Idle(selfServicePolicy, now) {
			delete(b.of, who)
		}
	}
}

// Spend takes a call from the budget of those that take nothing of a key: that of the
// key that before has let in, or, where before is nil, that of a person. Each process
// has its own budgets. The result is before with the limit, and refused where no call
// is left.
func (s *Service) Spend(before *Decision, person string) (d Decision) {
	who, scope := spender{person: person}, ScopeOwner
	if before != nil {
		d, who, scope = *before, spender{keyID: before.Key().ID}, ScopeKey
	}
	v := s.engine.budgets.take(who, s.engine.clock)
	d.Limits = []Limit{{
		Name: SelfServiceLimit, Scope: scope, Quota: selfServicePolicy.Max, Window: selfServicePolicy.Window,
		Remaining: v.Remaining, Reset: v.Reset, Full: !v.OK,
	}}
	if !v.OK {
		d.refuse(RateLimited, v.Wait, true)
	}
	return d
}
