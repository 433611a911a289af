package keyring

import (
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// Observer is told what happens. The request or the change that it is told of waits for
// it, so its methods must be quick and never wait. They are called by many at once.
type Observer interface {
	// Decided is told of each decision, except those that take and count nothing because
	// they are asked for only to look.
	Decided(Decided)
	// Changed is told of changes that an actor has made, after they are durable and known
	// to this process, and before the actor is answered. Of a key that exists only once in
	// changes its latest state is there.
	Changed(by Actor, changes []store.Change)
}

// Listener is told of events, as an Observer is of changes. Those that need no request and
// no change are told to the newest configuration.
type Listener interface {
	// Happened is told of events after what they tell is durable.
	Happened(events []Event)
}

// Decided is what an Observer is told of a decision.
type Decided struct {
	Outcome Outcome
	Key     *key.Key // nil: none was found
	Config  string   // whose rules hold for it
	Tier    string   // of its owner; empty: none
	Limit   string   // that refused the request; empty: none did
	Cost    int64    // that was taken
	At      int64    // when, in Unix milliseconds

	// Verified: it is about a raw key, and Took and LookedUp hold. Else the request carried
	// none, or several.
	Verified bool
	Took     time.Duration // to decide
	LookedUp bool          // the store was asked for the key
}

// began returns the time at which a decision begins, where an observer wants to know how
// long it takes.
func (s *Service) began() (t time.Time) {
	if len(s.set.Observers) > 0 {
		t = s.engine.now()
	}
	return t
}

// decided tells the observers of a decision. The statistics are the first of them. began is
// zero where no raw key was verified.
func (s *Service) decided(d *Decision, q *Request, began time.Time) {
	if q.DryRun || q.RecordOnly {
		return
	}
	s.count(d, q)
	if len(s.set.Observers) == 0 {
		return
	}
	told := Decided{Outcome: d.Outcome, Key: d.Key(), Config: d.Config(), Tier: d.Tier(), Limit: d.Limit, Cost: d.Cost, At: s.madeAt(d)}
	if !began.IsZero() {
		told.Verified, told.Took, told.LookedUp = true, s.engine.now().Sub(began), d.lookedUp
	}
	for _, o := range s.set.Observers {
		o.Decided(told)
	}
}

// madeAt returns when a decision was made.
func (s *Service) madeAt(d *Decision) int64 {
	if d.at != 0 {
		return d.at
	}
	return s.engine.clock().wall
}

// tellChanged tells observers of changes, and of what they are as events.
func tellChanged(set *Settings, by Actor, changes []store.Change, events []Event) {
	if set == nil || len(changes) == 0 {
		return
	}
	for _, o := range set.Observers {
		o.Changed(by, changes)
	}
	set.happened(events)
}
