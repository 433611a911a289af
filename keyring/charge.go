package keyring

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// chargeTimeout bounds how long a request waits for its credits to be taken. What
// the store has begun by then may still be taken.
const chargeTimeout = 2 * time.Second

// charge takes n rate slots and n credits, both or neither.
func (s *Service) charge(ctx context.Context, st *opened, d *Decision, now instant, n int64, dry bool) error {
	l := d.live
	slots := s.slotsOf(d.rec)
	if !slots.limited && !l.metered.Load() {
		return nil
	}
	l.mu.Lock()
	if l.dead.Load() {
		l.mu.Unlock()
		return errDead
	}
	slots.take(d, now.tick, n, dry)
	credits := l.credits
	if d.Outcome == RateLimited {
		d.waitFor(credits, n, now.wall)
	}
	if d.Outcome == Allowed && credits.Limited {
		// What is known of the credits is never behind the store for long, and
		// enough to refuse without asking it.
		if _, ok := credits.Take(n, now.wall); !ok {
			d.exceed(credits, n, now.wall)
			slots.undo(l, n)
		}
	}
	ask := d.Outcome == Allowed && credits.Limited && n > 0 && !dry
	if ask {
		l.busy++
	}
	l.mu.Unlock()
	if ask {
		return s.debit(ctx, st, d, now.wall, n, &slots)
	}
	d.addCredits(credits.At(now.wall), now.wall)
	return nil
}

// debit takes n credits from the store, and gives the rate slots back if that fails.
func (s *Service) debit(ctx context.Context, st *opened, d *Decision, now, n int64, slots *slots) error {
	l := d.live
	// A debit that has begun is not undone by a client that goes away. A store
	// that hangs must not hold requests for ever.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), chargeTimeout)
	defer cancel()
	taken, err := st.TakeCredits(ctx, l.id, n, now)
	if err == nil {
		l.hear(taken.Credits)
	}
	l.mu.Lock()
	l.busy--
	if err != nil || !taken.OK {
		slots.undo(l, n)
	}
	l.mu.Unlock()
	switch {
	case errors.Is(err, store.ErrNotFound):
		*d = Decision{Outcome: Invalid} // deleted meanwhile
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

func (d *Decision) refuse(o Outcome, wait int64, waitable bool) {
	d.Outcome, d.Wait, d.Waitable = o, wait, waitable
}

// waitFor lets a refused request wait until its credits will do as well.
func (d *Decision) waitFor(c key.Credits, n, now int64) {
	wait, ok := c.Wait(n, now)
	d.Wait, d.Waitable = max(d.Wait, wait), d.Waitable && ok
}

func (d *Decision) exceed(c key.Credits, n, now int64) {
	wait, ok := c.Wait(n, now)
	d.refuse(UsageExceeded, wait, ok)
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
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), chargeTimeout)
	defer cancel()
	c, err := st.GiveCredits(ctx, d.live.id, n, s.ring.clock().wall)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("giving %d credits back: %w", n, err)
	}
	d.live.hear(c)
	return nil
}

// Withdraw takes an admission back, of a request that a later gate has refused:
// it costs nothing after all.
func (s *Service) Withdraw(ctx context.Context, d *Decision) error {
	l, n := d.live, d.Cost
	d.Cost = 0
	if d.rec.limited && s.set.Rules.RateLimiting {
		l.mu.Lock()
		l.rate.Undo(d.rec.policy, d.tick, n)
		l.mu.Unlock()
	}
	l.lastRequest.CompareAndSwap(d.used, d.usedBefore) // unless it was used again
	return s.Refund(ctx, d)
}
