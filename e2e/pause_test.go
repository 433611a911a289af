//go:build unix

package e2e

import (
	"database/sql"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestF6_paused: a process that is stopped for longer than a store may be silent, as a
// virtual machine is, does not take its store for silent afterwards.
func TestF6_paused(t *testing.T) {
	full(t)
	s := startLife(t, `{
	admin {$ADMIN}
	apikey {
		cache_size 1MiB
	}
}
{$SITE} {
	apikey
	respond ok
}
`)
	raws := make([]string, 3000) // more than memory holds
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Go(func() {
			for i := w; i < len(raws); i += 16 {
				raws[i] = s.create().Raw
			}
		})
	}
	wg.Wait()
	var next, unavailable, answered atomic.Int64
	end := make(chan struct{})
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	for range 64 {
		wg.Go(func() {
			for {
				select {
				case <-end:
					return
				default:
				}
				a, err := s.try(client, "/", raws[int(next.Add(1))*7%len(raws)])
				switch {
				case err != nil:
					t.Error(err)
					return
				case a.status == http.StatusServiceUnavailable:
					unavailable.Add(1)
				}
				answered.Add(1)
			}
		})
	}
	for range 8 {
		before := answered.Load()
		eventually(t, "requests are answered", func() bool { return answered.Load() > before+500 })
		if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		time.Sleep(600 * time.Millisecond) // how long it is stopped is what is tested
		if err := s.cmd.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
	}
	close(end)
	wg.Wait()
	if n := unavailable.Load(); n > 0 {
		t.Errorf("%d of %d answers are 503", n, answered.Load())
	}
}

// TestF7_paused: a process that is stopped while its credits refill wakes up to one refill, not
// to those that it missed, and nobody spends more than was granted.
func TestF7_paused(t *testing.T) {
	full(t)
	for _, credits := range []string{"strict", "lease 100"} {
		t.Run(credits, func(t *testing.T) {
			db := filepath.Join(t.TempDir(), "a.db")
			s := startLife(t, strings.Replace(lifeConfig(db), "apikey {\n", "apikey {\n\t\tcredits "+credits+"\n", 1))
			const refill = 50
			began := time.Now()
			k := s.create(`"remaining":50,"refillAmount":50,"refillInterval":1000`)
			var passed atomic.Int64
			var wg sync.WaitGroup
			end := make(chan struct{})
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
			for range 8 {
				wg.Go(func() {
					for {
						select {
						case <-end:
							return
						default:
						}
						if a, err := s.try(client, "/", k.Raw); err != nil {
							t.Error(err)
							return
						} else if a.status == http.StatusOK {
							passed.Add(1)
						}
					}
				})
			}
			spends := func(n int64) {
				before := passed.Load()
				eventually(t, "credits are spent", func() bool { return passed.Load() >= before+n })
			}
			spends(2 * refill)
			signal := func(sig syscall.Signal) {
				if err := s.cmd.Process.Signal(sig); err != nil {
					t.Fatal(err)
				}
			}
			signal(syscall.SIGSTOP)
			const paused = 4
			time.Sleep(paused * time.Second) // nobody can be asked meanwhile
			signal(syscall.SIGCONT)
			spends(2 * refill)
			close(end)
			wg.Wait()
			s.stop(syscall.SIGTERM)
			ran := time.Since(began) - paused*time.Second
			c, err := sql.Open("sqlite", db)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			var granted, spent, forfeited, left int64
			row := c.QueryRow(`SELECT granted, spent, forfeited, remaining FROM accounts`)
			if err := row.Scan(&granted, &spent, &forfeited, &left); err != nil {
				t.Fatal(err)
			}
			if granted != spent+forfeited+left || passed.Load() > spent || forfeited != 0 {
				t.Errorf("%d passed; %d granted, %d spent, %d forfeited, %d left", passed.Load(), granted, spent, forfeited, left)
			}
			// One refill a second while it ran, one for the time that it did not, and one for
			// the seconds that were begun.
			if most := refill * int64(3+ran/time.Second); granted > most {
				t.Errorf("%d were granted in %v of running, at most %d may be", granted, ran, most)
			}
		})
	}
}
