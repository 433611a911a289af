package bench

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/keyring"
	"github.com/caddy-apikey/caddy-apikey/store/sqlite"
)

// BenchmarkVerifyUnobserved is BenchmarkVerify without metrics. The difference is what they
// cost a decision.
func BenchmarkVerifyUnobserved(b *testing.B) {
	b.ReportAllocs()
	opener, err := sqlite.New(sqlite.Options{Path: filepath.Join(b.TempDir(), "keys.db")})
	if err != nil {
		b.Fatal(err)
	}
	engine := keyring.New(opener, time.Now, func(err error) { b.Error(err) })
	if err := engine.Open(context.Background()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := engine.Close(); err != nil {
			b.Error(err)
		}
	})
	keys := keyring.NewService(engine, &keyring.Settings{Rules: keyring.DefaultRules()})
	raw := create(b, keys, alice)
	for b.Loop() {
		if outcome := verify(b, keys, raw); outcome != keyring.Allowed {
			b.Fatal(outcome.Code())
		}
	}
}
