package keyring

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// account is what this process knows of the credits of one key, and what it has
// leased of them: the store has given these away, so that they can be spent from
// memory.
//
// What the store counts as leased by this process is, while nothing is being settled,
// unspent + held + used. At most one settlement, a movement that settles or leases, is on
// its way at a time; movements that only take, hold or give may go on beside it.
//
// No method keeps the lock while it waits: what has to be waited for, or asked of the
// store, is returned, and the caller asks again afterwards.
type account struct {
	id      string      // of the key
	limited atomic.Bool // credits.Limited

	mu         sync.Mutex
	credits    key.Credits // as last heard from the store
	unspent    int64       // leased: free to spend here
	held       int64       // leased: set aside here
	used       int64       // leased: spent here, which the store does not know yet
	term       uint64      // grows when what is held here becomes a hold in the store
	settlement *settlement
	traffic    traffic
	resume     int64 // the monotonic time before which nothing is leased in the background, after a failure
	listed     bool  // the ledger lists it among those that may have a lease
	paying     int   // requests that are taking credits
	gone       bool  // out of memory; whoever finds it so finds the key again
}

// settlement is a movement that settles or leases, on its way to the store and back.
type settlement struct {
	key.Move
	held int64 // of what is returned: set aside here before, and in the store afterwards
	now  int64
	done chan struct{} // closed when taken and err are set
	// Set before done is closed.
	taken store.Taken
	err   error
	// overlapped: something was heard meanwhile that may or may not have come after
	// this movement.
	overlapped bool
}

// idle reports whether the store can be left alone with the credits. The caller holds
// the lock.
func (a *account) idle() bool {
	return a.unspent == 0 && a.held == 0 && a.used == 0 && a.settlement == nil
}

// update takes over credits that the store has reported, unless newer ones are known.
func (a *account) update(c key.Credits) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.apply(c)
}

// apply is update with the lock held.
func (a *account) apply(c key.Credits) {
	if c.Version < a.credits.Version {
		return
	}
	if s := a.settlement; s != nil && c.Version > a.credits.Version {
		s.overlapped = true
	}
	a.credits = c
	a.limited.Store(c.Limited)
}

// end forgets the lease of a key that is deleted.
func (a *account) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.unspent, a.held, a.used, a.settlement, a.gone = 0, 0, 0, nil, true
}

// view returns the credits as they are at this moment: what is leased and not spent
// here counts as if it were not leased. Where it is not exact it shows too few, until the
// settlement is done. The caller holds the lock.
func (a *account) view(now int64) (c key.Credits, exact bool) {
	c = a.credits
	if a.idle() {
		return c.Forfeit().At(now), true
	}
	free, held := a.unspent, a.held
	if s := a.settlement; s != nil {
		if s.overlapped {
			c.Remaining = min(c.Remaining+free, key.MaxCount)
			return c, false
		}
		free, held = free+s.Returned-s.held, held+s.held
	}
	c, _ = c.Settle(a.used, free)
	c.Leased, c.Held = c.Leased-held, c.Held+held
	return c.At(now), true
}

// exactly returns the credits, or what must be waited for before they are known.
func (a *account) exactly(clock func() instant) (c key.Credits, now instant, wait *settlement) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now = clock()
	c, exact := a.view(now.wall)
	if !exact {
		return c, now, a.settlement
	}
	return c, now, nil
}

// balance returns the credits for people to read, exactly, or what must be waited for.
// stored is what the store has just said.
func (a *account) balance(stored key.Credits, now int64) (c key.Credits, wait *settlement) {
	a.mu.Lock()
	defer a.mu.Unlock()
	newer := stored.Version > a.credits.Version // by a debit that is not answered yet
	if newer && a.settlement == nil {
		known := a.credits
		a.credits = stored // only for the look: the key may have been deleted meanwhile
		c, _ = a.view(now)
		a.credits = known
		return c, nil
	}
	c, exact := a.view(now)
	if !exact || newer {
		return c, a.settlement
	}
	return c, nil
}

// begin begins a settlement, and hands it all that there is to settle. The caller holds
// the lock, knows that none is on its way, and sees to it that this one is finished.
func (a *account) begin(m key.Move, now instant) *settlement {
	m.Used = a.used
	a.unspent -= m.Returned
	a.settlement = &settlement{Move: m, now: now.wall, done: make(chan struct{})}
	return a.settlement
}

