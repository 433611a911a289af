package keyring

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/store"
)

// in starts the service anew in a time zone, over the same state.
func (g *rig) in(z *time.Location) {
	g.use(&Settings{Rules: DefaultRules(), Zone: z})
}

func (g *rig) setClock(at time.Time) { g.clock.ms.Store(at.UnixMilli()) }

// TestT4_midnight: 23:59:59.999 and 00:00:00.000 are different days, and
// different months at the end of one.
func TestT4_midnight(t *testing.T) {
	for _, test := range []struct {
		zone  string
		first time.Time // midnight, as a moment
		dates string    // the day before and the day after
	}{
		{"UTC", time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC), "2026-11-21 2026-11-22"},
		{"Asia/Shanghai", time.Date(2026, 11, 21, 16, 0, 0, 0, time.UTC), "2026-11-21 2026-11-22"},
		{"Asia/Kathmandu", time.Date(2026, 11, 21, 18, 15, 0, 0, time.UTC), "2026-11-21 2026-11-22"},
		{"America/New_York", time.Date(2026, 11, 1, 4, 0, 0, 0, time.UTC), "2026-10-31 2026-11-01"},  // before the day of 25 hours
		{"America/New_York", time.Date(2026, 11, 2, 5, 0, 0, 0, time.UTC), "2026-11-01 2026-11-02"},  // after it
		{"America/New_York", time.Date(2027, 3, 14, 5, 0, 0, 0, time.UTC), "2027-03-13 2027-03-14"},  // before the day of 23 hours
		{"America/New_York", time.Date(2027, 3, 15, 4, 0, 0, 0, time.UTC), "2027-03-14 2027-03-15"},  // after it
		{"Pacific/Apia", time.Date(2011, 12, 30, 10, 0, 0, 0, time.UTC), "2011-12-29 2011-12-31"},    // a day that was left out
		{"Africa/Casablanca", time.Date(2027, 2, 6, 23, 0, 0, 0, time.UTC), "2027-02-06 2027-02-07"}, // before Ramadan
		{"Africa/Casablanca", time.Date(2027, 2, 8, 0, 0, 0, 0, time.UTC), "2027-02-07 2027-02-08"},  // in it
		{"UTC", time.Date(2028, 2, 29, 0, 0, 0, 0, time.UTC), "2028-02-28 2028-02-29"},
		{"UTC", time.Date(2028, 3, 1, 0, 0, 0, 0, time.UTC), "2028-02-29 2028-03-01"},
		{"UTC", time.Date(2027, 3, 1, 0, 0, 0, 0, time.UTC), "2027-02-28 2027-03-01"},
		{"Asia/Shanghai", time.Date(2026, 12, 31, 16, 0, 0, 0, time.UTC), "2026-12-31 2027-01-01"},
	} {
		for _, flush := range []bool{false, true} {
			t.Run(fmt.Sprint(test.zone, " ", test.dates, " flush ", flush), func(t *testing.T) {
				g := newRig(t)
				g.in(zone(t, test.zone))
				g.setClock(test.first.Add(-time.Millisecond))
				k := g.create(Draft{})
				for range 3 {
					g.want(k.Raw, Allowed)
				}
				g.setClock(test.first)
				if flush {
					g.flush() // the day is over, its counters are still to be written
				}
				for range 5 {
					g.want(k.Raw, Allowed)
				}
				days := map[string]int64{}
				u := g.keyUsage(k.Key.ID, 3)
				for _, d := range u.Days {
					if d.Allowed > 0 {
						days[d.Date] = d.Allowed
					}
				}
				before, after, _ := strings.Cut(test.dates, " ")
				if len(days) != 2 || days[before] != 3 || days[after] != 5 || u.Today != 5 {
					t.Errorf("%v, today %d", days, u.Today)
				}
				month := int64(5)
				if before[:7] == after[:7] {
					month = 8
				}
				if u.Month != month {
					t.Errorf("month %d, want %d", u.Month, month)
				}
			})
		}
	}
}

// TestT4_day_of_use: a request belongs to the day on which it was decided, also
// where a request of the day before is counted after it and counters are being
// written all the while.
func TestT4_day_of_use(t *testing.T) {
	g := newRig(t)
	z := zone(t, "America/New_York")
	g.in(z)
	midnight := time.Date(2026, 11, 2, 0, 0, 0, 0, z)
	g.setClock(midnight.Add(-time.Millisecond))
	k := g.create(Draft{})
	late := g.want(k.Raw, Allowed)
	var work sync.WaitGroup
	end := g.repeat(g.flush)
	g.setClock(midnight)
	const n = 5000
	for range 2 {
		work.Go(func() {
			for range n {
				g.want(k.Raw, Allowed)
			}
		})
		work.Go(func() {
			for range n { // decided before midnight, counted after it
				d := late
				g.count(&d, &Request{})
			}
		})
	}
	work.Wait()
	end()
	g.restart()
	g.in(z)
	u := g.keyUsage(k.Key.ID, 2)
	if u.Days[0].Allowed != 2*n+1 || u.Days[1].Allowed != 2*n {
		t.Errorf("%+v", u.Days)
	}
}

