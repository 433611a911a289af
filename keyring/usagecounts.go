package keyring

import (
	"sync/atomic"

	"github.com/caddy-apikey/caddy-apikey/store"
)

// kind is what statistics distinguish.
type kind uint8

const (
	// uncounted: no key did anything, or the store failed.
	uncounted kind = iota
	allowed
	limited
	// denied also counts Invalid where a key was found all the same: one of another
	// configuration.
	denied
	kinds
)

// dayCounts counts what one key did for one owner on one day. It is never closed:
// who still holds the one of a day that is over, or of a key that is gone,
// counts into it all the same, and it is written like any other. So no moment
// between two days loses a request or puts it into the wrong one.
type dayCounts struct {
	keyID, userID string
	day           date
	pending       pending
	n             [kinds]atomic.Int64
	taken         [kinds]int64 // of n: what went into a batch; guarded by queue.mu
}

// countsOf returns where the uses of a key are counted. Where two requests begin
// a day at once there may be two for it, which is no harm: both are increments.
func (e *entry) countsOf(userID string, day date) *dayCounts {
	c := e.counts.Load()
	if c == nil || c.day != day || c.userID != userID {
		c = &dayCounts{keyID: e.id, userID: userID, day: day}
		e.counts.Store(c)
	}
	return c
}

// rest returns what is in no batch yet.
func (c *dayCounts) rest() store.Uses {
	return store.Uses{
		Allowed: c.n[allowed].Load() - c.taken[allowed],
		Limited: c.n[limited].Load() - c.taken[limited],
		Denied:  c.n[denied].Load() - c.taken[denied],
	}
}

// take returns what is in no batch yet, and notes that it is now.
func (c *dayCounts) take() store.Uses {
	u := c.rest()
	c.taken[allowed] += u.Allowed
	c.taken[limited] += u.Limited
	c.taken[denied] += u.Denied
	return u
}

// Counted is how a request is counted in the statistics. All decisions about
// one request share one, so that it is counted once: as allowed if every gate
// let it in, else as what the first refusal was. It belongs to the day, the key
// and the owner of its first decision.
type Counted struct {
	as kind
	in *dayCounts
}

// tell counts a decision.
func (s *Service) tell(d *Decision, c *Counted) {
	as := outcomes[d.Outcome].statistic
	switch {
	case as == uncounted || d.rec == nil:
		return
	case c == nil:
		s.countAs(d, as)
	case c.as == uncounted:
		*c = Counted{as, s.countAs(d, as)}
	case as != allowed:
		s.Reclassify(c, d.Outcome)
	}
}

// Reclassify counts a request as refused that every gate had let in.
func (s *Service) Reclassify(c *Counted, o Outcome) {
	if c.as != allowed {
		return
	}
	c.as = outcomes[o].statistic
	c.in.n[allowed].Add(-1)
	c.in.n[c.as].Add(1)
	s.ring.queue.add(c.in)
}

func (s *Service) countAs(d *Decision, as kind) *dayCounts {
	at := d.at
	if at == 0 {
		at = s.ring.clock().wall
	}
	c := d.entry.countsOf(d.rec.key.UserID, s.days.dateAt(at))
	c.n[as].Add(1)
	s.ring.queue.add(c)
	return c
}
