package sqlite

import (
	"database/sql"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

var noPageCache = flag.Bool("nopagecache", false, "leave page caches to SQLite's allocator in benchmarks")

// benchStore opens a database of many keys.
func benchStore(b *testing.B) *Store {
	if *noPageCache {
		preparePageCache = func() bool { return false }
	}
	preparePageCache() // before SQLite is used first
	o, err := New(Options{Path: manyKeys(b)})
	if err != nil {
		b.Fatal(err)
	}
	opened, err := o.Open(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = opened.Close() })
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

// BenchmarkFind compares a look-up with a bare prepared statement that reads the
// document, both by CPU time: alone, from 16 callers, and beside 100 commits a second.
//
//	go test ./store/sqlite -run - -bench Find -keys 1000000 -dir /tmp/keys [-nopagecache]
func BenchmarkFind(b *testing.B) {
	s := benchStore(b)
	bare, closeBare := bareLookUp(b, s.path)
	defer closeBare()
	hashes := make([]key.Hash, *benchKeys)
	for i := range hashes {
		hashes[i] = testKey(i).Hash
	}
	find := func(h key.Hash) error {
		_, err := s.Find(b.Context(), h)
		return err
	}
	for i := 0; i < min(*benchKeys, cachedOwners*benchKeysPerOwner); i += benchKeysPerOwner { // all owners have been seen
		if err := find(hashes[i]); err != nil {
			b.Fatal(err)
		}
	}
	for _, callers := range []int{1, 16} {
		for _, beside := range []int{0, 100} {
			b.Run(fmt.Sprintf("callers=%d/commits=%d", callers, beside), func(b *testing.B) {
				if beside > 0 {
					defer commits(b, s, time.Second/time.Duration(beside))()
				}
				const turn = 8000
				look := func(way func(key.Hash) error, callers int) time.Duration {
					return cpuOf(b, func() {
						var wg sync.WaitGroup
						for range callers {
							wg.Go(func() {
								for range turn / callers {
									if err := way(hashes[rand.IntN(len(hashes))]); err != nil {
										b.Error(err)
									}
								}
							})
						}
						wg.Wait()
					})
				}
				// In turns, because machines are not equally fast all the time.
				var alone, together, found time.Duration
				n := 0
				batches := s.lookups.batches.Load()
				for b.Loop() {
					alone += look(bare, 1)
					found += look(find, callers)
					together += look(bare, callers)
					n += turn
				}
				batches = s.lookups.batches.Load() - batches
				each := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / float64(n) }
				b.ReportMetric(each(alone), "bare-ns")
				b.ReportMetric(each(together), "bare-callers-ns")
				b.ReportMetric(each(found), "Find-ns")
				b.ReportMetric(float64(n)/float64(batches), "batch")
				b.ReportMetric(float64(found)/float64(alone), "ratio")
				b.ReportMetric(float64(found)/float64(together), "ratio-callers")
			})
		}
	}
	b.Run("allocations", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := find(hashes[rand.IntN(len(hashes))]); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// bareLookUp returns the least that database/sql and SQLite can do, with a connection
// for each reader of the store.
func bareLookUp(b *testing.B, path string) (look func(key.Hash) error, done func()) {
	db, err := sql.Open("sqlite", dsn(path, "_query_only=1", "_pragma=cache_size("+cacheSize()+")"))
	if err != nil {
		b.Fatal(err)
	}
	db.SetMaxOpenConns(finderCount)
	db.SetMaxIdleConns(finderCount)
	bare, err := db.Prepare("SELECT doc FROM keys WHERE hash = ?")
	if err != nil {
		b.Fatal(err)
	}
	look = func(h key.Hash) error {
		var doc string
		return bare.QueryRow(h[:]).Scan(&doc)
	}
	return look, func() { _ = bare.Close(); _ = db.Close() }
}

// cpuOf returns the CPU time that the process spends while f runs.
func cpuOf(b *testing.B, f func()) time.Duration {
	before := cpuTime(b)
	f()
	return cpuTime(b) - before
}

// BenchmarkEachHash compares the reading of all hashes with the same through database/sql.
func BenchmarkEachHash(b *testing.B) {
	s := benchStore(b)
	var plain, each time.Duration
	n := 0
	for b.Loop() {
		plain += cpuOf(b, func() {
			err := s.readRows(b.Context(), "reading hashes", `SELECT hash FROM {p}keys`, nil, func(rows *sql.Rows) error {
				var raw sql.RawBytes
				return rows.Scan(&raw)
			})
			if err != nil {
				b.Fatal(err)
			}
		})
		each += cpuOf(b, func() {
			if err := s.EachHash(b.Context(), func(key.Hash) { n++ }); err != nil {
				b.Fatal(err)
			}
		})
	}
	b.ReportMetric(float64(each.Nanoseconds())/float64(n), "ns/hash")
	b.ReportMetric(float64(each)/float64(plain), "ratio")
}

// BenchmarkFigures counts keys by state in the background, each key with credits, and ends
// with how many keys that is a second.
//
//	go test ./store/sqlite -run - -bench Figures -keys 1000000
func BenchmarkFigures(b *testing.B) {
	s := benchStore(b)
	err := s.write(b.Context(), func(w *writerConn) error {
		_, err := w.exec(`INSERT OR IGNORE INTO {p}accounts (subject, kind, unit, remaining, leased, held, debt, spent, forfeited, expired, granted, peak, version)
			SELECT num, 'key', 'requests', 100, 0, 0, 0, 0, 0, 0, 100, 100, 1 FROM {p}keys`)
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		f, err := s.Figures(b.Context(), now, []int64{now + 1})
		if err != nil || f.Active != int64(*benchKeys) {
			b.Fatalf("%+v, %v", f, err)
		}
	}
	b.ReportMetric(float64(*benchKeys*b.N)/b.Elapsed().Seconds(), "keys/s")
}

// BenchmarkOpen compares the opening of a database of many keys, until the first key is
// found, with that of an empty one.
func BenchmarkOpen(b *testing.B) {
	paths := []string{manyKeys(b), filepath.Join(b.TempDir(), "none.db")}
	preparePageCache()
	var took [2]time.Duration
	n := 0
	for b.Loop() {
		for i, path := range paths {
			took[i] += cpuOf(b, func() {
				o, err := New(Options{Path: path})
				if err != nil {
					b.Fatal(err)
				}
				s, err := o.Open(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				defer s.Close()
				if _, err := s.HasPlainKeys(b.Context()); err != nil {
					b.Fatal(err)
				}
				if _, err := s.Health(b.Context()); err != nil {
					b.Fatal(err)
				}
				_, _ = s.Find(b.Context(), testKey(77).Hash)
			})
		}
		n++
	}
	b.ReportMetric(float64(took[0].Microseconds())/float64(n), "many-us")
	b.ReportMetric(float64(took[1].Microseconds())/float64(n), "none-us")
}

// BenchmarkDebits takes credits for 64 callers at a time, from one key and from one each.
func BenchmarkDebits(b *testing.B) {
	const callers = 64
	for _, keys := range []int{1, callers} {
		b.Run(fmt.Sprintf("keys=%d", keys), func(b *testing.B) {
			o, err := New(Options{Path: filepath.Join(b.TempDir(), "keys.db")})
			if err != nil {
				b.Fatal(err)
			}
			opened, err := o.Open(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			defer opened.Close()
			many := int64(key.MaxCount)
			for i := range keys {
				if _, err := opened.Create(b.Context(), testKey(i), key.NewCredits(&many, 0, 0, now), store.KeyLimit{}, nil); err != nil {
					b.Fatal(err)
				}
			}
			old := time.Now().Add(-time.Hour) // as a folder is that nobody has changed just now
			if err := os.Chtimes(filepath.Dir(o.Path()), old, old); err != nil {
				b.Fatal(err)
			}
			var left atomic.Int64
			left.Store(int64(b.N))
			b.ResetTimer()
			used := cpuOf(b, func() {
				var wg sync.WaitGroup
				for i := range callers {
					wg.Go(func() {
						account := store.OfKey(testKey(i % keys).ID)
						for left.Add(-1) >= 0 {
							if _, err := opened.MoveCredits(b.Context(), account, key.Move{Take: 1}, now); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
			})
			b.ReportMetric(float64(used.Nanoseconds())/float64(b.N), "cpu-ns/op")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "debits/s")
		})
	}
}

// BenchmarkJournal measures the memory that 200,000 keys take which have been used since
// the last folding, and that of the folding itself.
func BenchmarkJournal(b *testing.B) {
	const keys, batch = 200_000, 500
	var before, next, folded uint64
	for b.Loop() {
		before = heapInUse()
		u := unfolded{}
		for from := 0; from < keys; from += batch {
			part := &journalBatch{}
			for i := from; i < from+batch; i++ {
				part.used = append(part.used, journalUse{int64(i + 1), int64(i/benchKeysPerOwner + 1), 20261120, store.Uses{Allowed: 3}})
			}
			u.add(int64(from/batch+1), part)
		}
		next = heapInUse()
		f := u.begin()
		u = unfolded{}
		folded = heapInUse()
		runtime.KeepAlive(f)
	}
	b.ReportMetric(float64(next-before)/keys, "bytes/key")
	b.ReportMetric(float64(folded-before)/keys, "folding-bytes/key")
}

func heapInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkFold folds the usage of keys that are spread over the table.
func BenchmarkFold(b *testing.B) {
	s := benchStore(b)
	const batch, batches = 500, 40
	var saving, folding time.Duration
	n := 0
	writer := fmt.Sprint("benchmark ", time.Now().UnixNano())
	for b.Loop() {
		for range batches {
			n++
			u := store.UsageBatch{Writer: writer, Number: int64(n)}
			for range batch {
				i := rand.IntN(*benchKeys)
				u.Used = append(u.Used, store.Used{KeyID: testKey(i).ID, UserID: benchOwner(i / benchKeysPerOwner), Day: 20261120, Uses: store.Uses{Allowed: 1}})
			}
			saving += cpuOf(b, func() {
				if err := s.SaveUsage(b.Context(), u); err != nil {
					b.Fatal(err)
				}
			})
		}
		folding += cpuOf(b, func() {
			for more := true; more; {
				var err error
				if more, err = s.foldSome(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.ReportMetric(float64(saving.Nanoseconds())/float64(n*batch), "saving-ns/key")
	b.ReportMetric(float64(folding.Nanoseconds())/float64(n*batch), "folding-ns/key")
}

// BenchmarkBackup measures debits and look-ups while a backup is made, and as long without.
func BenchmarkBackup(b *testing.B) {
	s := benchStore(b)
	const payers, callers, pause = 16, 8, 2 * time.Millisecond
	many := int64(key.MaxCount)
	for i := range payers {
		_, err := s.UpdateAccount(b.Context(), store.OfKey(testKey(i).ID), func(c *key.Credits) error {
			*c = key.NewCredits(&many, 0, 0, now)
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	debit := func(i int) error {
		_, err := s.MoveCredits(b.Context(), store.OfKey(testKey(i).ID), key.Move{Take: 1}, now)
		return err
	}
	look := func(int) error {
		_, err := s.Find(b.Context(), testKey(rand.IntN(*benchKeys)).Hash)
		return err
	}
	backup := func() (took time.Duration) {
		begin := time.Now()
		c, err := s.Backup(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		took = time.Since(begin)
		if _, err := io.Copy(io.Discard, c); err != nil {
			b.Fatal(err)
		}
		if err := c.Close(); err != nil {
			b.Fatal(err)
		}
		return took
	}
	var copying, last time.Duration
	var debits, looks [2]latencies // with a backup, and without
	n := 0
	for ; b.Loop(); n++ {
		for i := range 2 {
			var wg sync.WaitGroup
			stop := make(chan struct{})
			for n := range payers {
				wg.Go(func() { debits[i].measure(b, stop, pause, func() error { return debit(n) }) })
			}
			for n := range callers {
				wg.Go(func() { looks[i].measure(b, stop, pause, func() error { return look(n) }) })
			}
			if i == 0 {
				last = backup()
				copying += last
			} else {
				time.Sleep(last)
			}
			close(stop)
			wg.Wait()
		}
	}
	b.ReportMetric(float64(copying.Milliseconds())/float64(n), "copy-ms")
	for i, when := range []string{"", "-without"} {
		debits[i].report(b, "debit"+when)
		looks[i].report(b, "look-up"+when)
	}
}

// latencies are how long calls took.
type latencies struct {
	mu  sync.Mutex
	all []time.Duration
}

// measure calls f again and again until stop is closed.
func (l *latencies) measure(b *testing.B, stop <-chan struct{}, pause time.Duration, f func() error) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(pause):
		}
		begin := time.Now()
		if err := f(); err != nil {
			b.Error(err)
			return
		}
		l.mu.Lock()
		l.all = append(l.all, time.Since(begin))
		l.mu.Unlock()
	}
}

func (l *latencies) report(b *testing.B, name string) {
	slices.Sort(l.all)
	for quantile, at := range map[string]float64{"p50": .5, "p99": .99, "max": 1} {
		b.ReportMetric(float64(l.all[int(at*float64(len(l.all)-1))].Microseconds()), name+"-"+quantile+"-us")
	}
}
