package keyring

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestT3_StepsUnderLoad: while keys are used, the clock is set ahead and back, by
// little and by much. No more credits are spent than were given, each step ahead
// gives one refill at most, and a key that was seen expired stays so.
func TestT3_StepsUnderLoad(t *testing.T) {
	const amount, limit, year = 50, 20, 365 * 24 * time.Hour
	for _, lease := range []int64{0, 10} {
		g := newRig(t).leasing(lease)
		counted := g.create(Draft{Remaining: ptr(int64(amount)), RefillAmount: ptr(int64(amount)), RefillInterval: ptr(int64(3_600_000))})
		limited := g.create(Draft{RateLimitMax: ptr(int64(limit)), RateLimitTimeWindow: ptr(int64(3_600_000))})
		expired := g.create(Draft{ExpiresIn: to(int64(60))})
		g.clock.advance(time.Minute)
		g.want(expired.Raw, Expired)

		var spent, passed, asked atomic.Int64
		var stop atomic.Bool
		var work sync.WaitGroup
		for range 4 {
			work.Go(func() {
				for !stop.Load() {
					if g.asks(counted.Raw) == Allowed {
						spent.Add(1)
					}
					if g.asks(limited.Raw) == Allowed {
						passed.Add(1)
					}
					if o := g.asks(expired.Raw); o != Expired {
						t.Errorf("an expired key: %q", o.Code())
					}
					asked.Add(1)
				}
			})
		}
		await(&asked, 100)
		start, ahead := g.clock.ms.Load(), int64(0)
		for _, step := range []time.Duration{
			time.Second, -time.Second, time.Hour, -time.Hour, 24 * time.Hour, -24 * time.Hour, 10 * year, -10 * year, -50 * year, 50 * year, 10 * year,
		} {
			if step > 0 {
				ahead++
			}
			g.clock.advance(step)
			await(&asked, 100)
		}
		stop.Store(true)
		work.Wait()
		if now := g.clock.ms.Load(); now < start {
			t.Fatal("the steps do not lead ahead")
		}
		g.restart()
		row := g.stored(counted.Key.ID)
		if row.Granted > amount*(1+ahead) || spent.Load()+row.Remaining > row.Granted {
			t.Errorf("%d spent of %+v after %d steps ahead", spent.Load(), row, ahead)
		}
		if n := passed.Load(); n > limit*(1+ahead) || n < limit {
			t.Errorf("%d passed of %d after %d steps ahead", n, limit, ahead)
		}
	}
}

// TestT3_TimeUnderLock: what is counted is stamped with a time that was read under the
// lock of what is counted. Else the times of requests that wait for it would
// come out of order.
func TestT3_TimeUnderLock(t *testing.T) {
	const hour = 3_600_000
	limited := Draft{RateLimitMax: ptr(int64(1)), RateLimitTimeWindow: ptr(int64(hour))}
	metered := Draft{Remaining: ptr(int64(1)), RefillAmount: ptr(int64(1)), RefillInterval: ptr(int64(hour))}
	window := func(l *entry) *sync.Mutex { return &l.windows.mu }
	account := func(l *entry) *sync.Mutex { return &l.account.Load().mu }
	owner := func(l *entry) *sync.Mutex { return &l.rec.Load().owner.windows.mu }
	passes := func(g *rig, k Issued, _ *entry) bool { return g.verify(k.Raw).Outcome == Allowed }
	for _, tt := range []struct {
		name  string
		draft Draft
		tiers []Tier
		lock  func(*entry) *sync.Mutex
		later func(*rig, Issued, *entry) bool // an hour has passed
	}{
		{"rate limit", limited, nil, window, passes},
		{"limit of the owner", Draft{}, []Tier{tier("free", per(hour, 1))}, owner, passes},
		{"credits", metered, nil, account, passes},
		{"request count", limited, nil, window, func(g *rig, k Issued, _ *entry) bool { return g.get(k.Key.ID).RequestCount == 0 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newRig(t).with(tt.tiers...)
			k := g.create(tt.draft)
			g.want(k.Raw, Allowed)
			g.flush()
			l := g.entry(k.Key.ID)
			g.clock.later.Store(tt.lock(l))
			if !tt.later(g, k, l) {
				t.Error("the time was read before the lock was taken")
			}
		})
	}
}

// asks is verify for goroutines.
func (g *rig) asks(raw string) Outcome {
	d, err := g.Verify(context.Background(), raw, &Request{Cost: 1})
	if err != nil {
		g.t.Error(err)
	}
	return d.Outcome
}
