package sqlite

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

var (
	benchKeys   = flag.Int("keys", 20_000, "how many keys are stored in benchmarks")
	noPageCache = flag.Bool("nopagecache", false, "leave page caches to SQLite's allocator in benchmarks")
)

// benchStore makes a database of many keys.
func benchStore(b *testing.B) *Store {
	if *noPageCache {
		preparePageCache = func() bool { return false }
	}
	o, err := New(Options{Path: filepath.Join(b.TempDir(), "keys.db")})
	if err != nil {
		b.Fatal(err)
	}
	opened, err := o.Open(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = opened.Close() })
	for from := 0; from < *benchKeys; from += 1000 {
		var batch []store.Entry
		for i := from; i < min(from+1000, *benchKeys); i++ {
			k := testKey(i)
			name, prefix, start := fmt.Sprint("server ", i), "ak_", fmt.Sprintf("ak_%09d", i)
			k.UserID, k.Name, k.Prefix, k.Start, k.Checksummed = fmt.Sprint("user_", i/10), &name, &prefix, &start, true
			k.Permissions, k.Metadata = key.Permissions{"files": {"read", "write"}}, []byte(`{"plan":"pro","seats":5}`)
			k.RateLimitEnabled, k.RateLimitMax, k.RateLimitTimeWindow = true, 1000, 60_000
			batch = append(batch, store.Entry{Key: k, LastRequest: now})
		}
		if _, err := opened.Import(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
	}
	return opened.(*Store)
}

// commits makes so many commits a second until the benchmark ends.
func commits(b *testing.B, s *Store, each time.Duration) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for t := time.NewTicker(each); ; {
			select {
			case <-done:
				t.Stop()
				return
			case <-t.C:
				if err := s.SaveCounters(b.Context(), []store.Counters{{Subject: store.OfKey(testKey(rand.IntN(*benchKeys)).ID), LastRequest: now}}); err != nil {
					b.Error(err)
				}
			}
		}
	}()
	return func() { close(done); <-ended }
}

// BenchmarkFind compares a look-up with the least that SQLite can do, alone and
// beside 100 commits a second:
//
//	go test ./store/sqlite -run - -bench Find -keys 1000000 [-nopagecache]
func BenchmarkFind(b *testing.B) {
	s := benchStore(b)
	bare, err := s.readers.db.Prepare("SELECT doc FROM keys WHERE hash = ?")
	if err != nil {
		b.Fatal(err)
	}
	defer bare.Close()
	hashes := make([]key.Hash, *benchKeys)
	for i := range hashes {
		hashes[i] = testKey(i).Hash
	}
	ways := []struct {
		name string
		look func(key.Hash) error
	}{
		{"bare", func(h key.Hash) error {
			var doc string
			return bare.QueryRow(h[:]).Scan(&doc)
		}},
		{"Find", func(h key.Hash) error {
			_, err := s.Find(b.Context(), h)
			return err
		}},
	}
	for _, beside := range []int{0, 100} {
		b.Run(fmt.Sprintf("commits=%d", beside), func(b *testing.B) {
			if beside > 0 {
				defer commits(b, s, time.Second/time.Duration(beside))()
			}
			// In turns, because machines are not equally fast all the time.
			const turn = 50
			spent := make([]time.Duration, len(ways))
			n := 0
			for b.Loop() {
				for i, way := range ways {
					began := time.Now()
					for range turn {
						if err := way.look(hashes[rand.IntN(len(hashes))]); err != nil {
							b.Fatal(err)
						}
					}
					spent[i] += time.Since(began)
				}
				n += turn
			}
			for i, way := range ways {
				b.ReportMetric(float64(spent[i].Nanoseconds())/float64(n), way.name+"-ns")
			}
			b.ReportMetric(float64(spent[1])/float64(spent[0]), "ratio")
		})
	}
	b.Run("allocations", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := ways[1].look(hashes[rand.IntN(len(hashes))]); err != nil {
				b.Fatal(err)
			}
		}
	})
}
