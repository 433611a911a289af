package key

import (
	"testing"

	"pgregory.net/rapid"
)

const epoch = int64(1_795_000_000_000)

func limited(n int64) *int64 { return &n }

func TestCreditsUnlimited(t *testing.T) {
	c := NewCredits(nil, 100, 1000, epoch)
	if got, ok := c.Take(MaxCount, epoch+5000); !ok || got != c {
		t.Errorf("%+v, %v", got, ok)
	}
}

func TestCreditsTakeAllOrNothing(t *testing.T) {
	c := NewCredits(limited(10), 0, 0, epoch)
	if got, ok := c.Take(11, epoch); ok || got.Remaining != 10 {
		t.Errorf("%+v, %v", got, ok)
	}
	c, ok := c.Take(10, epoch)
	if !ok || c.Remaining != 0 {
		t.Errorf("%+v, %v", c, ok)
	}
	if _, ok := c.Take(0, epoch); !ok {
		t.Error("nothing cannot be taken from nothing")
	}
	if _, ok := c.Wait(1, epoch); ok {
		t.Error("waiting helps without a refill")
	}
}

func TestCreditsRefillEdge(t *testing.T) {
	c := NewCredits(limited(0), 100, 1000, epoch)
	for _, now := range []int64{epoch, epoch + 999} {
		if _, ok := c.Take(1, now); ok {
			t.Errorf("refilled at %d", now-epoch)
		}
		if wait, ok := c.Wait(1, now); !ok || wait != epoch+1000-now {
			t.Errorf("wait %d, %v at %d", wait, ok, now-epoch)
		}
	}
	got, ok := c.Take(1, epoch+1000)
	if !ok || got.Remaining != 99 || got.LastRefillAt != epoch+1000 || got.Peak != 100 {
		t.Errorf("%+v, %v", got, ok)
	}
	if _, ok := c.Wait(101, epoch); ok {
		t.Error("waiting helps for more than a refill gives")
	}
}

// A refill raises the balance and never lowers it, and missed intervals do not add up.
func TestCreditsRefillNeverLowers(t *testing.T) {
	c := NewCredits(limited(500), 100, 1000, epoch)
	got := c.At(epoch + 7_500)
	if got.Remaining != 500 || got.LastRefillAt != epoch+7000 {
		t.Errorf("%+v", got)
	}
	c = NewCredits(limited(3), 100, 1000, epoch)
	if got := c.At(epoch + 1_000_000); got.Remaining != 100 {
		t.Errorf("%+v", got)
	}
}

// K7: no drift over 10,000 intervals, whenever in the interval the key is used.
func TestK7_NoDrift(t *testing.T) {
	c := NewCredits(limited(0), 1, 977, epoch)
	for i := int64(1); i <= 10_000; i++ {
		now := epoch + i*977 + (i*7919)%977
		var ok bool
		if c, ok = c.Take(1, now); !ok {
			t.Fatalf("interval %d was not refilled", i)
		}
		if c.LastRefillAt != epoch+i*977 {
			t.Fatalf("interval %d was refilled at %d", i, c.LastRefillAt-epoch)
		}
		if _, ok := c.Take(1, now); ok {
			t.Fatalf("interval %d was refilled twice", i)
		}
	}
}

// T3: steps of the clock bring no refill back, and a jump costs one at most.
func TestT3_CreditsClockSteps(t *testing.T) {
	const hour, year = int64(3_600_000), int64(31_557_600_000)
	c := NewCredits(limited(0), 10, hour, epoch)
	c, _ = c.Take(10, epoch+hour)
	for _, now := range []int64{0, epoch, epoch + hour - 1, epoch + 2*hour - 1} {
		if got, ok := c.Take(1, now); ok {
			t.Errorf("%+v at %d", got, now-epoch)
		}
	}
	c, ok := c.Take(10, epoch+10*year)
	if !ok || c.Remaining != 0 {
		t.Errorf("%+v, %v", c, ok)
	}
	if _, ok := c.Take(1, epoch+3*hour); ok {
		t.Error("refilled again after the clock came back")
	}
}

func TestCreditsAdd(t *testing.T) {
	c := NewCredits(limited(5), 0, 0, epoch)
	if got, ok := c.Add(-6, epoch); ok || got.Remaining != 5 {
		t.Errorf("%+v, %v", got, ok)
	}
	if got, ok := c.Add(-5, epoch); !ok || got.Remaining != 0 {
		t.Errorf("%+v, %v", got, ok)
	}
	if got, ok := c.Add(MaxCount, epoch); !ok || got.Remaining != MaxCount || got.Peak != MaxCount {
		t.Errorf("%+v, %v", got, ok)
	}
}

// The credits against a model that walks over every interval.
func TestCreditsModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		amount := rapid.Int64Range(1, 50).Draw(t, "amount")
		interval := rapid.Int64Range(1, 500).Draw(t, "interval")
		start := rapid.Int64Range(0, 100).Draw(t, "start")
		c := NewCredits(&start, amount, interval, epoch)
		balance, next, now := start, epoch+interval, epoch
		t.Repeat(map[string]func(*rapid.T){
			"wait": func(t *rapid.T) { now += rapid.Int64Range(0, 1500).Draw(t, "ms") },
			"take": func(t *rapid.T) {
				n := rapid.Int64Range(0, 60).Draw(t, "n")
				for ; now >= next; next += interval {
					balance = max(balance, amount)
				}
				want := balance >= n
				if want {
					balance -= n
				}
				wait, waitable := c.Wait(n, now)
				var ok bool
				if c, ok = c.Take(n, now); ok != want || c.Remaining != balance {
					t.Fatalf("take %d: %v %d, want %v %d", n, ok, c.Remaining, want, balance)
				}
				checkWait(t, c, n, now, want, wait, waitable)
			},
			"add": func(t *rapid.T) {
				n := rapid.Int64Range(-60, 60).Draw(t, "n")
				for ; now >= next; next += interval {
					balance = max(balance, amount)
				}
				want := balance+n >= 0
				if want {
					balance += n
				}
				var ok bool
				if c, ok = c.Add(n, now); ok != want || c.Remaining != balance {
					t.Fatalf("add %d: %v %d, want %v %d", n, ok, c.Remaining, want, balance)
				}
			},
			"": func(t *rapid.T) {
				if c.Remaining < 0 || c.Peak < c.Remaining {
					t.Fatalf("%+v", c)
				}
			},
		})
	})
}

// checkWait holds what Wait said against what Take does: exact to the millisecond.
func checkWait(t *rapid.T, c Credits, n, now int64, passed bool, wait int64, waitable bool) {
	if passed {
		if wait != 0 || !waitable {
			t.Fatalf("wait %d, %v for what passed", wait, waitable)
		}
		return
	}
	if waitable != (c.RefillAmount >= n) {
		t.Fatalf("waiting for %d: %v", n, waitable)
	}
	if !waitable {
		return
	}
	if _, ok := c.Take(n, now+wait); !ok {
		t.Fatalf("%d do not pass after the wait of %d", n, wait)
	}
	if _, ok := c.Take(n, now+wait-1); ok {
		t.Fatalf("%d pass before the wait of %d", n, wait)
	}
}
