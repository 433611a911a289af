package ratelimit

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const hour = 3_600_000

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

func moment(t testing.TB, s string) int64 {
	t.Helper()
	at, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		t.Fatal(err)
	}
	return at.UnixMilli()
}

// TestT4_Days is a table of days in zones that have something special, with their
// bounds in UTC. The first and the last millisecond lie in the day, those beside
// them do not.
func TestT4_Days(t *testing.T) {
	for _, c := range []struct{ name, zone, in, start, end string }{
		{"UTC", "UTC", "2026-11-21T12:00:00Z", "2026-11-21T00:00:00Z", "2026-11-22T00:00:00Z"},
		{"Shanghai has no summer time", "Asia/Shanghai", "2026-07-01T15:59:59.999Z", "2026-06-30T16:00:00Z", "2026-07-01T16:00:00Z"},
		{"New York, 23 hours", "America/New_York", "2026-03-08T12:00:00Z", "2026-03-08T05:00:00Z", "2026-03-09T04:00:00Z"},
		{"New York, 25 hours", "America/New_York", "2026-11-01T12:00:00Z", "2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z"},
		{"New York, the hour that comes twice", "America/New_York", "2026-11-01T06:30:00Z", "2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z"},
		{"Kathmandu, +05:45", "Asia/Kathmandu", "2026-11-21T18:14:59.999Z", "2026-11-20T18:15:00Z", "2026-11-21T18:15:00Z"},
		{"Apia, the last day before the leap", "Pacific/Apia", "2011-12-30T09:59:59.999Z", "2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z"},
		{"Apia, the day after 30 December 2011, which there was not", "Pacific/Apia", "2011-12-30T10:00:00Z", "2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z"},
		{"Apia today, +13:00", "Pacific/Apia", "2026-11-21T12:00:00Z", "2026-11-21T11:00:00Z", "2026-11-22T11:00:00Z"},
		{"Casablanca, Ramadan begins", "Africa/Casablanca", "2026-02-15T12:00:00Z", "2026-02-14T23:00:00Z", "2026-02-16T00:00:00Z"},
		{"Casablanca, Ramadan ends", "Africa/Casablanca", "2026-03-22T12:00:00Z", "2026-03-22T00:00:00Z", "2026-03-22T23:00:00Z"},
		{"Cairo, midnight does not exist", "Africa/Cairo", "2026-04-23T22:00:00Z", "2026-04-23T22:00:00Z", "2026-04-24T21:00:00Z"},
		{"Cairo, clocks go back at the end of the day", "Africa/Cairo", "2026-10-29T21:30:00Z", "2026-10-28T21:00:00Z", "2026-10-29T22:00:00Z"},
		{"Havana, midnight comes twice", "America/Havana", "2026-11-01T05:30:00Z", "2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z"},
		{"Lord Howe, half an hour", "Australia/Lord_Howe", "2026-10-03T18:00:00Z", "2026-10-03T13:30:00Z", "2026-10-04T13:00:00Z"},
		{"St John's, yesterday comes again", "America/St_Johns", "2006-10-29T03:00:00Z", "2006-10-29T02:30:00Z", "2006-10-30T03:30:00Z"},
		{"29 February 2028", "UTC", "2028-02-29T23:59:59.999Z", "2028-02-29T00:00:00Z", "2028-03-01T00:00:00Z"},
		{"the end of a year", "Asia/Shanghai", "2026-12-31T15:59:59.999Z", "2026-12-30T16:00:00Z", "2026-12-31T16:00:00Z"},
		{"1970", "America/New_York", "1970-01-01T00:00:00Z", "1969-12-31T05:00:00Z", "1970-01-01T05:00:00Z"},
	} {
		t.Run(c.name, func(t *testing.T) { checkSpan(t, Day, zone(t, c.zone), c.in, c.start, c.end) })
	}
}

