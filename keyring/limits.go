package keyring

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/ratelimit"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// reservation is what a request has taken of its rate limits, and when: windows may end
// between two gates of a request, and before it is canceled.
type reservation struct {
	n  int64
	at instant
}

// limits are the rate limits that apply to a request: the key's own, and those that all
// keys of its owner share.
type limits struct {
	engine *Engine
	entry  *entry
	rec    *record
	keyed  bool        // the key's own limit is the first
	owner  *ownerEntry // nil: no tier limits anything
	plans  *plans
	plan   *plan
	all    []ratelimit.Limit
}

// limitsPool keeps the limits of a request off the heap, for which they are too many,
// and off the stack of its connection, which they would make grow.
var limitsPool = sync.Pool{New: func() any { return new(limits) }}

func (s *limits) release() {
	clear(s.all)
	*s = limits{all: s.all[:0]}
	limitsPool.Put(s)
}

// limited reports whether a rate limit may apply to a key, or has to be counted.
func (s *Service) limited(rec *record, rules *Rules) bool {
	return len(s.plans.units) > 0 || keyed(rec, rules)
}

// restricts reports whether a limit or credits may refuse a request with the key of a
// decision. Tiers of others are counted for every owner, and restrict nobody else.
func (s *Service) restricts(d *Decision) bool {
	return keyed(d.rec, d.rules) || d.entry.metered() || d.plan != nil && d.plan.shown > 0
}

// keyed reports whether the key's own rate limit applies.
func keyed(rec *record, rules *Rules) bool { return rec.limited && rules.RateLimiting }

// limitsOf finds the rate limits that apply to a decision.
func (s *Service) limitsOf(d *Decision) *limits {
	l := limitsPool.Get().(*limits)
	l.engine, l.entry, l.rec, l.keyed = s.engine, d.entry, d.rec, keyed(d.rec, d.rules)
	if len(s.plans.units) > 0 {
		l.owner, l.plans, l.plan = d.rec.owner, s.plans, d.plan
	}
	return l
}

// lock locks the windows.
func (s *limits) lock() (unlock func()) {
	s.entry.windows.mu.Lock()
	if s.owner == nil {
		return s.entry.windows.mu.Unlock
	}
	s.owner.windows.mu.Lock()
	return func() {
		s.owner.windows.mu.Unlock()
		s.entry.windows.mu.Unlock()
	}
}

// evicted reports whether others count for the key or its owner by now. The caller has
// locked the windows.
func (s *limits) evicted() bool {
	return s.entry.windows.gone || s.owner != nil && s.owner.windows.gone
}

// reserve takes n of every rate limit that applies to a decision, or of none, and shows
// where they stand. It returns when it did so: the clock is read under the locks, since
// times that were read before would come out of order.
func (s *Service) reserve(ctx context.Context, st store.Store, d *Decision, n int64, dry bool) (now instant, err error) {
	if !s.limited(d.rec, d.rules) {
		return s.engine.clock(), nil
	}
	l := s.limitsOf(d)
	defer l.release()
	if l.owner != nil {
		if err := l.owner.load(ctx, st, &s.engine.lookups); err != nil {
			if ctx.Err() == nil { // else the client has gone, which says nothing of the store
				s.engine.degrade(PartLimits, err)
			}
			return now, err
		}
	}
	defer l.lock()()
	if l.evicted() {
		return now, errEvicted
	}
	if n > 0 && !dry && !l.haveRoom() {
		s.engine.degrade(PartLimits, errNoRoom)
		return now, errNoRoom
	}
	now = s.engine.clock()
	l.reserveAt(d, now, n, dry)
	return now, nil
}

func (s *limits) reserveAt(d *Decision, now instant, n int64, dry bool) {
	s.gather(now)
	var refused int
	var verdict ratelimit.Verdict
	if dry {
		refused, verdict = ratelimit.PeekAll(s.all, now.monotonic, n)
	} else {
		refused, verdict = ratelimit.TakeAll(s.all, now.monotonic, n)
	}
	if refused >= 0 {
		d.refuse(RateLimited, verdict.Wait, !verdict.Never)
		d.Limit = s.name(refused)
	} else if !dry && n > 0 {
		d.reserved = reservation{n, now}
		s.changed()
	}
	d.Limits = s.show()
}

