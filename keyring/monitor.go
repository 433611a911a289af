package keyring

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/caddy-apikey/caddy-apikey/store"
)

// Monitor is told what an engine does, beside decisions and changes, which an Observer is
// told. What it is told of waits for it, so its methods must be quick and never wait. They
// are called by many at once.
type Monitor interface {
	// StoreCalled is told of each call of the store when it has ended. operation is the
	// method of store.Store in snake case.
	StoreCalled(operation string, took time.Duration, err error)
	// CreditsMoved is told of credits that requests have taken or got back, and of those that
	// a crash has lost.
	CreditsMoved(m Movement, n int64)
	// StatisticsDropped is told of requests that the statistics will never show, of each once.
	StatisticsDropped(requests int64)
	// Degraded is told when a part of the engine stops working as it should, and why. The
	// error is nil when it works again.
	Degraded(p Part, err error)
	// AuditHead is told of the newest entry of the audit log once a day. Whoever keeps it can
	// tell later whether an entry before it was changed.
	AuditHead(head store.AuditPoint)
}

// Movement is what becomes of credits.
type Movement string

const (
	Taken     Movement = "taken"
	Refunded  Movement = "refunded"
	Forfeited Movement = "forfeited"
)

// Movements are all of them.
var Movements = []Movement{Taken, Refunded, Forfeited}

// Part is a part of the engine that is degraded while the store is away.
type Part string

const (
	// PartIdentity: keys that are not in memory cannot be looked up. Requests with them are
	// Unavailable.
	PartIdentity Part = "identity"
	// PartCredits: credits cannot be taken. Requests that cost some are Unavailable.
	PartCredits Part = "credits"
	// PartLimits: rate limits cannot be counted that memory does not have: those of an owner
	// cannot be read, or too many wait to be written. Requests that they apply to are
	// Unavailable. All others go on being counted in memory.
	PartLimits Part = "limits"
	// PartStatistics: what was counted cannot be written. It waits in memory, with rate
	// limits and times of the last use, and is dropped where too much does.
	PartStatistics Part = "statistics"
)

// Parts are all of them.
var Parts = []Part{PartIdentity, PartCredits, PartLimits, PartStatistics}

// unmonitored is the Monitor of an engine that has none.
type unmonitored struct{}

func (unmonitored) StoreCalled(string, time.Duration, error) {}
func (unmonitored) CreditsMoved(Movement, int64)             {}
func (unmonitored) StatisticsDropped(int64)                  {}
func (unmonitored) Degraded(Part, error)                     {}
func (unmonitored) AuditHead(store.AuditPoint)               {}

// SetMonitor has m told from now on what the engine does. It is called before Open.
func (r *Engine) SetMonitor(m Monitor) { r.monitor = m }

// degradations are the last failures of the parts that are degraded, in the order of Parts.
type degradations [4]atomic.Pointer[error]

// degrade notes that a part has failed, if the store is to blame.
func (r *Engine) degrade(p Part, err error) {
	if !errors.Is(err, store.ErrUnavailable) {
		return
	}
	failure := err // another value each time
	if r.degraded[slices.Index(Parts, p)].Swap(&failure) == nil {
		r.monitor.Degraded(p, err)
	}
}

// ToldAsDegraded reports whether an error says nothing but that the store is away, and the
// Monitor has been told of that by Degraded.
func (s *Service) ToldAsDegraded(err error) bool { return s.engine.toldAsDegraded(err) }

func (r *Engine) toldAsDegraded(err error) bool {
	return errors.Is(err, store.ErrUnavailable) && len(r.Degraded()) > 0
}

// workFailed reports that background work has failed, which it will again as long as the
// store is away.
func (r *Engine) workFailed(err error) {
	if !r.toldAsDegraded(err) {
		r.report(err)
	}
}

// dropStatistics notes that a request will not be in the statistics, since there is no room.
func (r *Engine) dropStatistics() {
	r.monitor.StatisticsDropped(1)
	r.degrade(PartStatistics, errNoRoom)
}

// Degraded returns the parts that are degraded.
func (r *Engine) Degraded() []Part {
	var list []Part
	for i, p := range Parts {
		if r.degraded[i].Load() != nil {
			list = append(list, p)
		}
	}
	return list
}

// flushAndRecover writes what was counted. Where something is degraded, that and a look at
// the store tell whether it works again: a request that failed is counted too, so that there
// is something to write.
func (r *Engine) flushAndRecover(ctx context.Context, st *opened) error {
	var before [len(degradations{})]*error
	for i := range before {
		before[i] = r.degraded[i].Load()
	}
	if err := r.flush(ctx, st); err != nil {
		r.degrade(PartStatistics, err)
		return err
	}
	if len(r.Degraded()) == 0 || !works(ctx, st) {
		return nil
	}
	for i, failure := range before {
		if failure != nil && r.degraded[i].CompareAndSwap(failure, nil) { // else it has failed again
			r.monitor.Degraded(Parts[i], nil)
		}
	}
	return nil
}

func works(ctx context.Context, st store.Store) bool {
	_, err := st.Health(ctx)
	return err == nil
}

// Gauges are what an engine holds, at one moment.
type Gauges struct {
	Backlog      int   // writes that wait, here and in the store
	CacheEntries int   // raw keys in memory
	CacheBytes   int64 // that they take
}

// Gauges asks nobody, so that it answers while the store is away.
func (r *Engine) Gauges() Gauges {
	waiting := int(r.queue.waiting.Load())
	if st := r.store.Load(); st != nil {
		if g, ok := st.Store.(guarded); ok {
			waiting += g.backlog()
		}
	}
	return Gauges{
		Backlog:      waiting,
		CacheEntries: r.cache.keys.EstimatedSize(),
		CacheBytes:   int64(r.cache.keys.WeightedSize()), //nolint:gosec // far below
	}
}
