package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

const tieredSite = `{
	apikey {
		TIERS
	}
}
{$SITE} {
	apikey
	respond "{http.auth.user.tier}|{http.request.header.X-None}"
}
`

func tiered(options string) string { return strings.Replace(tieredSite, "TIERS", options, 1) }

const freeAndPro = `default_tier free
		tier free {
			limit 5/1h
			limit 1000/day
			limit 5000/month
			permissions read
		}
		tier pro {
			limit 8/1h
			limit 2000/90s
		}`

// ask sends a request with a key.
func ask(t testing.TB, s *server, raw string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, s.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-API-Key", raw)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func wantAnswer(t testing.TB, s *server, raw string, status int, contains string) http.Header {
	t.Helper()
	resp, body := ask(t, s, raw)
	if resp.StatusCode != status || !strings.Contains(body, contains) {
		t.Fatalf("got %d %q, want %d with %q", resp.StatusCode, body, status, contains)
	}
	return resp.Header
}

func (s *server) newKey(args ...string) string {
	s.t.Helper()
	r := s.run(append([]string{"apikey", "create"}, args...)...)
	if r.code != 0 {
		s.t.Fatalf("create: %s", r.stderr)
	}
	return strings.TrimSpace(r.stdout)
}

func (s *server) ok(args ...string) string {
	s.t.Helper()
	r := s.run(append([]string{"apikey"}, args...)...)
	if r.code != 0 {
		s.t.Fatalf("%v: %s", args, r.stderr)
	}
	return r.stdout
}

// TestTiers goes through the life of tiers with the real server: keys of an owner
// share limits, tiers and configurations change, and windows outlive all of it.
func TestTiers(t *testing.T) {
	full(t)
	s := startCaddy(t, tiered(freeAndPro))
	a, b := s.newKey("--owner", "alice"), s.newKey("--owner", "alice", "--rate-limit", "100/1m", "--remaining", "50")

	h := wantAnswer(t, s, a, 200, "free|")
	if got := h.Get("RateLimit-Policy"); got != `"hour";q=5;w=3600, "day";q=1000;w=86400, "month";q=5000;w=`+monthSeconds(got) {
		t.Errorf("policy %s", got)
	}
	h = wantAnswer(t, s, b, 200, "free|")
	if got := h.Get("RateLimit"); !strings.HasPrefix(got, `"key";r=99;t=60, "hour";r=3;t=3600, "day";r=998;t=`) || !strings.Contains(got, `"credits";r=49`) {
		t.Errorf("RateLimit: %s", got)
	}
	for range 3 {
		wantAnswer(t, s, a, 200, "")
	}
	for _, raw := range []string{a, b} {
		h = wantAnswer(t, s, raw, 429, "RATE_LIMITED")
		if after := h.Get("Retry-After"); len(after) != 4 { // nearly an hour
			t.Errorf("Retry-After: %q", after)
		}
	}

	// Another tier holds at once, and finds what was counted.
	if out := s.ok("owner", "set", "alice", "--tier", "pro"); !strings.Contains(out, "Tier:     pro") {
		t.Errorf("%s", out)
	}
	h = wantAnswer(t, s, a, 200, "pro|")
	if got := h.Get("RateLimit"); !strings.HasPrefix(got, `"90s";r=`) || !strings.Contains(got, `"hour";r=2;`) {
		t.Errorf("RateLimit: %s", got)
	}
	if r := s.run("apikey", "owner", "set", "alice", "--tier", "gold"); r.code != 1 || !strings.Contains(r.stderr, `"free", "pro"`) {
		t.Errorf("an unknown tier: %d, %s", r.code, r.stderr)
	}
	if r := s.run("apikey", "owner", "set", "alice", "--tier", "pro", "--no-tier"); r.code != 2 {
		t.Errorf("both flags: %d, %s", r.code, r.stderr)
	}

	// A reload, with or without a change, loses nothing.
	s.reload(tiered(freeAndPro))
	wantAnswer(t, s, a, 200, "pro|")
	s.reload(tiered(strings.ReplaceAll(freeAndPro, "8/1h", "9/1h")))
	wantAnswer(t, s, a, 200, "pro|")
	wantAnswer(t, s, a, 200, "pro|")
	wantAnswer(t, s, b, 429, "RATE_LIMITED")

	// Nor does a clean restart.
	s.stop(syscall.SIGTERM)
	s.start()
	wantAnswer(t, s, a, 429, "RATE_LIMITED")

	// A tier that is gone gives way to the default one.
	s.reload(tiered("default_tier basic\n\t\ttier basic {\n\t\t\tlimit 10/1h\n\t\t}"))
	wantAnswer(t, s, a, 200, "basic|")
	wantAnswer(t, s, a, 429, "RATE_LIMITED")
	if n := strings.Count(s.Log(), "the tier of an owner is not configured; using another one"); n != 1 {
		t.Errorf("%d warnings", n)
	}
	if out := s.ok("list", "--json"); !strings.Contains(out, `"tier":"basic"`) {
		t.Errorf("%s", out)
	}
	s.ok("owner", "set", "alice", "--no-tier")

	s.reload(tiered("rate_limiting off"))
	wantAnswer(t, s, a, 200, "|")
}

