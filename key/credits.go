package key

import "errors"

// Credits is the ledger row of one key: how many requests it may still make,
// and how that is refilled. It is a value: methods return the new one.
//
// Every credit that was ever given is in one of six places, and what was spent
// beyond that is a debt. Every method keeps the sum:
//
//	Granted = Remaining + Leased + Held + Spent + Forfeited + Expired - Debt
//
// What is granted later pays the debt first.
//
// Refills lie on a grid: RefillFrom + n*RefillInterval, where RefillFrom is the
// moment the refill was set. A refill raises the balance to RefillAmount and
// never lowers a higher one. Missed intervals do not add up: the balance after
// three missed refills is the balance after one.
type Credits struct {
	Limited   bool  // false: unlimited, and Remaining means nothing
	Remaining int64 // at home: free to take or to lease
	Leased    int64 // out with holders, who spend them from memory (see Holder)
	Held      int64 // set aside for requests whose cost is not known yet
	Debt      int64 // spent beyond what was there
	Spent     int64
	Expired   int64 // granted until a time that is over
	Forfeited int64 // lost: leased when a process crashed, or given back above MaxCount
	Granted   int64 // given in all: at first, by refills and by top-ups; deductions subtract
	Peak      int64 // the last refill amount, or the most the key has held since
	Reported  int64 // how much of Peak was used, in percent, when that was last reported (see Reached)

	RefillAmount   int64 // 0: none, and then RefillInterval is 0 too
	RefillInterval int64 // milliseconds
	RefillFrom     int64 // origin of the grid
	LastRefillAt   int64 // a point of the grid; 0: never yet

	// Unit is what one credit is.
	Unit Unit

	// Version grows with each change, so that the later of two copies can be told.
	Version int64
}

// Unit is what credits count. It is fixed when an account is made, and written by name.
type Unit string

const (
	UnitRequests Unit = "" // "requests" where it is written
	UnitTokens   Unit = "tokens"
	UnitUSD      Unit = "usd" // millionths of a dollar
)

// String returns the name of the unit.
func (u Unit) String() string {
	if u == UnitRequests {
		return "requests"
	}
	return string(u)
}

// ParseUnit reads the name of a unit.
func ParseUnit(name string) (Unit, error) {
	for _, u := range []Unit{UnitRequests, UnitTokens, UnitUSD} {
		if name == u.String() {
			return u, nil
		}
	}
	return "", errors.New("must be requests, tokens or usd")
}

// maxGranted bounds the history. Where more was given, what was spent and
// forfeited so far is forgotten and the sum begins anew.
const maxGranted = 1 << 62

// NewCredits returns the credits of a new key. A nil remaining is unlimited.
func NewCredits(remaining *int64, refillAmount, refillInterval, now int64) Credits {
	c := Credits{}.WithRefill(refillAmount, refillInterval, now)
	return c.WithRemaining(remaining)
}

// Balance is what the key has: at home, out on lease and held.
func (c Credits) Balance() int64 { return c.Remaining + c.Leased + c.Held }

// grant gives n, of which a debt is paid first, or takes back -n of what is at home.
func (c Credits) grant(n int64) Credits {
	if c.Granted > maxGranted-max(n, 0) {
		// What a debt is owed for stays: the rest of the history goes.
		c.Granted -= c.Spent + c.Forfeited + c.Expired - c.Debt
		c.Spent, c.Forfeited, c.Expired = c.Debt, 0, 0
	}
	c.Granted += n
	paid := max(0, min(n, c.Debt))
	c.Debt -= paid
	c.Remaining += n - paid
	return c
}

// WithRemaining sets the balance; nil makes it unlimited. Leases are called home
// before that; what is still out counts.
func (c Credits) WithRemaining(remaining *int64) Credits {
	c.Limited = remaining != nil
	balance := int64(0)
	if remaining != nil {
		balance = *remaining
	}
	c.Granted += c.Debt // whoever sets a balance waives the debt
	c.Debt = 0
	c = c.grant(max(0, balance-c.Leased-c.Held) - c.Remaining)
	c.Peak = c.Balance()
	if !c.Limited {
		c.Peak = 0
	}
	return c.renewed()
}

// WithRefill sets the refill and starts its grid at now; an amount of 0 removes it.
func (c Credits) WithRefill(amount, interval, now int64) Credits {
	c.RefillAmount, c.RefillInterval, c.RefillFrom, c.LastRefillAt = amount, interval, 0, 0
	if amount != 0 {
		c.RefillFrom = now
	}
	return c
}

// SkipRefills takes the refills until now as made, without making them: those of
// a time when the key was unlimited.
func (c Credits) SkipRefills(now int64) Credits {
	if c.RefillAmount != 0 && now-max(c.LastRefillAt, c.RefillFrom) >= c.RefillInterval {
		c.LastRefillAt = now - (now-c.RefillFrom)%c.RefillInterval
	}
	return c
}

// Due returns the point of the grid whose refill is due at now, or 0.
func (c Credits) Due(now int64) int64 {
	if !c.Limited || c.RefillAmount == 0 || now-max(c.LastRefillAt, c.RefillFrom) < c.RefillInterval {
		return 0
	}
	return now - (now-c.RefillFrom)%c.RefillInterval
}

