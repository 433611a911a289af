package cli

import (
	"fmt"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
)

// newTable returns a table without lines between its columns. A column that holds
// only numbers is aligned to the right; formatted numbers are text.
func newTable(header ...any) table.Writer {
	t := table.NewWriter()
	t.SetStyle(table.Style{Box: table.BoxStyle{PaddingRight: "  "}, Options: table.OptionsNoBordersAndSeparators})
	t.SuppressTrailingSpaces()
	t.AppendHeader(header)
	return t
}

// property is a named value.
type property struct {
	name  string
	value any
}

// properties returns one line for each property.
func properties(all []property) string {
	t := newTable()
	for _, p := range all {
		t.AppendRow(table.Row{p.name + ":", p.value})
	}
	return t.Render()
}

func keyTable(page admin.KeyList) string {
	t := newTable("ID", "OWNER", "NAME", "START", "ENABLED", "REMAINING", "LIMIT", "EXPIRES", "LAST USED")
	for _, k := range page.Keys {
		t.AppendRow(table.Row{
			printable(k.ID), printable(k.UserID), formatText(k.Name), formatStart(k), formatBool(k.Enabled), formatNumber(k.Remaining, "unlimited"),
			rateLimit(k), formatTime(k.ExpiresAt, "never"), formatTime(k.LastRequest, "never"),
		})
	}
	return t.Render()
}

func ownerTable(page admin.OwnerList) string {
	t := newTable("OWNER", "ENABLED", "TIER", "KEYS", "CREATED")
	for _, o := range page.Owners {
		t.AppendRow(table.Row{
			printable(o.UserID), formatBool(o.Enabled), formatText(o.Tier),
			formatNumber(&o.KeyCount, noValue), formatTime(&o.CreatedAt, noValue),
		})
	}
	return t.Render()
}

// details shows a key in a few lines.
func details(k admin.Key) string {
	credits := formatNumber(k.Remaining, "unlimited")
	if k.Remaining != nil {
		credits += " left"
	}
	if k.RefillAmount != nil {
		credits += ", refill " + formatRate(k.RefillAmount, k.RefillInterval)
	}
	rate := rateLimit(k)
	if rate != noValue {
		rate = fmt.Sprintf("%s, %s, %d in this window", rate, printable(k.RateLimitAlgorithm), k.RequestCount)
	}
	return properties([]property{
		{"ID", printable(k.ID)},
		{"Owner", printable(k.UserID)},
		{"Name", formatText(k.Name)},
		{"Key", formatStart(k)},
		{"Previous keys", formatPrevious(k.PreviousKeys)},
		{"Enabled", formatEnabled(k)},
		{"Permissions", formatList(k.Permissions.List())},
		{"Credits", credits},
		{"Rate limit", rate},
		{"Allowed IPs", formatList(k.AllowedIPs)},
		{"Tier", formatText(k.Tier)},
		{"Configuration", printable(k.ConfigID)},
		{"Metadata", formatJSON(k.Metadata)},
		{"Expires", formatTime(k.ExpiresAt, "never")},
		{"Last used", formatTime(k.LastRequest, "never")},
		{"Created", formatTime(&k.CreatedAt, noValue)},
		{"Updated", formatTime(&k.UpdatedAt, noValue)},
		{"Rotated", formatTime(k.RotatedAt, "never")},
	})
}

func ownerDetails(o admin.Owner) string {
	return properties([]property{
		{"Owner", printable(o.UserID)},
		{"Enabled", formatBool(o.Enabled)},
		{"Tier", formatText(o.Tier)},
		{"Keys", o.KeyCount},
		{"Created", formatTime(&o.CreatedAt, noValue)},
		{"Updated", formatTime(&o.UpdatedAt, noValue)},
	})
}

func rateLimit(k admin.Key) string {
	l := formatRate(k.RateLimitMax, k.RateLimitTimeWindow)
	if l != noValue && !k.RateLimitEnabled {
		l += " (off)"
	}
	return l
}

func formatList(words []string) string {
	if len(words) == 0 {
		return noValue
	}
	return printable(strings.Join(words, " "))
}
