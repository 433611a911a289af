package keyring

import (
	"fmt"
	"sync"
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

// maxStrays bounds the owners that are remembered, and warned of.
const maxStrays = 1000

// strays remembers who was warned of.
type strays struct {
	mu sync.Mutex
	m  map[[2]string]struct{}

	configs sync.Map // IDs of configurations
}

// firstOfConfig reports whether a configuration is new here. Requests ask each
// time, so it takes no lock. There are as many IDs as have ever been configured,
// or imported: few.
func (s *strays) firstOfConfig(id string) bool {
	if _, known := s.configs.Load(id); known {
		return false
	}
	_, known := s.configs.LoadOrStore(id, nil)
	return !known
}

// first reports whether an owner with a tier is new here.
func (s *strays) first(userID, tier string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	stray := [2]string{userID, tier}
	if _, known := s.m[stray]; known || len(s.m) >= maxStrays {
		return false
	}
	if s.m == nil {
		s.m = make(map[[2]string]struct{})
	}
	s.m[stray] = struct{}{}
	return true
}

// planFor returns the plan of an owner, and warns where its tier is not configured.
func (s *Service) planFor(o *ownerEntry) *plan {
	cur := o.cur.Load()
	p, known := s.plans.of(cur)
	if known {
		return p
	}
	if last := o.strayed.Load(); last == nil || *last != *cur.Tier {
		o.strayed.Store(cur.Tier)
		if s.ring.strays.first(cur.UserID, *cur.Tier) {
			e := &UnknownTier{UserID: cur.UserID, Tier: *cur.Tier}
			if p != nil {
				e.Instead = p.Name
			}
			s.ring.report(e)
		}
	}
	return p
}
