package ratelimit

import "math/bits"

// The token bucket, kept as what is missing from it: count - frac/scale tokens at
// the time t. (The generic cell rate algorithm of ITU-T I.371 keeps the time at
// which it would be full instead; with a whole number of milliseconds that time
// would have to be rounded.) An elapsed time d brings d·Max/Window tokens, and since
// the remainder of the division is kept, nothing drifts.
//
// Products reach 2^106, hence the 128-bit arithmetic. Its quotients fit: time is
// never more than Window (by then the bucket is full), and what is missing never
// more than Max.

var tokenBucket = algorithm{
	name: "token_bucket", decide: (*State).bucket, undo: (*State).undoBucket,
	counted: func(s *State, p Policy, at int64) int64 {
		missing, _ := s.level(p, at)
		return missing
	},
	adapt: func(s *State, p Policy, _ int64) { s.rescale(p.Window) },
	adopt: func(s *State, p Policy) { s.scale = p.Window },
	write: func(s *State, b []byte) []byte { return appendNumbers(b, s.frac, s.scale) },
	read: func(s *State, d *decoder) {
		s.frac = d.number(0, maxNumber)
		s.scale = d.number(1, maxNumber)
		d.require(s.frac < s.scale)
	},
}

func (s *State) bucket(p Policy, at, now, n int64, take bool) Verdict {
	missing, frac := s.level(p, at)
	v := Verdict{OK: n == 0 || n <= p.Max-missing}
	switch {
	case v.OK:
		v.At = at
		missing += n
	case n > p.Max:
		v.Never = true
	default:
		v.Wait = at - now + refillTime(p, missing+n-p.Max, frac)
	}
	v.Remaining = p.Max - missing
	if missing > 0 && p.Max > 0 {
		v.Reset = at - now + refillTime(p, missing, frac)
	}
	if take && v.OK && n > 0 {
		*s = State{t: at, count: missing, frac: frac, scale: p.Window, kind: TokenBucket}
	}
	return v
}

// level returns what is missing at the time at: missing - frac/Window tokens.
func (s *State) level(p Policy, at int64) (missing, frac int64) {
	missing, frac = s.count, s.frac
	if missing > p.Max { // the policy has changed
		missing, frac = p.Max, 0
	}
	elapsed := at - s.t
	if missing == 0 || elapsed >= p.Window {
		return 0, 0
	}
	hi, lo := bits.Mul64(uint64(elapsed), uint64(p.Max))
	lo, carry := bits.Add64(lo, uint64(frac), 0)
	whole, rest := bits.Div64(hi+carry, lo, uint64(p.Window))
	if whole >= uint64(missing) {
		return 0, 0
	}
	return missing - int64(whole), int64(rest)
}

// refillTime returns in how many milliseconds n tokens come, of which frac/Window
// are there: ⌈(n·Window - frac) / Max⌉.
func refillTime(p Policy, n, frac int64) int64 {
	hi, lo := bits.Mul64(uint64(n), uint64(p.Window))
	lo, borrow := bits.Sub64(lo, uint64(frac), 0)
	lo, carry := bits.Add64(lo, uint64(p.Max-1), 0)
	ms, _ := bits.Div64(hi-borrow+carry, lo, uint64(p.Max))
	return int64(ms)
}

// undoBucket gives back what of the n must still be missing. Had they not been
// taken, the bucket may have been full meanwhile and tokens lost; so what has come
// since at, if later requests moved t on, counts as come for these n.
func (s *State) undoBucket(p Policy, at, n int64) {
	elapsed := s.t - at
	if elapsed < 0 || elapsed >= p.Window {
		return
	}
	s.rescale(p.Window)
	hi, lo := bits.Mul64(uint64(elapsed), uint64(p.Max))
	whole, rest := bits.Div64(hi, lo, uint64(p.Window))
	if n <= int64(whole) {
		return
	}
	// count - frac/scale - (n - whole - rest/scale)
	s.frac -= int64(rest)
	if s.frac < 0 {
		s.frac += s.scale
		s.count++
	}
	if gain := n - int64(whole); gain < s.count {
		s.count -= gain
	} else {
		*s = State{}
	}
}

// rescale changes the unit of frac, rounding against the bucket.
func (s *State) rescale(window int64) {
	if s.scale != window {
		hi, lo := bits.Mul64(uint64(s.frac), uint64(window))
		frac, _ := bits.Div64(hi, lo, uint64(s.scale))
		s.frac, s.scale = int64(frac), window
	}
}
