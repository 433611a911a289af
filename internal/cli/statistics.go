package cli

import (
	"io"
	"os"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
)

func (h *Host) usage() *cobra.Command {
	var in admin.UsageQuery
	var owner *string
	cmd := h.command("usage {<id> | --owner <userId>} [flags]", "Shows what a key, or an owner, has used", atMostOneArg, func(c *call) error {
		if (owner == nil) == (len(c.args) == 0) {
			return WrongUsage("either the id of a key is needed, or --owner")
		}
		var a admin.Answer[admin.Usage]
		var err error
		if owner != nil {
			a, err = c.client.OwnerUsage(c.ctx, *owner, in)
		} else {
			a, err = c.client.KeyUsage(c.ctx, c.args[0], in)
		}
		return answer(c, a, err, func(u admin.Usage) string { return usageReport(u, columns(c.OutOrStdout())) })
	})
	cmd.Long = `Shows how many requests a key has made, or all keys of an owner, deleted ones
included, by calendar day. A request is allowed, limited (refused because a limit
was reached) or denied (refused for any other reason).`
	cmd.Example = `  caddy apikey usage 6a1f0c2d9b3e4f5a6b7c8d9e
  caddy apikey usage --owner alice --days 7`
	f := cmd.Flags()
	define(f, "owner", pointer(&owner, parseText), "`userId` of an owner, instead of a key")
	define(f, "days", pointer(&in.Days, parseNumber), "`number` of days to list, 1 to 366 (default 30)")
	return cmd
}

func atMostOneArg(args []string) error {
	if len(args) > 1 {
		return WrongUsage("only one argument is taken: the id of a key")
	}
	return nil
}

// usageReport shows totals, and the days with a bar each.
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
	return sprintf("%d of %d", n, *limit)
}

func upTo(limit *int64) string {
	if limit == nil {
		return "unlimited"
	}
	return sprintf("at most %d", *limit)
}

const (
	defaultColumns = 80
	leastBar       = 10
)

// columns returns how wide the output is: as wide as the terminal, if it is one.
func columns(out io.Writer) int {
	if f, ok := out.(*os.File); ok {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
			return width
		}
	}
	return defaultColumns
}

// chart writes a line for each day: the counts, and a bar as long as they are
// beside those of the busiest day.
func chart(days []admin.UsageDay, width int) string {
	t := newTable("DATE", "ALLOWED", "LIMITED", "DENIED")
	most := int64(1)
	for _, d := range days {
		t.AppendRow(table.Row{printable(d.Date), d.Allowed, d.Limited, d.Denied})
		most = max(most, d.Allowed+d.Limited+d.Denied)
	}
	lines := strings.Split(t.Render(), "\n")
	room := int64(max(width-len(lines[0])-2, leastBar))
	for i, d := range days {
		if b := bar(d, most, room); b != "" {
			lines[i+1] += "  " + b
		}
	}
	return strings.Join(lines, "\n") + "\n\n# allowed, x limited or denied"
}

// bar draws one day. What there was is seen, however little it was.
func bar(d admin.UsageDay, most, room int64) string {
	refused := d.Limited + d.Denied
	whole := length(d.Allowed+refused, most, room)
	bad := min(length(refused, most, room), whole)
	if d.Allowed > 0 && bad == whole && whole > 1 {
		bad--
	}
	return strings.Repeat("#", int(whole-bad)) + strings.Repeat("x", int(bad))
}

// length scales n to at most room, rounded, but to 1 at least for what is not 0.
func length(n, most, room int64) int64 {
	if n <= 0 {
		return 0
	}
	return max(1, int64(float64(n)/float64(most)*float64(room)+0.5))
}
