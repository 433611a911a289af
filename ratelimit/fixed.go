package ratelimit

// The fixed window: a start and a count. Reset is the end of the window.

var fixedWindow = algorithm{
	name: "fixed_window", decide: (*State).fixed, undo: (*State).undoFixed,
	counted: func(s *State, p Policy, at int64) int64 {
		if at-s.t >= p.Window {
			return 0
		}
		return s.count
	},
}

func (s *State) fixed(p Policy, at, now, n int64, take bool) Verdict {
	start, count := s.t, s.count
	if count == 0 || at-start >= p.Window {
		start, count = at, 0
	}
	v, count := p.verdict(at, now, start+p.Window, count, n)
	if take && v.OK && n > 0 {
		*s = State{t: start, count: count, kind: FixedWindow}
	}
	return v
}

// verdict decides about n requests at the time at beside count others, in a window
// that lasts until end, and counts them if there is room.
func (p Policy) verdict(at, now, end, count, n int64) (Verdict, int64) {
	v := Verdict{OK: n == 0 || n <= p.Max-count}
	switch {
	case v.OK:
		v.At = at
		count += n
	case n > p.Max:
		v.Never = true
	default:
		v.Wait = end - now
	}
	v.Remaining = max(p.Max-count, 0)
	if count > 0 {
		v.Reset = end - now
	}
	return v, count
}

func (s *State) undoFixed(p Policy, at, n int64) {
	if at < s.t || at-s.t >= p.Window {
		return
	}
	s.count -= min(n, s.count) // at 0 the next request starts a window, as it would have
}
