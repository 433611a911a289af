//go:build unix

package e2e

import (
	"database/sql"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// hammer sends requests over so many connections, one after the other on each, until end is
// called. raw tells the key of the next one, and answered is told of each answer.
func (l life) hammer(connections int, raw func() string, answered func(lifeAnswer)) (end func()) {
	var stop atomic.Bool
	var work sync.WaitGroup
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: connections}}
	for range connections {
		work.Go(func() {
			for !stop.Load() {
				a, err := l.try(client, "/", raw())
				if err != nil {
					l.t.Error(err)
					return
				}
				answered(a)
			}
		})
	}
	end = sync.OnceFunc(func() {
		stop.Store(true)
		work.Wait()
		client.CloseIdleConnections()
	})
	l.t.Cleanup(end)
	return end
}

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
	end := s.hammer(64, func() string { return raws[int(next.Add(1))*7%len(raws)] }, func(a lifeAnswer) {
		if a.status == http.StatusServiceUnavailable {
			unavailable.Add(1)
		}
		answered.Add(1)
	})
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
	end()
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
			end := s.hammer(8, func() string { return k.Raw }, func(a lifeAnswer) {
				if a.status == http.StatusOK {
					passed.Add(1)
				}
			})
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
			end()
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

// TestF6_slowStore: while each look-up in the store takes long, keys that are in memory are let
// in, and all others are told to come again long before the store answers. What waits is
// bounded, and all is as before once the store is.
func TestF6_slowStore(t *testing.T) {
	full(t)
	tool(t, "strace")
	const delay, connections, answers = time.Minute, 32, 400
	db := filepath.Join(t.TempDir(), "a.db")
	s := startLife(t, lifeConfig(db))
	warm := s.create()
	s.wants(warm.Raw, 200, "")
	cold := make([]string, 100)
	for i := range cold {
		cold[i] = s.create().Raw
	}
	before := s.goroutines()
	// SQLite begins each transaction with a lock.
	end := s.attach("-o", os.DevNull, "-P", db+"-shm", "-e", "trace=fcntl", "-e", fmt.Sprintf("inject=fcntl:delay_enter=%d", delay.Microseconds()))
	var next, known, others atomic.Int64
	ends := []func(){
		s.hammer(connections/2, func() string { return warm.Raw }, func(a lifeAnswer) {
			if known.Add(1); a.status != 200 {
				t.Errorf("a key that is in memory: %v", a)
			}
		}),
		s.hammer(connections/2, func() string { return cold[int(next.Add(1))%len(cold)] }, func(a lifeAnswer) {
			if others.Add(1); a.status != 503 || a.header.Get("Retry-After") == "" {
				t.Errorf("a key that is not in memory: %v, %v", a, a.header)
			}
		}),
	}
	began := time.Now()
	most := 0
	eventually(t, "requests are answered", func() bool {
		most = max(most, s.goroutines())
		return known.Load() >= answers && others.Load() >= answers
	})
	if took := time.Since(began); took >= delay {
		t.Errorf("%d answers took %v, as long as the store", answers, took)
	}
	for _, end := range ends {
		end()
	}
	// A connection has two, and a third while it looks a key up.
	if most-before > 3*connections {
		t.Errorf("%d goroutines, %d before, with %d connections", most, before, connections)
	}
	end()
	for _, raw := range cold {
		s.wants(raw, 200, "")
	}
	eventually(t, "nothing is degraded", func() bool { metric, _ := s.parts(); return metric == nil })
	s.noPanic()
}
