package keyring

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// ReportQuery asks for a page of the report. Durations are milliseconds.
type ReportQuery struct {
	OlderThan int64  // how old raw keys may be
	Idle      int64  // how long keys may be without a use
	Rule      string // findings of this one alone; empty: of all
	Limit     int    // how many keys are looked at, at most
	Cursor    string
}

// ReportPage is a page of the report.
type ReportPage struct {
	Findings []Finding
	Next     string // empty on the last page
}

// Finding is what a rule has found of a key.
type Finding struct {
	Rule          string
	KeyID, UserID string
	Since         int64    // 0: nobody knows
	Controls      []string // of security standards, which object to it
	Permissions   []string // which ones, where it is about permissions
}

// maxReported bounds how many keys a page looks at, because some rules ask the store about
// each of them.
const maxReported = 100

// reported is a key that is looked at.
type reported struct {
	*Service
	ctx   context.Context
	st    *opened
	query *ReportQuery
	now   int64
	Info
}

// reportRule finds one thing. Since when it has been so is 0 where nobody knows.
type reportRule struct {
	name     string
	controls []string
	find     func(*reported) (found bool, since int64, permissions []string, err error)
}

// reportRules has a row for each rule. The controls are those of OWASP ASVS 5.0.0, the OWASP
// API Security Top 10, the CIS Controls 8.1, and the CIS benchmarks of AWS and Google Cloud,
// which have access keys and API keys rotated every 90 days ("CIS 90 days"). What is not used
// is another matter there: CIS 5.3 and the benchmarks give it 45 days.
var reportRules = []reportRule{
	{"no_expiry", []string{"ASVS 13.3.4"}, func(r *reported) (bool, int64, []string, error) {
		return r.Key.ExpiresAt == 0, r.Key.CreatedAt, nil, nil
	}},
	{"not_rotated", []string{"ASVS 13.3.4", "CIS 90 days"}, func(r *reported) (bool, int64, []string, error) {
		made := max(r.Key.CreatedAt, r.Key.RotatedAt)
		return made <= r.now-r.query.OlderThan, made, nil, nil
	}},
	{"idle", []string{"CIS 5.3"}, func(r *reported) (bool, int64, []string, error) {
		last := max(r.Key.CreatedAt, r.LastRequest)
		return last <= r.now-r.query.Idle, last, nil, nil
	}},
	{"no_limit", []string{"ASVS 2.4.1", "OWASP API4:2023"}, func(r *reported) (bool, int64, []string, error) {
		_, limited := r.Key.RatePolicy()
		pl, _ := r.plans.of(&r.Info.Owner)
		limited = limited && r.rulesFor(r.Key).RateLimiting || r.Credits.Limited || pl != nil && pl.shown > 0
		return !limited, 0, nil, nil
	}},
	{"unused_permission", []string{"ASVS 13.2.2"}, (*reported).unusedPermissions},
	{"in_grace", []string{"ASVS 13.3.4"}, func(r *reported) (bool, int64, []string, error) {
		return len(r.Previous) > 0, r.Key.RotatedAt, nil, nil
	}},
	{"above_tier", []string{"ASVS 8.2.1"}, func(r *reported) (bool, int64, []string, error) {
		pl, _ := r.plans.of(&r.Info.Owner)
		if pl == nil || pl.Permissions == nil {
			return false, 0, nil, nil
		}
		beyond := without(r.Key.Permissions, Grantable(pl.Permissions).Allows)
		return len(beyond) > 0, 0, beyond, nil
	}},
}

// ReportRules returns the names of the rules.
func ReportRules() (names []string) {
	for i := range reportRules {
		names = append(names, reportRules[i].name)
	}
	return names
}

// Report returns what the rules find of a page of keys, in the order in which the keys were
// made. Keys that are disabled or expired are left out: they open nothing.
func (s *Service) Report(ctx context.Context, q ReportQuery) (ReportPage, error) {
	st, err := s.engine.open(ctx)
	if err != nil {
		return ReportPage{}, err
	}
	// A key that was used a moment ago must not look as if it had not been for long.
	if err := s.engine.flush(ctx, st); err != nil {
		return ReportPage{}, err
	}
	list, err := s.List(ctx, store.List{Sort: store.SortCreatedAt, Limit: min(q.Limit, maxReported), Cursor: q.Cursor})
	if err != nil {
		return ReportPage{}, err
	}
	page := ReportPage{Next: list.Next}
	now := s.Now()
	for _, info := range list.Keys {
		if info.State == store.StateDisabled || info.State == store.StateExpired {
			continue
		}
		r := &reported{Service: s, ctx: ctx, st: st, query: &q, now: now, Info: info}
		for _, rule := range reportRules {
			if q.Rule != "" && q.Rule != rule.name {
				continue
			}
			found, since, permissions, err := rule.find(r)
			switch {
			case err != nil:
				return ReportPage{}, err
			case found:
				page.Findings = append(page.Findings, Finding{rule.name, info.Key.ID, info.Key.UserID, since, rule.controls, permissions})
			}
		}
	}
	return page, nil
}

// unusedPermissions finds permissions that no request has asked for, of keys that are old
// enough to have been used.
func (r *reported) unusedPermissions() (bool, int64, []string, error) {
	if len(r.Key.Permissions) == 0 || r.Key.CreatedAt > r.now-r.query.Idle {
		return false, 0, nil, nil
	}
	g, ok := r.st.Store.(guarded)
	if !ok {
		return false, 0, nil, nil
	}
	list, err := g.AskedPermissions(r.ctx, r.Key.ID)
	switch {
	case errors.Is(err, errors.ErrUnsupported) || len(list) >= store.MaxAskedPermissions:
		return false, 0, nil, nil // nobody knows
	case err != nil:
		return false, 0, nil, err
	}
	asked := make([]key.Permission, len(list))
	for i, text := range list {
		asked[i].Resource, asked[i].Action, _ = strings.Cut(text, ":")
	}
	unused := without(r.Key.Permissions, func(p key.Permission) bool {
		// A wildcard is used where anything is that it covers.
		return slices.ContainsFunc(asked, key.Permissions{p.Resource: {p.Action}}.Allows)
	})
	return len(unused) > 0, r.Key.CreatedAt, unused, nil
}

// without returns the permissions that are not so, sorted.
func without(p key.Permissions, so func(key.Permission) bool) (rest []string) {
	for resource, actions := range p {
		for _, action := range actions {
			if one := (key.Permission{Resource: resource, Action: action}); !so(one) {
				rest = append(rest, one.String())
			}
		}
	}
	slices.Sort(rest)
	return rest
}
