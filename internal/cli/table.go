package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
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

// keyListing describes a list of keys.
var keyListing = &listing[admin.Key]{
	name: func(k admin.Key) string { return k.ID },
	columns: []column[admin.Key]{
		{name: "id", value: func(k admin.Key) string { return k.ID }, whole: true},
		{name: "owner", value: func(k admin.Key) string { return k.UserID }},
		{name: "name", value: func(k admin.Key) string { return textOf(k.Name) }},
		{name: "start", value: func(k admin.Key) string { return textOf(k.Start) }, text: func(k admin.Key, _ time.Time) string { return formatStart(k) }},
		{name: "status", value: func(k admin.Key) string { return k.State }, color: func(k admin.Key) text.Color { return stateColor(k.State) }, whole: true},
		{
			name: "remaining", value: func(k admin.Key) string { return formatNumber(k.Remaining, "") },
			text: func(k admin.Key, _ time.Time) string { return formatNumber(k.Remaining, "unlimited") },
		},
		{name: "limit", value: rateLimit, more: true},
		{name: "tier", value: func(k admin.Key) string { return textOf(k.Tier) }, more: true},
		{name: "config", value: func(k admin.Key) string { return k.ConfigID }, more: true},
		{name: "permissions", value: func(k admin.Key) string { return strings.Join(k.Permissions.List(), " ") }, more: true},
		{name: "allowed-ips", value: func(k admin.Key) string { return strings.Join(k.AllowedIPs, " ") }, more: true},
		{name: "metadata", value: func(k admin.Key) string { return textOfJSON(api.Or(k.Metadata.Value, nil)) }, more: true},
		timeColumn("created", true, func(k admin.Key) *api.Time { return &k.CreatedAt }),
		timeColumn("updated", true, func(k admin.Key) *api.Time { return &k.UpdatedAt }),
		timeColumn("expires", false, func(k admin.Key) *api.Time { return k.ExpiresAt }),
		timeColumn("last-used", false, func(k admin.Key) *api.Time { return k.LastRequest }),
	},
}

// ownerListing describes a list of owners.
var ownerListing = &listing[admin.Owner]{
	name: func(o admin.Owner) string { return o.UserID },
	columns: []column[admin.Owner]{
		{name: "owner", value: func(o admin.Owner) string { return o.UserID }},
		{
			name: "status", value: func(o admin.Owner) string { return ownerState(o) },
			color: func(o admin.Owner) text.Color { return stateColor(ownerState(o)) }, whole: true,
		},
		{name: "tier", value: func(o admin.Owner) string { return textOf(o.Tier) }},
		{name: "keys", value: func(o admin.Owner) string { return formatNumber(&o.KeyCount, "") }},
		timeColumn("updated", true, func(o admin.Owner) *api.Time { return &o.UpdatedAt }),
		timeColumn("created", false, func(o admin.Owner) *api.Time { return &o.CreatedAt }),
	},
}

// timeColumn returns a column that shows a time relative to now. Without a time it
// shows "never".
func timeColumn[T any](name string, more bool, value func(T) *api.Time) column[T] {
	return column[T]{
		name: name, more: more,
		value: func(v T) string { return formatTime(value(v), "") },
		text: func(v T, now time.Time) string {
			if t := value(v); t != nil {
				return formatRelative(t.UTC(), now)
			}
			return "never"
		},
	}
}

func ownerState(o admin.Owner) string {
	if o.Enabled {
		return "active"
	}
	return "disabled"
}

func stateColor(state string) text.Color {
	switch state {
	case "active":
		return text.FgGreen
	case "disabled":
		return text.FgRed
	default:
		return text.FgYellow
	}
}

func textOf(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// details shows a key in a few lines.
func (c *call) details(k admin.Key) string {
	credits := formatNumber(k.Remaining, "unlimited")
	if k.Remaining != nil {
		credits += " left"
	}
	if k.RefillAmount != nil {
		credits += ", refill " + formatRate(k.RefillAmount, k.RefillInterval)
	}
	rate := cmp.Or(rateLimit(k), noValue)
	if k.RateLimitMax != nil {
		rate = fmt.Sprintf("%s, %s, %d in this window", rate, printable(k.RateLimitAlgorithm), k.RequestCount)
	}
	return properties(slices.Concat([]property{
		{"ID", printable(k.ID)},
		{"Owner", printable(k.UserID)},
		{"Name", formatText(k.Name)},
		{"Key", formatStart(k)},
		{"Previous keys", formatPrevious(k.PreviousKeys)},
		{"Status", c.statusText(k)},
		{"Permissions", formatList(k.Permissions.List())},
		{"Credits", credits},
		{"Rate limit", rate},
		{"Allowed IPs", formatList(k.AllowedIPs)},
		{"Tier", formatText(k.Tier)},
		{"Configuration", printable(k.ConfigID)},
	}, shownFields(k), []property{
		{"Expires", c.timeText(k.ExpiresAt)},
		{"Last used", c.timeText(k.LastRequest)},
		{"Created", c.timeText(&k.CreatedAt)},
		{"Updated", c.timeText(&k.UpdatedAt)},
		{"Rotated", c.timeText(k.RotatedAt)},
	}))
}

func (c *call) ownerDetails(o admin.Owner) string {
	return properties([]property{
		{"Owner", printable(o.UserID)},
		{"Status", c.colorState(ownerState(o))},
		{"Tier", formatText(o.Tier)},
		{"Keys", o.KeyCount},
		{"Created", c.timeText(&o.CreatedAt)},
		{"Updated", c.timeText(&o.UpdatedAt)},
	})
}

// timeText returns a time for people, exact and relative.
func (c *call) timeText(t *api.Time) string {
	if t == nil {
		return "never"
	}
	return fmt.Sprintf("%s (%s)", formatTime(t, ""), formatRelative(t.UTC(), c.now()))
}

// statusText returns the state of a key, and who disabled it.
func (c *call) statusText(k admin.Key) string {
	if k.DisabledBy == nil {
		return c.colorState(k.State)
	}
	return fmt.Sprintf("%s (by %s)", c.colorState(k.State), printable(*k.DisabledBy))
}

// colorState returns a state in its color, if there are colors.
func (c *call) colorState(state string) string {
	if !c.colored() {
		return printable(state)
	}
	return stateColor(state).EscapeSeq() + printable(state) + text.EscapeReset
}

func rateLimit(k admin.Key) string {
	l := formatRate(k.RateLimitMax, k.RateLimitTimeWindow)
	if l != "" && !k.RateLimitEnabled {
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
