package keyring

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/ratelimit"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// Verify decides about a request that carries raw, and takes what it costs. A
// refusal takes nothing. The error tells why the outcome is Unavailable, for the
// log; it is nil for every other outcome.
func (s *Service) Verify(ctx context.Context, raw string, q *Request) (Decision, error) {
	r := s.ring
	st, err := r.open(ctx)
	if err != nil {
		return Decision{Outcome: Unavailable, Wait: unavailableWait, Waitable: true}, err
	}
	if key.CheckShape(raw, !r.plain.Load()) != nil || !s.set.Rules.accepts(raw) {
		return Decision{Outcome: Invalid}, nil
	}
	return s.decide(ctx, st, key.HashOf(raw), &Decision{}, q)
}

// Again decides about a request that was already let in by d and meets another
// gate: the standing of the key is checked for the new demands, and what q costs
// more than d did is taken.
func (s *Service) Again(ctx context.Context, d *Decision, q *Request) (Decision, error) {
	st, err := s.ring.open(ctx)
	if err != nil {
		return Decision{Outcome: Unavailable, Wait: unavailableWait, Waitable: true}, err
	}
	return s.decide(ctx, st, d.hash, d, q)
}

// decide finds the key and admits the request. before is what was decided about
// the same request earlier.
func (s *Service) decide(ctx context.Context, st *opened, hash key.Hash, before *Decision, q *Request) (Decision, error) {
	for {
		l, err := s.ring.find(ctx, st, hash)
		if err != nil {
			return Decision{Outcome: Unavailable, Wait: unavailableWait, Waitable: true}, err
		}
		if l == nil {
			return Decision{Outcome: Invalid}, nil
		}
		d, err := s.admit(ctx, st, l, hash, before, q)
		if !errors.Is(err, errDead) {
			return d, err
		}
		// The key was let go of between finding and counting: find it again.
	}
}

const (
	// unavailableWait is when a client should try again that met a store which
	// could not be asked.
	unavailableWait = int64(time.Second / time.Millisecond)
)

var errDead = errors.New("the key in memory is no longer the one that counts")

// find returns the key that a hash opens, or nil for one that opens none. It
// asks the store only for hashes it has not seen.
func (r *Ring) find(ctx context.Context, st *opened, hash key.Hash) (*live, error) {
	if l, ok := r.cache.GetIfPresent(hash); ok && !l.dead.Load() {
		return l, nil
	}
	if at, ok := r.unknown.GetIfPresent(hash); ok && at == r.additions.Load() {
		return nil, nil
	}
	// The look-up serves all who wait for it, so it must not end with one of them.
	loaded := r.loads.DoChan(string(hash[:]), func() (any, error) { return r.load(st, hash) })
	select {
	case res := <-loaded:
		if res.Err != nil {
			return nil, res.Err
		}
		return res.Val.(*live), nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", store.ErrUnavailable, ctx.Err())
	}
}

func (r *Ring) load(st *opened, hash key.Hash) (*live, error) {
	ctx, cancel := context.WithTimeout(context.Background(), lookupTimeout)
	defer cancel()
	began, additions := r.changes.Load(), r.additions.Load()
	e, err := st.Find(ctx, hash)
	if errors.Is(err, store.ErrNotFound) {
		r.unknown.Set(hash, additions)
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("looking up a key: %w", err)
	}
	l := r.lives.adopt(e, began, r.clock().wall)
	r.cache.Set(hash, l)
	return l, nil
}

// admit checks a key's standing, then takes what the request costs beyond what
// it has paid before.
func (s *Service) admit(ctx context.Context, st *opened, l *live, hash key.Hash, before *Decision, q *Request) (Decision, error) {
	now := s.ring.clock()
	rec := l.rec.Load()
	if rec == nil || !rec.key.Matches(hash, now.wall) {
		return Decision{Outcome: Invalid}, nil
	}
	d := Decision{hash: hash, live: l, rec: rec, Cost: before.Cost, debt: before.debt}
	if d.Outcome = standing(l, rec, now.wall, q); d.Outcome != Allowed {
		return d, nil
	}
	more := max(0, q.Cost-before.Cost)
	if err := s.charge(ctx, st, &d, now, more, q.DryRun); err != nil || d.Outcome != Allowed {
		return d, err
	}
	if !q.DryRun {
		d.Cost += more
		l.used(now.wall)
		s.ring.dirty.add(l)
	}
	return d, nil
}

// standing checks everything about a key that needs no counting.
func standing(l *live, rec *record, now int64, q *Request) Outcome {
	k := rec.key
	switch {
	case !k.Enabled || !rec.owner.cur.Load().Enabled:
		return Disabled
	case l.seenExpired(k, now):
		return Expired
	case !secretFits(k, q):
		return InvalidSecret
	case q.CheckIP && !k.AllowsIP(q.ClientIP):
		return IPNotAllowed
	case !k.Permissions.AllowsAll(q.Require):
		return Forbidden
	}
	for _, any := range q.RequireAny {
		if !k.Permissions.AllowsAny(any) {
			return Forbidden
		}
	}
	return Allowed
}

// seenExpired is key.Expired, but what has once been seen over stays over.
func (l *live) seenExpired(k *key.Key, now int64) bool {
	if k.ExpiresAt == 0 {
		return false
	}
	if k.Expired(now) {
		l.expired.Store(k.ExpiresAt)
		return true
	}
	return l.expired.Load() == k.ExpiresAt
}