func TestT4_Months(t *testing.T) {
	for _, c := range []struct{ name, zone, in, start, end string }{
		{"28 days", "UTC", "2026-02-28T23:59:59.999Z", "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z"},
		{"29 days", "UTC", "2028-02-29T12:00:00Z", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"},
		{"30 days", "UTC", "2026-11-30T23:59:59.999Z", "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z"},
		{"31 days", "UTC", "2026-12-31T23:59:59.999Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"},
		{"2100 has no 29 February", "UTC", "2100-02-28T12:00:00Z", "2100-02-01T00:00:00Z", "2100-03-01T00:00:00Z"},
		{"Shanghai", "Asia/Shanghai", "2026-10-31T16:00:00Z", "2026-10-31T16:00:00Z", "2026-11-30T16:00:00Z"},
		{"New York, an hour short", "America/New_York", "2026-03-15T00:00:00Z", "2026-03-01T05:00:00Z", "2026-04-01T04:00:00Z"},
		{"New York, an hour long", "America/New_York", "2026-11-15T00:00:00Z", "2026-11-01T04:00:00Z", "2026-12-01T05:00:00Z"},
		{"Kathmandu", "Asia/Kathmandu", "2026-11-15T00:00:00Z", "2026-10-31T18:15:00Z", "2026-11-30T18:15:00Z"},
		{"Apia, with a day that there was not", "Pacific/Apia", "2011-12-30T10:00:00Z", "2011-12-01T10:00:00Z", "2011-12-31T10:00:00Z"},
		{"Casablanca", "Africa/Casablanca", "2026-02-20T00:00:00Z", "2026-01-31T23:00:00Z", "2026-03-01T00:00:00Z"},
	} {
		t.Run(c.name, func(t *testing.T) { checkSpan(t, Month, zone(t, c.zone), c.in, c.start, c.end) })
	}
}

func checkSpan(t *testing.T, of func(int64, *time.Location) Span, loc *time.Location, in, start, end string) {
	t.Helper()
	want := Span{moment(t, start), moment(t, end)}
	for _, at := range []int64{moment(t, in), want.Start, want.End - 1} {
		if got := of(at, loc); got != want {
			t.Errorf("%s: from %s to %s", time.UnixMilli(at).UTC(), time.UnixMilli(got.Start).UTC(), time.UnixMilli(got.End).UTC())
		}
	}
	if before, after := of(want.Start-1, loc), of(want.End, loc); before.End != want.Start || after.Start != want.End {
		t.Errorf("neighbours: %+v, %+v, want beside %+v", before, after, want)
	}
}

// TestT4_SpansTile walks through 56 years of many zones: each day begins where the
// one before ended, has 23 to 25 hours but where a zone crossed the date line, and
// days make up months.
func TestT4_SpansTile(t *testing.T) {
	for _, name := range []string{
		"UTC", "Asia/Shanghai", "America/New_York", "Asia/Kathmandu", "Pacific/Apia", "Africa/Casablanca", "Africa/Cairo",
		"America/Havana", "America/St_Johns", "Australia/Lord_Howe", "America/Sao_Paulo", "Asia/Beirut", "Pacific/Kiritimati", "Asia/Manila",
	} {
		loc := zone(t, name)
		day := Day(moment(t, "1989-01-15T00:00:00Z"), loc)
		month := Month(day.Start, loc)
		for day.Start < moment(t, "2045-01-01T00:00:00Z") {
			next := Day(day.End, loc)
			if next.Start != day.End {
				t.Fatalf("%s: a day ends at %s, the next begins at %s", name, time.UnixMilli(day.End).UTC(), time.UnixMilli(next.Start).UTC())
			}
			if h := (next.End - next.Start); h < 23*hour || h > 25*hour {
				t.Errorf("%s: the day from %s has %d ms", name, time.UnixMilli(next.Start).UTC(), h)
			}
			if next.Start >= month.End {
				if next.Start != month.End {
					t.Fatalf("%s: no day begins with the month, at %s", name, time.UnixMilli(month.End).UTC())
				}
				after := Month(next.Start, loc)
				if after.Start != month.End {
					t.Fatalf("%s: a month ends at %d, the next begins at %d", name, month.End, after.Start)
				}
				month = after
			}
			day = next
		}
	}
}

// dayLimit is a limit for each day in a zone.
func dayLimit(limit, now int64, loc *time.Location) Policy { return Day(now, loc).Policy(limit) }

// TestT4_LastMillisecond: the last millisecond of a day and the first of the next
// count in different days.
func TestT4_LastMillisecond(t *testing.T) {
	for _, name := range []string{"UTC", "Asia/Shanghai", "America/New_York", "Asia/Kathmandu", "Pacific/Apia", "Africa/Casablanca"} {
		loc := zone(t, name)
		var s State
		for day := Day(moment(t, "2026-01-01T12:00:00Z"), loc); day.Start < moment(t, "2028-03-05T00:00:00Z"); day = Day(day.End, loc) {
			for _, c := range []struct {
				at int64
				ok bool
			}{{day.Start, true}, {day.End - 1, true}, {day.End - 1, false}} {
				p := dayLimit(2, c.at, loc)
				if v := s.Take(p, c.at, 1); v.OK != c.ok || !v.OK && v.Wait != day.End-c.at {
					t.Fatalf("%s, %s: %+v", name, time.UnixMilli(c.at).In(loc), v)
				}
			}
		}
	}
}

// TestK8_CalendarWaitIsExact: who waits as long as it says passes, a millisecond
// earlier nobody does, 1,000 of 1,000 times.
func TestK8_CalendarWaitIsExact(t *testing.T) {
	loc := zone(t, "America/New_York")
	rapid.Check(t, func(t *rapid.T) {
		var s State
		now := moment2(rapid.Int64Range(0, 4*365*24*hour).Draw(t, "start"))
		for range 5 {
			limit := rapid.Int64Range(1, 4).Draw(t, "max")
			for range limit {
				s.Take(dayLimit(limit, now, loc), now, 1)
			}
			v := s.Take(dayLimit(limit, now, loc), now, 1)
			if v.OK || v.Wait <= 0 {
				t.Fatalf("over the maximum: %+v", v)
			}
			if early := s.Peek(dayLimit(limit, now+v.Wait-1, loc), now+v.Wait-1, 1); early.OK {
				t.Fatalf("passes %d ms early", 1)
			}
			now += v.Wait
			if v := s.Peek(dayLimit(limit, now, loc), now, 1); !v.OK {
				t.Fatalf("does not pass after the wait: %+v", v)
			}
			now += rapid.Int64Range(0, 30*hour).Draw(t, "later")
		}
	})
}

func moment2(ms int64) int64 { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli() + ms }

// TestT4_ZoneChanged: another time zone ends the window elsewhere and loses nothing.
func TestT4_ZoneChanged(t *testing.T) {
	utc, shanghai := zone(t, "UTC"), zone(t, "Asia/Shanghai")
	now := moment(t, "2026-11-21T12:00:00Z")
	for _, c := range []struct {
		from, to *time.Location
		end      string
	}{{utc, shanghai, "2026-11-21T16:00:00Z"}, {shanghai, utc, "2026-11-22T00:00:00Z"}} {
		t.Run(fmt.Sprint(c.from, " to ", c.to), func(t *testing.T) {
			var s State
			for range 3 {
				s.Take(dayLimit(3, now, c.from), now, 1)
			}
			end := moment(t, c.end)
			v := s.Take(dayLimit(3, now+1, c.to), now+1, 1)
			if v.OK || v.Wait != end-now-1 {
				t.Fatalf("after the change: %+v", v)
			}
			if v := s.Take(dayLimit(3, end-1, c.to), end-1, 1); v.OK {
				t.Error("passes before the end")
			}
			if v := s.Take(dayLimit(3, end, c.to), end, 1); !v.OK || v.Remaining != 2 {
				t.Errorf("at the end: %+v", v)
			}
		})
	}
}

// TestT3_CalendarClockSteps: a clock that leaps to a day that was not there yet gets
// that day's maximum, as if time had passed, and nothing else.
func TestT3_CalendarClockSteps(t *testing.T) {
	now := moment(t, "2026-11-21T12:00:00Z")
	const limit, day = 10, 24 * hour
	drain := func(s *State, at int64) (n int64) {
		for s.Take(dayLimit(limit, at, time.UTC), at, 1).OK {
			n++
		}
		return n
	}
	for _, c := range []struct {
		name             string
		step             int64
		first, more, out int64 // at the first leap, at the later ones, and when the clock is right again
	}{
		{"a second", 1000, 0, 0, 0},
		{"an hour", hour, 0, 0, 0},
		{"a day", day, limit, 0, 0},
		{"ten years", 3653 * day, limit, limit, 0},
		{"a second back", -1000, 0, 0, 0},
		{"a day back", -day, 0, 0, 0},
		{"to 1970", -now, 0, 0, limit},
	} {
		t.Run(c.name, func(t *testing.T) {
			var s State
			if n := drain(&s, now); n != limit {
				t.Fatalf("%d", n)
			}
			want := c.first
			for range 3 {
				if n := drain(&s, now+c.step); n != want {
					t.Errorf("after the leap: %d more, want %d", n, want)
				}
				if n := drain(&s, now); n != c.out {
					t.Errorf("back again: %d more, want %d", n, c.out)
				}
				want = c.more
			}
			if n := drain(&s, now+3*day); n != limit {
				t.Errorf("three days later: %d", n)
			}
		})
	}
}

// TestT3_CalendarDisorder: times around midnight that arrive out of order count
// nothing twice and lose nothing.
func TestT3_CalendarDisorder(t *testing.T) {
	midnight := moment(t, "2026-11-22T00:00:00Z")
	var s State
	passed := 0
	for i := range 100 {
		at := midnight + int64(i%2*2-1) // one millisecond before, one after
		if s.Take(dayLimit(10, at, time.UTC), at, 1).OK {
			passed++
		}
	}
	if passed > 11 || passed < 10 {
		t.Errorf("%d passed, want 1 before midnight and 10 after", passed)
	}
}

func TestCalendarUndo(t *testing.T) {
	now := moment(t, "2026-11-21T23:59:59.999Z")
	var s State
	p := dayLimit(2, now, time.UTC)
	v := s.Take(p, now, 2)
	s.Undo(p, v.At, 1)
	if got := s.Count(p, now); got != 1 {
		t.Errorf("count %d, want 1", got)
	}
	after := dayLimit(2, now+1, time.UTC)
	s.Take(after, now+1, 1)
	s.Undo(p, v.At, 1) // of the day before
	if got := s.Count(after, now+1); got != 1 {
		t.Errorf("count %d, want 1", got)
	}
	b, _ := s.AppendBinary(nil)
	var back State
	if err := back.UnmarshalBinary(b); err != nil || back != s {
		t.Errorf("%+v is read as %+v, %v", s, back, err)
	}
}

// TestTakeAllClocks: limits of one request may follow different clocks.
func TestTakeAllClocks(t *testing.T) {
	wall := moment(t, "2026-11-21T23:00:00Z")
	tick := wall - 400*hour
	var window, day State
	take := func(tick int64) (int, Verdict) {
		return TakeAll([]Limit{
			{State: &window, Policy: Policy{Max: 3, Window: 1000}},
			{State: &day, Policy: dayLimit(2, tick+400*hour, time.UTC), Ahead: 400 * hour},
		}, tick, 1)
	}
	take(tick)
	take(tick + 1)
	if refused, v := take(tick + 2); refused != 1 || v.Wait != hour-2 {
		t.Errorf("refused by %d: %+v", refused, v)
	}
	if n := window.Count(Policy{Max: 3, Window: 1000}, tick+2); n != 2 {
		t.Errorf("the window counts %d", n)
	}
	if refused, v := take(tick + hour); refused >= 0 {
		t.Errorf("refused by %d: %+v", refused, v)
	}
}
