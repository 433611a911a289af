package e2e

import (
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// series are the samples of a scrape by name and labels, as the text format writes them.
type series map[string]float64

// scrape reads the metrics of this plugin from the admin endpoint.
func (s *server) scrape() series {
	s.t.Helper()
	return seriesIn(s.t, s.metrics(s.Admin+"/metrics", "Accept: text/plain"))
}

// metrics returns what Prometheus is shown.
func (s *server) metrics(url, line string) string {
	s.t.Helper()
	req, err := http.NewRequest("GET", url, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	name, value, _ := strings.Cut(line, ": ")
	req.Header.Set(name, value)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		s.t.Fatalf("metrics: %s, %v\n%s", resp.Status, err, text)
	}
	return string(text)
}

func seriesIn(t testing.TB, text string) series {
	t.Helper()
	all := series{}
	for line := range strings.Lines(text) {
		at := strings.LastIndexByte(line, ' ')
		if !strings.HasPrefix(line, "caddy_apikey_") {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(line[at:]), 64)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if _, twice := all[line[:at]]; twice {
			t.Errorf("twice: %s", line)
		}
		all[line[:at]] = n
	}
	return all
}

// with returns the samples of one metric.
func (all series) with(name string) series {
	some := series{}
	for id, n := range all {
		if base, _, _ := strings.Cut(id, "{"); base == name {
			some[strings.TrimPrefix(id, name)] = n
		}
	}
	return some
}

func (all series) sum() (sum float64) {
	for _, n := range all {
		sum += n
	}
	return sum
}

// is compares the samples of one metric.
func (all series) is(t *testing.T, name string, want series) {
	t.Helper()
	if got := all.with(name); !maps.Equal(got, want) {
		t.Errorf("%s: %v, want %v", name, got, want)
	}
}

const metricsConfig = `{
	apikey {
		tier free {
			limit 1000/1h
		}
		default_tier free
		config partner {
			prefix pa_
		}
	}
}

{$SITE} {
	handle /partner {
		apikey {
			config partner
		}
		respond ok
	}
	handle /write {
		apikey {
			require files:write
			cost 3
			refund_on 500
		}
		respond ok
	}
	handle /fails {
		apikey {
			refund_on 500
		}
		error 500
	}
	handle {
		apikey
		respond ok
	}
}
`

// TestMetrics counts requests of each kind, with reloads in between: each is in the metrics
// once, and counters go on.
func TestMetrics(t *testing.T) {
	full(t)
	s := startGate(t, metricsConfig)
	s.scrape().is(t, "caddy_apikey_decisions_total", series{`{config="",outcome="missing_api_key",tier=""}`: float64(s.asked())})
	begun := float64(s.asked())

	plain, partner := s.create(nil), s.create(map[string]any{"configId": "partner"})
	off := s.create(map[string]any{"enabled": false})
	once := s.create(map[string]any{"rateLimitMax": 1, "rateLimitTimeWindow": 3_600_000})
	credits := s.create(map[string]any{"remaining": 10, "permissions": []string{"files:write"}})
	requests := func() {
		for range 3 {
			s.get("/", keyLine(plain.Raw)).is(t, 200, "")
		}
		s.get("/partner", keyLine(partner.Raw)).is(t, 200, "")
		s.get("/partner", keyLine(plain.Raw)).is(t, 401, "INVALID_API_KEY")
		s.get("/", keyLine(off.Raw)).is(t, 401, "KEY_DISABLED")
		s.get("/write", keyLine(plain.Raw)).is(t, 403, "INSUFFICIENT_PERMISSIONS")
		s.get("/", keyLine(foreignKey)).is(t, 401, "INVALID_API_KEY")
		s.get("/").is(t, 401, "MISSING_API_KEY")
		s.get("/", keyLine(plain.Raw), keyLine(off.Raw)).is(t, 400, "AMBIGUOUS_API_KEY")
		s.get("/write", keyLine(credits.Raw)).is(t, 200, "")
		s.get("/fails", keyLine(credits.Raw)).is(t, 500, "")
	}
	requests()
	s.get("/", keyLine(once.Raw)).is(t, 200, "")
	s.get("/", keyLine(once.Raw)).is(t, 429, "RATE_LIMITED")
	check := func(rounds float64) {
		t.Helper()
		all := s.scrape()
		all.is(t, "caddy_apikey_decisions_total", series{
			`{config="default",outcome="allowed",tier="free"}`:                  5*rounds + 1,
			`{config="partner",outcome="allowed",tier="free"}`:                  rounds,
			`{config="default",outcome="invalid_api_key",tier="free"}`:          rounds,
			`{config="default",outcome="key_disabled",tier="free"}`:             rounds,
			`{config="default",outcome="insufficient_permissions",tier="free"}`: rounds,
			`{config="",outcome="invalid_api_key",tier=""}`:                     rounds,
			`{config="",outcome="missing_api_key",tier=""}`:                     rounds + begun,
			`{config="",outcome="ambiguous_api_key",tier=""}`:                   rounds,
			`{config="default",outcome="rate_limited",tier="free"}`:             1,
		})
		all.is(t, "caddy_apikey_credits_total", series{`{what="taken"}`: 4 * rounds, `{what="refunded"}`: rounds, `{what="forfeited"}`: 0})
		// All that carried one key are timed.
		if got := all.with("caddy_apikey_decision_seconds_count"); got.sum() != 10*rounds+2 || got[`{looked_up="true"}`] < 5 || got[`{looked_up="false"}`] < 5*rounds {
			t.Errorf("%v are timed", got)
		}
	}
	check(1)
	for range 3 {
		s.reload(strings.Replace(metricsConfig, "limit 1000/1h", "limit 1001/1h", 1))
		s.reload(metricsConfig)
	}
	check(1)
	requests()
	check(2)
	all := s.scrape()
	if taken := all.with("caddy_apikey_store_seconds_count")[`{operation="move_credits"}`]; taken != 6 {
		t.Errorf("%v movements of credits", taken)
	}
	if errs := all.with("caddy_apikey_store_errors_total"); errs.sum() != 0 || len(errs) < 5 {
		t.Errorf("errors: %v", errs)
	}
	all.is(t, "caddy_apikey_statistics_dropped_total", series{"": 0})
	all.is(t, "caddy_apikey_degraded", series{`{what="identity"}`: 0, `{what="credits"}`: 0, `{what="limits"}`: 0, `{what="statistics"}`: 0})
	if entries, bytes := all["caddy_apikey_cache_entries"], all["caddy_apikey_cache_bytes"]; entries != 5 || bytes < 5*500 {
		t.Errorf("%v entries, %v bytes", entries, bytes)
	}
	eventually(t, "everything is written", func() bool { return s.scrape()["caddy_apikey_backlog"] == 0 })
	// A refused configuration leaves them as they are.
	if err := os.WriteFile(s.file(), []byte(strings.Replace(metricsConfig, "default_tier free", "default_tier nosuch", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := s.run("reload", "--force", "--config", s.file()); r.code == 0 {
		t.Error("the reload was not refused")
	}
	check(2)
}

// asked returns how many requests without a key the harness has sent to see whether the
// site answers.
func (s *server) asked() int64 {
	s.t.Helper()
	return int64(s.scrape()[`caddy_apikey_decisions_total{config="",outcome="missing_api_key",tier=""}`])
}

// TestMetrics_keys: the keys of the whole store by state and by when they expire.
func TestMetrics_keys(t *testing.T) {
	full(t)
	s := startGate(t, "{$SITE} {\n\tapikey\n\trespond ok\n}\n", withTestClock())
	// They are counted again where the clock says that they are too old.
	at := time.Duration(0)
	want := func(active, disabled, expired, exhausted, day, week, month float64) {
		t.Helper()
		at += time.Minute
		s.setClock(at)
		all := s.scrape()
		all.is(t, "caddy_apikey_keys", series{`{state="active"}`: active, `{state="disabled"}`: disabled, `{state="expired"}`: expired, `{state="exhausted"}`: exhausted})
		all.is(t, "caddy_apikey_keys_expiring", series{`{within="1d"}`: day, `{within="7d"}`: week, `{within="30d"}`: month})
	}
	want(0, 0, 0, 0, 0, 0, 0)
	const day = 24 * 60 * 60
	s.create(nil)
	s.create(map[string]any{"enabled": false})
	s.create(map[string]any{"expiresIn": 2 * day, "userId": "bob"})
	s.create(map[string]any{"expiresIn": 20 * day})
	s.create(map[string]any{"remaining": 0})
	want(3, 1, 0, 1, 0, 1, 2)
	s.admin("PUT", "/apikey/owners/bob", map[string]any{"enabled": false}, 200, nil)
	want(2, 2, 0, 1, 0, 1, 2)
	at = 14 * 24 * time.Hour
	want(2, 2, 0, 1, 0, 1, 1)
	s.admin("PUT", "/apikey/owners/bob", map[string]any{"enabled": true}, 200, nil)
	want(2, 1, 1, 1, 0, 1, 1)
}

// TestMetrics_lease: what is leased is shown, and what a crash loses of it.
func TestMetrics_lease(t *testing.T) {
	full(t)
	s := startGate(t, "{\n\tapikey {\n\t\tcredits lease 100\n\t}\n}\n\n{$SITE} {\n\tapikey\n\trespond ok\n}\n")
	k := s.create(map[string]any{"remaining": 100_000})
	leased := 0.0
	eventually(t, "credits are leased", func() bool {
		for range 50 {
			s.get("/", keyLine(k.Raw)).is(t, 200, "")
		}
		leased = s.scrape()["caddy_apikey_leased_credits"]
		return leased > 0
	})
	s.kill()
	s.start()
	s.settled()
	if got := s.scrape().with("caddy_apikey_credits_total")[`{what="forfeited"}`]; got < 1 || got > 100 {
		t.Errorf("%v credits are forfeited, %v were leased", got, leased)
	}
	if got := s.scrape()["caddy_apikey_leased_credits"]; got != 0 {
		t.Errorf("%v credits are leased", got)
	}
}

// TestMetrics_degraded: while the database is away, metrics, health and one line of the log
// say what does not work, until it is there again.
func TestMetrics_degraded(t *testing.T) {
	full(t)
	s := startGate(t, "{$SITE} {\n\tapikey\n\trespond ok\n}\n")
	k := s.create(map[string]any{"remaining": 100})
	s.get("/", keyLine(k.Raw)).is(t, 200, "")
	db := filepath.Join(s.Dir, "caddy", "apikey", "apikey.db")
	if err := os.Rename(db, db+".away"); err != nil {
		t.Fatal(err)
	}
	degraded := func() series { return s.scrape().with("caddy_apikey_degraded") }
	eventually(t, "credits are degraded", func() bool {
		s.get("/", keyLine(k.Raw))
		return degraded()[`{what="credits"}`] == 1
	})
	eventually(t, "statistics are degraded", func() bool { return degraded()[`{what="statistics"}`] == 1 })
	all := s.scrape()
	if all["caddy_apikey_backlog"] == 0 || all.with("caddy_apikey_store_errors_total")[`{operation="move_credits"}`] == 0 {
		t.Errorf("%v", all)
	}
	r := s.run("apikey", "health", "--json")
	if r.code != 1 || !strings.Contains(r.stdout, `"credits"`) || !strings.Contains(r.stdout, `"statistics"`) {
		t.Errorf("health: %+v", r)
	}
	if n := strings.Count(s.Log(), "degraded while the store is away"); n != 2 {
		t.Errorf("%d lines in the log", n)
	}
	if err := os.Rename(db+".away", db); err != nil {
		t.Fatal(err)
	}
	eventually(t, "nothing is degraded", func() bool { return degraded().sum() == 0 })
	eventually(t, "everything is written", func() bool { return s.scrape()["caddy_apikey_backlog"] == 0 })
	s.get("/", keyLine(k.Raw)).is(t, 200, "")
}

// TestMetrics_trace: the span of a traced request shows what the gate decided.
func TestMetrics_trace(t *testing.T) {
	full(t)
	s := startGate(t, "{$SITE} {\n\ttracing\n\tapikey\n\trespond ok\n}\n",
		withEnv("OTEL_TRACES_EXPORTER=console", "OTEL_BSP_SCHEDULE_DELAY=10"))
	k := s.create(nil)
	s.get("/", keyLine(k.Raw)).is(t, 200, "")
	s.get("/", keyLine(foreignKey)).is(t, 401, "INVALID_API_KEY")
	for name, values := range map[string][]string{
		"apikey.key_id": {k.ID, ""}, "apikey.config": {"default", ""}, "apikey.outcome": {"allowed", "invalid_api_key"},
	} {
		for _, value := range values {
			awaitLog(t, s, `{"Key":"`+name+`","Value":{"Type":"STRING","Value":"`+value+`"}}`)
		}
	}
	if strings.Contains(s.Log(), k.Raw) {
		t.Error("a span shows the key")
	}
}
