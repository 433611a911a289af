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

// formatEnabled also tells who disabled the key.
func formatEnabled(k admin.Key) string {
	if k.DisabledBy == nil {
		return formatBool(k.Enabled)
	}
	return fmt.Sprintf("%s (%s)", formatBool(k.Enabled), printable(*k.DisabledBy))
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

// formatRate formats a rate as flags accept it: 100/1m.
func formatRate(amount, millis *int64) string {
	if amount == nil || millis == nil {
		return noValue
	}
	return fmt.Sprintf("%d/%s", *amount, formatDuration(*millis))
}

func formatJSON(raw json.RawMessage) string {
	var b bytes.Buffer
	if raw == nil || json.Compact(&b, raw) != nil || b.String() == "null" {
		return noValue
	}
	return printable(b.String())
}
