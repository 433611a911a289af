package key

// Credits is the ledger row of one key: how many requests it may still make,
// and how that is refilled. It is a value: methods return the new one.
//
// Refills lie on a grid: RefillFrom + n*RefillInterval, where RefillFrom is the
// moment the refill was set. A refill raises the balance to RefillAmount and
// never lowers a higher one. Missed intervals do not add up: the balance after
// three missed refills is the balance after one.
type Credits struct {
	Limited   bool  // false: unlimited, and Remaining means nothing
	Remaining int64 // from 0 to MaxCount
	Peak      int64 // the last refill amount, or the most the key has held since

	RefillAmount   int64 // 0: none, and then RefillInterval is 0 too
	RefillInterval int64 // milliseconds
	RefillFrom     int64 // origin of the grid
	LastRefillAt   int64 // a point of the grid; 0: never yet

	// Version grows with each change, so that the later of two copies can be told.
	Version int64
}

// NewCredits returns the credits of a new key. A nil remaining is unlimited.
func NewCredits(remaining *int64, refillAmount, refillInterval, now int64) Credits {
	c := Credits{}.WithRefill(refillAmount, refillInterval, now)
	return c.WithRemaining(remaining)
}

// WithRemaining sets the balance; nil makes it unlimited.
func (c Credits) WithRemaining(remaining *int64) Credits {
	c.Limited = remaining != nil
	c.Remaining, c.Peak = 0, 0
	if remaining != nil {
		c.Remaining, c.Peak = *remaining, *remaining
	}
	return c
}

// WithRefill sets the refill and starts its grid at now; an amount of 0 removes it.
func (c Credits) WithRefill(amount, interval, now int64) Credits {
	c.RefillAmount, c.RefillInterval, c.RefillFrom, c.LastRefillAt = amount, interval, 0, 0
	if amount != 0 {
		c.RefillFrom = now
	}
	return c
}

// At returns the credits at now: with the refill that is due, if one is. It
// takes the same time however many intervals were missed, and a clock that
// steps back brings no refill back.
func (c Credits) At(now int64) Credits {
	if !c.Limited || c.RefillAmount == 0 {
		return c
	}
	last := max(c.LastRefillAt, c.RefillFrom)
	if now-last < c.RefillInterval {
		return c
	}
	c.LastRefillAt = now - (now-c.RefillFrom)%c.RefillInterval
	c.Peak = max(c.RefillAmount, c.Remaining)
	c.Remaining = c.Peak
	return c
}

// Take takes n, after the refill that is due. It takes all or nothing.
func (c Credits) Take(n, now int64) (Credits, bool) {
	if !c.Limited {
		return c, true
	}
	c = c.At(now)
	if c.Remaining < n {
		return c, false
	}
	c.Remaining -= n
	return c, true
}

// Add adds n, which may be negative, after the refill that is due. A balance
// never passes MaxCount; one that would fall below zero is refused.
func (c Credits) Add(n, now int64) (Credits, bool) {
	c = c.At(now)
	if n < 0 && c.Remaining+n < 0 {
		return c, false
	}
	c.Remaining = min(c.Remaining+n, MaxCount) // both at most 2^53-1: no overflow
	c.Peak = max(c.Peak, c.Remaining)
	return c, true
}

// Wait returns how many milliseconds after now a request for n credits can
// pass, and false where waiting does not help.
func (c Credits) Wait(n, now int64) (int64, bool) {
	c = c.At(now)
	if !c.Limited || c.Remaining >= n {
		return 0, true
	}
	if c.RefillAmount < n {
		return 0, false
	}
	return max(c.LastRefillAt, c.RefillFrom) + c.RefillInterval - now, true
}
