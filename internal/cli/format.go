package cli

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
)

const noValue = "-"

// printable escapes what a terminal interprets: control characters, and marks that
// change the direction of text.
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

func formatText(s *string) string {
	if s == nil {
		return noValue
	}
	return printable(*s)
}

func formatNumber(n *int64, absent string) string {
	if n == nil {
		return absent
	}
	return strconv.FormatInt(*n, 10)
}

func formatTime(t *api.Time, absent string) string {
	if t == nil {
		return absent
	}
	return t.UTC().Format(time.RFC3339)
}

// formatRelative formats a time as the distance from now: "5m ago", "in 90d".
func formatRelative(t, now time.Time) string {
	const day = 24 * time.Hour
	d := now.Sub(t)
	past := d >= 0
	if !past {
		d = -d
	}
	if past && d < 10*time.Second {
		return "just now"
	}
	var n string
	switch {
	case d < time.Minute:
		n = fmt.Sprintf("%ds", int64(d.Round(time.Second)/time.Second))
	case d < time.Hour:
		n = fmt.Sprintf("%dm", int64(d.Round(time.Minute)/time.Minute))
	case d < 2*day:
		n = fmt.Sprintf("%dh", int64(d.Round(time.Hour)/time.Hour))
	case d < 2*365*day:
		n = fmt.Sprintf("%dd", int64(d.Round(day)/day))
	default:
		n = fmt.Sprintf("%dy", int64(d/(365*day)))
	}
	if past {
		return n + " ago"
	}
	return "in " + n
}

func formatBool(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// formatDuration formats milliseconds as flags accept them: 90d, 1h30m, 500ms.
func formatDuration(ms int64) string {
	const day = 24 * 60 * 60 * 1000
	days, rest := ms/day, time.Duration(ms%day)*time.Millisecond
	if days == 0 {
		return trimDuration(rest)
	}
	if rest == 0 {
		return fmt.Sprintf("%dd", days)
	}
	return fmt.Sprintf("%dd%s", days, trimDuration(rest))
}

// trimDuration formats d without zeros at the end: 1h instead of 1h0m0s.
func trimDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// formatPrevious formats the replaced raw keys that still work, on one line.
func formatPrevious(all []admin.PreviousKey) string {
	texts := make([]string, len(all))
	for i, p := range all {
		start := noValue
		if p.Start != nil {
			start = printable(*p.Start) + "..."
		}
		texts[i] = fmt.Sprintf("%s until %s, last used %s", start, formatTime(&p.Until, ""), formatTime(p.LastRequest, "never"))
	}
	return cmp.Or(strings.Join(texts, "; "), noValue)
}

// formatStart formats the first known characters of a raw key.
func formatStart(k admin.Key) string {
	switch {
	case k.Start != nil:
		return printable(*k.Start) + "..."
	case k.Prefix != nil:
		return printable(*k.Prefix) + "..."
	default:
		return noValue
	}
}

// formatRate formats a rate as flags accept it: 100/1m. Without one it returns "".
func formatRate(amount, millis *int64) string {
	if amount == nil || millis == nil {
		return ""
	}
	return fmt.Sprintf("%d/%s", *amount, formatDuration(*millis))
}

// textOfJSON returns JSON without blanks, or "" for null.
func textOfJSON(raw json.RawMessage) string {
	var b bytes.Buffer
	if raw == nil || json.Compact(&b, raw) != nil || b.String() == "null" {
		return ""
	}
	return b.String()
}

func formatJSON(raw json.RawMessage) string { return printable(cmp.Or(textOfJSON(raw), noValue)) }
