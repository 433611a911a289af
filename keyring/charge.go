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

// charge takes n rate slots and n credits, both or neither, of a key that has
// limits or credits. It returns when it did.
func (s *Service) charge(ctx context.Context, st *opened, d *Decision, n int64, dry bool) (now instant, err error) {
	l := d.live
	slots := slotsPool.Get().(*slots)
	defer slots.release()
	if err := s.slotsFor(slots, st, d); err != nil {
		d.refuse(Unavailable, unavailableWait, true)
		return now, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead.Load() {
		return now, errDead
	}
	now, ok := slots.take(d, n, dry)
	if !ok {
		return now, errDead
	}
	d.at = now.wall
	if d.Outcome != Allowed || n == 0 || dry || !l.credits.Limited {
		s.look(d, n, now)
	} else {
		l.busy++
		err = s.pay(ctx, st, d, now, n)
		l.busy--
	}
	if d.Outcome != Allowed {
		slots.undo(d, now, n)
	}
	return now, err
}

// look decides about the credits without taking any. It is called with the key's
// lock held.
func (s *Service) look(d *Decision, n int64, now instant) {
	l := d.live
	if !l.credits.Limited {
		return
	}
	c, exact := l.view(now.wall)
	for !exact {
		l.await()
		now = s.ring.clock()
		c, exact = l.view(now.wall)
	}
	switch d.Outcome {
	case Allowed:
		if _, ok := c.Take(n, now.wall); !ok {
			d.exceed(c, n, now.wall)
		}
	case RateLimited:
		d.waitFor(c, n, now.wall)
	}
	d.addCredits(c, n, now.wall)
}

// pay takes n credits: from the lease if there are enough, else from the store.
// It is called with the key's lock held, lets go of it while it waits, and
// decides anew after each wait.
func (s *Service) pay(ctx context.Context, st *opened, d *Decision, now instant, n int64) error {
	l, le, most := d.live, &d.live.lease, s.set.Lease
	if most > 0 {
		le.traffic.add(n, now.tick)
	}
	for refused := 0; ; now = s.ring.clock() {
		if l.spend(n, most, now) {
			s.leased(st, d, now, n)
			return nil
		}
		c, exact := l.view(now.wall)
		// What is known of the credits is never behind the store for long, and
		// enough to refuse without asking it.
		if _, ok := c.Take(n, now.wall); exact && !ok {
			d.exceed(c, n, now.wall)
			d.addCredits(c, n, now.wall)
			return nil
		}
		m, aboard := l.fare(n, most, &c, now), true
		switch {
		case le.flight == nil && (m.Lease > 0 || m.Returned > 0):
		case l.homeHas(n, now.wall):
			m, aboard = key.Move{Take: n}, false // beside whatever is in flight
		case le.flight != nil:
			l.await()
			continue
		}
		taken, done, err := s.debit(ctx, st, d, m, aboard, now)
		if done {
			return err
		}
		if refused++; refused == payTries {
			d.exceed(taken.Credits, n, now.wall)
			d.addCredits(taken.Credits, n, now.wall)
			return nil
		}
	}
}

// payTries is how often the store may find too few where we expected enough:
// each time somebody else was faster. Then it has the last word.
const payTries = 20

// fare returns the movement that pays n and brings the lease to what it should
// be: it comes home where it is above what is allowed, or where only together
// there may be enough.
func (l *live) fare(n, most int64, view *key.Credits, now instant) key.Move {
	le := &l.lease
	m := key.Move{Take: n, Returned: max(0, le.unspent-most)}
	if l.credits.Remaining < n {
		m.Returned = le.unspent
	}
	if now.tick >= le.resume {
		m.Lease = max(0, l.block(most, view, now.tick)-le.unspent+m.Returned)
	}
	return m
}

// homeHas reports whether n credits can be taken without a look at the lease.
func (l *live) homeHas(n, now int64) bool {
	le := &l.lease
	if le.idle() {
		return true // the store knows all
	}
	return l.credits.Due(now) == 0 && l.credits.Remaining >= n
}

// leased ends a payment from the lease.
func (s *Service) leased(st *opened, d *Decision, now instant, n int64) {
	l := d.live
	d.owes(n)
	c, _ := l.view(now.wall)
	d.addCredits(c, n, now.wall)
	s.ring.renew(st, l, l.block(s.set.Lease, &c, now.tick), now)
}

// debit makes the movement that takes credits for a request, aboard a flight if
// it concerns the lease. It reports false where the store had too few: what it
// said is known now. It is called with the key's lock held, and lets go of it.
func (s *Service) debit(ctx context.Context, st *opened, d *Decision, m key.Move, aboard bool, now instant) (taken store.Taken, done bool, err error) {
	l, r, era := d.live, s.ring, d.live.era
	var f *flight
	if aboard {
		f = r.depart(l, m, now)
	}
	l.mu.Unlock()
	if f != nil {
		taken, err = r.fly(st, l, f)
	} else if taken, err = r.moveInTime(ctx, st, l.id, m, now.wall); err == nil {
		l.hearOf(era, taken.Credits)
	}
	l.mu.Lock()
	switch {
	case errors.Is(err, store.ErrNotFound):
		*d = Decision{Outcome: Invalid} // deleted meanwhile
		return taken, true, nil
	case errors.Is(err, key.ErrNotLeased):
		r.report(fmt.Errorf("lost the lease of key %s: %w", l.id, err))
		return taken, false, nil
	case err != nil:
		d.refuse(Unavailable, unavailableWait, true)
		return taken, true, fmt.Errorf("taking credits: %w", err)
	case !taken.OK:
		return taken, false, nil
	}
	if taken.Credits.Limited {
		d.owes(m.Take)
	}
	c, _ := l.view(now.wall)
	d.addCredits(c, m.Take, now.wall)
	return taken, true, nil
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
	err = s.ring.giveBack(st, d.live, n)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("giving %d credits back: %w", n, err)
	}
	return nil
}

// moveInTime makes a movement of credits that a request waits for. One that has
// begun is not undone by a client that goes away; a store that hangs must not
// hold requests for ever.
func (r *Ring) moveInTime(ctx context.Context, st store.Store, id string, m key.Move, now int64) (store.Taken, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.chargeTimeout)
	defer cancel()
	return st.MoveCredits(ctx, id, m, now)
}

// Withdraw takes an admission back, of a request that a later gate has refused:
// it costs nothing after all.
func (s *Service) Withdraw(ctx context.Context, d *Decision) error {
	err := s.returnSlots(d)
	d.Cost, d.taken, d.earlier = 0, taking{}, nil
	if d.last != nil { // nil: only the record was looked at
		d.last.CompareAndSwap(d.used, d.usedBefore) // unless it was used again
	}
	s.ring.rewrite(d.live)
	return errors.Join(err, s.Refund(ctx, d))
}
