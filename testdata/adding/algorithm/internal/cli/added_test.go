package cli

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// TestAdded: the command line and the admin API know clock_window, and keys are limited
// by it, also after the store was opened again.
func TestAdded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	now := time.Date(2026, 11, 21, 12, 0, 59, 900_000_000, time.UTC)
	clock := func() time.Time { return now }
	type step struct {
		after   time.Duration
		outcome keyring.Outcome
		wait    int64
	}
	var raw string
	verify := func(t *testing.T, keys *keyring.Service, steps ...step) {
		t.Helper()
		for _, s := range steps {
			now = now.Add(s.after)
			d, err := keys.Verify(t.Context(), raw, &keyring.Request{Cost: 1})
			if err != nil || d.Outcome != s.outcome || d.Wait != s.wait {
				t.Errorf("%s: %q, wait %d, %v", now.Format(time.StampMilli), d.Outcome.Code(), d.Wait, err)
			}
		}
	}
	t.Run("first", func(t *testing.T) {
		p, keys := serve(t, path, clock)
		if help, _, err := p.run("", "create", "--help"); err != nil || !strings.Contains(help, "clock_window") {
			t.Errorf("the help lacks clock_window, %v:\n%s", err, help)
		}
		created, _, err := p.run("", "create", "--owner", "alice", "--rate-limit", "2/1m", "--rate-limit-algorithm", "clock_window")
		if err != nil {
			t.Fatal(err)
		}
		raw = strings.TrimSpace(created)
		list, err := (&admin.Client{Base: p.URL}).ListKeys(t.Context(), admin.ListKeys{})
		if err != nil || len(list.Value.Keys) != 1 || list.Value.Keys[0].RateLimitAlgorithm != "clock_window" {
			t.Fatalf("%+v, %v", list.Value, err)
		}
		verify(t, keys,
			step{0, keyring.Allowed, 0},
			step{50 * time.Millisecond, keyring.Allowed, 0},
			step{49 * time.Millisecond, keyring.RateLimited, 1},
			step{time.Millisecond, keyring.Allowed, 0}, // 12:01
			step{time.Millisecond, keyring.Allowed, 0},
		)
	})
	t.Run("opened again", func(t *testing.T) {
		_, keys := serve(t, path, clock)
		verify(t, keys, step{time.Millisecond, keyring.RateLimited, 59_998}, step{59_998 * time.Millisecond, keyring.Allowed, 0})
	})
}
