package keyring

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// UnknownTier is reported for an owner whose tier is not configured, once in a
// process.
type UnknownTier struct {
	UserID, Tier string
	Instead      string // the tier that holds instead; empty: none
}

func (e *UnknownTier) Error() string {
	if e.Instead == "" {
		return fmt.Sprintf("the tier %q of the owner %q is not configured, nor is a default one: no tier applies", e.Tier, e.UserID)
	}
	return fmt.Sprintf("the tier %q of the owner %q is not configured: the default tier %q applies", e.Tier, e.UserID, e.Instead)
}

// maxWarnings bounds what is remembered, and warned of.
const maxWarnings = 1000

// warnOnce remembers what was warned of. Requests ask each time, so it takes no lock.
type warnOnce struct {
	seen sync.Map
	n    atomic.Int64
}

// first reports whether a comparable value is new here, and is to be warned of.
func (w *warnOnce) first(what any) bool {
	if _, known := w.seen.Load(what); known || w.n.Load() >= maxWarnings {
		return false
	}
	_, known := w.seen.LoadOrStore(what, nil)
	if !known {
		w.n.Add(1)
	}
	return !known
}

// planFor returns the plan of an owner, and warns where its tier is not configured.
func (s *Service) planFor(o *ownerEntry) *plan {
	cur := o.cur.Load()
	p, known := s.plans.of(cur)
	if known {
		return p
	}
	e := UnknownTier{UserID: cur.UserID, Tier: *cur.Tier}
	if s.engine.warned.first(e) {
		if p != nil {
			e.Instead = p.Name
		}
		s.engine.report(&e)
	}
	return p
}
