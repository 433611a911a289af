package e2e

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
)

// TestA10_report: the report tells of keys without an end or a limit, and of permissions that no
// gate has asked for; a pipeline fails on what it chooses.
func TestA10_report(t *testing.T) {
	quick(t)
	s := startGate(t, "{$SITE} {\n\tapikey {\n\t\trequire files:read\n\t}\n\trespond ok\n}\n")
	good := map[string]any{"expiresIn": 86400, "rateLimitMax": 10, "rateLimitTimeWindow": 1000, "permissions": []string{"files:read", "files:write"}}
	k := s.create(good)
	s.call("GET", "/", "", keyLine(k.Raw)).is(t, 200, "")
	if r := s.run("apikey", "report"); r.code != 0 || r.stdout != "" && strings.Count(r.stdout, "\n") != 1 || !strings.Contains(r.stderr, "No findings.") {
		t.Errorf("%+v", r)
	}
	open := s.create(map[string]any{"userId": "bob"})
	read := func(args ...string) (findings []string) {
		t.Helper()
		var answer admin.Findings
		r := s.run(append([]string{"apikey", "report", "--json"}, args...)...)
		if err := json.Unmarshal([]byte(r.stdout), &answer); err != nil || r.code != 0 {
			t.Fatalf("%+v, %v", r, err)
		}
		for _, f := range answer.Findings {
			findings = append(findings, strings.Join(append([]string{f.Rule, f.KeyID}, f.Permissions...), " "))
		}
		return findings
	}
	if got := read(); !slices.Equal(got, []string{"no_expiry " + open.ID, "no_limit " + open.ID}) {
		t.Errorf("%q", got)
	}
	if got := read("--idle", "0s", "--rule", "unused_permission"); !slices.Equal(got, []string{"unused_permission " + k.ID + " files:write"}) {
		t.Errorf("%q", got)
	}
	for _, format := range []string{"table", "wide", "csv", "ndjson", "name"} {
		r := s.run("apikey", "report", "-o", format, "--idle", "0s", "--older-than", "0s")
		if r.code != 0 || !strings.Contains(r.stdout, open.ID) || strings.Contains(r.stdout+r.stderr, k.Raw[3:13]) || strings.Contains(r.stdout+r.stderr, open.Raw[3:13]) {
			t.Errorf("%s: %d", format, r.code)
		}
	}
	for args, code := range map[string]int{
		"--fail-on in_grace,above_tier": 0, "--fail-on in_grace,no_expiry": 1, "--fail-on nosuch": 2, "--rule nosuch": 2,
		"--rule idle --fail-on no_expiry": 2, "--rule no_limit --fail-on no_limit": 1, "--older-than soon": 2, "x": 2,
	} {
		r := s.run(append([]string{"apikey", "report"}, strings.Fields(args)...)...)
		if r.code != code || code == 1 && !strings.Contains(r.stderr, "there are findings: 1 of no_") {
			t.Errorf("%s: %+v", args, r)
		}
	}
}
