package key

import (
	"errors"
	"fmt"
)

// Move is a movement of one key's credits. Its parts are done in this order, in
// one step that nothing comes between: the lease and the hold are settled, the refill
// that is due is made, and credits are given back, taken, held and leased.
type Move struct {
	Used     int64 // leased credits that were spent, before a refill that is due
	Returned int64 // leased credits that come back

	Held int64 // held credits, whose request cost Cost
	Cost int64 // may be more than was held

	Give  int64 // spent credits that come back
	Take  int64 // all or nothing
	Hold  int64 // set aside, with Take all or nothing
	Lease int64 // as many as may be leased, where Take was granted

	Holder Holder // whose lease is settled or given
}

// Holder is who has leased credits: a process, by the name of its node. A node that
// starts again has a higher epoch, and cannot settle what it leased before.
type Holder struct {
	Name  string
	Epoch int64
	Until int64 // when the lease may be taken for lost; 0: when the holder says so
}

// Moved is what became of a Move.
type Moved struct {
	OK     bool // false: too few to take. What was settled and given back is
	Leased int64
}

// ErrNotLeased is returned for a Move that settles more than its holder has leased, and
// ErrNotHeld for one that settles more than is held.
var (
	ErrNotLeased = errors.New("more is settled than was leased")
	ErrNotHeld   = errors.New("more is settled than is held")
)

// Check refuses amounts that are none: a negative one would turn taking into giving.
func (m Move) Check() error {
	for _, n := range []int64{m.Used, m.Returned, m.Held, m.Cost, m.Give, m.Take, m.Hold, m.Lease} {
		if n < 0 || n > MaxCount {
			return fmt.Errorf("credits: %d is not an amount from 0 to 2^53-1", n)
		}
	}
	if m.Holder.Name == "" && (m.Used != 0 || m.Returned != 0 || m.Lease != 0) {
		return errors.New("credits: a lease needs a holder")
	}
	return nil
}

// settles reports whether the move changes something even if it is refused.
func (m Move) settles() bool {
	return m.Used != 0 || m.Returned != 0 || m.Held != 0 || m.Cost != 0 || m.Give != 0
}

// Move makes a movement that was checked. The credits returned show the refill
// that is due, also where nothing else changed; keep tells whether they have to
// be stored: a refusal alone changes nothing, not even by a refill.
func (c Credits) Move(m Move, now int64) (after Credits, did Moved, keep bool, err error) {
	before := c
	c, ok := c.Settle(m.Used, m.Returned)
	if !ok {
		return before, did, false, ErrNotLeased
	}
	if m.Held != 0 || m.Cost != 0 {
		if c, ok = c.Charge(m.Held, m.Cost); !ok {
			return before, did, false, ErrNotHeld
		}
	}
	c = c.At(now)
	if m.Give > 0 {
		c = c.Give(m.Give, now)
	}
	if taken, ok := c.Take(m.Take, now); ok {
		if taken, ok = taken.Hold(m.Hold, now); ok {
			c, did.OK = taken, true
		}
	}
	if did.OK && m.Lease > 0 {
		c, did.Leased = c.Lease(m.Lease)
	}
	return c, did, c != before && (did.OK || m.settles()), nil
}
