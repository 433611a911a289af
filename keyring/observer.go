package keyring

import (
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

// Decided is what an Observer is told of a decision.
type Decided struct {
	Outcome Outcome
	Key     *key.Key // nil: none was found
	Tier    string   // of its owner; empty: none
	Limit   string   // that refused the request; empty: none did
	Cost    int64    // that was taken
	At      int64    // when, in Unix milliseconds
}

// decided tells the observers of a decision. The statistics are the first of them.
func (s *Service) decided(d *Decision, q *Request) {
	if q.DryRun || q.RecordOnly {
		return
	}
	s.count(d, q)
	for _, o := range s.set.Observers {
		o.Decided(Decided{Outcome: d.Outcome, Key: d.Key(), Tier: d.Tier(), Limit: d.Limit, Cost: d.Cost, At: s.madeAt(d)})
	}
}

// madeAt returns when a decision was made.
func (s *Service) madeAt(d *Decision) int64 {
	if d.at != 0 {
		return d.at
	}
	return s.engine.clock().wall
}

func tellChanged(observers []Observer, by Actor, changes []store.Change) {
	if len(changes) == 0 {
		return
	}
	for _, o := range observers {
		o.Changed(by, changes)
	}
}
