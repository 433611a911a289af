package keyring

import (
	"context"
	"slices"
	"sync"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/ratelimit"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// slots are the places that a request takes in the rate limits that apply to it:
// the key's own, and those that all keys of its owner share.
type slots struct {
	ring    *Ring
	limited bool // one applies at all
	rec     *record
	keyed   bool       // the key's own limit is the first
	owner   *liveOwner // nil: no tier limits anything
	plans   *plans
	plan    *plan
	taken   bool
	all     []ratelimit.Limit
}

// slotsPool keeps the slots of a request off the heap, for which they are too
// many, and off the stack of its connection, which they would make grow.
var slotsPool = sync.Pool{New: func() any { return new(slots) }}

func (s *slots) release() {
	clear(s.all)
	*s = slots{all: s.all[:0]}
	slotsPool.Put(s)
}

// limits reports whether a rate limit may apply to a key, or has to be counted.
func (s *Service) limits(rec *record, rules *Rules) bool {
	return len(s.plans.units) > 0 || keyed(rec, rules)
}

// keyed reports whether the key's own rate limit applies.
func keyed(rec *record, rules *Rules) bool { return rec.limited && rules.RateLimiting }

// slotsFor finds the rate limits that apply to a decision.
func (s *Service) slotsFor(sl *slots, st store.Store, d *Decision) error {
	sl.ring = s.ring
	if !s.limits(d.rec, d.rules) {
		return nil
	}
	sl.limited, sl.rec, sl.keyed = true, d.rec, keyed(d.rec, d.rules)
	if len(s.plans.units) == 0 {
		return nil
	}
	sl.owner, sl.plans, sl.plan = d.rec.owner, s.plans, d.plan
	return sl.owner.load(st, s.ring.lookupTimeout)
}

// take takes n slots of every limit or of none, and notes where the limits
// stand. It is called with the key's lock held, and returns when it took them: it
// reads the clock under the locks, since times read before would come out of
// order. It reports false where the owner in memory is no longer the one that
// counts.
func (s *slots) take(d *Decision, n int64, dry bool) (now instant, ok bool) {
	if s.owner != nil {
		s.owner.counts.mu.Lock()
		defer s.owner.counts.mu.Unlock()
		if s.owner.counts.dead {
			return now, false
		}
	}
	now = s.ring.clock()
	if s.limited {
		s.takeAt(d, now, n, dry)
	}
	return now, true
}

func (s *slots) takeAt(d *Decision, now instant, n int64, dry bool) {
	s.gather(d.live, now)
	var refused int
	var verdict ratelimit.Verdict
	if dry {
		refused, verdict = ratelimit.PeekAll(s.all, now.tick, n)
	} else {
		refused, verdict = ratelimit.TakeAll(s.all, now.tick, n)
	}
	if refused >= 0 {
		d.refuse(RateLimited, verdict.Wait, !verdict.Never)
		d.Limit = s.name(refused)
	} else if s.taken = !dry && n > 0; s.taken {
		s.changed()
	}
	s.show(d)
}

// gather collects the limits, with the locks of the key and the owner held.
func (s *slots) gather(l *live, now instant) {
	if s.keyed {
		s.all = append(s.all, ratelimit.Limit{State: &l.rate, Policy: s.rec.policy})
	}
	if s.owner == nil {
		return
	}
	for i, u := range s.plans.units {
		most := key.MaxCount
		if s.plan != nil {
			most = s.plan.quotas[i].max
		}
		limit := ratelimit.Limit{State: s.owner.counts.state(s.plans, u, now), Policy: s.plans.policy(u, most, now.wall)}
		if u < 0 {
			limit.Ahead = now.wall - now.tick
		}
		s.all = append(s.all, limit)
	}
}

// changed notes that the owner's counts have to be written.
func (s *slots) changed() {
	if s.owner != nil {
		s.ring.owned.changed(s.owner)
	}
}

// undo gives slots back, also in what the decision shows. It is called with the
// key's lock held.
func (s *slots) undo(d *Decision, now instant, n int64) {
	if !s.taken {
		return
	}
	s.taken = false
	if s.owner != nil {
		s.owner.counts.mu.Lock()
		defer s.owner.counts.mu.Unlock()
		s.changed()
	}
	ratelimit.UndoAll(s.all, n)
	if before := d.Limits; before != nil {
		ratelimit.PeekAll(s.all, now.tick, 0)
		s.show(d)
		if rates := len(d.Limits); rates < len(before) {
			d.Limits = append(d.Limits, before[rates:]...) // the credits
		}
	}
}

// returnSlots gives back what a request that was let in took of the limits, each
// in the window that it was taken in.
func (s *Service) returnSlots(d *Decision) error {
	if d.taken.n == 0 || !s.limits(d.rec, d.rules) {
		return nil
	}
	st, err := s.ring.open(context.Background())
	if err != nil {
		return err
	}
	slots := slotsPool.Get().(*slots)
	defer slots.release()
	if err := s.slotsFor(slots, st, d); err != nil {
		return err
	}
	if slots.owner != nil {
		// It may have left memory since, and come again.
		slots.owner = s.ring.owners.hold(slots.owner.id)
		defer s.ring.owners.drop(slots.owner)
		if err := slots.owner.load(st, s.ring.lookupTimeout); err != nil {
			return err
		}
	}
	slots.giveBack(d)
	return nil
}

func (s *slots) giveBack(d *Decision) {
	d.live.mu.Lock()
	defer d.live.mu.Unlock()
	if s.owner != nil {
		s.owner.counts.mu.Lock()
		defer s.owner.counts.mu.Unlock()
	}
	for _, t := range append(slices.Clip(d.earlier), d.taken) {
		s.all = s.all[:0]
		s.gather(d.live, t.at)
		for _, limit := range s.all {
			limit.State.Undo(limit.Policy, t.at.tick+limit.Ahead, t.n)
		}
	}
	s.changed()
}

// show puts the limits that apply into the decision, as rate headers show them.
// Units that are only counted are left out.
func (s *slots) show(d *Decision) {
	all := s.all
	shown := 1 // the credits
	if s.keyed {
		shown++
	}
	if s.plan != nil {
		shown += s.plan.shown
	}
	if shown == 1 {
		return
	}
	d.Limits = make([]Limit, 0, shown)
	for i := range all {
		name, scope, window := s.name(i), ScopeOwner, all[i].Policy.Window
		if s.keyed && i == 0 {
			scope, window = ScopeKey, s.rec.policy.Window
		}
		if name != "" {
			d.Limits = append(d.Limits, Limit{
				Name: name, Scope: scope, Quota: all[i].Policy.Max, Window: window,
				Remaining: all[i].Verdict.Remaining, Reset: all[i].Verdict.Reset, Full: !all[i].Verdict.OK,
			})
		}
	}
}

// name returns the name of a limit, or an empty string where it is only counted.
func (s *slots) name(i int) string {
	if s.keyed {
		if i == 0 {
			return "key"
		}
		i--
	}
	if s.plan == nil {
		return ""
	}
	return s.plan.quotas[i].label
}
