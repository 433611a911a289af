package keyring

import (
	"errors"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// lease is what this process has leased of one key's credits: the store has
// given them away, so that they can be spent from memory.
//
// What the store counts as leased by this process is, once nothing is in flight,
// unspent + used. At most one movement that settles or leases is in flight at a
// time; movements that only take or give may go on beside it. All of it is
// guarded by live.mu.
type lease struct {
	unspent int64 // free to spend here
	used    int64 // spent here, which the store does not know yet
	flight  *flight
	traffic traffic
	resume  int64 // the tick before which nothing is leased in the background, after a failure
	listed  bool  // Ring.leases has the key
}

// flight is a movement that settles or leases, on its way to the store and back.
type flight struct {
	key.Move
	now    int64
	landed chan struct{}
	// blurred: something was heard meanwhile that may or may not have come after
	// this movement.
	blurred bool
}

// idle reports whether the store can be left alone with the key's credits.
func (le *lease) idle() bool { return le.unspent == 0 && le.used == 0 && le.flight == nil }

// spend takes n of what is leased, if that is there. Nothing is spent from memory
// past a refill that is due: the refill makes up for what was spent before it,
// and after a crash nobody could tell that from what was spent since.
func (l *live) spend(n, most int64, now instant) bool {
	le := &l.lease
	if le.unspent < n || le.unspent > most || l.credits.Due(now.wall) != 0 {
		return false
	}
	le.unspent -= n
	le.used += n
	return true
}

// view returns the credits as they are at this moment: what is leased and not
// spent here counts as if it were at home. Where it is not exact it shows too
// few, until what is in flight has landed.
func (l *live) view(now int64) (c key.Credits, exact bool) {
	c, le := l.credits, &l.lease
	if le.idle() {
		return c.Forfeit().At(now), true
	}
	home := le.unspent
	if le.flight != nil {
		if le.flight.blurred {
			c.Remaining = min(c.Remaining+home, key.MaxCount)
			return c, false
		}
		home += le.flight.Returned
	}
	c, _ = c.Settle(le.used, home)
	return c.At(now), true
}

// balance returns the credits for people to read, exactly. stored is what the
// store has just said.
func (l *live) balance(stored key.Credits, now int64) key.Credits {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		newer := stored.Version > l.credits.Version // by a debit that is not answered yet
		if newer && l.lease.flight == nil {
			known := l.credits
			l.credits = stored // only for the look: the key may have been deleted meanwhile
			c, _ := l.view(now)
			l.credits = known
			return c
		}
		if c, exact := l.view(now); exact && !newer {
			return c
		}
		l.await()
	}
}

// await waits until the flight has landed. The lock is let go of meanwhile.
func (l *live) await() {
	landed := l.lease.flight.landed
	l.mu.Unlock()
	<-landed
	l.mu.Lock()
}

// depart begins a flight, and hands it all there is to settle. The caller holds
// the lock, knows that nothing is in flight, and sees to it that the flight lands.
func (l *live) depart(m key.Move, now instant) *flight {
	le := &l.lease
	m.Used = le.used
	le.unspent -= m.Returned
	le.flight = &flight{Move: m, now: now.wall, landed: make(chan struct{})}
	return le.flight
}

// land ends a flight. The caller holds the lock.
func (l *live) land(f *flight, t store.Taken, err error, tick int64) {
	le := &l.lease
	if le.flight == f { // else the key was deleted, and its lease with it
		le.flight = nil
		switch {
		case err == nil:
			le.used -= f.Used
			le.unspent += t.Leased
			l.hearLocked(t.Credits)
		case errors.Is(err, store.ErrNotFound), errors.Is(err, key.ErrNotLeased):
			le.unspent, le.used = 0, 0
		default: // nothing has changed
			le.unspent += f.Returned
			if errors.Is(err, store.ErrUnavailable) {
				le.resume = tick + leasePause
			}
		}
	}
	close(f.landed)
}

// drop forgets the lease of a key that is gone.
func (l *live) drop() {
	l.lease = lease{listed: l.lease.listed}
	l.era++
}

const (
	second = int64(time.Second / time.Millisecond)
	// leasePause is how long nothing is leased in the background after a failure.
	leasePause = second
	// leaseIdle is how long a key that is not used keeps a lease, at least.
	leaseIdle = 2 * second
)

// block returns how many credits the key should have leased: about a second of
// its traffic, at most what the configuration and the balance allow, and none
// where that is one: to lease a credit is as dear as to take it.
func (l *live) block(most int64, view *key.Credits, tick int64) int64 {
	n := min(l.lease.traffic.perSecond(tick), most, view.Leasable())
	if n < 2 {
		return 0
	}
	return n
}

// traffic measures what a key asks for.
type traffic struct {
	since        int64 // tick at which the running second began
	running, old int64 // in this second, and in the one before
}

func (t *traffic) add(n, tick int64) {
	t.roll(tick)
	t.running += n
}

func (t *traffic) roll(tick int64) {
	passed := tick - t.since
	switch {
	case passed >= leaseIdle || passed < -second: // idle, or a clock that was set
		*t = traffic{since: tick}
	case passed >= second:
		t.since += second
		t.old, t.running = t.running, 0
	}
}

func (t *traffic) perSecond(tick int64) int64 {
	t.roll(tick)
	return max(t.running, t.old)
}
