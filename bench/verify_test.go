package bench

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// verify makes one request and returns its outcome.
func verify(b *testing.B, keys *keyring.Service, raw string) keyring.Outcome {
	d, err := keys.Verify(context.Background(), raw, &keyring.Request{Cost: 1})
	if err != nil {
		b.Fatal(err)
	}
	return d.Outcome
}

func measureVerify(b *testing.B, config object, draft keyring.Draft) {
	b.Helper()
	b.ReportAllocs()
	_, keys, _ := service(b, config, filepath.Join(b.TempDir(), "keys.db"))
	raw := create(b, keys, draft)
	for b.Loop() {
		if outcome := verify(b, keys, raw); outcome != keyring.Allowed {
			b.Fatal(outcome.Code())
		}
	}
}

// BenchmarkVerify is the decision alone.
func BenchmarkVerify(b *testing.B) { measureVerify(b, nil, alice) }

// BenchmarkVerifyRateLimit is the decision about a key with a rate limit.
func BenchmarkVerifyRateLimit(b *testing.B) {
	eachAlgorithm(b, func(b *testing.B, limited keyring.Draft) { measureVerify(b, nil, limited) })
}

// BenchmarkVerifyTiers adds three limits of a tier.
func BenchmarkVerifyTiers(b *testing.B) { measureVerify(b, tiers, limitedBy("fixed_window")) }

// BenchmarkVerifyLease takes leased credits.
func BenchmarkVerifyLease(b *testing.B) { measureVerify(b, lease, metered) }

// BenchmarkVerifyStrict takes credits from the store, for as many requests at a
// time as the name says. They share fsyncs.
func BenchmarkVerifyStrict(b *testing.B) {
	for _, n := range []int{1, 16, 64} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			_, keys, _ := service(b, nil, filepath.Join(b.TempDir(), "keys.db"))
			raw := create(b, keys, metered)
			verify(b, keys, raw)
			var left atomic.Int64
			left.Store(int64(b.N))
			b.ResetTimer()
			var wg sync.WaitGroup
			for range n {
				wg.Go(func() {
					for left.Add(-1) >= 0 {
						verify(b, keys, raw)
					}
				})
			}
			wg.Wait()
		})
	}
}

// BenchmarkVerifyCold is the first request of a key since the start of the
// process: it reads the record from the store.
func BenchmarkVerifyCold(b *testing.B) {
	const stock = 10_000
	b.ReportAllocs()
	path := filepath.Join(b.TempDir(), "keys.db")
	_, keys, stop := service(b, nil, path)
	raws := createMany(b, keys, stock)
	stop()
	_, keys, stop = service(b, nil, path)
	b.ResetTimer()
	for i := range b.N {
		if i > 0 && i%stock == 0 { // all have been used: forget them
			b.StopTimer()
			stop()
			_, keys, stop = service(b, nil, path)
			b.StartTimer()
		}
		if outcome := verify(b, keys, raws[i%stock]); outcome != keyring.Allowed {
			b.Fatal(outcome.Code())
		}
	}
}

// createMany makes keys, many at a time.
func createMany(b *testing.B, keys *keyring.Service, n int) []string {
	b.Helper()
	raws := make([]string, n)
	errs := make([]error, n)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 256 {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				issued, err := keys.As(keyring.Actor{Kind: keyring.ActorOperator}).Create(context.Background(), alice)
				raws[i], errs[i] = issued.Raw, err
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			b.Fatal(err)
		}
	}
	return raws
}
