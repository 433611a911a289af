package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
)

func (s *server) keyUsage(id string, days int64) admin.Usage {
	s.t.Helper()
	client := &admin.Client{HTTP: s.adminClient(), Base: s.Admin}
	a, err := client.KeyUsage(s.t.Context(), id, admin.UsageQuery{Days: &days})
	if err != nil {
		s.t.Fatal(err)
	}
	return a.Value
}

// TestT4_days_on_time: over HTTP, days and months begin at midnight in the zone
// that is configured, also around the days of 23 and 25 hours.
func TestT4_days_on_time(t *testing.T) {
	full(t)
	const second, hour = time.Second, time.Hour
	for _, test := range []struct {
		zone, midnight string // a local midnight
		steps          []time.Duration
		days, month    string // allowed on the last days, and in the month
	}{
		{"UTC", "2028-03-01T00:00:00Z", []time.Duration{-30 * second, 0, 24*hour - 30*second, 24 * hour}, "1 2 1", "3"},
		{"Asia/Kathmandu", "2027-05-31T18:15:00Z", []time.Duration{-30 * second, 0, 24*hour - 30*second, 24 * hour}, "1 2 1", "3"},
		// From 14 March 2027, 23 hours; and from 7 November 2027, 25 hours.
		{"America/New_York", "2027-03-14T05:00:00Z", []time.Duration{-30 * second, 0, 23*hour - 30*second, 23 * hour}, "1 2 1", "4"},
		{"America/New_York", "2027-11-07T04:00:00Z", []time.Duration{-30 * second, 0, 24 * hour, 25*hour - 30*second, 25 * hour}, "1 3 1", "5"},
	} {
		t.Run(test.zone+" "+test.midnight, func(t *testing.T) {
			s := startCaddy(t, "{\n\tapikey {\n\t\ttime_zone "+test.zone+"\n\t}\n}\n"+gatedSite, withTestClock())
			midnight, err := time.Parse(time.RFC3339, test.midnight)
			if err != nil {
				t.Fatal(err)
			}
			s.setTime(midnight.Add(-time.Hour))
			id, raw := s.make(admin.CreateKey{})
			for _, step := range test.steps {
				s.setTime(midnight.Add(step))
				s.want(raw, 1, 1, 0)
			}
			u := s.keyUsage(id, 3)
			days := fmt.Sprint(u.Days[0].Allowed, u.Days[1].Allowed, u.Days[2].Allowed)
			if month := fmt.Sprint(u.Usage.Month); days != test.days || month != test.month {
				t.Errorf("days %s, want %s; month %s, want %s; %+v", days, test.days, month, test.month, u.Days)
			}
		})
	}
}

// TestK11_gates_over_HTTP: what gates refuse is counted, also where a request
// meets several of them.
func TestK11_gates_over_HTTP(t *testing.T) {
	full(t)
	s := startCaddy(t, `{$SITE} {
	route /two {
		apikey
		apikey {
			require files:read
		}
		respond ok
	}
	route /retry {
		apikey files:read {
			keep_key
		}
		respond ok
	}
	apikey
	respond ok
	handle_errors {
		apikey {
			keep_key
		}
		respond "sorry" 403
	}
}
`)
	id, raw := s.make(admin.CreateKey{})
	for path, n := range map[string]int{"/": 1, "/two": 2, "/retry": 4} {
		for range n {
			req, err := http.NewRequest("GET", s.URL+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("X-API-Key", raw)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
		}
	}
	if d := s.keyUsage(id, 1).Days[0]; d.Allowed != 1 || d.Denied != 6 || d.Limited != 0 {
		t.Errorf("%+v", d)
	}
}

// TestK11_clean_stop_of_a_server: what a real server has counted is there after a
// reload and after a clean stop, to the last request.
func TestK11_clean_stop_of_a_server(t *testing.T) {
	full(t)
	s := startCaddy(t, gatedSite)
	id, raw := s.make(admin.CreateKey{})
	for round := int64(1); round <= 3; round++ {
		s.want(raw, 100, 100, 0)
		if round == 2 {
			s.reload(gatedSite)
		} else {
			if code := s.stop(syscall.SIGTERM); code != 0 {
				t.Errorf("exit status %d", code)
			}
			s.start()
		}
		if u := s.keyUsage(id, 2); u.Usage.Today+u.Days[0].Allowed != 100*round {
			t.Fatalf("%+v after %d requests", u.Days, 100*round)
		}
	}
}

// TestK11_kill: a crash loses what was counted in the last second at most, and
// never counts too many.
func TestK11_kill(t *testing.T) {
	full(t)
	s := startCaddy(t, gatedSite)
	id, raw := s.make(admin.CreateKey{})
	var safe, sent int64 // requests that must be there, and all that may be
	for round := range 4 {
		begun, answered := s.load(raw, time.Duration(1500+round*330)*time.Millisecond)
		s.start()
		u := s.keyUsage(id, 2)
		got := u.Days[0].Allowed + u.Days[1].Allowed
		if got < safe+answered || got > sent+begun {
			t.Errorf("round %d: %d are counted, of %d to %d", round, got, safe+answered, sent+begun)
		}
		// What is there now stays: the next round counts from it.
		safe, sent = got, got
	}
}

// load sends requests until the server is killed after d. It returns how many
// were begun, and how many had been answered a second before the end, and so much
// longer as this machine was late meanwhile.
func (s *server) load(raw string, d time.Duration) (begun, answered int64) {
	s.t.Helper()
	late := lateness(s.t)
	var all atomic.Int64
	var mu sync.Mutex
	var times []time.Time
	var work sync.WaitGroup
	for range 8 {
		work.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for {
				req, err := http.NewRequest("GET", s.URL, nil)
				if err != nil {
					s.t.Error(err)
					return
				}
				req.Header.Set("X-API-Key", raw)
				all.Add(1)
				resp, err := client.Do(req)
				if err != nil {
					return
				}
				io.Copy(io.Discard, resp.Body) //nolint:errcheck // it may be cut
				resp.Body.Close()
				if resp.StatusCode != 200 {
					s.t.Errorf("status %d", resp.StatusCode)
				}
				mu.Lock()
				times = append(times, time.Now())
				mu.Unlock()
			}
		})
	}
	time.Sleep(d) // the load is the condition
	killed := time.Now()
	s.kill()
	work.Wait()
	slack := 300*time.Millisecond + 4*late()
	for _, at := range times {
		if at.Before(killed.Add(-time.Second - slack)) {
			answered++
		}
	}
	return all.Load(), answered
}