// gather collects the limits as they are at a time, with the locks held.
func (s *limits) gather(now instant) {
	s.all = s.all[:0]
	if s.keyed {
		s.all = append(s.all, ratelimit.Limit{State: s.entry.windows.state(Rate), Policy: s.rec.policy})
	}
	if s.owner == nil {
		return
	}
	s.owner.windows.prepare(s.plans, now)
	for i, u := range s.plans.units {
		most := key.MaxCount
		if s.plan != nil {
			most = s.plan.quotas[i].max
		}
		limit := ratelimit.Limit{State: s.owner.windows.state(u), Policy: s.plans.policy(u, most, now.wall)}
		if u < 0 {
			limit.Ahead = now.wall - now.monotonic
		}
		s.all = append(s.all, limit)
	}
}

// haveRoom reports whether the windows can wait to be written once they have changed.
func (s *limits) haveRoom() bool {
	q := &s.engine.queue
	return (!s.keyed || q.hasRoom(&s.entry.pending)) && (s.owner == nil || q.hasRoom(&s.owner.pending))
}

// changed notes that the windows have to be written, before they can leave memory.
func (s *limits) changed() {
	if s.keyed {
		s.engine.queue.add(s.entry)
	}
	if s.owner != nil {
		s.engine.queue.add(s.owner)
	}
}

// cancel gives back what a decision has reserved, here and at earlier gates, each in the
// windows that it was taken in.
func (s *Service) cancel(d *Decision) error {
	list := d.earlier
	if d.reserved.n > 0 {
		list = append(slices.Clip(list), d.reserved)
	}
	d.reserved, d.earlier = reservation{}, nil
	if list == nil || !s.limited(d.rec, d.rules) {
		return nil
	}
	ctx := context.Background()
	st, err := s.engine.open(ctx)
	if err != nil {
		return err
	}
	l := s.limitsOf(d)
	defer l.release()
	// They may have left memory since, and come again.
	switch e, err := s.engine.cache.pin(ctx, st, d.entry.id); {
	case err == nil:
		defer s.engine.cache.unpin(e)
		l.entry = e
	case errors.Is(err, store.ErrNotFound):
		l.keyed = false
	default:
		return err
	}
	if l.owner != nil {
		l.owner = s.engine.cache.pinOwner(l.owner.id)
		defer s.engine.cache.unpinOwner(l.owner)
		if err := l.owner.load(ctx, st, &s.engine.lookups); err != nil {
			return err
		}
	}
	defer l.lock()()
	l.keyed = l.keyed && !l.entry.windows.gone // else deleted just now
	for _, r := range list {
		l.gather(r.at)
		for i := range l.all {
			limit := &l.all[i]
			limit.State.Undo(limit.Policy, r.at.monotonic+limit.Ahead, r.n)
		}
	}
	l.changed()
	return nil
}

// show returns the limits that apply, as rate headers show them. Units that are only
// counted are left out.
func (s *limits) show() []Limit {
	shown := 1 // the credits
	if s.keyed {
		shown++
	}
	if s.plan != nil {
		shown += s.plan.shown
	}
	if shown == 1 {
		return nil
	}
	list := make([]Limit, 0, shown)
	for i := range s.all {
		l := &s.all[i]
		name, scope, window := s.name(i), ScopeOwner, l.Policy.Window
		if s.keyed && i == 0 {
			scope, window = ScopeKey, s.rec.policy.Window
		}
		if name != "" {
			list = append(list, Limit{
				Name: name, Scope: scope, Quota: l.Policy.Max, Window: window,
				Remaining: l.Verdict.Remaining, Reset: l.Verdict.Reset, Full: !l.Verdict.OK,
			})
		}
	}
	return list
}

