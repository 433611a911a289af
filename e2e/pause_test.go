//go:build unix

package e2e

import (
	"net/http"
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
