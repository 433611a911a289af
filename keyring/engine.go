// Package keyring is the one service that knows keys: it verifies them and
// changes them. The gate, the admin API and both self-service dialects
// translate its answers; nobody decides twice.
//
// # Architecture
//
// An [Engine] is the state of one store: the cache of records, the live counters,
// the loops. There is one per store and process, and it outlives configurations.
// A [Service] is an engine seen with the rules of one configuration, and is what
// callers use.
//
// Records in memory are immutable. A change is written to the store first, which tells
// the cache of it before the caller gets its answer, so that the next request sees it.
// Revisions of the store decide which of two records is the later one (see cache).
//
// # Thread safety
//
// Everything exported is safe for concurrent use. A warm request takes no lock
// that keys share; a key with a rate limit or credits has a lock of its own.
//
// # Errors
//
// Refusals are [Decision] values. Errors are [FieldError] for bad input,
// store.ErrNotFound and its siblings for what the store says, and whatever wraps
// store.ErrUnavailable where the store could not be asked.
package keyring

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// lookupTimeout bounds how long a request waits for the store to be opened, or to
// answer anybody at all.
const lookupTimeout = 250 * time.Millisecond

// Engine is the state of one store in this process.
type Engine struct {
	opener store.Opener
	now    func() time.Time
	report func(error) // failures that no caller waits for

	monitor  Monitor
	degraded degradations
	figures  figures

	lookupTimeout time.Duration // the constant; longer in tests

	opening sync.Mutex
	ready   chan struct{} // closed when store is set
	store   atomic.Pointer[opened]
	closed  atomic.Bool

	cache    cache
	lookups  lookups
	warned   warnOnce
	budgets  budgets
	guesses  networkWindows // invalid keys
	reports  networkWindows // reports of leaked keys
	accounts accounts
	queue    queue
	keeping  keeping
	denials  denials
	watches  watches
	notices  notices

	loops    sync.WaitGroup
	stopping context.CancelFunc
	unfollow func() // ends the subscription to the changes of the store
}

// opened is a store that is open, and the moment it was: the windows of rate
// limits are counted from it by the monotonic clock.
type opened struct {
	store.Store
	at time.Time
}

// New returns the engine of a store that is opened later. now is the clock;
// report gets the failures of background work.
func New(opener store.Opener, now func() time.Time, report func(error)) *Engine {
	r := &Engine{
		opener: opener, now: now, report: report, ready: make(chan struct{}), monitor: unmonitored{},
		lookupTimeout: lookupTimeout, lookups: lookups{silence: lookupTimeout, patience: lookupPatience},
	}
	r.accounts = accounts{clock: r.clock, report: report, timeout: chargeTimeout, settled: r.cache.settled, spent: r.toldSpent}
	r.cache.init()
	r.queue.init()
	r.figures.asked = make(chan chan<- struct{})
	return r
}

// Open opens the store, once: later calls find it open. After an error it may be
// called again.
func (r *Engine) Open(ctx context.Context) error {
	r.opening.Lock()
	defer r.opening.Unlock()
	if r.store.Load() != nil {
		return nil
	}
	if r.closed.Load() {
		return store.ErrClosed
	}
	st, err := r.openGuarded(ctx)
	if err != nil {
		return err
	}
	forfeited, err := st.ForfeitLeases(ctx, holderName, r.noteForfeited)
	if err != nil {
		return errors.Join(fmt.Errorf("forfeiting what a crash left leased: %w", err), st.Close())
	}
	r.monitor.CreditsMoved(Forfeited, forfeited)
	plain, err := st.HasPlainKeys(ctx)
	if err != nil {
		return errors.Join(fmt.Errorf("reading keys: %w", err), st.Close())
	}
	r.cache.plain.Store(plain)
	if r.unfollow, err = st.follow(r.cache.apply); err != nil {
		return errors.Join(err, st.Close())
	}
	if err := st.reportSpending(spending{r}); err != nil {
		return errors.Join(err, st.Close())
	}
	r.accounts.holder = key.Holder{Name: holderName, Epoch: r.now().UnixMilli()}
	r.store.Store(&opened{st, r.now()})
	close(r.ready)
	r.startLoops()
	return nil
}

// Close returns what is leased, writes what is counted and closes the store.
// Requests that still run get store.ErrClosed.
func (r *Engine) Close() error { return r.Shut()() }

// Shut is the first half of Close, which takes no time: from then on every
// request gets store.ErrClosed. finish is the rest.
func (r *Engine) Shut() (finish func() error) {
	r.opening.Lock()
	defer r.opening.Unlock()
	// What is refused from here on is not counted after the last write, and
	// nobody is let in on records that others may now change.
	st := r.store.Swap(nil)
	if r.closed.Swap(true) || st == nil {
		return func() error { return nil }
	}
	return func() error {
		r.stopping()
		r.loops.Wait()
		defer r.unfollow()
		return errors.Join(r.accounts.Close(st), r.flushLast(st), r.writeDenials(context.Background(), st, true), st.Close())
	}
}

// open returns the store, after waiting a little for one that is being opened.
func (r *Engine) open(ctx context.Context) (*opened, error) {
	if st := r.store.Load(); st != nil {
		return st, nil
	}
	if r.closed.Load() {
		return nil, store.ErrClosed
	}
	timer := time.NewTimer(r.lookupTimeout)
	defer timer.Stop()
	select {
	case <-r.ready:
		if st := r.store.Load(); st != nil {
			return st, nil
		}
		return nil, store.ErrClosed
	case <-timer.C:
		return nil, fmt.Errorf("%w: the store is not open yet", store.ErrUnavailable)
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", store.ErrUnavailable, ctx.Err())
	}
}

// instant is one reading of the clock.
type instant struct {
	wall      int64 // Unix milliseconds, for expiry and refills
	monotonic int64 // the same scale, but it does not follow the steps of the wall clock; for windows
}

func (r *Engine) clock() instant {
	t := r.now()
	wall := t.UnixMilli()
	st := r.store.Load()
	if st == nil {
		return instant{wall, wall}
	}
	// Sub uses the monotonic readings where both times have one.
	return instant{wall, st.at.UnixMilli() + t.Sub(st.at).Milliseconds()}
}
