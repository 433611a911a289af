package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
)

// setClock shifts the clock of a server that was started withTestClock.
func (s *server) setClock(offset time.Duration) time.Time {
	s.t.Helper()
	resp, err := s.adminClient().Post(s.Admin+"/apikey/clock", "application/json", strings.NewReader(fmt.Sprintf(`{"offsetMs":%d}`, offset.Milliseconds())))
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	var a struct {
		OffsetMs int64
		Now      time.Time
	}
	if err := json.NewDecoder(resp.Body).Decode(&a); err != nil || resp.StatusCode != 200 || a.OffsetMs != offset.Milliseconds() {
		s.t.Fatalf("shifting the clock: %d %+v %v", resp.StatusCode, a, err)
	}
	return a.Now
}

// setTime lets the server's clock go on from a moment.
func (s *server) setTime(at time.Time) {
	s.t.Helper()
	s.setClock(time.Until(at) + time.Millisecond) // offsets are cut to milliseconds
}

// TestClockIsAbsent: the binary that is shipped knows nothing of the test clock.
func TestClockIsAbsent(t *testing.T) {
	full(t)
	traces := []string{"offsetMs", "serveTestClock", "testClockOffset"}
	for _, test := range []struct {
		name  string
		path  string
		wants bool
	}{{"shipped", buildCaddy(t), false}, {"tagged", buildClockCaddy(t), true}} {
		text, err := os.ReadFile(test.path)
		if err != nil {
			t.Fatal(err)
		}
		symbols, err := exec.Command("go", "tool", "nm", test.path).Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, trace := range traces {
			if got := bytes.Contains(text, []byte(trace)); got != test.wants {
				t.Errorf("%s binary: %s is in it: %v", test.name, trace, got)
			}
		}
		if got := strings.Contains(string(symbols), "serveTestClock"); got != test.wants {
			t.Errorf("%s binary: there is a symbol: %v", test.name, got)
		}
	}
	s := startCaddy(t, gatedSite)
	resp, body := adminGet(t, s, "POST", "/apikey/clock")
	other, otherBody := adminGet(t, s, "POST", "/apikey/nosuch")
	if resp.StatusCode != 404 || other.StatusCode != 404 || body != otherBody {
		t.Errorf("the shipped binary answers %d %s, to another path %d %s", resp.StatusCode, body, other.StatusCode, otherBody)
	}
}

