package cli

import (
	"net/http/httptest"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
	"github.com/caddy-apikey/caddy-apikey/keyring"
	"github.com/caddy-apikey/caddy-apikey/store/sqlite"
)

// serve opens a store, until the test ends, and returns the admin API of its keys, and
// the keys.
func serve(t *testing.T, path string, now func() time.Time) (*peer, *keyring.Service) {
	t.Helper()
	opener, err := sqlite.New(sqlite.Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	engine := keyring.New(opener, now, func(err error) { t.Error(err) })
	if err := engine.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	})
	keys := keyring.NewService(engine, &keyring.Settings{Rules: keyring.DefaultRules()})
	p := &peer{Server: httptest.NewServer(admin.New(func() (*keyring.Service, error) { return keys, nil }, admin.Info{}))}
	t.Cleanup(p.Close)
	return p, keys
}
