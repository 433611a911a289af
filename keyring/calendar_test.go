package keyring

import (
	"testing"
	"time"
)

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// TestT4_calendar holds the dates of a calendar against what package time says,
// around every hour and every change of the offset in a few years. Among the
// zones are one with half-hour changes, one that skipped a day, and ones that
// change their clocks at midnight.
func TestT4_calendar(t *testing.T) {
	for _, test := range []struct {
		zone     string
		from, to int // years
	}{
		{"UTC", 2027, 2029},
		{"Asia/Shanghai", 1986, 1992},
		{"America/New_York", 2026, 2029},
		{"Asia/Kathmandu", 1985, 1987},
		{"Asia/Kathmandu", 2026, 2027},
		{"Pacific/Apia", 2011, 2012},
		{"Africa/Casablanca", 2026, 2027},
		{"Australia/Lord_Howe", 2026, 2027},
		{"America/Sao_Paulo", 2017, 2019},
		{"Africa/Cairo", 2026, 2027},
		{"America/Havana", 2026, 2027},
		{"America/Asuncion", 2023, 2024},
	} {
		t.Run(test.zone, func(t *testing.T) {
			z := zone(t, test.zone)
			c := calendar{zone: z}
			at := time.Date(test.from, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
			for end := time.Date(test.to+1, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli(); at < end; at += 15 * 60_000 {
				for _, ms := range []int64{at - 1, at, at + 1} {
					want := dateOf(time.UnixMilli(ms).In(z))
					if got := c.dateAt(ms); got != want {
						t.Fatalf("%v: got %v, want %v", time.UnixMilli(ms).In(z), got, want)
					}
				}
			}
		})
	}
}

// TestT4_day_lengths: days last as long as people there say.
func TestT4_day_lengths(t *testing.T) {
	for _, test := range []struct {
		zone  string
		day   time.Time
		hours float64
	}{
		{"UTC", time.Date(2028, 2, 29, 12, 0, 0, 0, time.UTC), 24},
		{"America/New_York", time.Date(2027, 3, 14, 12, 0, 0, 0, time.UTC), 23},
		{"America/New_York", time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC), 25},
		{"Asia/Kathmandu", time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC), 24},
		{"Australia/Lord_Howe", time.Date(2026, 4, 5, 2, 0, 0, 0, time.UTC), 24.5},
	} {
		c := calendar{zone: zone(t, test.zone)}
		day, ms := c.dateAt(test.day.UnixMilli()), int64(0)
		for at := test.day.Add(-40 * time.Hour).UnixMilli(); at < test.day.Add(40*time.Hour).UnixMilli(); at += 60_000 {
			if c.dateAt(at) == day {
				ms += 60_000
			}
		}
		if got := (time.Duration(ms) * time.Millisecond).Hours(); got != test.hours {
			t.Errorf("%s, %v: %v hours, want %v", test.zone, day, got, test.hours)
		}
	}
}

func TestDates(t *testing.T) {
	for _, test := range []struct {
		from date
		n    int
		want date
	}{
		{20261121, 0, 20261121},
		{20261121, -21, 20261031},
		{20270101, -1, 20261231},
		{20280228, 1, 20280229},
		{20280228, 2, 20280301},
		{20270228, 1, 20270301},
		{20261121, -365, 20251121},
		{20241231, 365, 20251231},
	} {
		if got := test.from.plus(test.n); got != test.want {
			t.Errorf("%v%+d: got %v, want %v", test.from, test.n, got, test.want)
		}
	}
	if got := date(20260105).String(); got != "2026-01-05" {
		t.Error(got)
	}
	if got := date(20260105).monthStart(); got != 20260101 {
		t.Error(got)
	}
}

// TestT4_warm_calendar: asking again costs no memory.
func TestT4_warm_calendar(t *testing.T) {
	c := calendar{zone: zone(t, "Asia/Kathmandu")}
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC).UnixMilli()
	c.dateAt(now)
	if n := testing.AllocsPerRun(100, func() { c.dateAt(now) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
