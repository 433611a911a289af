package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store/sqlite"
	"github.com/caddy-apikey/caddy-apikey/store/sqlite/manykeys"
)

// manyKeys is a store with many keys, and the file with their raw keys, one
// after the other. Both are made when they are first needed.
type manyKeys struct {
	dir string
	n   int
}

const keysPerOwner = 10

func (m *manyKeys) db() string      { return filepath.Join(m.dir, fmt.Sprintf("keys-%d.db", m.n)) }
func (m *manyKeys) rawFile() string { return filepath.Join(m.dir, fmt.Sprintf("keys-%d.txt", m.n)) }

// path returns the path of the store.
func (m *manyKeys) path(ctx context.Context) (string, error) {
	if info, err := os.Stat(m.rawFile()); err == nil && info.Size() == int64(m.n*rawLen) {
		return m.db(), nil
	}
	began := time.Now()
	// In a process of its own: this one's memory stays as it is.
	if err := runChild(ctx, "create", m.dir, strconv.Itoa(m.n)); err != nil {
		return "", fmt.Errorf("making %d keys: %w", m.n, err)
	}
	progress("made %d keys in %s", m.n, time.Since(began).Round(time.Second))
	return m.db(), nil
}

func (m *manyKeys) raws() ([]byte, error) { return os.ReadFile(m.rawFile()) }

// childCreate makes the store and the file.
func childCreate(ctx context.Context, args []string) (err error) {
	if len(args) != 2 {
		return errors.New("create: folder and number are needed")
	}
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	m := manyKeys{dir: args[0], n: n}
	opener, err := sqlite.New(sqlite.Options{Path: m.db()})
	if err != nil {
		return err
	}
	st, err := opener.Open(ctx)
	if err != nil {
		return err
	}
	if err := st.Close(); err != nil {
		return err
	}
	return m.fill(ctx)
}

func (m *manyKeys) fill(ctx context.Context) (err error) {
	f, err := os.OpenFile(m.rawFile(), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	defer func() { err = errors.Join(err, w.Flush(), f.Close()) }()
	var failed error
	err = manykeys.Fill(ctx, m.db(), func(yield func(manykeys.Key) bool) {
		for i := range m.n {
			var raw string
			if raw, failed = newRaw(); failed != nil {
				return
			}
			if _, failed = w.WriteString(raw); failed != nil || !yield(manykeys.Key{Key: m.key(i, raw)}) {
				return
			}
		}
	})
	return errors.Join(err, failed)
}

// key is the key number i. All of one owner were made in the same minute.
func (m *manyKeys) key(i int, raw string) *key.Key {
	prefix, start, name := "ak_", raw[:6], fmt.Sprintf("server %d", i)
	created := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli() + int64(i)*6000
	return &key.Key{
		ID: fmt.Sprintf("%024x", i), ConfigID: key.DefaultConfig, UserID: fmt.Sprintf("user-%d", i/keysPerOwner), Name: &name, Prefix: &prefix, Start: &start,
		Hash: key.HashOf(raw), Checksummed: true, Enabled: true, RateLimitEnabled: true, CreatedAt: created, UpdatedAt: created,
	}
}
