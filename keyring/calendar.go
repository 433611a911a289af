package keyring

import (
	"sync/atomic"
	"time"

	"github.com/caddy-apikey/caddy-apikey/ratelimit"
)

// date is a calendar day as YYYYMMDD. Dates sort as they follow each other.
type date int32

func dateOf(t time.Time) date {
	y, m, d := t.Date()
	return date((y*100+int(m))*100 + d) //nolint:gosec // a year has four digits
}

// plus returns the date n days later. It is arithmetic with the calendar alone:
// how long the days are somewhere does not matter.
func (d date) plus(n int) date {
	return dateOf(time.Date(int(d/10_000), time.Month(d/100%100), int(d%100)+n, 0, 0, 0, 0, time.UTC))
}

// monthStart returns the first day of the month.
func (d date) monthStart() date { return d/100*100 + 1 }

// String returns the date as 2026-11-21.
func (d date) String() string { return sprintf("%04d-%02d-%02d", d/10_000, d/100%100, d%100) }

// calendar tells the date of a moment in a time zone: that of the day which the
// limits of tiers count it in. It remembers the day it was last asked for,
// because that is nearly always the one it is asked for next.
type calendar struct {
	zone *time.Location // nil: UTC
	last atomic.Pointer[dated]
}

type dated struct {
	ratelimit.Span
	date date
}

// dateAt returns the date of a moment in Unix milliseconds.
func (c *calendar) dateAt(ms int64) date {
	if d := c.last.Load(); d != nil && d.Has(ms) {
		return d.date
	}
	zone := c.zone
	if zone == nil {
		zone = time.UTC
	}
	day := ratelimit.Day(ms, zone)
	d := &dated{day, dateOf(time.UnixMilli(day.Start).In(zone))}
	c.last.Store(d)
	return d.date
}