// lateness watches how much later than asked for this machine does things: what the
// server does every second begins when it is given a processor, and ends when the
// disk has what it writes. The function that is returned ends that, and returns the
// longest delay.
func lateness(t testing.TB) func() time.Duration {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "late"))
	if err != nil {
		t.Fatal(err)
	}
	stop, most := make(chan struct{}), make(chan time.Duration)
	go func() {
		defer f.Close()
		longest := time.Duration(0)
		for {
			began := time.Now()
			select {
			case <-stop:
				most <- longest
				return
			case <-time.After(pollEvery):
			}
			if _, err := f.WriteAt(make([]byte, 4096), 0); err != nil {
				t.Error(err)
			}
			if err := f.Sync(); err != nil {
				t.Error(err)
			}
			longest = max(longest, time.Since(began)-pollEvery)
		}
	}()
	return func() time.Duration {
		close(stop)
		return <-most
	}
}

// TestUsageCommand reads the usage from the command line.
func TestUsageCommand(t *testing.T) {
	full(t)
	s := startCaddy(t, gatedSite)
	id, raw := s.make(admin.CreateKey{})
	s.want(raw, 3, 3, 0)
	for _, args := range [][]string{{id}, {"--owner", "alice"}, {id, "--days", "2"}} {
		r := s.run(append([]string{"apikey", "usage"}, args...)...)
		last := strings.Fields(strings.Split(strings.TrimSpace(r.stdout), "\n\n")[1])
		if r.code != 0 || r.stderr != "" || !strings.Contains(r.stdout, "Today:       3\n") || !strings.HasPrefix(last[len(last)-1], "####") {
			t.Errorf("%v: exit status %d\n%s%s", args, r.code, r.stdout, r.stderr)
		}
		for line := range strings.Lines(r.stdout) {
			if len(line) > 81 || strings.Contains(line, "\x1b") {
				t.Errorf("%q", line)
			}
		}
	}
	r := s.run("apikey", "usage", "--owner", "alice", "--days", "1", "--json")
	if _, body := adminGet(t, s, "GET", "/apikey/owners/alice/usage?days=1"); r.stdout != body {
		t.Errorf("got %s want %s", r.stdout, body)
	}
	for _, test := range []struct {
		args []string
		code int
	}{
		{nil, 2},
		{[]string{id, "--owner", "alice"}, 2},
		{[]string{id, "x"}, 2},
		{[]string{id, "--days", "x"}, 2},
		{[]string{id, "--days", "0"}, 1},
		{[]string{"nosuch"}, 1},
		{[]string{"--owner", "nobody"}, 1},
	} {
		if r := s.run(append([]string{"apikey", "usage"}, test.args...)...); r.code != test.code || r.stdout != "" || r.stderr == "" {
			t.Errorf("%v: exit status %d, want %d\n%s%s", test.args, r.code, test.code, r.stdout, r.stderr)
		}
	}
}

// TestK12_kill: a crash gives a key at most one more maximum in its window, and
// none once the counters were written; a reload gives none.
func TestK12_kill(t *testing.T) {
	full(t)
	s := startCaddy(t, gatedSite)
	most, hour := int64(20), int64(3_600_000)
	id, raw := s.make(admin.CreateKey{RateLimitMax: &most, RateLimitTimeWindow: &hour})
	s.want(raw, 25, 20, 429)
	s.reload(gatedSite)
	s.want(raw, 25, 0, 429)
	s.kill()
	s.start()
	if extra, _ := s.passes(raw, 25); extra > 20 {
		t.Errorf("%d more requests passed after a crash", extra)
	}
	client := &admin.Client{HTTP: s.adminClient(), Base: s.Admin}
	window := func() int64 {
		k, err := client.Key(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		return k.Value.RequestCount
	}
	if n := window(); n != 20 {
		t.Errorf("%d requests in the window", n)
	}
	s.stop(syscall.SIGTERM) // which writes the counters
	s.start()
	s.want(raw, 25, 0, 429)
}