func secretFits(k *key.Key, q *Request) bool {
	switch {
	case !q.CheckSecret && !q.RequireSecret:
		return true
	case k.SecretHash == nil:
		return !q.RequireSecret && q.Secret == ""
	default:
		return k.SecretHash.Equal(key.HashOf(q.Secret))
	}
}

// charge takes n rate slots and n credits, both or neither.
func (s *Service) charge(ctx context.Context, st *opened, d *Decision, now instant, n int64, dry bool) error {
	l, rec := d.live, d.rec
	limited := rec.limited && s.set.Rules.RateLimiting
	if !limited && !l.metered.Load() {
		return nil
	}
	l.mu.Lock()
	if l.dead.Load() {
		l.mu.Unlock()
		return errDead
	}
	at := now.tick
	if limited {
		look := l.rate.Take
		if dry {
			look = l.rate.Peek
		}
		verdict := look(rec.policy, now.tick, n)
		if !verdict.OK {
			d.refuse(RateLimited, verdict.Wait, !verdict.Never)
		}
		at = verdict.At
		d.addRate(rec.policy, verdict)
	}
	credits := l.credits
	if d.Outcome == Allowed && credits.Limited {
		// What is known of the credits is never behind the store for long, and
		// enough to refuse without asking it.
		if _, ok := credits.Take(n, now.wall); !ok {
			d.exceed(credits, n, now.wall)
			l.undo(limited && !dry, rec.policy, at, n)
		}
	}
	ask := d.Outcome == Allowed && credits.Limited && n > 0 && !dry
	if ask {
		l.busy++
	}
	l.mu.Unlock()
	if ask {
		return s.debit(ctx, st, d, now.wall, n, at, limited)
	}
	d.addCredits(credits.At(now.wall), now.wall)
	return nil
}

// debit takes n credits from the store, and gives the rate slots that were taken
// at the time at back if that fails.
func (s *Service) debit(ctx context.Context, st *opened, d *Decision, now, n, at int64, limited bool) error {
	l := d.live
	// A debit that has begun is not undone by a client that goes away.
	taken, err := st.TakeCredits(context.WithoutCancel(ctx), l.id, n, now)
	if err == nil {
		l.hear(taken.Credits)
	}
	l.mu.Lock()
	l.busy--
	if err != nil || !taken.OK {
		l.undo(limited, d.rec.policy, at, n)
	}
	l.mu.Unlock()
	switch {
	case errors.Is(err, store.ErrNotFound):
		d.Outcome, d.Limits = Invalid, nil // deleted meanwhile
		d.live, d.rec = nil, nil
	case err != nil:
		d.refuse(Unavailable, unavailableWait, true)
		return fmt.Errorf("taking credits: %w", err)
	case !taken.OK:
		d.exceed(taken.Credits, n, now)
		d.addCredits(taken.Credits, now)
	default:
		if taken.Credits.Limited {
			d.owes(n)
		}
		d.addCredits(taken.Credits, now)
	}
	return nil
}

// undo gives rate slots back. It is called with l.mu held.
func (l *live) undo(taken bool, p ratelimit.Policy, at, n int64) {
	if taken {
		l.rate.Undo(p, at, n)
	}
}

// used notes the time of a use.
func (l *live) used(now int64) {
	for {
		last := l.lastRequest.Load()
		if last >= now || l.lastRequest.CompareAndSwap(last, now) {
			return
		}
	}
}

func (d *Decision) refuse(o Outcome, wait int64, waitable bool) {
	d.Outcome, d.Wait, d.Waitable = o, wait, waitable
}

func (d *Decision) exceed(c key.Credits, n, now int64) {
	wait, ok := c.Wait(n, now)
	d.refuse(UsageExceeded, wait, ok)
}

func (d *Decision) addRate(p ratelimit.Policy, v ratelimit.Verdict) {
	if d.Limits == nil {
		d.Limits = make([]Limit, 0, 2)
	}
	d.Limits = append(d.Limits, Limit{Name: "key", Quota: p.Max, Window: p.Window, Remaining: v.Remaining, Reset: v.Reset})
}

func (d *Decision) addCredits(c key.Credits, now int64) {
	if !c.Limited {
		return
	}
	reset := int64(0)
	if c.RefillAmount > 0 {
		reset = max(c.LastRefillAt, c.RefillFrom) + c.RefillInterval - now
	}
	d.Limits = append(d.Limits, Limit{Name: "credits", Quota: max(c.Peak, c.Remaining), Remaining: c.Remaining, Reset: reset})
}

// owes notes credits that a refund would give back.
func (d *Decision) owes(n int64) {
	if d.debt == nil {
		d.debt = new(atomic.Int64)
	}
	d.debt.Add(n)
}

// Refund gives back the credits that the request has taken, at all its gates
// together, the first time it is called.
func (s *Service) Refund(ctx context.Context, d *Decision) error {
	if d.debt == nil {
		return nil
	}
	n := d.debt.Swap(0)
	if n == 0 {
		return nil
	}
	st, err := s.ring.open(ctx)
	if err != nil {
		return err
	}
	c, err := st.GiveCredits(context.WithoutCancel(ctx), d.live.id, n, s.ring.clock().wall)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("giving %d credits back: %w", n, err)
	}
	d.live.hear(c)
	return nil
}
