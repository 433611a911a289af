// Package ratelimit decides whether one more request fits into a limit. It is
// pure: a decision follows from the state, the policy and the time handed in.
//
// # Laws
//
// FixedWindow: a window starts with the first counted request and lasts Window;
// the first request at or after start+Window starts the next. A window admits at
// most Max, so that at most 2·Max pass in any interval of length Window (Max at the
// end of one window, Max at the start of the next).
//
// SlidingWindow: at most Max in any interval (t-Window, t], always. With Max up to
// 64 or Window up to 63 ms the count is exact. Above that, requests are counted in
// cells of g = ⌈Window/63⌉ ms that leave the count as a whole, each with its newest
// request: a request counts for at least Window and for at most Window+g-1, less
// than 1.6 % longer. Who keeps to Max in every interval of Window+g-1 is never
// denied. A state holds at most 64 cells, 1.1 KiB, however much is asked of it.
//
// TokenBucket: holds Max, starts full and refills evenly, Max per Window, in exact
// fractions. An interval of length d admits at most Max + Max·d/Window.
//
// CalendarWindow: at most Max in each window of the calendar: a day, a month. The
// first request at or after the end of one counts in the next.
//
// # Clock
//
// Times are Unix milliseconds. A state never goes back: a time before the newest
// that it has counted (for a fixed window, before its start) stands for that
// newest. So a clock that is set back gives no new slots. A clock further behind
// than the longer of Window and one second must have been ahead before; the state
// then moves back with it, with all its counts, as if no time had passed. So a
// leap ahead and back lets at most one more maximum through (the time leapt over
// looks like time that passed) and locks a key for at most Window plus that
// tolerance. Less than the tolerance is not corrected: clocks are often set by a
// little, and each correction would make time run faster.
//
// # Changes of policy
//
// A new policy takes effect with the next call. Max: what has been counted stays
// counted; a bucket that shrinks keeps what was spent, up to the new maximum.
// Window: a fixed window keeps its start, a sliding one the times of what it still
// remembers, and a bucket refills at the new rate since it was last used. Algorithm:
// what the old one still counts, by the new Window and Max, is taken over as if it had
// been taken at that moment.
package ratelimit

import (
	"fmt"
	"slices"
	"strings"
)

// Algorithm is how a limit counts.
type Algorithm uint8

const (
	// FixedWindow counts in windows that start with the first counted request.
	FixedWindow Algorithm = iota
	// SlidingWindow admits at most the maximum in any interval of the window's length.
	SlidingWindow
	// TokenBucket holds the maximum and refills evenly.
	TokenBucket
	// CalendarWindow counts in days or months. It is for limits of ours: no key
	// can choose it.
	CalendarWindow
)

var algorithmNames = [...]string{"fixed_window", "sliding_window", "token_bucket", "calendar_window"}

// choosable are the names of the algorithms that a key can have.
var choosable = algorithmNames[:CalendarWindow]

// String returns the name that configurations and APIs use.
func (a Algorithm) String() string {
	if int(a) < len(algorithmNames) {
		return algorithmNames[a]
	}
	return fmt.Sprintf("Algorithm(%d)", uint8(a))
}

// ParseAlgorithm reads the name of an algorithm that a key can have.
func ParseAlgorithm(s string) (Algorithm, error) {
	for i, name := range choosable {
		if s == name {
			return Algorithm(i), nil
		}
	}
	return 0, fmt.Errorf("must be one of %s", strings.Join(choosable, ", "))
}

// Algorithms returns the names that ParseAlgorithm reads.
func Algorithms() []string { return slices.Clone(choosable) }

// Policy is a limit: at most Max requests per Window milliseconds. Both are from
// 1 to 2^53-1; what lies outside is taken as the nearest that is sound, so that a
// Max below 1 admits nothing.
type Policy struct {
	Algorithm Algorithm
	Max       int64
	Window    int64
	// Start is, of a CalendarWindow, when the window began that the time handed
	// in lies in; see Span.
	Start int64
}

// Verdict is what a limit says of a request.
type Verdict struct {
	OK        bool
	Remaining int64 // how many would still pass now, after this one
	Reset     int64 // milliseconds until the full maximum would be there again, if nothing more comes
	Wait      int64 // when not OK: milliseconds until this request would pass, if nothing else comes
	Never     bool  // when not OK: waiting does not help, n is over the maximum

	// At is, when OK, the time that the request counts at: now, or later where the
	// clock is behind the state. Undo wants it.
	At int64
}

// State is the memory of one limit. The zero value has counted nothing. It is
// not safe for concurrent use, and a copy shares memory with its original.
//
// Every method that is told the time may note in the state a clock that was set back and a new
// policy; it has to, or the waiting time would start anew with every look.
type State struct {
	t     int64     // fixed, calendar: start of the window; else: time of the newest request
	count int64     // fixed, calendar: requests in it; sliding: in the log; bucket: tokens missing, rounded up
	frac  int64     // bucket: parts of 1/window that count is too high by
	scale int64     // bucket: the window that frac counts in; calendar: length of the window
	log   *cells    // sliding
	kind  Algorithm // who wrote the above; means nothing while count is 0
}

