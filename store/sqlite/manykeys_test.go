package sqlite

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store/sqlite/manykeys"
)

var (
	benchKeys = flag.Int("keys", 20_000, "how many keys are stored in benchmarks")
	benchDir  = flag.String("dir", "", "keep the database of benchmarks in this folder, for the next run (default: a temporary one)")
)

const benchKeysPerOwner = 10

// benchKey is one of many keys.
func benchKey(i int) *key.Key {
	k := testKey(i)
	name, prefix, start := fmt.Sprint("server ", i), "ak_", fmt.Sprintf("ak_%09d", i)
	k.UserID, k.Name, k.Prefix, k.Start, k.Checksummed = benchOwner(i/benchKeysPerOwner), &name, &prefix, &start, true
	k.Permissions, k.Metadata = key.Permissions{"files": {"read", "write"}}, []byte(`{"plan":"pro","seats":5}`)
	k.RateLimitEnabled, k.RateLimitMax, k.RateLimitTimeWindow = true, 1000, 60_000
	return k
}

func benchOwner(i int) string { return fmt.Sprint("user_", i) }

// manyKeys returns the path of a database with *benchKeys keys that have all been used
// once.
func manyKeys(b *testing.B) string {
	b.Helper()
	dir := *benchDir
	if dir == "" {
		dir = b.TempDir()
	}
	path := filepath.Join(dir, fmt.Sprintf("keys-%d.db", *benchKeys))
	made := path + ".made"
	if _, err := os.Stat(made); err == nil {
		return path
	}
	check := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	o, err := New(Options{Path: path})
	check(err)
	opened, err := o.Open(b.Context())
	check(err)
	check(opened.Close())
	check(manykeys.Fill(b.Context(), path, func(yield func(manykeys.Key) bool) {
		for i := range *benchKeys {
			if !yield(manykeys.Key{Key: benchKey(i), LastUse: now}) {
				return
			}
		}
	}))
	check(os.WriteFile(made, nil, 0o600))
	return path
}