// monthSeconds is the window of the month in a header: months differ.
func monthSeconds(header string) string { return header[strings.LastIndex(header, "=")+1:] }

// TestTierList shows the tiers through the API and the command line.
func TestTierList(t *testing.T) {
	full(t)
	s := startCaddy(t, tiered(freeAndPro))
	const table = "TIER  DEFAULT  LIMITS                    PERMISSIONS\n" +
		"free  yes      5/1h 1000/day 5000/month  api:read\n" +
		"pro   no       8/1h 2000/90s             -\n"
	if out := s.ok("tiers"); strings.Join(strings.Fields(out), " ") != strings.Join(strings.Fields(table), " ") {
		t.Errorf("got:\n%swant:\n%s", out, table)
	}
	const answer = `{"tiers":[{"name":"free","default":true,"limits":[{"max":5,"per":"1h"},{"max":1000,"per":"day"},{"max":5000,"per":"month"}],"permissions":{"api":["read"]}},` +
		`{"name":"pro","default":false,"limits":[{"max":8,"per":"1h"},{"max":2000,"per":"90s"}],"permissions":null}],"timeZone":"UTC"}` + "\n"
	if out := s.ok("tiers", "--json"); out != answer {
		t.Errorf("got  %swant %s", out, answer)
	}
	if out := s.ok("create", "--owner", "alice", "--json"); !strings.Contains(out, `"permissions":{"api":["read"]}`) || !strings.Contains(out, `"tier":"free"`) {
		t.Errorf("%s", out)
	}
	s.reload(tiered("rate_limiting on"))
	if r := s.run("apikey", "tiers"); r.code != 0 || !strings.Contains(r.stderr, "No tiers are configured.") {
		t.Errorf("%d, %s", r.code, r.stderr)
	}
}

// TestC1_TierReloads: reloads under load, with a configuration that changes, give no
// owner more than its maximum.
func TestC1_TierReloads(t *testing.T) {
	full(t)
	config := tiered("default_tier free\n\t\ttier free {\n\t\t\tlimit 300/1h\n\t\t}")
	s := startCaddy(t, config)
	keys := []string{s.newKey("--owner", "alice"), s.newKey("--owner", "alice"), s.newKey("--owner", "alice", "--rate-limit", "1000/1h")}
	var passed, refused atomic.Int64
	var wg sync.WaitGroup
	stop := make(chan struct{})
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
	for w := range 6 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				req, _ := http.NewRequest(http.MethodGet, s.URL, nil)
				req.Header.Set("X-API-Key", keys[w%3])
				resp, err := client.Do(req)
				if err != nil {
					continue // stock Caddy loses some on a reload, too
				}
				io.Copy(io.Discard, resp.Body) //nolint:errcheck // the status is enough
				resp.Body.Close()
				switch resp.StatusCode {
				case 200:
					passed.Add(1)
				case 429:
					refused.Add(1)
				default:
					t.Errorf("status %d", resp.StatusCode)
				}
			}
		})
	}
	for i := range 8 {
		s.reload(strings.Replace(config, "respond", "header X-Load "+string(rune('a'+i))+"\n\trespond", 1))
	}
	for refused.Load() == 0 && !t.Failed() {
		s.reload(config)
	}
	close(stop)
	wg.Wait()
	if n := passed.Load(); n > 300 || n < 290 {
		t.Errorf("%d passed, want 300", n)
	}
}

// TestT6 runs where no zone files are: the data is in the binary, and a zone that
// does not exist is an error, not UTC.
func TestT6(t *testing.T) {
	full(t)
	validate := func(zone string) *exec.Cmd {
		file := t.TempDir() + "/Caddyfile"
		if err := os.WriteFile(file, []byte(strings.Replace(tiered("time_zone "+zone), "{$SITE}", "http://localhost", 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(buildCaddy(t), "validate", "--adapter", "caddyfile", "--config", file)
		cmd.Env = append(os.Environ(), "ZONEINFO=", "GOROOT=/nowhere", "HOME="+t.TempDir())
		return cmd
	}
	for zone, ok := range map[string]bool{"UTC": true, "Asia/Kathmandu": true, "America/New_York": true, "Mars/Olympus": false, "Local": false, "asia": false} {
		cmd := withoutZoneFiles(t, validate(zone))
		out, err := cmd.CombinedOutput()
		if (err == nil) != ok || !ok && !strings.Contains(string(out), "is not a name in the IANA time zone database") {
			t.Errorf("%s: %v\n%s", zone, err, out)
		}
	}
}

// withoutZoneFiles lets a command run in a namespace where the system's zone files
// are hidden, or where there are none anyway.
func withoutZoneFiles(t *testing.T, cmd *exec.Cmd) *exec.Cmd {
	t.Helper()
	const files = "/usr/share/zoneinfo"
	if _, err := os.Stat(files); os.IsNotExist(err) {
		return cmd
	}
	const hide = "mount -t tmpfs none " + files
	if err := exec.Command("unshare", "-Urm", "sh", "-c", hide).Run(); err != nil {
		lacking(t, fmt.Errorf("%s cannot be hidden: unshare: %w", files, err))
	}
	hidden := exec.Command("unshare", append([]string{"-Urm", "sh", "-c", hide + ` && exec "$@"`, "sh"}, cmd.Args...)...)
	hidden.Env = cmd.Env
	return hidden
}
