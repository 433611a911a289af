package cli

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
)

func (h *Host) usage() *cobra.Command {
	var in admin.UsageQuery
	var owner *string
	cmd := h.command("usage {ID | --owner USERID} [flags]", "Shows the requests of a key or an owner", atMostOneArg, func(c *call) error {
		if (owner == nil) == (len(c.args) == 0) {
			return WrongUsage("either the id of a key or --owner is required")
		}
		var a admin.Answer[admin.Usage]
		var err error
		if owner != nil {
			a, err = c.client.OwnerUsage(c.ctx, *owner, in)
		} else {
			a, err = c.client.KeyUsage(c.ctx, c.args[0], in)
		}
		return answer(c, a, err, func(u admin.Usage) string {
			if c.format == asCSV {
				return usageCSV(u)
			}
			return usageReport(u, cmp.Or(c.width(), defaultColumns))
		})
	})
	cmd.ValidArgsFunction = completeFirst(h.completeIDs())
	setFormats(cmd, append([]string{asCSV}, plainFormats...))
	cmd.Long = `Shows the number of requests by calendar day: those of a key, or those of all keys
of an owner, including deleted ones. A request is allowed, limited (refused because
a limit was reached) or denied (refused for any other reason).`
	cmd.Example = `  caddy apikey usage 6a1f0c2d9b3e4f5a6b7c8d9e
  caddy apikey usage --owner alice --days 7`
	f := cmd.Flags()
	define(f, "owner", pointer(&owner, parseText), "`userId` of an owner, instead of a key")
	completeFlag(cmd, "owner", h.completeOwners())
	define(f, "days", pointer(&in.Days, parseNumber), "`number` of days to list, 1 to 366 (default 30)")
	return cmd
}

func atMostOneArg(args []string) error {
	if len(args) > 1 {
		return WrongUsage("this command takes one argument: the id of a key")
	}
	return nil
}

// usageReport formats totals, and one line with a bar for each day.
func usageReport(u admin.Usage, width int) string {
	return properties([]property{
		{"Tier", formatText(u.Tier)},
		{"Today", ofLimit(u.Usage.Today, u.Limits.PerDay)},
		{"This month", u.Usage.Month},
		{"Per minute", upTo(u.Limits.PerMinute)},
	}) + "\n\n" + chart(u.Days, width)
}

func ofLimit(n int64, limit *int64) string {
	if limit == nil {
		return formatNumber(&n, noValue)
	}
	return fmt.Sprintf("%d of %d", n, *limit)
}

func upTo(limit *int64) string {
	if limit == nil {
		return "unlimited"
	}
	return fmt.Sprintf("at most %d", *limit)
}

const (
	defaultColumns = 80
	minBar         = 10
)

// usageCSV returns a row for each day.
func usageCSV(u admin.Usage) string {
	rows := [][]string{{"date", "allowed", "limited", "denied"}}
	for _, d := range u.Days {
		rows = append(rows, []string{printable(d.Date), fmt.Sprint(d.Allowed), fmt.Sprint(d.Limited), fmt.Sprint(d.Denied)})
	}
	return writeCSV(rows)
}

// chart formats a line for each day: the counts, and a bar in proportion to the
// busiest day.
func chart(days []admin.UsageDay, width int) string {
	t := newTable("DATE", "ALLOWED", "LIMITED", "DENIED")
	most := int64(1)
	for _, d := range days {
		t.AppendRow(table.Row{printable(d.Date), d.Allowed, d.Limited, d.Denied})
		most = max(most, d.Allowed+d.Limited+d.Denied)
	}
	lines := strings.Split(t.Render(), "\n")
	room := int64(max(width-len(lines[0])-2, minBar))
	for i, d := range days {
		if b := bar(d, most, room); b != "" {
			lines[i+1] += "  " + b
		}
	}
	return strings.Join(lines, "\n") + "\n\n# allowed, x limited or denied"
}

// bar draws one day. Any number of requests above zero is visible.
func bar(d admin.UsageDay, most, room int64) string {
	refused := d.Limited + d.Denied
	total := length(d.Allowed+refused, most, room)
	rejected := min(length(refused, most, room), total)
	if d.Allowed > 0 && rejected == total && total > 1 {
		rejected--
	}
	return strings.Repeat("#", int(total-rejected)) + strings.Repeat("x", int(rejected))
}

// length scales n to at most room, rounded, and to at least 1 if n is above zero.
func length(n, most, room int64) int64 {
	if n <= 0 {
		return 0
	}
	return max(1, int64(float64(n)/float64(most)*float64(room)+0.5))
}
