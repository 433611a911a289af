package cli

import (
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
	"github.com/caddy-apikey/caddy-apikey/keyring"
	"github.com/caddy-apikey/caddy-apikey/store/sqlite"
)

// TestAdded: a key gets the algorithm on the command line, counts by it, and keeps its count
// when the store is opened again.
func TestAdded(t *testing.T) {
	opener, err := sqlite.New(sqlite.Options{Path: filepath.Join(t.TempDir(), "keys.db")})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 21, 12, 0, 30, 0, time.UTC)
	clock := func() time.Time { return now }
	open := func() (*keyring.Service, func()) {
		engine := keyring.New(opener, clock, func(err error) { t.Error(err) })
		if err := engine.Open(t.Context()); err != nil {
			t.Fatal(err)
		}
		return keyring.NewService(engine, &keyring.Settings{Rules: keyring.DefaultRules()}), func() { _ = engine.Close() }
	}
	keys, done := open()
	p := &peer{Server: httptest.NewServer(admin.New(func() (*keyring.Service, error) { return keys, nil }, admin.Info{}))}
	defer p.Close()
	if _, _, err := p.run("", "create", "--owner", "alice", "--rate-limit", "3/1m", "--rate-limit-algorithm", "aligned_window", "--rate-limit-enabled"); err != nil {
		t.Fatal(err)
	}
	client := &admin.Client{Base: p.URL}
	list, err := client.ListKeys(t.Context(), admin.ListKeys{})
	if err != nil || len(list.Value.Keys) != 1 || list.Value.Keys[0].RateLimitAlgorithm != "aligned_window" {
		t.Fatalf("%+v, %v", list.Value.Keys, err)
	}
	issued, err := client.RotateKey(t.Context(), list.Value.Keys[0].ID, admin.RotateKey{})
	if err != nil {
		t.Fatal(err)
	}
	pass := func() (n int) {
		for range 5 {
			d, err := keys.Verify(t.Context(), issued.Value.Raw, &keyring.Request{Cost: 1})
			if err != nil {
				t.Fatal(err)
			}
			if d.Outcome == keyring.Allowed {
				n++
			}
		}
		return n
	}
	for _, step := range []struct {
		after time.Duration
		pass  int
	}{{0, 3}, {29 * time.Second, 0}, {time.Second, 3}, {59 * time.Second, 0}} {
		now = now.Add(step.after)
		if n := pass(); n != step.pass {
			t.Errorf("at %s: %d pass, want %d", now.Format(time.TimeOnly), n, step.pass)
		}
	}
	done()
	keys, done = open()
	defer done()
	if n := pass(); n != 0 {
		t.Errorf("%d pass after the store was opened again", n)
	}
}
