package ratelimit

import "time"

// The calendar window: [Start, Start+Window) of the policy, which the caller takes
// from the calendar (Day, Month) for the time it hands in. Unlike the other laws it
// follows the clock on the wall. Reset is the end of the window.
//
// A state keeps the window that it counts in, and leaves it when that is over, never
// sooner: where the policy's window is another one, because the calendar has been cut
// elsewhere (another time zone), the counts go with it.

var calendarWindow = algorithm{
	name: "calendar_window", ours: true, decide: (*State).calendar,
	undo: func(s *State, _ Policy, at, n int64) { s.undoCalendar(at, n) },
	counted: func(s *State, _ Policy, at int64) int64 {
		if at-s.t >= s.scale {
			return 0
		}
		return s.count
	},
	adapt: (*State).turn,
	adopt: func(s *State, p Policy) { s.t, s.scale = p.Start, p.Window },
	write: func(s *State, b []byte) []byte { return appendNumbers(b, s.scale) },
	read:  func(s *State, d *decoder) { s.scale = d.number(1, maxNumber) },
}

func (s *State) calendar(p Policy, at, now, n int64, take bool) Verdict {
	start, window, count := s.page(p, now)
	v, count := p.verdict(at, now, start+window, count, n)
	if take && v.OK && n > 0 {
		*s = State{t: start, count: count, scale: window, kind: CalendarWindow}
	}
	return v
}

// page returns the window that a request at now counts in. Where the clock is
// behind, that is the one that has begun: a clock that wavers around midnight would
// empty it again and again.
func (s *State) page(p Policy, now int64) (start, window, count int64) {
	if s.count == 0 || now-s.t >= s.scale {
		return p.Start, p.Window, 0
	}
	return s.t, s.scale, s.count
}

// turn takes the counts over to the policy's window, while that of the state is not
// over. Else the two are the same, but for another time zone, or a leap of the clock.
func (s *State) turn(p Policy, now int64) {
	span := Span{p.Start, p.Start + p.Window}
	if span.Has(now) && s.t <= now && now-s.t < s.scale {
		s.t, s.scale = p.Start, p.Window
	}
}

func (s *State) undoCalendar(at, n int64) {
	if at < s.t || at-s.t >= s.scale {
		return
	}
	s.count -= min(n, s.count)
}

// Span is a part of the calendar: the milliseconds from Start up to, but not
// including, End.
type Span struct{ Start, End int64 }

// Has reports whether a time lies in the span.
func (s Span) Has(t int64) bool { return s.Start <= t && t < s.End }

// Policy returns the limit of Max requests in this span.
func (s Span) Policy(limit int64) Policy {
	return Policy{Algorithm: CalendarWindow, Max: limit, Start: s.Start, Window: s.End - s.Start}
}

// Day returns the calendar day that a time lies in, and Month the month. One ends
// where the next begins, whatever clocks in the zone were set to: a day has 23 or 25
// hours where they were changed, and one that a zone has skipped is in no span.
func Day(t int64, zone *time.Location) Span {
	y, m, d := time.UnixMilli(t).In(zone).Date()
	return spanAt(t, func(i int) int64 { return begin(y, m, d+i, zone) })
}

// Month returns the calendar month that a time lies in, as Day does.
func Month(t int64, zone *time.Location) Span {
	y, m, _ := time.UnixMilli(t).In(zone).Date()
	return spanAt(t, func(i int) int64 { return begin(y, m+time.Month(i), 1, zone) })
}

// spanAt returns the span that t lies in, of those that begin(0) and its neighbours
// begin. It is not always the one of the date at t: where clocks are set back over
// midnight, the date of yesterday comes again when today has begun.
func spanAt(t int64, begin func(int) int64) Span {
	i := 0
	for t >= begin(i+1) {
		i++
	}
	s := Span{begin(i), begin(i + 1)}
	for i--; s.Start == s.End; i-- { // a day that was skipped
		s.Start = begin(i)
	}
	return s
}

// begin returns the first millisecond at which the clocks of a zone show the date or
// a later one. time.Date does not say what it returns where midnight does not exist,
// or comes twice.
func begin(y int, m time.Month, d int, zone *time.Location) int64 {
	midnight := time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
	t := midnight.Add(-48 * time.Hour).In(zone) // before it, in every zone
	for {
		_, offset := t.Zone()
		_, change := t.ZoneBounds()
		if !change.IsZero() && !change.After(t) {
			// Go takes every year to have 365 days here. Nothing changes on the last
			// day of a longer one.
			change = t.Add(24 * time.Hour)
		}
		at := midnight.Add(-time.Duration(offset) * time.Second)
		switch {
		case at.Before(t): // clocks were set over it
			return t.UnixMilli()
		case change.IsZero() || at.Before(change):
			return at.UnixMilli()
		}
		t = change
	}
}