// TestT4_month: the sum of the days is the month, for a year of days and in
// zones whose days differ in length.
func TestT4_month(t *testing.T) {
	for _, name := range []string{"UTC", "America/New_York", "Asia/Kathmandu"} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			z := zone(t, name)
			g.in(z)
			g.setClock(time.Date(2027, 12, 15, 0, 0, 0, 0, z))
			k := g.create(Draft{})
			months := map[string]int64{}
			at := time.Date(2027, 12, 15, 0, 30, 0, 0, z)
			for end := time.Date(2028, 12, 1, 0, 0, 0, 0, z); at.Before(end); at = at.Add(time.Hour) {
				g.setClock(at)
				g.want(k.Raw, Allowed)
				months[at.Format("2006-01")]++
				if at.AddDate(0, 0, 1).Day() != 1 || at.Hour() != 23 {
					continue
				}
				u := g.keyUsage(k.Key.ID, 1)
				if u.Month != months[at.Format("2006-01")] {
					t.Errorf("%s: month %d, want %d", at, u.Month, months[at.Format("2006-01")])
				}
			}
			g.setClock(at.Add(-time.Hour))
			u, sums := g.keyUsage(k.Key.ID, MaxDays), map[string]int64{}
			for _, d := range u.Days {
				sums[d.Date[:7]] += d.Allowed
			}
			for month, want := range months {
				if month != "2027-12" && sums[month] != want {
					t.Errorf("%s: the days add up to %d, want %d", month, sums[month], want)
				}
			}
			if sums["2028-11"] != u.Month {
				t.Errorf("the days add up to %d, the month is %d", sums["2028-11"], u.Month)
			}
			for _, d := range u.Days {
				want := map[string]int64{"America/New_York 2028-03-12": 23, "America/New_York 2028-11-05": 25}[name+" "+d.Date]
				if want != 0 && d.Allowed != want {
					t.Errorf("%s has %d hours, want %d", d.Date, d.Allowed, want)
				}
			}
		})
	}
}

// TestT4_zone_changed: another zone moves no request that was counted before.
func TestT4_zone_changed(t *testing.T) {
	g := newRig(t)
	g.setClock(time.Date(2026, 11, 21, 23, 0, 0, 0, time.UTC))
	k := g.create(Draft{})
	g.want(k.Raw, Allowed)
	g.in(zone(t, "Asia/Kathmandu")) // it is 22 November there
	for range 2 {
		g.want(k.Raw, Allowed)
	}
	u := g.keyUsage(k.Key.ID, 2)
	if u.Days[0].Allowed != 1 || u.Days[1].Allowed != 2 || u.Days[1].Date != "2026-11-22" {
		t.Errorf("%+v", u.Days)
	}
}

// TestT7_leap_second: a second that the clock repeats counts nothing twice,
// refills nothing twice, and gives no negative duration.
func TestT7_leap_second(t *testing.T) {
	g := newRig(t)
	midnight := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	g.setClock(midnight.Add(-time.Minute))
	k := g.create(Draft{
		Remaining: ptr(int64(0)), RefillAmount: ptr(int64(10)), RefillInterval: ptr(int64(60_000)),
		RateLimitMax: ptr(int64(1000)), RateLimitTimeWindow: ptr(int64(3_600_000)),
	})
	allowed := int64(0)
	for range 2 { // 00:00:00 comes twice
		g.setClock(midnight)
		for range 2 {
			for range 3 {
				d := g.verify(k.Raw)
				if d.Outcome == Allowed {
					allowed++
				} else if d.Outcome != UsageExceeded || d.Wait <= 0 {
					t.Errorf("%v, wait %d", &d, d.Wait)
				}
				for _, l := range d.Limits {
					if l.Reset < 0 || l.Remaining < 0 {
						t.Errorf("%+v", l)
					}
				}
			}
			g.clock.advance(999 * time.Millisecond)
		}
	}
	if allowed != 10 {
		t.Errorf("%d requests passed on one refill of 10", allowed)
	}
	g.wantToday(k.Key.ID, 10, 2, 0)
	g.setClock(midnight.Add(-time.Millisecond)) // and back over midnight
	g.want(k.Raw, UsageExceeded)
	g.setClock(midnight)
	g.wantToday(k.Key.ID, 10, 2, 0)
	if u, err := g.KeyUsage(context.Background(), k.Key.ID, 2); err != nil || u.Days[0].Uses != (store.Uses{Limited: 1}) {
		t.Errorf("%+v, %v", u, err)
	}
}
