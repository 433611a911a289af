package keyring

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

const day = 24 * time.Hour

// findings returns the whole report as "rule owner permissions", sorted, read in pages.
func (g *rig) findings(q ReportQuery) (all []string) {
	g.t.Helper()
	for {
		page, err := g.Report(g.t.Context(), q)
		if err != nil {
			g.t.Fatal(err)
		}
		for _, f := range page.Findings {
			if f.KeyID == "" || len(f.Controls) == 0 {
				g.t.Errorf("%+v", f)
			}
			all = append(all, strings.TrimSpace(f.Rule+" "+f.UserID+" "+strings.Join(f.Permissions, " ")))
		}
		if q.Cursor = page.Next; q.Cursor == "" {
			slices.Sort(all)
			return all
		}
	}
}

// TestReport: each rule finds what it is about, from its threshold on, and nothing else.
func TestReport(t *testing.T) {
	g := newRig(t)
	g.use(&Settings{Rules: DefaultRules(), Tiers: []Tier{
		{Name: "limited", Limits: []TierLimit{{Max: 1000, Unit: Day}}}, {Name: "readers", Permissions: key.Permissions{"files": {"read"}}},
	}})
	good := Draft{ExpiresIn: to(int64(1000 * 86400)), RateLimitMax: ptr(int64(5)), RateLimitTimeWindow: ptr(int64(1000))}
	add := func(owner string, change func(*Draft)) Issued {
		d := good
		d.UserID = owner
		change(&d)
		return g.create(d)
	}
	tier := func(owner, name string) {
		if _, err := g.PutOwner(t.Context(), owner, OwnerPatch{Tier: to(name)}); err != nil {
			t.Fatal(err)
		}
	}
	add("good", func(*Draft) {})
	add("forever", func(d *Draft) { d.ExpiresIn = Field[int64]{} })
	add("unlimited", func(d *Draft) { d.RateLimitMax, d.RateLimitTimeWindow = nil, nil })
	add("switched-off", func(d *Draft) { d.RateLimitEnabled = ptr(false) })
	add("credits", func(d *Draft) { d.RateLimitMax, d.RateLimitTimeWindow, d.Remaining = nil, nil, ptr(int64(5)) })
	add("by-tier", func(d *Draft) { d.RateLimitMax, d.RateLimitTimeWindow = nil, nil })
	add("disabled", func(d *Draft) { d.ExpiresIn, d.Enabled = Field[int64]{}, ptr(false) })
	add("expired", func(d *Draft) { d.ExpiresIn, d.RateLimitMax, d.RateLimitTimeWindow = to(int64(1)), nil, nil })
	add("above", func(d *Draft) { d.Permissions = key.Permissions{"files": {"read", "write"}, "x": {"*"}} })
	old := add("rotated", func(*Draft) {})
	tier("by-tier", "limited")
	tier("above", "readers")
	if _, err := g.Rotate(t.Context(), old.Key.ID, Rotation{Grace: (10 * day).Milliseconds()}); err != nil {
		t.Fatal(err)
	}
	g.clock.advance(time.Minute)
	q := ReportQuery{OlderThan: (90 * day).Milliseconds(), Idle: (90 * day).Milliseconds(), Limit: 3}
	always := []string{"above_tier above files:write x:*", "in_grace rotated", "no_expiry forever", "no_limit switched-off", "no_limit unlimited"}
	if got := g.findings(q); !slices.Equal(got, always) {
		t.Errorf("at first: %q", got)
	}
	q.Rule = "no_expiry"
	if got := g.findings(q); !slices.Equal(got, []string{"no_expiry forever"}) {
		t.Errorf("one rule: %q", got)
	}

	// Uses, rotations and permissions that are asked for count from 90 days on.
	g.clock.advance(60 * day)
	used := add("used", func(d *Draft) { d.Permissions = key.Permissions{"a": {"*"}, "b": {"read", "write"}, "*": {"*"}} })
	g.want(used.Raw, Allowed, Request{Require: []key.Permission{{Resource: "a", Action: "list"}, {Resource: "b", Action: "read"}}})
	only := func(rule string, want ...string) {
		t.Helper()
		q.Rule = rule
		got := slices.DeleteFunc(g.findings(q), func(f string) bool { return !strings.Contains(f, " used") })
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", rule, got, want)
		}
	}
	g.clock.advance(90*day - time.Second)
	only("idle")
	only("not_rotated")
	only("unused_permission")
	g.clock.advance(time.Second)
	only("idle", "idle used")
	only("not_rotated", "not_rotated used")
	only("unused_permission", "unused_permission used b:write")
	g.want(used.Raw, Allowed)
	only("idle")
	var err error
	if used, err = g.Rotate(t.Context(), used.Key.ID, Rotation{}); err != nil {
		t.Fatal(err)
	}
	only("not_rotated")
	q.Rule = "in_grace"
	if got := g.findings(q); len(got) != 0 {
		t.Errorf("after the grace: %q", got)
	}
	for n := range store.MaxAskedPermissions { // which permissions came later, nobody knows
		g.want(used.Raw, Allowed, Request{Require: []key.Permission{{Resource: "a", Action: fmt.Sprint(n)}}})
		g.clock.advance(time.Second)
	}
	only("unused_permission")
	if _, err := g.Report(t.Context(), ReportQuery{Limit: 1, Cursor: "x"}); err == nil {
		t.Error("a cursor of nothing is accepted")
	}
}

// TestReport_pages: a page looks at a bounded number of keys, and all pages together at each
// key once.
func TestReport_pages(t *testing.T) {
	g := newRig(t)
	for n := range 2*maxReported + 50 {
		g.create(Draft{UserID: fmt.Sprint(n)})
	}
	q := ReportQuery{Rule: "no_expiry", Limit: 500}
	page, err := g.Report(t.Context(), q)
	if err != nil || len(page.Findings) != maxReported || page.Next == "" {
		t.Fatalf("%d, %v", len(page.Findings), err)
	}
	if all := g.findings(q); len(slices.Compact(all)) != 2*maxReported+50 {
		t.Errorf("%d findings", len(all))
	}
}