// name returns the name of a limit, or an empty string where it is only counted.
func (s *limits) name(i int) string {
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

// charge takes n of the rate limits and n credits, both or neither, of a key that has
// limits or credits. It returns when it did.
func (s *Service) charge(ctx context.Context, st *opened, d *Decision, n int64, dry bool) (now instant, err error) {
	if now, err = s.reserve(ctx, st, d, n, dry); err == nil {
		d.at = now.wall
		if d.Outcome != Allowed || n == 0 || dry {
			err = s.checkCredits(ctx, d, n)
		} else if err = s.takeCredits(ctx, st, d, n); err != nil {
			err = errors.Join(err, s.cancel(d))
		}
	}
	if err != nil && !errors.Is(err, errEvicted) {
		d.refuse(Unavailable, unavailableWait, true)
	}
	return now, err
}

// checkCredits decides about the credits of a key without taking any.
func (s *Service) checkCredits(ctx context.Context, d *Decision, n int64) error {
	if !d.entry.metered() {
		return nil
	}
	c, now, err := s.ledger.Peek(ctx, d.entry.account.Load())
	if err != nil {
		return err
	}
	switch d.Outcome {
	case Allowed:
		if _, ok := c.Take(n, now); !ok {
			d.exceed(c, n, now)
		}
	case RateLimited:
		d.waitFor(c, n, now)
	}
	d.addCredits(c, n, now)
	return nil
}

// takeCredits takes n credits of a key.
func (s *Service) takeCredits(ctx context.Context, st *opened, d *Decision, n int64) error {
	if !d.entry.metered() {
		return nil
	}
	r, err := s.ledger.Take(ctx, st, d.entry.account.Load(), n)
	switch {
	case err != nil:
		s.engine.degrade(PartCredits, err)
		return err
	case r.result == evicted:
		return errEvicted
	case r.result == deleted:
		err = s.cancel(d)
		*d = Decision{Outcome: Invalid}
		return err
	case r.result == short:
		if err = s.cancel(d); err == nil {
			_, err = s.reserve(ctx, st, d, 0, true) // to show where the limits stand now
		}
		d.exceed(r.credits, n, r.now)
	}
	if r.taken > 0 {
		d.credits += r.taken
		s.engine.monitor.CreditsMoved(Taken, r.taken)
	}
	d.addCredits(r.credits, n, r.now)
	return err
}

// waitFor lets a refused request wait until its credits will do as well.
func (d *Decision) waitFor(c key.Credits, n, now int64) {
	wait, ok := c.Wait(n, now)
	d.Wait, d.Waitable = max(d.Wait, wait), d.Waitable && ok
}

func (d *Decision) exceed(c key.Credits, n, now int64) {
	wait, ok := c.Wait(n, now)
	d.refuse(UsageExceeded, wait, ok)
	d.Limit = creditsLimit
}

// addCredits shows the credits of a key among the limits of a request that costs n.
func (d *Decision) addCredits(c key.Credits, n, now int64) {
	if !c.Limited {
		return
	}
	l := Limit{
		Name: creditsLimit, Scope: ScopeKey, Quota: max(c.Peak, c.Remaining), Remaining: c.Remaining,
		Final: c.RefillAmount == 0, Full: d.Outcome != Allowed && c.Remaining < n,
	}
	if !l.Final {
		l.Reset = max(c.LastRefillAt, c.RefillFrom) + c.RefillInterval - now
	}
	d.Limits = append(d.Limits, l)
}

// Refund gives back the credits that the request has taken, at all its gates together,
// the first time it is called.
func (s *Service) Refund(ctx context.Context, d *Decision) error {
	n := d.credits
	d.credits = 0
	if n == 0 {
		return nil
	}
	st, err := s.engine.open(ctx)
	if err != nil {
		return err
	}
	e, err := s.engine.cache.pin(context.WithoutCancel(ctx), st, d.entry.id) // it may have left memory since
	if err == nil {
		defer s.engine.cache.unpin(e)
		err = s.ledger.Give(ctx, st, e.ensureAccount(), n)
	}
	switch {
	case err == nil:
		s.engine.monitor.CreditsMoved(Refunded, n)
	case !errors.Is(err, store.ErrNotFound):
		s.engine.degrade(PartCredits, err)
		return fmt.Errorf("giving %d credits back: %w", n, err)
	}
	return nil
}

// Cancel takes back the admission of a request that is refused after all, by a later gate
// or by what is behind it: the request costs nothing.
func (s *Service) Cancel(ctx context.Context, d *Decision) error {
	err := s.cancel(d)
	d.Cost = 0
	if d.use.last != nil { // nil: only the record was checked
		d.use.last.CompareAndSwap(d.use.at, d.use.before) // unless it was used again
	}
	s.engine.queue.addStatistics(d.entry)
	return errors.Join(err, s.Refund(ctx, d))
}
