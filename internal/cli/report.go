package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
	"github.com/caddy-apikey/caddy-apikey/internal/near"
)

func (h *Host) report() *cobra.Command {
	var in admin.Report
	var failOn []string
	cmd := h.command("report [flags]", "Reports keys that security standards object to", noArgs, func(c *call) error {
		if i := slices.IndexFunc(failOn, func(name string) bool { return in.Rule != nil && *in.Rule != name }); i >= 0 {
			return WrongUsage("--fail-on: --rule leaves out the findings of %s", failOn[i])
		}
		pages := &paging{limit: &in.Limit, cursor: &in.Cursor, all: true}
		a, err := fetch(pages, "findings", func() (admin.Answer[admin.Findings], error) { return c.client.Report(c.ctx, in) })
		if err == nil && len(a.Value.Findings) == 0 {
			c.note("No findings.")
		}
		if err := answerList(c, a, err, "findings", func(f admin.Findings) []admin.Finding { return f.Findings }, reportListing); err != nil {
			return err
		}
		return failing(a.Value.Findings, failOn)
	})
	cmd.Long = `Reports keys that security standards object to, the oldest first. Keys that are
disabled or expired are left out: they open nothing.

  no_expiry          the key does not expire
  not_rotated        the raw key is older than --older-than
  idle               the key was not used for --idle
  no_limit           no rate limit, no credits, and no limit of a tier
  unused_permission  a permission that no gate has asked for, of a key older than --idle
  in_grace           previous raw keys still work
  above_tier         a permission beyond those of the owner's tier

Exit status: 0, or 1 if there is a finding of a rule of --fail-on.`
	cmd.Example = `  caddy apikey report
  caddy apikey report --older-than 30d --rule not_rotated -o name
  caddy apikey report -o csv --fail-on no_expiry,idle > report.csv`
	setFormats(cmd, listFormats)
	h.defineTable(cmd, reportListing.names())
	f := cmd.Flags()
	define(f, "older-than", pointer(&in.OlderThan, h.seconds(0)), "`duration` after which a raw key is to be rotated (default 90d)")
	define(f, "idle", pointer(&in.Idle, h.seconds(0)), "`duration` after which a key is to be used (default 90d)")
	define(f, "rule", pointer(&in.Rule, oneOf(admin.ReportRules...)), "findings of this `rule` alone: "+near.List(admin.ReportRules))
	define(f, "fail-on", variable(&failOn, rulesIn), "exit with status 1 if there is a finding of these `rules`, separated by commas")
	completeFlag(cmd, "rule", completeWords(admin.ReportRules...))
	completeFlag(cmd, "fail-on", completeList(admin.ReportRules))
	return cmd
}

// rulesIn parses rules that are separated by commas.
func rulesIn(s string) ([]string, error) {
	names := strings.Split(s, ",")
	for _, name := range names {
		if !slices.Contains(admin.ReportRules, name) {
			return nil, errors.New("each rule " + near.OneOf(name, admin.ReportRules...))
		}
	}
	return names, nil
}

// failing returns an error that counts the findings of some rules, or nil for none.
func failing(findings []admin.Finding, rules []string) error {
	var counts []string
	for _, rule := range admin.ReportRules {
		if !slices.Contains(rules, rule) {
			continue
		}
		n := 0
		for i := range findings {
			if findings[i].Rule == rule {
				n++
			}
		}
		if n > 0 {
			counts = append(counts, fmt.Sprintf("%d of %s", n, rule))
		}
	}
	if counts == nil {
		return nil
	}
	return errors.New("there are findings: " + strings.Join(counts, ", "))
}

var reportListing = &listing[admin.Finding]{
	name: func(f admin.Finding) string { return f.KeyID },
	columns: []column[admin.Finding]{
		{name: "rule", value: func(f admin.Finding) string { return f.Rule }, whole: true},
		{name: "id", value: func(f admin.Finding) string { return f.KeyID }, whole: true},
		{name: "owner", value: func(f admin.Finding) string { return f.UserID }},
		{
			name: "since", value: func(f admin.Finding) string { return formatTime(f.Since, "") },
			text: func(f admin.Finding, now time.Time) string { return sinceText(f.Since, now) },
		},
		{name: "permissions", value: func(f admin.Finding) string { return strings.Join(f.Permissions, " ") }},
		{name: "controls", value: func(f admin.Finding) string { return strings.Join(f.Controls, ", ") }},
	},
}

func sinceText(t *api.Time, now time.Time) string {
	if t == nil {
		return noValue
	}
	return formatRelative(t.UTC(), now)
}
