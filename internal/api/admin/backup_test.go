package admin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/store"
)

// checkBackup checks that an answer is a database.
func checkBackup(t *testing.T, r reply) {
	t.Helper()
	if ct, cc := r.header.Get("Content-Type"), r.header.Get("Cache-Control"); ct != BackupType || cc != "no-store" {
		t.Errorf("Content-Type %q, Cache-Control %q", ct, cc)
	}
	if !bytes.HasPrefix(r.body, []byte("SQLite format 3\x00")) || r.header.Get("Content-Length") != fmt.Sprint(len(r.body)) {
		t.Errorf("%d bytes, %v: %.16q", len(r.body), r.header, r.body)
	}
}

// backups is a store with such a backup.
type backups struct {
	broken
	backup *store.Backup
	err    error
}

func (b backups) Open(context.Context) (store.Store, error)     { return b, nil }
func (b backups) Backup(context.Context) (*store.Backup, error) { return b.backup, b.err }

func TestBackup_unable(t *testing.T) {
	a := newAPI(t)
	a.breakStore(broken{})
	a.send("GET", "/apikey/backup", "").refused(t, 501, "NOT_IMPLEMENTED", "")
}

func TestBackup_diskFull(t *testing.T) {
	a := newAPI(t)
	a.breakStore(backups{err: fmt.Errorf("%w: no space left on device", store.ErrUnavailable)})
	r := a.send("GET", "/apikey/backup", "")
	r.refused(t, 503, "STORE_UNAVAILABLE", "")
	if !strings.Contains(string(r.body), "no space left on device") {
		t.Errorf("the answer does not say why: %s", r.body)
	}
	if r.header.Get("Content-Length") == "" || len(a.reported) != 1 {
		t.Errorf("%v, reported %v", r.header, a.reported)
	}
}

// TestF10_breaksOff: a copy that cannot be read to its end, or has another length than it
// should, is no backup, and is closed.
func TestF10_breaksOff(t *testing.T) {
	for name, c := range map[string]struct {
		content io.Reader
		size    int64
	}{
		"early":     {errorReader{}, 10},
		"late":      {io.MultiReader(bytes.NewReader(make([]byte, 1<<20)), errorReader{}), 2 << 20},
		"too short": {bytes.NewReader(make([]byte, 1<<20)), 2 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPI(t)
			closed := make(chan struct{})
			a.breakStore(backups{backup: &store.Backup{ReadCloser: closeTold{c.content, closed}, Size: c.size}})
			body, _, err := a.Backup(t.Context())
			if err == nil {
				_, err = io.Copy(io.Discard, body)
				body.Close()
			}
			if err == nil {
				t.Error("no error")
			}
			<-closed
		})
	}
}

type errorReader struct{}

func (errorReader) Read([]byte) (int, error) { return 0, errors.New("a bad disk") }

type closeTold struct {
	io.Reader
	closed chan struct{}
}

func (c closeTold) Close() error { close(c.closed); return nil }
