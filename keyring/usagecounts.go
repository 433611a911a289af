package keyring

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
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
//
// A request is in all statistics or, where there is no room for one of them, in none.
type Counted struct {
	outcome Outcome
	hour    *hourCounts // nil: not counted yet
	day     *dayCounts  // nil: no key is known, or statistics of keys do not count the outcome
	dropped bool        // from the statistics
}

// count counts a decision.
func (s *Service) count(d *Decision, q *Request) {
	c := q.Counted
	if c == nil {
		c = new(Counted)
	}
	if !c.dropped {
		s.countIn(c, d)
	}
	if d.rec != nil && d.Outcome == Allowed {
		d.noteAsked(&s.engine.queue, q)
	}
}

// countIn counts a decision about a request that is in the statistics so far.
func (s *Service) countIn(c *Counted, d *Decision) {
	queue, statistic := &s.engine.queue, outcomes[d.Outcome].statistic
	var hour *hourCounts
	if c.hour == nil {
		hour = s.hourOf(d)
	}
	var day *dayCounts
	if c.day == nil && d.rec != nil && statistic != uncounted {
		day = s.dayOf(d)
	}
	// There are few hours, and they have the room of all that waits.
	if hour != nil && !queue.hasRoom(&hour.pending) || day != nil && !queue.hasRoomForStatistics(&day.pending) {
		s.drop(c)
		return
	}
	switch {
	case hour != nil:
		c.outcome, c.hour = d.Outcome, hour
		hour.add(queue, d.Outcome, 1)
	case c.outcome == Allowed && d.Outcome != Allowed:
		s.reclassify(c, d.Outcome, statistic)
	}
	if day != nil {
		c.day = day
		day.add(queue, statistic, 1)
	}
}

// drop takes a request out of the statistics.
func (s *Service) drop(c *Counted) {
	if c.hour != nil {
		c.hour.add(&s.engine.queue, c.outcome, -1)
	}
	*c = Counted{dropped: true}
	s.engine.dropStatistics()
}

// Reclassify counts a request as refused that every gate had let in.
func (s *Service) Reclassify(c *Counted, o Outcome) {
	if c.hour == nil || c.outcome != Allowed {
		return
	}
	s.reclassify(c, o, outcomes[o].statistic)
	if c.day != nil && outcomes[o].statistic == uncounted {
		c.day.add(&s.engine.queue, allowed, -1)
	}
}

func (s *Service) reclassify(c *Counted, o Outcome, statistic kind) {
	c.hour.add(&s.engine.queue, c.outcome, -1)
	c.hour.add(&s.engine.queue, o, 1)
	c.outcome = o
	if c.day != nil && statistic != uncounted {
		c.day.add(&s.engine.queue, allowed, -1)
		c.day.add(&s.engine.queue, statistic, 1)
	}
}

// dayOf returns what counts the decisions about a key on the day of this one.
func (s *Service) dayOf(d *Decision) *dayCounts {
	return d.entry.countsOf(d.rec.key.UserID, s.days.dateAt(s.madeAt(d)))
}

func (c *dayCounts) add(q *queue, as kind, n int64) {
	c.n[as].Add(n)
	q.add(c)
}

// hourCounts counts the decisions of an hour about keys of one tier. Like dayCounts it is
// never closed.
type hourCounts struct {
	hour    int64 // of Unix time
	tier    string
	pending pending
	n       [NumOutcomes]atomic.Int64
	taken   [NumOutcomes]int64 // of n: what went into a batch; guarded by queue.mu
}

const hourMillis = int64(time.Hour / time.Millisecond)

// hourOf returns what counts the decisions with the tier of this one, in its hour.
func (s *Service) hourOf(d *Decision) *hourCounts {
	last := &s.plans.hour
	if d.plan != nil {
		last = &d.plan.hour
	}
	hour := s.madeAt(d) / hourMillis
	c := last.Load()
	if c == nil || c.hour != hour {
		c = &hourCounts{hour: hour, tier: d.Tier()}
		last.Store(c)
	}
	return c
}

func (c *hourCounts) add(q *queue, o Outcome, n int64) {
	c.n[o].Add(n)
	q.add(c)
}

// rest returns how many are in no batch yet.
func (c *hourCounts) rest() (sum int64) {
	for o := range NumOutcomes {
		sum += c.n[o].Load() - c.taken[o]
	}
	return sum
}

// asked are the permissions of a key that requests have asked for, so far as this process
// knows: at most store.MaxAskedPermissions.
type asked struct {
	list    []key.Permission
	written int // of list: what went into a batch
}

// noteAsked notes those of the permissions that a request asks for which the key has.
func (d *Decision) noteAsked(q *queue, r *Request) {
	for _, p := range r.Require {
		d.noteAskedFor(q, p)
	}
	for _, any := range r.RequireAny {
		for _, p := range any {
			d.noteAskedFor(q, p)
		}
	}
}

func (d *Decision) noteAskedFor(q *queue, p key.Permission) {
	for {
		old := d.entry.asked.Load()
		if old != nil && (slices.Contains(old.list, p) || len(old.list) == store.MaxAskedPermissions) {
			return
		}
		if !d.rec.key.Permissions.Allows(p) || d.mayBeKey(p.Resource) || d.mayBeKey(p.Action) {
			return
		}
		if d.entry.asked.CompareAndSwap(old, old.with(p)) {
			q.addStatistics(d.entry)
			return
		}
	}
}

// mayBeKey reports whether a text looks like a raw key, or is that of the decision. An
// application that calls verify may have put one into the wrong field, and none may get
// into the store.
func (d *Decision) mayBeKey(text string) bool {
	return key.ChecksumFits(text) || key.HashOf(text).Equal(d.hash)
}

func (a *asked) with(p key.Permission) *asked {
	if a == nil {
		return &asked{list: []key.Permission{p}}
	}
	return &asked{append(slices.Clip(a.list), p), a.written}
}

// takeAsked returns what is in no batch yet, and notes that it is now.
func (e *entry) takeAsked() []key.Permission {
	for {
		old := e.asked.Load()
		if old == nil || old.written == len(old.list) {
			return nil
		}
		if e.asked.CompareAndSwap(old, &asked{old.list, len(old.list)}) {
			return old.list[old.written:]
		}
	}
}
