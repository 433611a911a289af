package keyring

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store/sqlite"
)

// multiply makes n more keys of one that is there, with hashes that nobody knows.
const multiply = `
CREATE TEMP TABLE more AS
	WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < %d)
	SELECT lower(hex(randomblob(12))) AS id, randomblob(32) AS hash FROM c;
INSERT INTO keys (id, hash, owner, config_id, name, prefix, start, checksummed, enabled, expires_at, created_at, revision, doc)
	SELECT more.id, more.hash, owner, config_id, name, prefix, start, checksummed, enabled, expires_at, created_at, revision,
		json_set(doc, '$.id', more.id, '$.hash', lower(hex(more.hash)))
	FROM more, (SELECT * FROM keys LIMIT 1);
DROP TABLE more;`

// crashed makes the files that a crash leaves behind: many keys, and a long log that
// nothing has brought into the database. The key that is returned is in the log alone.
func crashed(t *testing.T, keys, logged int) (path, raw string) {
	g := newRig(t)
	g.create(Draft{})
	g.stop()
	db, err := sql.Open("sqlite", g.path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	raw, err = (key.Random{}).Generate("ak_", key.DefaultLength, true)
	if err != nil {
		t.Fatal(err)
	}
	hash := key.HashOf(raw)
	for _, step := range []string{
		fmt.Sprintf(multiply, keys),
		"PRAGMA wal_checkpoint(TRUNCATE); PRAGMA wal_autocheckpoint = 0",
		fmt.Sprintf(multiply, logged),
		fmt.Sprintf("UPDATE keys SET hash = x'%[1]x', doc = json_set(doc, '$.hash', '%[1]x') WHERE num = (SELECT max(num) FROM keys)", hash[:]),
	} {
		if _, err := db.Exec(step); err != nil {
			t.Fatal(err)
		}
	}
	path = filepath.Join(t.TempDir(), "keys.db")
	for _, suffix := range []string{"", "-wal", ".lock"} {
		text, err := os.ReadFile(g.path + suffix)
		if err == nil {
			err = os.WriteFile(path+suffix, text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return path, raw
}

// TestF9_start: after a crash that left a long log beside many keys, the first
// request is served soon, and until then nobody is told that a key is invalid, or
// let in with one that is.
func TestF9_start(t *testing.T) {
	path, raw := crashed(t, times(20_000, 1_000_000), times(10_000, 15_000))
	info, err := os.Stat(path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	opener, err := sqlite.New(sqlite.Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	engine := New(opener, time.Now, func(err error) { t.Error(err) })
	s := NewService(engine, &Settings{Rules: DefaultRules()}).As(Actor{Kind: ActorOperator})
	unknown, err := (key.Random{}).Generate("ak_", key.DefaultLength, true)
	if err != nil {
		t.Fatal(err)
	}
	began, served := time.Now(), make(chan time.Duration, 1)
	var early atomic.Int64 // answers before the store was open
	go func() {
		for t.Context().Err() == nil {
			if d, _ := s.Verify(context.Background(), unknown, &Request{Cost: 1}); d.Outcome != Invalid && d.Outcome != Unavailable {
				t.Errorf("an unknown key: %q", d.Outcome.Code())
			}
			switch d, _ := s.Verify(context.Background(), raw, &Request{Cost: 1}); d.Outcome {
			case Allowed:
				served <- time.Since(began)
				return
			case Unavailable:
				early.Add(1)
			default:
				t.Errorf("a good key: %q", d.Outcome.Code())
			}
		}
	}()
	if err := engine.Open(context.Background()); err != nil {
		t.Fatal(err)
	}
	opened, ready := time.Since(began), <-served
	t.Logf("a log of %d MiB: open after %v, serving after %v, %d early answers", info.Size()>>20, opened, ready, early.Load())
	if ready > 5*time.Second {
		t.Errorf("it took %v", ready)
	}
	if err := engine.Close(); err != nil {
		t.Error(err)
	}
}
