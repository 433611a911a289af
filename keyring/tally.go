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

// tally counts what one key did for one owner on one day. It is never closed:
// who still holds the one of a day that is over, or of a key that is gone,
// counts into it all the same, and it is written like any other. So no moment
// between two days loses a request or puts it into the wrong one.
type tally struct {
	keyID, userID string
	day           date
	queued        atomic.Bool // waits to be written
	n             [kinds]atomic.Int64
	taken         [kinds]int64 // of n: what went into a batch; guarded by book.mu
}

// tallyOf returns where the uses of a key are counted. Where two requests begin
// a day at once there may be two for it, which is no harm: both are increments.
func (l *live) tallyOf(userID string, day date) *tally {
	t := l.tally.Load()
	if t == nil || t.day != day || t.userID != userID {
		t = &tally{keyID: l.id, userID: userID, day: day}
		l.tally.Store(t)
	}
	return t
}

// rest returns what is in no batch yet.
func (t *tally) rest() store.Uses {
	return store.Uses{
		Allowed: t.n[allowed].Load() - t.taken[allowed],
		Limited: t.n[limited].Load() - t.taken[limited],
		Denied:  t.n[denied].Load() - t.taken[denied],
	}
}

// take returns what is in no batch yet, and notes that it is now.
func (t *tally) take() store.Uses {
	u := t.rest()
	t.taken[allowed] += u.Allowed
	t.taken[limited] += u.Limited
	t.taken[denied] += u.Denied
	return u
}

// Counted is how a request is counted in the statistics. All decisions about
// one request share one, so that it is counted once: as allowed if every gate
// let it in, else as what the first refusal was. It belongs to the day, the key
// and the owner of its first decision.
type Counted struct {
	as kind
	in *tally
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
	s.ring.book.queue(c.in)
}

func (s *Service) countAs(d *Decision, as kind) *tally {
	at := d.at
	if at == 0 {
		at = s.ring.clock().wall
	}
	t := d.live.tallyOf(d.rec.key.UserID, s.days.dateAt(at))
	t.n[as].Add(1)
	s.ring.book.queue(t)
	return t
}
