package key

import (
	"errors"
	"testing"

	"pgregory.net/rapid"
)

// whole reports what is wrong with the sum of a ledger.
func whole(t interface{ Fatalf(string, ...any) }, c Credits) {
	for _, n := range []int64{c.Remaining, c.Leased, c.Held, c.Debt, c.Spent, c.Forfeited, c.Expired, c.Granted} {
		if n < 0 {
			t.Fatalf("negative: %+v", c)
		}
	}
	if c.Granted != c.Remaining+c.Leased+c.Held+c.Spent+c.Forfeited+c.Expired-c.Debt {
		t.Fatalf("the sum is wrong: %+v", c)
	}
	if c.Balance() > MaxCount || c.Limited && c.Peak < c.Balance() || !c.Limited && c.Remaining != 0 {
		t.Fatalf("%+v", c)
	}
}

// books is a ledger kept naively: every credit is an entry in one of five columns.
type books struct {
	limited                            bool
	home, leased, spent, lost, granted int64
	amount, interval, next             int64
}

func (b *books) give(n int64) { b.granted += n; b.home += n }

func (b *books) refill(now int64) {
	if !b.limited || b.amount == 0 {
		return
	}
	for ; now >= b.next; b.next += b.interval {
		for b.home+b.leased < b.amount {
			b.give(1)
		}
	}
}

// The ledger against the naive books, after every step of every kind.
func TestCreditsLedgerModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		amount, interval := rapid.Int64Range(1, 50).Draw(t, "amount"), rapid.Int64Range(1, 500).Draw(t, "interval")
		start := rapid.Int64Range(0, 200).Draw(t, "start")
		c, now := NewCredits(&start, amount, interval, epoch), epoch
		b := &books{limited: true, home: start, granted: start, amount: amount, interval: interval, next: epoch + interval}
		small := rapid.Int64Range(0, 60)
		t.Repeat(map[string]func(*rapid.T){
			"wait": func(t *rapid.T) { now += rapid.Int64Range(0, 1500).Draw(t, "ms") },
			"move": func(t *rapid.T) {
				m := Move{Give: small.Draw(t, "give"), Take: small.Draw(t, "take"), Lease: small.Draw(t, "lease")}
				m.Used = rapid.Int64Range(0, c.Leased).Draw(t, "used")
				m.Returned = rapid.Int64Range(0, c.Leased-m.Used).Draw(t, "returned")
				after, did, keep, err := c.Move(m, now)
				if err != nil {
					t.Fatal(err)
				}
				want := *b
				ok, leased := want.move(m, now)
				if did != (Moved{ok, leased}) {
					t.Fatalf("%+v: %+v, want %v %d", m, did, ok, leased)
				}
				if keep {
					c, *b = after, want
				} else if after.At(now) != c.At(now) {
					t.Fatalf("%+v changed %+v to %+v, which is not kept", m, c, after)
				}
			},
			"too much": func(t *rapid.T) {
				m := Move{Used: c.Leased, Returned: 1 + small.Draw(t, "n")}
				if after, _, keep, err := c.Move(m, now); !errors.Is(err, ErrNotLeased) || keep || after != c {
					t.Fatalf("%+v, %v, %v", after, keep, err)
				}
			},
			"forfeit": func(*rapid.T) {
				c = c.Forfeit()
				b.lost, b.leased = b.lost+b.leased, 0
			},
			"add": func(t *rapid.T) {
				n := rapid.Int64Range(-60, 60).Draw(t, "n")
				b.refill(now)
				var ok bool
				if c, ok = c.Add(n, now); ok != (!b.limited || b.home+n >= 0) {
					t.Fatalf("add %d: %v", n, ok)
				}
				if ok && b.limited {
					b.give(n)
				}
			},
			"set": func(t *rapid.T) {
				n := rapid.Int64Range(-1, 200).Draw(t, "n")
				c = c.At(now)
				b.refill(now)
				if b.limited = n >= 0; b.limited {
					c = c.WithRemaining(&n)
				} else {
					n, c = 0, c.WithRemaining(nil)
				}
				b.give(max(0, n-b.leased) - b.home)
				c = c.WithRefill(amount, interval, now)
				b.next = now + interval
			},
			"": func(t *rapid.T) {
				whole(t, c)
				got := books{c.Limited, c.Remaining, c.Leased, c.Spent, c.Forfeited, c.Granted, b.amount, b.interval, b.next}
				if got != *b {
					t.Fatalf("got %+v, want %+v", got, *b)
				}
			},
		})
	})
}

