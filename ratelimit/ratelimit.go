// Package ratelimit decides whether one more request fits into a limit. It is
// pure: a decision follows from the state, the policy and the time handed in.
package ratelimit

import "fmt"

// Algorithm is how a limit counts.
type Algorithm uint8

const (
	// FixedWindow counts in windows that start with the first counted request.
	FixedWindow Algorithm = iota
	// SlidingWindow admits at most the maximum in any interval of the window's length.
	SlidingWindow
	// TokenBucket holds the maximum and refills evenly.
	TokenBucket
)

var algorithmNames = [...]string{"fixed_window", "sliding_window", "token_bucket"}

// String returns the name that configurations and APIs use.
func (a Algorithm) String() string {
	if int(a) < len(algorithmNames) {
		return algorithmNames[a]
	}
	return fmt.Sprintf("Algorithm(%d)", uint8(a))
}

// ParseAlgorithm reads a name that String returns.
func ParseAlgorithm(s string) (Algorithm, error) {
	for i, name := range algorithmNames {
		if s == name {
			return Algorithm(i), nil
		}
	}
	return 0, fmt.Errorf("must be one of %v", algorithmNames)
}

// Policy is a limit: at most Max requests per Window milliseconds. Both are from
// 1 to 2^53-1.
type Policy struct {
	Algorithm Algorithm
	Max       int64
	Window    int64
}

// Verdict is what a limit says of a request.
type Verdict struct {
	OK        bool
	Remaining int64 // how many would still pass now, after this one
	Reset     int64 // milliseconds until the full maximum would be there again, if nothing more comes
	Wait      int64 // when not OK: milliseconds until this request would pass, if nothing else comes
	Never     bool  // when not OK: waiting does not help, n is over the maximum
}

// State is the memory of one limit. The zero value has counted nothing. It is
// not safe for concurrent use.
type State struct {
	start, count int64
}

// Peek says whether n would pass at now, and takes nothing.
func (s *State) Peek(p Policy, now, n int64) Verdict { panic("todo") }

// Take takes n at now if they fit, else nothing.
func (s *State) Take(p Policy, now, n int64) Verdict { panic("todo") }

// Undo gives back n that were taken at the time at, as if they had not been.
func (s *State) Undo(p Policy, at, n int64) { panic("todo") }

// Count returns how many requests count against the limit at now.
func (s *State) Count(p Policy, now int64) int64 { panic("todo") }

// Idle reports whether the state could be forgotten at now without changing any
// later decision.
func (s *State) Idle(p Policy, now int64) bool { panic("todo") }

// AppendBinary and UnmarshalBinary carry a state over a restart.
func (s *State) AppendBinary(b []byte) ([]byte, error) { panic("todo") }

// UnmarshalBinary implements encoding.BinaryUnmarshaler.
func (s *State) UnmarshalBinary(b []byte) error { panic("todo") }
