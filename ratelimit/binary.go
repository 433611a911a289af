package ratelimit

import (
	"encoding/binary"
	"errors"
)

// The format: a version byte; nothing more for an empty state. Else the name of the
// algorithm (its length as a byte, and the text), t (a signed varint) and count, and
// what the algorithm adds, as unsigned varints. Times in the log are written as how
// long before t they are.
const binaryVersion = 1

var errBinary = errors.New("not a rate limit's state")

// AppendBinary and UnmarshalBinary carry a state over a restart.
func (s *State) AppendBinary(b []byte) ([]byte, error) {
	b = append(b, binaryVersion)
	if s.count == 0 {
		return b, nil
	}
	name := s.kind.String()
	b = append(append(b, byte(len(name))), name...)
	b = binary.AppendVarint(b, s.t)
	b = appendNumbers(b, s.count)
	if write := algorithms[s.kind].write; write != nil {
		b = write(s, b)
	}
	return b, nil
}

// appendBinary writes a log whose newest request was at t.
func (l *cells) appendBinary(b []byte, t int64) []byte {
	b = appendNumbers(b, t-l.gone, t-l.prev, l.last, int64(len(l.list)))
	for _, c := range l.list {
		b = appendNumbers(b, t-c.at, c.n)
	}
	return b
}

func appendNumbers(b []byte, numbers ...int64) []byte {
	for _, n := range numbers {
		b = binary.AppendUvarint(b, uint64(n))
	}
	return b
}

// UnmarshalBinary implements encoding.BinaryUnmarshaler. It takes nothing but what
// AppendBinary writes; after an error the state is as before.
func (s *State) UnmarshalBinary(b []byte) error {
	if len(b) == 0 || b[0] != binaryVersion {
		return errBinary
	}
	if len(b) == 1 {
		*s = State{}
		return nil
	}
	d := decoder{b: b[1:]}
	n := State{kind: d.algorithm()}
	n.t = d.time()
	n.count = d.number(1, maxNumber)
	if read := algorithms[n.kind].read; read != nil {
		read(&n, &d)
	}
	if d.bad || len(d.b) > 0 {
		return errBinary
	}
	*s = n
	return nil
}

// decoder reads from b until something is bad, and zeros from then on.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) require(ok bool) {
	d.bad = d.bad || !ok
}

// algorithm reads a name. One that is not known is an error, not the first algorithm.
func (d *decoder) algorithm() Algorithm {
	size := int(d.b[0])
	if d.require(len(d.b) > size); d.bad {
		return 0
	}
	a, ok := named(string(d.b[1 : 1+size]))
	d.require(ok)
	d.b = d.b[1+size:]
	return a
}

func (d *decoder) time() int64 {
	t, size := binary.Varint(d.b)
	if d.require(size > 0 && -maxTime <= t && t <= maxTime); d.bad {
		return 0
	}
	d.b = d.b[size:]
	return t
}

func (d *decoder) number(low, high int64) int64 {
	n, size := binary.Uvarint(d.b)
	if d.require(size > 0 && uint64(low) <= n && n <= uint64(high)); d.bad {
		return 0
	}
	d.b = d.b[size:]
	return int64(n)
}

func (d *decoder) log(t, count int64) *cells {
	// All cells are within the longest window of the newest; gone can be any time.
	l := &cells{
		gone: t - d.number(1, 4*maxTime),
		prev: t - d.number(0, maxNumber),
		last: d.number(1, count),
	}
	size := d.number(1, maxCells)
	if d.bad {
		return nil
	}
	l.list = make([]cell, size)
	before := l.gone
	for i := range l.list {
		c := cell{at: t - d.number(0, maxNumber), n: d.number(1, count)}
		// prev is of the last cell, so later than the one before.
		d.require(c.at > before && c.n <= count && (i == 0 || before < l.prev || i < len(l.list)-1))
		if d.bad {
			return nil
		}
		l.list[i] = c
		before, count = c.at, count-c.n
	}
	end := l.list[size-1]
	d.require(count == 0 && end.at == t && l.last <= end.n && l.prev > l.gone)
	return l
}
