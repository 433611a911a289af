package admin

import (
	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// ReportRules are the rules of the report.
var ReportRules = keyring.ReportRules()

// reportAfter is the default of olderThan and idle, in seconds.
const reportAfter = 90 * 24 * 60 * 60

func report(c *api.Call, in Report) (Findings, error) {
	// 2^53-1 seconds are less than 2^63 milliseconds.
	page, err := c.Keys.Report(c.Context(), keyring.ReportQuery{
		OlderThan: api.Or(in.OlderThan, reportAfter) * 1000, Idle: api.Or(in.Idle, reportAfter) * 1000,
		Rule: api.Or(in.Rule, ""), Limit: int(api.Or(in.Limit, defaultLimit)), Cursor: api.Or(in.Cursor, ""),
	})
	if err != nil {
		return Findings{}, err
	}
	out := Findings{Findings: make([]Finding, len(page.Findings)), NextCursor: api.MaybeText(page.Next)}
	for i, f := range page.Findings {
		out.Findings[i] = Finding{
			Rule: f.Rule, KeyID: f.KeyID, UserID: f.UserID, Since: api.MaybeTime(f.Since), Controls: f.Controls, Permissions: f.Permissions,
		}
	}
	return out, nil
}
