package keyring

import "github.com/caddy-apikey/caddy-apikey/ratelimit"

// slots are the places that a request takes in the rate limits that apply to it.
type slots struct {
	limited bool // one applies at all
	policy  ratelimit.Policy
	taken   bool
	at      int64
}

// slotsOf returns the rate limits that apply to a key.
func (s *Service) slotsOf(rec *record) slots {
	return slots{limited: rec.limited && s.set.Rules.RateLimiting, policy: rec.policy}
}

// take takes n slots of every limit or of none, and notes where the limits
// stand. It is called with the key's lock held.
func (s *slots) take(d *Decision, tick, n int64, dry bool) {
	if !s.limited {
		return
	}
	look := d.live.rate.Take
	if dry {
		look = d.live.rate.Peek
	}
	verdict := look(s.policy, tick, n)
	if verdict.OK {
		s.taken, s.at = !dry, verdict.At
	} else {
		d.refuse(RateLimited, verdict.Wait, !verdict.Never)
	}
	d.addRate(s.policy, verdict)
}

// undo gives slots back. It is called with the key's lock held.
func (s *slots) undo(l *live, n int64) {
	if s.taken {
		l.rate.Undo(s.policy, s.at, n)
	}
}

func (d *Decision) addRate(p ratelimit.Policy, v ratelimit.Verdict) {
	if d.Limits == nil {
		d.Limits = make([]Limit, 0, 2)
	}
	d.Limits = append(d.Limits, Limit{Name: "key", Quota: p.Max, Window: p.Window, Remaining: v.Remaining, Reset: v.Reset})
}