// Empty reports whether nothing has been counted, or all of it taken back.
func (s *State) Empty() bool { return s.count == 0 }

const (
	maxNumber = 1<<53 - 1 // of counts and windows

	// Times beyond this are cut, so that sums of times and windows stay in range.
	maxTime = 1 << 60

	// How far a clock may be set back, at least, without a correction.
	disorder = 1000
)

// Peek says whether n would pass at now, and takes nothing.
func (s *State) Peek(p Policy, now, n int64) Verdict {
	return s.decide(p, now, n, false)
}

// Take takes n at now if they fit, else nothing.
func (s *State) Take(p Policy, now, n int64) Verdict {
	return s.decide(p, now, n, true)
}

func (s *State) decide(p Policy, now, n int64, take bool) Verdict {
	p, now, n = p.bounded(), boundedTime(now), max(n, 0)
	at := s.settle(p, now)
	switch p.Algorithm {
	case SlidingWindow:
		return s.sliding(p, at, now, n, take)
	case TokenBucket:
		return s.bucket(p, at, now, n, take)
	case CalendarWindow:
		return s.calendar(p, at, now, n, take)
	default:
		return s.fixed(p, at, now, n, take)
	}
}

// Undo gives back n that were taken at the time at (Verdict.At), as if they had not
// been. What no longer counts is not given back: that of a fixed or calendar window
// that has been replaced, of a sliding window's past, of a bucket as far as it may have been refilled
// before later requests, and all that was taken by another algorithm or before the
// clock was found far behind.
func (s *State) Undo(p Policy, at, n int64) {
	p, at = p.bounded(), boundedTime(at)
	if n <= 0 || s.count == 0 || s.kind != p.Algorithm {
		return
	}
	switch p.Algorithm {
	case SlidingWindow:
		s.undoSliding(at, n)
	case TokenBucket:
		s.undoBucket(p, at, n)
	case CalendarWindow:
		s.undoCalendar(at, n)
	default:
		s.undoFixed(p, at, n)
	}
}

// Count returns how many requests count against the limit at now: those of the
// current fixed window, of the last sliding window, or the tokens missing from
// the bucket, rounded up.
func (s *State) Count(p Policy, now int64) int64 {
	p, now = p.bounded(), boundedTime(now)
	return s.counted(p, s.settle(p, now))
}

func (s *State) counted(p Policy, at int64) int64 {
	if s.count == 0 {
		return 0
	}
	switch s.kind {
	case SlidingWindow:
		_, live := s.live(p, at)
		return live
	case TokenBucket:
		missing, _ := s.level(p, at)
		return missing
	case CalendarWindow:
		if at-s.t >= s.scale {
			return 0
		}
		return s.count
	default:
		if at-s.t >= p.Window {
			return 0
		}
		return s.count
	}
}

// Idle reports whether the state could be forgotten at now without changing any
// later decision under this policy.
func (s *State) Idle(p Policy, now int64) bool {
	return s.Count(p, now) == 0
}

// settle brings the state in line with the clock and the policy, and returns the
// time that a request at now counts at.
func (s *State) settle(p Policy, now int64) int64 {
	if s.count == 0 {
		return now
	}
	if ahead := s.t - now; ahead > max(p.Window, disorder) {
		s.t = now
		if s.log != nil {
			s.log.shift(-ahead)
		}
	}
	at := max(now, s.t)
	switch {
	case s.kind != p.Algorithm:
		s.convert(p, at)
	case s.kind == TokenBucket && s.scale != p.Window:
		s.rescale(p.Window)
	case s.kind == CalendarWindow:
		s.turn(p, now)
	}
	return at
}

// convert carries over what another algorithm has counted.
func (s *State) convert(p Policy, at int64) {
	if s.kind == TokenBucket {
		s.rescale(p.Window)
	}
	n := s.counted(p, at)
	*s = State{}
	if n == 0 {
		return
	}
	*s = State{t: at, count: n, kind: p.Algorithm}
	switch p.Algorithm {
	case SlidingWindow:
		s.log = &cells{}
		s.log.add(at, n, 1)
	case TokenBucket:
		s.scale = p.Window
	case CalendarWindow:
		s.t, s.scale = p.Start, p.Window
	}
}

func (p Policy) bounded() Policy {
	if int(p.Algorithm) >= len(algorithmNames) {
		p.Algorithm = FixedWindow
	}
	p.Max = min(max(p.Max, 0), maxNumber)
	p.Window = min(max(p.Window, 1), maxNumber)
	p.Start = boundedTime(p.Start)
	return p
}

func boundedTime(t int64) int64 {
	return min(max(t, -maxTime), maxTime)
}
