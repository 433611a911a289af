package ratelimit

import "slices"

// The sliding window: a log of cells. A cell leaves the count with its newest
// request, so that it may be counted too long but never too short; this makes the
// law hold whatever is merged into one cell, and leaves only the error to choose.
// Cells lie on a grid of grain milliseconds; at a grain of 1 the log is exact. Reset
// is when the last cell leaves.

// maxCells bounds the memory: a window of 63 grains touches at most 64 cells, and an
// exact log of up to 64 requests has at most 64.
const maxCells = 64

// cell is n requests, none of them later than at, and none earlier than the cell
// before or at its time.
type cell struct{ at, n int64 }

type cells struct {
	list []cell // oldest first
	gone int64  // nothing up to here is in the list

	// So that the newest request can be undone: how many of the last cell came at
	// its very time, and a time that the others of it are not later than.
	last, prev int64
}

func (p Policy) grain() int64 {
	if p.Max <= maxCells {
		return 1
	}
	return (p.Window + maxCells - 2) / (maxCells - 1)
}

var slidingWindow = algorithm{
	name: "sliding_window", decide: (*State).sliding,
	undo: func(s *State, _ Policy, at, n int64) { s.undoSliding(at, n) },
	counted: func(s *State, p Policy, at int64) int64 {
		_, live := s.live(p, at)
		return live
	},
	adopt: func(s *State, _ Policy) {
		s.log = &cells{}
		s.log.add(s.t, s.count, 1)
	},
	write: func(s *State, b []byte) []byte { return s.log.appendBinary(b, s.t) },
	read:  func(s *State, d *decoder) { s.log = d.log(s.t, s.count) },
}

func (s *State) sliding(p Policy, at, now, n int64, take bool) Verdict {
	old, count := s.live(p, at)
	v := Verdict{OK: n == 0 || n <= p.Max-count}
	last := s.t
	switch {
	case v.OK:
		v.At = at
		count += n
		if n > 0 {
			last = at
		}
	case n > p.Max:
		v.Never = true
	default:
		need := count + n - p.Max
		for _, c := range s.log.list[old:] {
			if need -= c.n; need <= 0 {
				v.Wait = c.at + p.Window - now
				break
			}
		}
	}
	v.Remaining = max(p.Max-count, 0)
	if count > 0 {
		v.Reset = last + p.Window - now
	}
	if take && v.OK && n > 0 {
		log := s.log
		if log == nil {
			log = &cells{}
		}
		log.drop(old)
		log.add(at, n, p.grain())
		*s = State{t: at, count: count, log: log, kind: SlidingWindow}
	}
	return v
}

// live returns how many cells have left the window, and the count of the others.
func (s *State) live(p Policy, at int64) (old int, count int64) {
	if s.count == 0 {
		return 0, 0
	}
	count = s.count
	for _, c := range s.log.list {
		if at-c.at < p.Window {
			break
		}
		old++
		count -= c.n
	}
	return old, count
}

func (l *cells) drop(k int) {
	if k > 0 {
		l.gone = l.list[k-1].at
		l.list = slices.Delete(l.list, 0, k)
	}
}

func (l *cells) add(at, n, grain int64) {
	if len(l.list) == 0 {
		l.gone = at - 1
	} else {
		c := &l.list[len(l.list)-1]
		switch {
		case c.at == at:
			c.n += n
			l.last += n
			return
		case gridCell(c.at, grain) == gridCell(at, grain):
			l.prev, l.last = c.at, n
			c.at = at
			c.n += n
			return
		}
	}
	if len(l.list) == maxCells {
		l.squeeze()
	}
	l.list = append(l.list, cell{at, n})
	l.last, l.prev = n, at
}

// gridCell numbers the cells of the grid. Times are above -2^62, so that the
// division rounds down.
func gridCell(t, grain int64) int64 { return (t + 1<<62) / grain }

// squeeze merges the two cells that lie closest, the newest excepted. It is needed
// only where the grid has moved: after a change of policy or a correction of the
// clock.
func (l *cells) squeeze() {
	best := 0
	for i := range l.list[:len(l.list)-2] {
		if l.list[i+1].at-l.list[i].at < l.list[best+1].at-l.list[best].at {
			best = i
		}
	}
	l.list[best+1].n += l.list[best].n
	l.list = slices.Delete(l.list, best, best+1)
}

func (l *cells) shift(d int64) {
	l.gone += d
	l.prev += d
	for i := range l.list {
		l.list[i].at += d
	}
}

func (s *State) undoSliding(at, n int64) {
	l := s.log
	if at <= l.gone || at > s.t {
		return
	}
	i := 0
	for l.list[i].at < at { // ends, for the last one's is s.t
		i++
	}
	c := &l.list[i]
	n = min(n, c.n)
	newest := i == len(l.list)-1 && c.at == at
	s.count -= n
	if c.n -= n; c.n == 0 {
		l.list = slices.Delete(l.list, i, i+1)
		if i > 0 && i == len(l.list) {
			c = &l.list[i-1]
			s.t, l.last, l.prev = c.at, c.n, c.at
		}
		return
	}
	if i < len(l.list)-1 {
		return
	}
	if newest {
		l.last -= n
	}
	if l.last <= 0 { // back to when the cell was younger
		c.at, l.last = l.prev, c.n
		s.t = c.at
	}
	l.last = min(l.last, c.n)
}
