package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// manyKeys is a store with many keys, and the file with their raw keys, one
// after the other. Both are made when they are first needed.
type manyKeys struct {
	dir string
	n   int
}

const (
	keysPerOwner = 10
	// creators is how many keys are made at a time; the store writes what waits
	// at the same time in one transaction.
	creators = 512
)

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
	unused, err := newSites() // nobody asks them
	if err != nil {
		return err
	}
	cfg, err := unused.config(appConfig(nil, m.db()), nil, nil)
	if err != nil {
		return err
	}
	if err := caddy.Load(cfg, true); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, caddy.Stop()) }()
	keys, err := service()
	if err != nil {
		return err
	}
	return m.create(ctx, keys)
}

func (m *manyKeys) create(ctx context.Context, keys *keyring.Service) (err error) {
	f, err := os.OpenFile(m.rawFile(), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	defer func() { err = errors.Join(err, w.Flush(), f.Close()) }()
	var (
		next atomic.Int64
		mu   sync.Mutex
		wg   sync.WaitGroup
		errs = make([]error, creators)
	)
	for i := range creators {
		wg.Go(func() {
			for errs[i] == nil {
				k := next.Add(1) - 1
				if k >= int64(m.n) {
					return
				}
				issued, err := keys.As(keyring.Actor{Kind: keyring.ActorOperator}).Create(ctx, keyring.Draft{UserID: fmt.Sprintf("user-%d", k/keysPerOwner)})
				mu.Lock()
				_, werr := w.WriteString(issued.Raw)
				mu.Unlock()
				errs[i] = errors.Join(err, werr)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
