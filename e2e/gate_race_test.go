package e2e

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
)

// runners are clients with a connection each, half of them HTTP/1.1 and half
// HTTP/2, and all that is sent by them together.
type runners [256]*http.Client

func newRunners(t testing.TB) *runners {
	r := new(runners)
	for i := range r {
		p := new(http.Protocols)
		p.SetHTTP1(i%2 == 0)
		p.SetUnencryptedHTTP2(i%2 == 1)
		transport := &http.Transport{Protocols: p, MaxConnsPerHost: 1}
		r[i] = &http.Client{Transport: transport, Timeout: testTimeout}
		t.Cleanup(transport.CloseIdleConnections)
	}
	return r
}

// race sends so many requests with one key and returns how many were let in, and
// how many of those over HTTP/2.
func (r *runners) race(t testing.TB, url, raw string, requests int) (passed, overH2 int64) {
	t.Helper()
	var all, h2 atomic.Int64
	var work sync.WaitGroup
	for _, c := range r {
		work.Go(func() {
			for range requests / len(r) {
				req, _ := http.NewRequest(http.MethodGet, url, nil)
				req.Header.Set("X-API-Key", raw)
				resp, err := c.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				io.Copy(io.Discard, resp.Body) //nolint:errcheck // the status is enough
				resp.Body.Close()
				switch {
				case resp.StatusCode == http.StatusOK && resp.ProtoMajor == 2:
					h2.Add(1)
					fallthrough
				case resp.StatusCode == http.StatusOK:
					all.Add(1)
				case resp.StatusCode != http.StatusTooManyRequests:
					t.Errorf("status %d", resp.StatusCode)
				}
			}
		})
	}
	work.Wait()
	return all.Load(), h2.Load()
}

const raceSite = `{
	servers {
		protocols h1 h2c
	}
}
{$SITE} {
	vars cost {query.cost}
	apikey {
		cost {vars.cost}
	}
	respond ok
}
`

type lastCredits struct {
	credits, cost int64
	warm          bool
	key           made
}

func (x *lastCredits) String() string {
	return fmt.Sprintf("%d by %d, warm %v", x.credits, x.cost, x.warm)
}

// TestK1_LastCredits races for the last credits of keys, over 256 connections of
// two protocols, with keys that nobody has used since the start of the server and
// such that are in memory. Exactly those requests pass that there are credits for.
func TestK1_LastCredits(t *testing.T) {
	full(t)
	s := startGate(t, raceSite)
	var tests []*lastCredits
	for range times(1, 4) { // 64 races
		for i := range 16 {
			x := &lastCredits{credits: []int64{1, 2, 999, 1000}[i%4], cost: []int64{1, 7}[i/4%2], warm: i >= 8}
			x.key = s.create(map[string]any{"remaining": x.credits})
			tests = append(tests, x)
		}
	}
	s.kill()
	s.start()
	s.settled()
	clients, both := newRunners(t), int64(0)
	for _, x := range tests {
		if x.warm {
			s.admin("POST", "/apikey/verify", map[string]any{"key": x.key.Raw, "dryRun": true}, http.StatusOK, nil)
		}
		passed, overH2 := clients.race(t, fmt.Sprintf("%s/?cost=%d", s.URL, x.cost), x.key.Raw, times(1280, 10_240))
		if want := x.credits / x.cost; passed != want {
			t.Errorf("%s: %d passed, want %d", x, passed, want)
		}
		if left := s.left(x.key.ID); left != x.credits-passed*x.cost {
			t.Errorf("%s: %d remain", x, left)
		}
		if overH2 > 0 && overH2 < passed {
			both++
		}
	}
	if both == 0 {
		t.Error("the protocols were not mixed")
	}
}