// finish ends a settlement with the answer of the store. It reports false where the key
// was deleted meanwhile, and its lease with it.
func (a *account) finish(s *settlement, t store.Taken, err error, clock func() instant) (current bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s.taken, s.err = t, err
	defer close(s.done)
	if a.settlement != s {
		return false
	}
	a.settlement = nil
	switch {
	case err == nil:
		a.used -= s.Used
		a.unspent += t.Leased
		if s.held > 0 {
			a.term++
		}
		a.apply(t.Credits)
	case errors.Is(err, store.ErrNotFound), errors.Is(err, key.ErrNotLeased):
		a.unspent, a.held, a.used = 0, 0, 0
	default: // nothing has changed
		a.unspent += s.Returned - s.held
		a.held += s.held
		if errors.Is(err, store.ErrUnavailable) {
			a.resume = clock().monotonic + leasePause
		}
	}
	return true
}

// recall begins the settlement that returns the whole lease, for a change of the key; what
// is held of it is held in the store from then on. It returns what must be waited for
// instead, where one is on its way already, and neither where the account is gone.
func (a *account) recall(clock func() instant) (s, wait *settlement) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.settlement != nil:
		return nil, a.settlement
	case a.gone:
		return nil, nil
	}
	held := a.held
	a.unspent, a.held = a.unspent+held, 0
	s = a.begin(key.Move{Returned: a.unspent, Hold: held}, clock())
	s.held = held
	return s, nil
}

// planSettleLeased returns the step that ends a hold which was part of the lease, and
// whether the store has it by now: then nothing was done. The caller holds the lock.
func (a *account) planSettleLeased(h hold, cost int64, now instant) (p step, inStore bool) {
	switch {
	case h.term != a.term:
		return p, true // also where the account has left memory since
	case a.gone:
		return p, false // the key was deleted, and its hold with it
	case a.settlement != nil && a.settlement.held > 0:
		return step{wait: a.settlement}, false // which tells where it is held
	}
	return a.settleLeased(h.n, cost, now), false
}

// planSettle returns the step that ends a hold which the store has. The caller holds the
// lock.
func (a *account) planSettle(h hold, cost int64, now instant) (p step) {
	p.now = now.wall
	m := key.Move{Held: h.n, Cost: cost}
	if cost > h.n { // a debt is made only where nothing is leased
		m.Returned = a.unspent
	}
	// The store makes the refill that is due with this, and must know by then what was
	// spent before.
	refills := a.credits.Due(now.wall) != 0 && (a.used > 0 || a.settlement != nil)
	switch {
	case !refills && (cost <= h.n || a.unspent == 0 && a.settlement == nil):
		p.move = m
	case a.settlement != nil:
		p.wait = a.settlement
	default:
		p.settlement = a.begin(m, now)
	}
	return p
}

// settleLeased ends a hold that is part of the lease.
func (a *account) settleLeased(held, cost int64, now instant) (p step) {
	p.now = now.wall
	more := max(0, cost-held)
	switch {
	case more <= a.unspent:
		a.held -= held
		a.unspent += held - cost
		a.used += cost
	case a.settlement != nil:
		p.wait = a.settlement
	default:
		a.held -= held
		a.used += held
		p.settlement = a.begin(key.Move{Returned: a.unspent, Cost: more}, now)
	}
	return p
}

// planGive returns the step that gives n credits back. The caller holds the lock.
func (a *account) planGive(n int64, now instant) (p step) {
	m := key.Move{Give: n}
	p.now = now.wall
	switch {
	case a.used == 0:
		p.move = m
	case a.settlement != nil:
		p.wait = a.settlement
	default:
		p.settlement = a.begin(m, now)
	}
	return p
}

// enoughUnleased reports whether n credits can be taken without regard to the lease.
func (a *account) enoughUnleased(n, now int64) bool {
	if a.idle() {
		return true // the store knows all
	}
	return a.credits.Due(now) == 0 && a.credits.Remaining >= n
}

const (
	second = int64(time.Second / time.Millisecond)
	// leasePause is how long nothing is leased in the background after a failure.
	leasePause = second
	// leaseIdle is how long a key that is not used keeps a lease, at least.
	leaseIdle = 2 * second
)

// block returns how many credits the key should have leased: about a second of its
// traffic, at most what the configuration and the balance allow, and none where that is
// one: to lease a credit costs as much as to take it. The caller holds the lock.
func (a *account) block(most int64, view *key.Credits, now int64) int64 {
	n := min(a.traffic.perSecond(now), most, view.Leasable())
	if n < 2 {
		return 0
	}
	return n
}

// traffic measures how many credits a key takes.
type traffic struct {
	since         int64 // when the current second began
	current, last int64 // in this second, and in the one before
}

func (t *traffic) add(n, now int64) {
	t.roll(now)
	t.current += n
}

func (t *traffic) roll(now int64) {
	passed := now - t.since
	switch {
	case passed >= leaseIdle || passed < -second: // idle, or a clock that was set
		*t = traffic{since: now}
	case passed >= second:
		t.since += second
		t.last, t.current = t.current, 0
	}
}

func (t *traffic) perSecond(now int64) int64 {
	t.roll(now)
	return max(t.current, t.last)
}