// At returns the credits at now: with the refill that is due, if one is. It
// takes the same time however many intervals were missed, and a clock that
// steps back brings no refill back.
func (c Credits) At(now int64) Credits {
	due := c.Due(now)
	if due == 0 {
		return c
	}
	c.LastRefillAt = due
	c = c.grant(max(0, c.RefillAmount-c.Balance()))
	c.Peak = c.Balance() // at least RefillAmount now
	return c.renewed()
}

// UsedPercent returns how much of Peak was used, in percent, rounded down.
func (c Credits) UsedPercent() int64 {
	if !c.Limited || c.Peak == 0 {
		return 0
	}
	return max(0, c.Peak-c.Balance()) * 100 / c.Peak // at most 2^53 * 100: no overflow
}

// Reached returns which of thresholds, in percent of Peak, have been used and not reported
// since credits were last granted. Whoever reports them sets Reported to the last.
func (c Credits) Reached(thresholds []int64) (reached []int64) {
	used := c.UsedPercent()
	if used <= c.Reported {
		return nil // as nearly always
	}
	for _, t := range thresholds {
		if t > c.Reported && t <= used {
			reached = append(reached, t)
		}
	}
	return reached
}

// renewed has those thresholds reported again that a grant has taken the key away from.
func (c Credits) renewed() Credits {
	c.Reported = min(c.Reported, c.UsedPercent())
	return c
}

// Take takes n of what is at home, after the refill that is due. It takes all
// or nothing.
func (c Credits) Take(n, now int64) (Credits, bool) {
	if !c.Limited {
		return c, true
	}
	c = c.At(now)
	if c.Remaining < n {
		return c, false
	}
	c.Remaining -= n
	c.Spent += n
	return c, true
}

// Give gives back n of what was spent, after the refill that is due. What would
// lift the balance above MaxCount is forfeited; nothing that was not spent comes
// back. An unlimited key is left alone.
func (c Credits) Give(n, now int64) Credits {
	if !c.Limited {
		return c
	}
	c = c.At(now)
	n = min(n, c.Spent)
	back := min(n, MaxCount-c.Balance())
	c.Spent -= n
	c.Remaining += back
	c.Forfeited += n - back
	c.Peak = max(c.Peak, c.Balance())
	return c
}

// Add adds n, which may be negative, after the refill that is due. A balance
// never passes MaxCount; one that would fall below zero is refused. An unlimited
// key is left alone.
func (c Credits) Add(n, now int64) (Credits, bool) {
	if !c.Limited {
		return c, true
	}
	c = c.At(now)
	if n < 0 && c.Remaining+n < 0 {
		return c, false
	}
	c = c.grant(min(n, MaxCount-c.Balance())) // both at most 2^53-1: no overflow
	c.Peak = max(c.Peak, c.Balance())
	return c.renewed(), true
}

// leaseShare is the part of its balance that a key has out on lease at most: a
// crash forfeits what is out.
const leaseShare = 10

// Leasable returns how many credits may go out on lease, those that are out
// included.
func (c Credits) Leasable() int64 {
	if !c.Limited {
		return 0
	}
	return (c.Remaining + c.Leased) / leaseShare // what is held stays there
}

// Lease gives out up to n on lease, and returns how many.
func (c Credits) Lease(n int64) (Credits, int64) {
	n = max(0, min(n, c.Leasable()-c.Leased))
	c.Remaining -= n
	c.Leased += n
	return c, n
}

// Settle accounts for leased credits: some were used, some come back. More than
// is leased is refused.
func (c Credits) Settle(used, returned int64) (Credits, bool) {
	if used+returned > c.Leased {
		return c, false
	}
	c.Leased -= used + returned
	c.Spent += used
	c.Remaining += returned
	if !c.Limited {
		c = c.grant(-returned) // there is nothing to come back to
	}
	return c, true
}

// Hold sets n aside, after the refill that is due. It sets aside all or nothing.
func (c Credits) Hold(n, now int64) (Credits, bool) {
	if !c.Limited {
		return c, true
	}
	c = c.At(now)
	if c.Remaining < n {
		return c, false
	}
	c.Remaining -= n
	c.Held += n
	return c, true
}

// Charge ends a hold of n credits with what the request cost. What it cost less comes
// back; what it cost more is taken from what is at home, and where that is too little
// it is a debt. More than is held is refused.
func (c Credits) Charge(held, cost int64) (Credits, bool) {
	if !c.Limited && c.Held == 0 {
		return c, true
	}
	if held > c.Held {
		return c, false
	}
	c.Held -= held
	c.Spent += cost
	c.Remaining += held
	paid := min(cost, c.Remaining)
	c.Remaining -= paid
	c.Debt += cost - paid
	if !c.Limited {
		c = c.grant(-c.Remaining) // there is nothing to come back to
		c.Granted, c.Debt = c.Granted+c.Debt, 0
	}
	return c, true
}

// Forfeit gives up what is leased: nobody knows any more how much of it was used.
func (c Credits) Forfeit() Credits { return c.ForfeitLeased(c.Leased) }

// ForfeitLeased gives up n of what is leased.
func (c Credits) ForfeitLeased(n int64) Credits {
	c.Forfeited += n
	c.Leased -= n
	return c
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