// TestCreditsHolds: holds and debts keep the sum too, a hold costs what it is charged,
// and what is granted later pays a debt first.
func TestCreditsHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		start, now := rapid.Int64Range(0, 200).Draw(t, "start"), epoch
		c := NewCredits(&start, 50, 1000, now)
		small := rapid.Int64Range(0, 60)
		t.Repeat(map[string]func(*rapid.T){
			"wait": func(t *rapid.T) { now += rapid.Int64Range(0, 1500).Draw(t, "ms") },
			"move": func(t *rapid.T) {
				m := Move{Take: small.Draw(t, "take"), Hold: small.Draw(t, "hold"), Lease: small.Draw(t, "lease"), Cost: small.Draw(t, "cost")}
				m.Held = rapid.Int64Range(0, c.Held).Draw(t, "held")
				m.Used = rapid.Int64Range(0, c.Leased).Draw(t, "used")
				after, did, keep, err := c.Move(m, now)
				if err != nil {
					t.Fatal(err)
				}
				if spent := m.Used + m.Cost; c.Limited && !did.OK && after.Spent != c.Spent+spent {
					t.Fatalf("%+v spent %d, want %d", m, after.Spent-c.Spent, spent)
				}
				if did.OK && c.Limited && after.Held != c.Held-m.Held+m.Hold {
					t.Fatalf("%+v: %d held of %d", m, after.Held, c.Held)
				}
				if keep {
					c = after
				}
			},
			"too much": func(t *rapid.T) {
				m := Move{Held: c.Held + 1 + small.Draw(t, "n")}
				if after, _, keep, err := c.Move(m, now); c.Limited && (!errors.Is(err, ErrNotHeld) || keep || after != c) {
					t.Fatalf("%+v, %v, %v", after, keep, err)
				}
			},
			"add": func(t *rapid.T) {
				n := small.Draw(t, "n")
				before := c.At(now)
				var ok bool
				if c, ok = c.Add(n, now); !ok || c.Limited && c.Debt != max(0, before.Debt-n) {
					t.Fatalf("%d added to %+v: %+v", n, before, c)
				}
			},
			"forfeit": func(*rapid.T) { c = c.Forfeit() },
			"set": func(t *rapid.T) {
				if n := rapid.Int64Range(-1, 200).Draw(t, "n"); n < 0 {
					c = c.WithRemaining(nil)
				} else {
					c = c.WithRemaining(&n)
				}
				if c.Debt != 0 {
					t.Fatalf("%+v", c)
				}
			},
			"": func(t *rapid.T) { whole(t, c) },
		})
	})
}

func TestUnits(t *testing.T) {
	for _, u := range []Unit{UnitRequests, UnitTokens, UnitUSD} {
		if got, err := ParseUnit(u.String()); err != nil || got != u {
			t.Errorf("%q: %q, %v", u.String(), got, err)
		}
	}
	for _, name := range []string{"", "request", "USD"} {
		if u, err := ParseUnit(name); err == nil {
			t.Errorf("%q is read as %q", name, u)
		}
	}
}

func (b *books) move(m Move, now int64) (ok bool, leased int64) {
	b.leased -= m.Used + m.Returned
	b.spent += m.Used
	if b.limited {
		b.home += m.Returned
	} else {
		b.granted -= m.Returned
	}
	b.refill(now)
	if !b.limited {
		return true, 0
	}
	give := min(m.Give, b.spent)
	b.spent, b.home = b.spent-give, b.home+give
	if b.home < m.Take {
		return false, 0
	}
	b.home, b.spent = b.home-m.Take, b.spent+m.Take
	for leased < m.Lease && (b.leased+1)*10 <= b.home+b.leased {
		b.home, b.leased, leased = b.home-1, b.leased+1, leased+1
	}
	return true, leased
}

// Large numbers saturate, and the sum stays right: near the largest balance, and
// when the history no longer fits.
func TestK10_LedgerSaturates(t *testing.T) {
	c := NewCredits(limited(MaxCount), MaxCount, 1, epoch)
	now := epoch
	var leased int64
	for i := range int64(5000) {
		now++
		var ok bool
		if c, ok = c.Take(MaxCount, now); !ok {
			t.Fatalf("refill %d is missing", i)
		}
		whole(t, c)
		c = c.Give(MaxCount, now)
		whole(t, c)
		c, leased = c.Lease(MaxCount)
		c, _ = c.Add(MaxCount, now)
		whole(t, c)
		c, ok = c.Settle(leased/2, leased-leased/2)
		if whole(t, c); !ok {
			t.Fatal("a lease cannot be settled")
		}
	}
	c = NewCredits(limited(MaxCount), 0, 0, epoch)
	c, _ = c.Take(10, epoch)
	c, _ = c.Add(MaxCount, epoch)
	if c = c.Give(10, epoch); c.Forfeited != 10 || c.Remaining != MaxCount {
		t.Errorf("%+v", c)
	}
	whole(t, c)
}

func TestMoveCheck(t *testing.T) {
	for _, m := range []Move{{Take: -1}, {Give: -1}, {Used: -1}, {Returned: -1}, {Lease: -1}, {Take: MaxCount + 1}} {
		if m.Check() == nil {
			t.Errorf("%+v is accepted", m)
		}
	}
}
