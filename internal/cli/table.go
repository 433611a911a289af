package cli

import (
	"strings"
	"unicode"

	"golang.org/x/text/width"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
)

func keyTable(page admin.KeyList) string {
	rows := [][]string{{"ID", "OWNER", "NAME", "START", "ENABLED", "REMAINING", "LIMIT", "EXPIRES", "LAST USED"}}
	for _, k := range page.Keys {
		remaining := "unlimited"
		if k.Remaining != nil {
			remaining = number(k.Remaining)
		}
		rows = append(rows, []string{
			printable(k.ID), printable(k.UserID), text(k.Name), beginning(k), yesNo(k.Enabled), remaining,
			rateLimit(k), moment(k.ExpiresAt, "never"), moment(k.LastRequest, "never"),
		})
	}
	return table(rows)
}

func ownerTable(page admin.OwnerList) string {
	rows := [][]string{{"OWNER", "ENABLED", "TIER", "KEYS", "CREATED"}}
	for _, o := range page.Owners {
		rows = append(rows, []string{
			printable(o.UserID), yesNo(o.Enabled), text(o.Tier), number(&o.KeyCount), moment(&o.CreatedAt, none),
		})
	}
	return table(rows)
}

// details shows a key in a few lines.
func details(k admin.Key) string {
	credits := "unlimited"
	if k.Remaining != nil {
		credits = number(k.Remaining) + " left"
	}
	if k.RefillAmount != nil {
		credits += ", refill " + limit(k.RefillAmount, k.RefillInterval)
	}
	rate := rateLimit(k)
	if rate != none {
		rate = sprintf("%s, %s, %d in this window", rate, printable(k.RateLimitAlgorithm), k.RequestCount)
	}
	return aligned([][2]string{
		{"ID", printable(k.ID)},
		{"Owner", printable(k.UserID)},
		{"Name", text(k.Name)},
		{"Key", beginning(k)},
		{"Enabled", yesNo(k.Enabled)},
		{"Permissions", list(k.Permissions.List())},
		{"Credits", credits},
		{"Rate limit", rate},
		{"Allowed IPs", list(k.AllowedIPs)},
		{"Tier", text(k.Tier)},
		{"Configuration", printable(k.ConfigID)},
		{"Metadata", compact(k.Metadata)},
		{"Expires", moment(k.ExpiresAt, "never")},
		{"Last used", moment(k.LastRequest, "never")},
		{"Created", moment(&k.CreatedAt, none)},
		{"Updated", moment(&k.UpdatedAt, none)},
	})
}

func ownerDetails(o admin.Owner) string {
	return aligned([][2]string{
		{"Owner", printable(o.UserID)},
		{"Enabled", yesNo(o.Enabled)},
		{"Tier", text(o.Tier)},
		{"Keys", number(&o.KeyCount)},
		{"Created", moment(&o.CreatedAt, none)},
		{"Updated", moment(&o.UpdatedAt, none)},
	})
}

func rateLimit(k admin.Key) string {
	l := limit(k.RateLimitMax, k.RateLimitTimeWindow)
	if l != none && !k.RateLimitEnabled {
		l += " (off)"
	}
	return l
}

func list(words []string) string {
	if len(words) == 0 {
		return none
	}
	return printable(strings.Join(words, " "))
}

// aligned writes names and values below each other.
func aligned(lines [][2]string) string {
	rows := make([][]string, len(lines))
	for i, l := range lines {
		rows[i] = []string{l[0] + ":", l[1]}
	}
	return table(rows)
}

// table writes columns that are as wide as they need to be on a terminal, where
// a Chinese character takes two places. text/tabwriter would count one.
func table(rows [][]string) string {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], places(cell))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		for i, cell := range row {
			b.WriteString(cell)
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-places(cell)+2))
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// places counts the places that s takes on a terminal.
func places(s string) (n int) {
	for _, r := range s {
		switch kind := width.LookupRune(r).Kind(); {
		case unicode.In(r, unicode.Mn, unicode.Me):
		case kind == width.EastAsianWide || kind == width.EastAsianFullwidth:
			n += 2
		default:
			n++
		}
	}
	return n
}
