package betterauthdb

import (
	"strconv"
	"time"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/key"
)

// layouts are the forms in which adapters write times as text. Without a zone it is UTC.
var layouts = []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05 Z07:00", "2006-01-02 15:04:05", "2006-01-02"}

// secondsBelow tells seconds from milliseconds: as seconds it lies in the year
// 5138, as milliseconds in 1973.
const secondsBelow = 100_000_000_000

// time reads a time: text, or a number of seconds or milliseconds since 1970. bad
// is for what is none.
func (c *conversion) time(field string) (t *api.Time, bad bool) {
	var at time.Time
	switch v := c.row[field].(type) {
	case nil:
		return nil, false
	case int64:
		at = moment(v)
	case float64:
		at = moment(int64(v))
	case string:
		var ok bool
		if n, err := strconv.ParseInt(v, 10, 64); err == nil {
			at = moment(n)
		} else if at, ok = parseTime(v); !ok {
			return nil, true
		}
	default:
		return nil, true
	}
	if ms := at.UnixMilli(); ms < 0 || ms > key.MaxTime {
		return nil, true
	}
	return &api.Time{Time: at}, false
}

func moment(n int64) time.Time {
	if n < secondsBelow {
		return time.Unix(n, 0)
	}
	return time.UnixMilli(n)
}

func parseTime(s string) (time.Time, bool) {
	for _, layout := range layouts {
		if t, err := time.Parse(layout, s); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}
