package e2e

import (
	"encoding/json"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	// metricName is a name of ours in a query or a page.
	metricName = regexp.MustCompile(`\bcaddy_apikey_[a-z_]+`)
	// metricRow is a row of the table in docs/metrics.md.
	metricRow  = regexp.MustCompile("(?m)^\\| `(caddy_apikey_[a-z_]+)` \\| ([a-z]+) \\|([^|]*)\\| [^|]+ \\|$")
	metricType = regexp.MustCompile(`(?m)^# TYPE (caddy_apikey_[a-z_]+) ([a-z]+)$`)
	labelName  = regexp.MustCompile(`([a-z_]+)="`)
	runbook    = regexp.MustCompile(`runbook: https://github\.com/caddy-apikey/caddy-apikey/blob/main/(docs/[a-z-]+\.md)#([a-z0-9-]+)`)
	alertName  = regexp.MustCompile(`alert: (\w+)`)
)

// TestExample_monitoring: Prometheus gets the metrics with its own key, which opens nothing
// else. All that are there are documented, and the dashboard and the alerts ask for no others.
func TestExample_monitoring(t *testing.T) {
	full(t)
	s, up := startExample(t, "monitoring")
	scraper, k := s.create(map[string]any{"userId": "prometheus", "configId": "metrics"}), s.create(nil)
	checkExample(t, s, up, []exampleRow{
		{name: "the application", target: "/things", lines: []string{bearer(k)}, status: 200, uri: "/things"},
		{name: "the application, with the key of Prometheus", target: "/things", lines: []string{bearer(scraper)}, status: 401},
		{name: "no key", target: "/things", status: 401},
		{name: "an unknown key", target: "/things", lines: []string{"Authorization: Bearer " + foreignKey}, status: 401},
		{name: "metrics", target: "/metrics", lines: []string{bearer(scraper)}, status: 200},
		{name: "metrics, with another key", target: "/metrics", lines: []string{bearer(k)}, status: 401},
		{name: "metrics, without a key", target: "/metrics", status: 401},
		{name: "metrics, another spelling", target: "/metrics/", lines: []string{bearer(scraper)}, status: 401},
	})
	text := s.metrics(s.URL+"/metrics", bearer(scraper))
	all := seriesIn(t, text)
	decisions := all.with("caddy_apikey_decisions_total")
	for labels, want := range map[string]float64{
		`{config="default",outcome="allowed",tier=""}`:         1,
		`{config="metrics",outcome="allowed",tier=""}`:         2,
		`{config="metrics",outcome="invalid_api_key",tier=""}`: 2,
		`{config="default",outcome="invalid_api_key",tier=""}`: 1,
		`{config="",outcome="invalid_api_key",tier=""}`:        1,
	} {
		if decisions[labels] != want {
			t.Errorf("%s: %v, want %v", labels, decisions[labels], want)
		}
	}

	types := map[string]string{}
	for _, m := range metricType.FindAllStringSubmatch(text, -1) {
		types[m[1]] = m[2]
	}
	documented := map[string]bool{}
	for _, m := range metricRow.FindAllStringSubmatch(readAll(t, source(t, "docs/metrics.md")), -1) {
		name, labels := m[1], strings.Fields(strings.NewReplacer("`", "", ",", "").Replace(m[3]))
		documented[name] = true
		if types[name] != m[2] {
			t.Errorf("docs/metrics.md: %s is a %s, the scrape says %q", name, m[2], types[name])
		}
		for id := range all {
			base, rest, _ := strings.Cut(id, "{")
			if base != name && (types[name] != "histogram" || base != name+"_count") {
				continue
			}
			var got []string
			for _, l := range labelName.FindAllStringSubmatch(rest, -1) {
				got = append(got, l[1])
			}
			slices.Sort(labels)
			if !slices.Equal(got, labels) {
				t.Errorf("docs/metrics.md: %s has the labels %q, the scrape %q", name, labels, got)
			}
		}
	}
	for name := range types {
		if !documented[name] {
			t.Errorf("docs/metrics.md does not have %s", name)
		}
	}
	if !json.Valid([]byte(readAll(t, source(t, "examples/monitoring/dashboard.json")))) {
		t.Error("dashboard.json is no JSON")
	}
	for _, file := range []string{"dashboard.json", "alerts.yml", "alerts_test.yml"} {
		names := metricName.FindAllString(readAll(t, source(t, "examples/monitoring/"+file)), -1)
		if len(names) < 10 {
			t.Errorf("%s names %d metrics", file, len(names))
		}
		for _, name := range names {
			base := name
			for _, part := range []string{"_bucket", "_count", "_sum"} {
				if whole, ok := strings.CutSuffix(name, part); ok && types[whole] == "histogram" {
					base = whole
				}
			}
			if types[base] == "" {
				t.Errorf("%s asks for %s, which does not exist", file, name)
			}
		}
	}
}

// TestExample_runbooks: each alert leads to a heading that says what to do, and has a test in
// which it fires and one in which it does not.
func TestExample_runbooks(t *testing.T) {
	quick(t)
	rules, tests := readAll(t, source(t, "examples/monitoring/alerts.yml")), readAll(t, source(t, "examples/monitoring/alerts_test.yml"))
	alerts, books := alertName.FindAllStringSubmatch(rules, -1), runbook.FindAllStringSubmatch(rules, -1)
	if len(alerts) == 0 || len(alerts) != len(books) {
		t.Fatalf("%d alerts, %d runbooks", len(alerts), len(books))
	}
	quiet, firing, _ := strings.Cut(tests, "everything is wrong")
	for i, alert := range alerts {
		page := readAll(t, source(t, books[i][1]))
		heading := "\n### " + strings.ReplaceAll(books[i][2], "-", " ") + "\n"
		_, text, ok := strings.Cut(strings.ToLower(page), heading)
		if text, _, _ = strings.Cut(text, "\n#"); !ok || !strings.Contains(text, strings.ToLower(alert[1])) {
			t.Errorf("%s has no section for %s", books[i][1], alert[1])
		}
		for _, part := range []string{quiet, firing} {
			if !regexp.MustCompile(`alertname: ` + alert[1] + `\b`).MatchString(part) {
				t.Errorf("alerts_test.yml does not test %s", alert[1])
			}
		}
	}
}

// TestExample_promtool: Prometheus reads the files and the metrics, and the alerts pass their
// tests.
func TestExample_promtool(t *testing.T) {
	full(t)
	promtool := tool(t, "promtool")
	s, _ := startExample(t, "monitoring")
	var ours strings.Builder
	for line := range strings.Lines(s.metrics(s.Admin+"/metrics", "Accept: text/plain")) {
		if strings.Contains(line, "caddy_apikey_") {
			ours.WriteString(line)
		}
	}
	lint := exec.Command(promtool, "check", "metrics")
	lint.Stdin = strings.NewReader(ours.String())
	if out, err := lint.CombinedOutput(); err != nil {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
	for _, args := range [][]string{
		{"check", "config", "--syntax-only", "prometheus.yml"}, {"check", "rules", "alerts.yml"}, {"test", "rules", "alerts_test.yml"},
	} {
		cmd := exec.Command(promtool, args...)
		cmd.Dir = source(t, "examples/monitoring")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}