func TestClockShifts(t *testing.T) {
	full(t)
	s := startCaddy(t, gatedSite, withTestClock())
	for _, offset := range []time.Duration{0, time.Hour, -time.Hour, 10 * 365 * 24 * time.Hour, -time.Duration(time.Now().UnixNano()) + time.Hour, 5 * time.Millisecond} {
		want := time.Now().Add(offset)
		if got := s.setClock(offset); got.Sub(want) < -time.Second || got.Sub(want) > 10*time.Second {
			t.Errorf("offset %v: it is %v, want %v", offset, got, want)
		}
	}
	for _, body := range []string{"", "{}", `{"offsetMs":null}`, `{"offsetMs":1.5}`, `{"offsetMs":"1"}`, `{"offset":1}`, `{"offsetMs":9223372036854775807}`, `{"offsetMs":-9223372036854775808}`} {
		resp, err := http.Post(s.Admin+"/apikey/clock", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 400 {
			t.Errorf("%s: %d", body, resp.StatusCode)
		}
	}
	if resp, _ := adminGet(t, s, "GET", "/apikey/clock"); resp.StatusCode != 404 {
		t.Errorf("GET: %d", resp.StatusCode)
	}
}

// make makes a key and returns its ID and the raw key.
func (s *server) make(in admin.CreateKey) (id, raw string) {
	s.t.Helper()
	if in.UserID == "" {
		in.UserID = "alice"
	}
	client := &admin.Client{HTTP: s.adminClient(), Base: s.Admin}
	made, err := client.CreateKey(s.t.Context(), in)
	if err != nil {
		s.t.Fatal(err)
	}
	return made.Value.ID, made.Value.Raw
}

// passes sends n requests, and returns how many of them were let in, and the
// last refusal.
func (s *server) passes(raw string, n int) (passed int, refusal *http.Response) {
	s.t.Helper()
	for range n {
		req, err := http.NewRequest("GET", s.URL, nil)
		if err != nil {
			s.t.Fatal(err)
		}
		req.Header.Set("X-API-Key", raw)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			s.t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode == 200 {
			passed++
		} else {
			refusal = resp
		}
	}
	return passed, refusal
}

// want sends n requests, of which some must be let in and the others refused.
func (s *server) want(raw string, n, passed, refusal int) *http.Response {
	s.t.Helper()
	got, resp := s.passes(raw, n)
	if got != passed || resp != nil && resp.StatusCode != refusal {
		s.t.Errorf("%d of %d requests passed, want %d; refusal %+v", got, n, passed, resp)
	}
	return resp
}

// wantRetryAfter checks that a refusal says to wait about that long.
func wantRetryAfter(t *testing.T, resp *http.Response, want time.Duration) {
	t.Helper()
	if resp == nil {
		return
	}
	n, err := strconv.Atoi(resp.Header.Get("Retry-After"))
	if got := time.Duration(n) * time.Second; err != nil || got > want || got < want-20*time.Second {
		t.Errorf("Retry-After %q, want about %v", resp.Header.Get("Retry-After"), want)
	}
}

// TestK7_refill_on_time: over HTTP, credits come back at the instant of the
// refill, once per interval, however many intervals nobody came.
func TestK7_refill_on_time(t *testing.T) {
	full(t)
	s := startCaddy(t, gatedSite, withTestClock())
	none, five, hour := int64(0), int64(5), int64(3_600_000)
	_, raw := s.make(admin.CreateKey{Remaining: &none, RefillAmount: &five, RefillInterval: &hour})
	wantRetryAfter(t, s.want(raw, 1, 0, 429), time.Hour)
	s.setClock(time.Hour - 30*time.Second)
	wantRetryAfter(t, s.want(raw, 1, 0, 429), 30*time.Second)
	s.setClock(time.Hour)
	s.want(raw, 8, 5, 429)
	s.setClock(2*time.Hour - 30*time.Second)
	s.want(raw, 1, 0, 429)
	s.setClock(7*time.Hour + 30*time.Minute) // five intervals later: one refill, still on the grid
	wantRetryAfter(t, s.want(raw, 8, 5, 429), 30*time.Minute)
	s.setClock(8 * time.Hour)
	s.want(raw, 8, 5, 429)
}

// TestK8_window_on_time: over HTTP, a window is full to its end and empty after it.
func TestK8_window_on_time(t *testing.T) {
	full(t)
	s := startCaddy(t, gatedSite, withTestClock())
	three, hour := int64(3), int64(3_600_000)
	_, raw := s.make(admin.CreateKey{RateLimitMax: &three, RateLimitTimeWindow: &hour})
	wantRetryAfter(t, s.want(raw, 5, 3, 429), time.Hour)
	s.setClock(time.Hour - 30*time.Second)
	wantRetryAfter(t, s.want(raw, 2, 0, 429), 30*time.Second)
	s.setClock(time.Hour)
	s.want(raw, 5, 3, 429)
	s.setClock(5 * time.Hour)
	s.want(raw, 5, 3, 429)
}

// TestT1_expiry_on_time: over HTTP, a key works until its time and never again
// once it was seen expired, whatever the clock does then.
func TestT1_expiry_on_time(t *testing.T) {
	full(t)
	s := startCaddy(t, gatedSite, withTestClock())
	hour := int64(3600)
	_, raw := s.make(admin.CreateKey{ExpiresIn: &hour})
	s.setClock(time.Hour - 30*time.Second)
	s.want(raw, 1, 1, 0)
	s.setClock(time.Hour)
	s.want(raw, 1, 0, 401)
	s.setClock(0)
	s.want(raw, 1, 0, 401)
}
