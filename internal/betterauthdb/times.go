package betterauthdb

import (
	"strconv"
	"time"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/key"
)

// layouts are the formats in which adapters write times. Without a zone it is UTC.
var layouts = []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05 Z07:00", "2006-01-02 15:04:05", "2006-01-02"}

// secondsBelow separates seconds from milliseconds. In seconds it is in the year
// 5138, in milliseconds in 1973.
const secondsBelow = 100_000_000_000

// time converts a time: text, or a number of seconds or milliseconds since 1970. It
// returns nil for NULL, and not ok for anything else.
func (c *conversion) time(field string) (t *api.Time, ok bool) {
	var at time.Time
	switch v := c.row[field].(type) {
	case nil:
		return nil, true
	case int64:
		at, ok = unixTime(v)
	case float64:
		if v >= 0 && v <= float64(key.MaxTime) { // else it may not fit
			at, ok = unixTime(int64(v))
		}
	case string:
		if n, err := strconv.ParseInt(v, 10, 64); err == nil {
			at, ok = unixTime(n)
		} else {
			at, ok = parseTime(v)
		}
	}
	if !ok {
		return nil, false
	}
	if ms := at.UnixMilli(); ms < 0 || ms > key.MaxTime {
		return nil, false
	}
	return &api.Time{Time: at}, true
}

// unixTime refuses what is out of range, because the arithmetic of time.Time does not.
func unixTime(n int64) (t time.Time, ok bool) {
	switch {
	case n < 0 || n > key.MaxTime:
		return t, false
	case n < secondsBelow:
		return time.Unix(n, 0), true
	}
	return time.UnixMilli(n), true
}

func parseTime(s string) (time.Time, bool) {
	for _, layout := range layouts {
		if t, err := time.Parse(layout, s); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}
