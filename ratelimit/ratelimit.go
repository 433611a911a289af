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

// algorithms are what there is to know of each. A new algorithm is a constant above and a
// row here.
var algorithms = [...]algorithm{
	FixedWindow:    fixedWindow,
	SlidingWindow:  slidingWindow,
	TokenBucket:    tokenBucket,
	CalendarWindow: calendarWindow,
}

// algorithm counts in a State whose count is not 0, but for decide.
type algorithm struct {
	name string // in configurations, in APIs and where states are stored
	ours bool   // for limits of ours: no key can choose it

	// decide is State.Peek or State.Take, for the time at, which the state has settled for
	// the time now.
	decide func(s *State, p Policy, at, now, n int64, take bool) Verdict
	// undo is State.Undo.
	undo func(s *State, p Policy, at, n int64)
	// counted is State.Count.
	counted func(s *State, p Policy, at int64) int64
	// adapt brings the state in line with a policy that has changed; nil: there is nothing to do.
	adapt func(s *State, p Policy, now int64)
	// adopt completes a state that takes over what another algorithm has counted; nil:
	// time and count are all.
	adopt func(s *State, p Policy)
	// write and read are what the algorithm adds to the stored state; nil: nothing.
	write func(s *State, b []byte) []byte
	read  func(s *State, d *decoder)
}

// String returns the name that configurations and APIs use.
func (a Algorithm) String() string {
	if int(a) < len(algorithms) {
		return algorithms[a].name
	}
	return fmt.Sprintf("Algorithm(%d)", uint8(a))
}

// ParseAlgorithm reads the name of an algorithm that a key can have.
func ParseAlgorithm(s string) (Algorithm, error) {
	a, ok := named(s)
	if !ok || algorithms[a].ours {
		return 0, fmt.Errorf("must be one of %s", strings.Join(Algorithms(), ", "))
	}
	return a, nil
}

// named returns the algorithm of a name.
func named(name string) (Algorithm, bool) {
	for a := range algorithms {
		if algorithms[a].name == name {
			return Algorithm(a), true
		}
	}
	return 0, false
}

// Algorithms returns the names that ParseAlgorithm reads.
func Algorithms() (names []string) {
	for i := range algorithms {
		if !algorithms[i].ours {
			names = append(names, algorithms[i].name)
		}
	}
	return names
}

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
	return algorithms[p.Algorithm].decide(s, p, at, now, n, take)
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
	algorithms[p.Algorithm].undo(s, p, at, n)
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
	return algorithms[s.kind].counted(s, p, at)
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
	if s.kind != p.Algorithm {
		s.convert(p, at)
	} else {
		s.adapt(p, now)
	}
	return at
}

func (s *State) adapt(p Policy, now int64) {
	if adapt := algorithms[s.kind].adapt; adapt != nil {
		adapt(s, p, now)
	}
}

// convert carries over what another algorithm has counted.
func (s *State) convert(p Policy, at int64) {
	if s.kind != CalendarWindow { // whose window another policy does not know
		s.adapt(p, at)
	}
	n := s.counted(p, at)
	*s = State{}
	if n == 0 {
		return
	}
	*s = State{t: at, count: n, kind: p.Algorithm}
	if adopt := algorithms[p.Algorithm].adopt; adopt != nil {
		adopt(s, p)
	}
}

func (p Policy) bounded() Policy {
	if int(p.Algorithm) >= len(algorithms) {
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
