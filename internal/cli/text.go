package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
)

var sprintf = fmt.Sprintf

func sprintln(format string, args ...any) string { return sprintf(format, args...) + "\n" }

const none = "-"

// printable escapes what a terminal would obey: control characters, and marks
// that turn the direction of writing.
func printable(s string) string {
	var b strings.Builder
	for _, r := range s {
		if unicode.IsGraphic(r) {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		}
	}
	return b.String()
}

func text(s *string) string {
	if s == nil {
		return none
	}
	return printable(*s)
}

func number(n *int64) string {
	if n == nil {
		return none
	}
	return strconv.FormatInt(*n, 10)
}

func moment(t *api.Time, never string) string {
	if t == nil {
		return never
	}
	return t.UTC().Format(time.RFC3339)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// duration writes milliseconds as flags read them: 90d, 1h30m, 500ms.
func duration(ms int64) string {
	const day = 24 * 60 * 60 * 1000
	days, rest := ms/day, time.Duration(ms%day)*time.Millisecond
	if days == 0 {
		return clock(rest)
	}
	if rest == 0 {
		return sprintf("%dd", days)
	}
	return sprintf("%dd%s", days, clock(rest))
}

// clock is d without the zeros at the end: 1h instead of 1h0m0s.
func clock(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// beginning shows the first characters of a raw key, as far as they are known.
func beginning(k admin.Key) string {
	switch {
	case k.Start != nil:
		return printable(*k.Start) + "..."
	case k.Prefix != nil:
		return printable(*k.Prefix) + "..."
	default:
		return none
	}
}

// limit is a rate as flags read it: 100/1m.
func limit(amount, millis *int64) string {
	if amount == nil || millis == nil {
		return none
	}
	return sprintf("%d/%s", *amount, duration(*millis))
}

func compact(raw json.RawMessage) string {
	var b bytes.Buffer
	if raw == nil || json.Compact(&b, raw) != nil || b.String() == "null" {
		return none
	}
	return printable(b.String())
}
