package key

import (
	"errors"
	"fmt"
)

// Move is a movement of one key's credits. Its parts are done in this order, in
// one step that nothing comes between: the lease is settled, the refill that is
// due is made, and credits are given back, taken and leased.
type Move struct {
	Used     int64 // leased credits that were spent, before a refill that is due
	Returned int64 // leased credits that come back

	Give  int64 // spent credits that come back
	Take  int64 // all or nothing
	Lease int64 // as many as may be leased, where Take was granted
}

// Moved is what became of a Move.
type Moved struct {
	OK     bool // false: too few to take. What was settled and given back is
	Leased int64
}

// ErrNotLeased is returned for a Move that settles more than is leased.
var ErrNotLeased = errors.New("more is settled than was leased")

// Check refuses amounts that are none: a negative one would turn taking into giving.
func (m Move) Check() error {
	for _, n := range []int64{m.Used, m.Returned, m.Give, m.Take, m.Lease} {
		if n < 0 || n > MaxCount {
			return fmt.Errorf("credits: %d is not an amount from 0 to 2^53-1", n)
		}
	}
	return nil
}

// settles reports whether the move changes something even if it is refused.
func (m Move) settles() bool { return m.Used != 0 || m.Returned != 0 || m.Give != 0 }

// Move makes a movement that was checked. The credits returned show the refill
// that is due, also where nothing else changed; keep tells whether they have to
// be stored: a refusal alone changes nothing, not even by a refill.
func (c Credits) Move(m Move, now int64) (after Credits, did Moved, keep bool, err error) {
	before := c
	c, ok := c.Settle(m.Used, m.Returned)
	if !ok {
		return before, did, false, ErrNotLeased
	}
	c = c.At(now)
	if m.Give > 0 {
		c = c.Give(m.Give, now)
	}
	if c, did.OK = c.Take(m.Take, now); did.OK && m.Lease > 0 {
		c, did.Leased = c.Lease(m.Lease)
	}
	return c, did, c != before && (did.OK || m.settles()), nil
}
