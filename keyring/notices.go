package keyring

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/caddy-apikey/caddy-apikey/store"
)

const (
	// noticeEvery is how often keys are looked for whose time has come.
	noticeEvery = 10 * time.Second
	noticeBatch = 500
	// markEvery is how far a mark moves over nothing before it is stored.
	markEvery = int64(time.Hour / time.Millisecond)
)

// notices are how far the search for keys has come whose time comes. What is stored may be
// behind it, but not behind a key that was found.
type notices struct {
	mu            sync.Mutex            // held while they are looked for
	marks, stored map[string]store.Mark // by the name of the search
}

// search is one for keys whose time has come.
type search struct {
	name   string // of its mark
	moment store.Moment
	shift  int64 // the time has come when the moment is before now and this, in milliseconds
	event  Event // that is told
}

// searches returns those that somebody wants to know the result of.
func (s *Settings) searches() []search {
	list := []search{{name: "expired", moment: store.MomentExpiry, event: Event{Type: EventKeyExpired}}}
	for _, d := range s.subscribed(func(s *Subscription) []int64 { return s.Expiring }) {
		list = append(list, search{fmt.Sprint("expiring ", d), store.MomentExpiry, d, Event{Type: EventKeyExpiring, Within: d}})
	}
	for _, d := range s.subscribed(func(s *Subscription) []int64 { return []int64{s.Idle} }) {
		if d != 0 {
			idle := Event{Type: EventKeyIdle, Within: d}
			list = append(list, search{fmt.Sprint("idle ", d), store.MomentLastUse, -d, idle}, search{fmt.Sprint("unused ", d), store.MomentUnused, -d, idle})
		}
	}
	return list
}

// notice looks for keys whose time has come since it looked last, and has them told. A
// search that is new begins now: it finds nothing of the past.
func (r *Engine) notice(ctx context.Context, st store.Store) error {
	set := r.keeping.settings()
	if set == nil {
		return nil
	}
	r.notices.mu.Lock()
	defer r.notices.mu.Unlock()
	now := r.keeping.steady(r.clock())
	for _, q := range set.searches() {
		if err := r.noticeAll(ctx, st, set, &q, now+q.shift); err != nil {
			return fmt.Errorf("looking for keys to tell of (%s): %w", q.name, err)
		}
	}
	return nil
}

func (r *Engine) noticeAll(ctx context.Context, st store.Store, set *Settings, q *search, until int64) error {
	mark, err := r.notices.mark(ctx, st, q.name, until)
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		found, err := st.Passed(ctx, q.moment, mark, until, noticeBatch)
		if err != nil {
			return err
		}
		var events []Event
		for _, p := range found {
			mark = p.Mark
			if q.event.Type == EventKeyExpiring && mark.At <= until-q.shift {
				continue // nobody has looked for so long that it has expired, which is told too
			}
			e := q.event
			e.At, e.KeyID, e.UserID = r.clock().wall, p.KeyID, p.UserID
			events = append(events, e)
		}
		if len(found) < noticeBatch {
			mark = store.Mark{At: max(until+1, mark.At)}
			if q.moment == store.MomentLastUse {
				mark.At -= mark.At % int64(time.Hour/time.Millisecond) // an hour is found as a whole
			}
		}
		if err := r.notices.move(ctx, st, q.name, mark, set.deliveries(events), len(found) > 0); err != nil {
			return err
		}
		set.happened(events)
		if len(found) < noticeBatch {
			return nil
		}
	}
	return ctx.Err()
}

// mark returns where a search goes on. Where the clock was set back by more than it may
// be off, that is now.
func (n *notices) mark(ctx context.Context, st store.Store, name string, until int64) (store.Mark, error) {
	if n.marks == nil {
		n.marks, n.stored = map[string]store.Mark{}, map[string]store.Mark{}
	}
	m, ok := n.marks[name]
	if !ok {
		var err error
		if m, ok, err = st.Mark(ctx, name); err != nil {
			return m, err
		}
		n.stored[name] = m
	}
	if !ok || m.At > until+markEvery {
		m = store.Mark{At: until + 1}
		return m, n.move(ctx, st, name, m, nil, true)
	}
	n.marks[name] = m
	return m, nil
}

// move moves a mark, and stores it with what is sent for the keys before it. A mark that has
// moved over nothing is stored now and then, so that a restart does not search far back.
func (n *notices) move(ctx context.Context, st store.Store, name string, m store.Mark, outbox []store.Delivery, found bool) error {
	if found || m.At-n.stored[name].At >= markEvery {
		if err := st.SetMark(ctx, name, m, outbox); err != nil {
			return err
		}
		n.stored[name] = m
	}
	n.marks[name] = m
	return nil
}

// steady returns the wall time at which background work may believe that it is: what the
// clock would show now by the earliest of its readings in the past hour. A clock that is ahead for a
// moment is not believed; one that is set ahead for good is believed after an hour.
func (k *keeping) steady(now instant) int64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	wall := now.wall
	for _, at := range k.looks {
		wall = min(wall, at.wall+now.monotonic-at.monotonic)
	}
	return wall
}
