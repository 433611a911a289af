package e2e

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// This file makes backups of servers and restores them.

// backup makes a backup, which must succeed.
func (l life) backup(args ...string) {
	l.t.Helper()
	if r := l.run(append([]string{"apikey", "backup"}, args...)...); r.code != 0 || r.stdout != "" {
		l.t.Fatalf("backup: %+v", r)
	}
}

// restore restores a backup, which must succeed, and returns what the command prints.
func (l life) restore(args ...string) string {
	l.t.Helper()
	r := l.run(append([]string{"apikey", "restore", "--yes"}, args...)...)
	if r.code != 0 {
		l.t.Fatalf("restore: %+v", r)
	}
	return r.stdout
}

// filesIn returns the names in a folder.
func filesIn(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func checkPrivate(t *testing.T, path string) {
	t.Helper()
	if mode := mustStat(t, path).Mode().Perm(); mode != 0o600 {
		t.Errorf("%s has mode %04o", path, mode)
	}
}

// integrity returns what SQLite says about a database, which is not opened for writing.
func integrity(t *testing.T, path string) (verdict string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.QueryRow("PRAGMA integrity_check").Scan(&verdict); err != nil {
		t.Fatal(err)
	}
	return verdict
}

// TestF10_underLoad makes a backup while keys are made and credits are spent, with either
// mode of credits, and restores it in place and on another machine.
func TestF10_underLoad(t *testing.T) {
	full(t)
	for _, mode := range []string{"strict", "lease 100"} {
		t.Run(mode, func(t *testing.T) {
			s := startLife(t, fmt.Sprintf("{\n\tapikey {\n\t\tcredits %s\n\t}\n}\n{$SITE} {\n\tapikey\n\trespond ok\n}\n", mode))
			const credits = 1_000_000
			payer := s.create(fmt.Sprintf(`"remaining":%d`, credits))
			ctx, stop := context.WithCancel(t.Context())
			var work sync.WaitGroup
			defer work.Wait()
			defer stop()
			var mu sync.Mutex
			var made []lifeKey
			var sent, passed atomic.Int64
			for range 2 {
				work.Go(func() {
					for ctx.Err() == nil {
						k := s.create()
						mu.Lock()
						made = append(made, k)
						mu.Unlock()
					}
				})
			}
			for range 4 {
				work.Go(func() {
					client := &http.Client{Transport: &http.Transport{}}
					defer client.CloseIdleConnections()
					for ctx.Err() == nil {
						sent.Add(1)
						if a, err := s.try(client, "/", payer.Raw); err != nil || a.status != 200 {
							t.Error(a, err)
							return
						}
						passed.Add(1)
					}
				})
			}
			eventually(t, "credits are spent and keys made", func() bool {
				mu.Lock()
				defer mu.Unlock()
				return t.Failed() || passed.Load() > 200 && len(made) > 20
			})
			mu.Lock()
			before := slices.Clone(made)
			mu.Unlock()
			spent := passed.Load()
			file := filepath.Join(s.Dir, "backup.db")
			s.backup(file)
			mostSpent := sent.Load()
			checkPrivate(t, file)
			if verdict := integrity(t, file); verdict != "ok" {
				t.Fatal(verdict)
			}
			stop()
			work.Wait()
			late := s.create()
			revoked := before[0]
			if r := s.run("apikey", "revoke", revoked.ID); r.code != 0 {
				t.Fatalf("%+v", r)
			}
			if left := filesIn(t, filepath.Dir(s.db())); slices.Contains(left, "apikey.db.sending") {
				t.Errorf("the copy is still there: %v", left)
			}
			s.stop(syscall.SIGTERM)

			said := s.restore(file, "--config", s.file())
			if !containsAll(said, s.db(), "were revoked") {
				t.Errorf("restore said %q", said)
			}
			checkPrivate(t, s.db())
			other := newLife(t, s.caddyfile)
			other.restore(file)
			for _, machine := range []life{s, other} {
				checkPrivate(t, machine.db())
				machine.start()
				for _, k := range before { // the revoked one too
					machine.wants(k.Raw, 200, "")
				}
				machine.wants(late.Raw, 401, "INVALID_API_KEY")
				// What was leased when the backup was made is lost: not more than a lease.
				left := *machine.show(payer.ID).Remaining
				if most := credits - spent; left > most {
					t.Errorf("%d credits are left, want at most %d", left, most)
				}
				if least := credits - mostSpent - 100; left < least {
					t.Errorf("%d credits are left, want at least %d", left, least)
				}
				machine.wants(payer.Raw, 200, "")
				machine.noPanic()
			}
		})
	}
}

// TestQ45_secondNight makes backups of one name night after night.
func TestQ45_secondNight(t *testing.T) {
	quick(t)
	s := startLife(t, commandSite)
	s.create()
	dir := filepath.Join(s.Dir, "backups")
	if err := os.Mkdir(dir, 0o755); err != nil { //nolint:gosec // the file is what has to be private
		t.Fatal(err)
	}
	file := filepath.Join(dir, "apikey.db")
	for range 2 {
		s.backup(file)
		if got := filesIn(t, dir); len(got) != 1 {
			t.Errorf("files: %v", got)
		}
	}
	// Files of others stay, whatever they are called.
	others := []string{"apikey.db.old", "apikey.db.2026-01-01", "other.db.2026-01-01T00-00-00.000Z"}
	for _, name := range others {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(file, filepath.Join(s.Dir, "first")); err != nil {
		t.Fatal(err)
	}
	var kept [][]string
	for range 4 {
		s.backup(file, "--keep", "2")
		names := slices.DeleteFunc(filesIn(t, dir), func(name string) bool { return slices.Contains(others, name) })
		if names[0] != "apikey.db" {
			t.Fatalf("files: %v", names)
		}
		for _, name := range names {
			checkPrivate(t, filepath.Join(dir, name))
			if strings.ContainsAny(name, ":") {
				t.Errorf("%s has a colon", name)
			}
			if verdict := integrity(t, filepath.Join(dir, name)); verdict != "ok" {
				t.Errorf("%s: %s", name, verdict)
			}
		}
		kept = append(kept, names[1:])
	}
	if len(kept[0]) != 1 || len(kept[1]) != 2 || len(kept[2]) != 2 || len(kept[3]) != 2 || kept[1][1] != kept[2][0] || kept[2][1] != kept[3][0] {
		t.Errorf("kept: %q", kept)
	}
	if got := filesIn(t, dir); len(got) != 3+len(others) {
		t.Errorf("files: %v", got)
	}
	for _, keep := range []string{"0", "-1", "x"} {
		if r := s.run("apikey", "backup", file, "--keep", keep); r.code != 2 {
			t.Errorf("--keep %s: %+v", keep, r)
		}
	}
}

// TestF10_refuses: a backup replaces no file but a backup, and a restore no database that a
// server has open.
func TestF10_refuses(t *testing.T) {
	full(t)
	s := startLife(t, commandSite)
	k := s.create()
	dir := t.TempDir()
	backup := filepath.Join(dir, "backup")
	s.backup(backup)
	foreign, text := filepath.Join(dir, "foreign"), filepath.Join(dir, "text")
	db, err := sql.Open("sqlite", foreign)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("CREATE TABLE precious (id TEXT)"); err != nil {
		t.Fatal(err)
	}
	db.Close()
	if err := os.WriteFile(text, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	pid := fmt.Sprint("pid ", s.cmd.Process.Pid)
	for _, test := range []struct {
		name string
		code int
		args []string
		why  []string
	}{
		{"over another database", 1, []string{"backup", foreign}, []string{foreign, "not a backup"}},
		{"over a text", 1, []string{"backup", text, "--keep", "3"}, []string{text, "not a backup"}},
		{"over a folder", 1, []string{"backup", dir}, []string{dir, "not a regular file"}},
		{"over the database itself", 1, []string{"backup", s.db()}, []string{s.db(), "the database of a server"}},
		{"in no folder", 1, []string{"backup", filepath.Join(dir, "no", "file")}, []string{"no such file"}},
		{"to standard output", 2, []string{"backup", "-"}, []string{"standard output"}},
		{"restore while running", 1, []string{"restore", backup, "--yes"}, []string{s.db(), pid, s.db() + ".lock", "stop Caddy first"}},
		{"restore without a question", 2, []string{"restore", backup}, []string{"--yes"}},
		{"restore without a database", 1, []string{"restore", foreign, "--store", filepath.Join(t.TempDir(), "x.db"), "--yes"}, []string{foreign, "another program"}},
		{"restore by two names", 2, []string{"restore", backup, "--store", "a", "--config", s.file(), "--yes"}, []string{"store"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := filesIn(t, dir)
			content := readAll(t, foreign) + readAll(t, text)
			r := s.run(append([]string{"apikey"}, test.args...)...)
			if r.code != test.code || !containsAll(r.stderr, test.why...) {
				t.Errorf("%+v", r)
			}
			if readAll(t, foreign)+readAll(t, text) != content {
				t.Error("a file was changed")
			}
			if after := filesIn(t, dir); !slices.Equal(before, after) {
				t.Errorf("files: %v, before %v", after, before)
			}
			s.wants(k.Raw, 200, "")
		})
	}
	// Where the store is not SQLite's, or what is there cannot be read.
	config := filepath.Join(dir, "caddy.json")
	if err := os.WriteFile(config, []byte(`{"apps":{"apikey":{"store":{"store":"postgres"}}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := s.run("apikey", "restore", backup, "--config", config, "--yes"); r.code != 1 || !strings.Contains(r.stderr, "postgres") {
		t.Errorf("%+v", r)
	}
}

// TestF10_restoreJSON: what a program learns from a restore, with a table prefix.
func TestF10_restoreJSON(t *testing.T) {
	full(t)
	db := filepath.Join(t.TempDir(), "a.db")
	s := startLife(t, strings.Replace(lifeConfig(db), "apikey {\n", "apikey {\n\t\ttable_prefix my_\n", 1))
	k := s.create()
	file := filepath.Join(s.Dir, "backup.db")
	s.backup(file, "--json")
	s.stop(syscall.SIGTERM)
	var result struct {
		Database string
		Keys     int64
		Replaced string
	}
	decode(t, s.restore(file, "--config", s.file(), "--json"), &result)
	if result.Database != db || result.Keys != 1 || !strings.HasPrefix(result.Replaced, db+".2") {
		t.Errorf("%+v", result)
	}
	checkPrivate(t, result.Replaced)
	s.start()
	s.wants(k.Raw, 200, "")
}

// TestF10_revokeSince: what was changed after a backup is disabled where it is restored.
func TestF10_revokeSince(t *testing.T) {
	full(t)
	for _, since := range []string{"backup", "time", "later"} {
		t.Run(since, func(t *testing.T) {
			db := filepath.Join(t.TempDir(), "a.db")
			s := startLife(t, lifeConfig(db))
			patch := func(path, body string, status int) {
				t.Helper()
				method := http.MethodPatch
				switch {
				case body == "":
					method = http.MethodDelete
				case strings.Contains(path, "owners"):
					method = http.MethodPut
				case strings.Contains(path, "rotate"):
					method = http.MethodPost
				}
				if a := s.admin(method, "/apikey/"+path, body); a.status != status {
					t.Fatal(a)
				}
			}
			untouched, revoked, rotated, deleted, unlucky := s.create(), s.create(), s.create(), s.create(), s.create()
			patch("keys/"+unlucky.ID, `{"userId":"mallory"}`, 200)
			file := filepath.Join(s.Dir, "backup.db")
			s.backup(file)
			began := time.Now().UTC().Format(time.RFC3339Nano)
			patch("keys/"+revoked.ID, `{"enabled":false}`, 200)
			patch("keys/"+rotated.ID+"/rotate", `{}`, 200)
			patch("keys/"+deleted.ID, "", 204)
			patch("owners/mallory", `{"enabled":false}`, 200)
			s.create() // which the backup does not know
			s.stop(syscall.SIGTERM)
			arg := map[string]string{"backup": "backup", "time": began, "later": time.Now().Add(time.Second).UTC().Format(time.RFC3339Nano)}[since]
			var result struct {
				Database string
				Keys     int64
				Replaced string
				Disabled struct{ Keys, Owners int64 }
			}
			decode(t, s.restore(file, "--config", s.file(), "--revoke-since", arg, "--actor", "ann", "--json"), &result)
			code, keys, owners := "KEY_DISABLED", int64(3), int64(1)
			if since == "later" { // nothing was changed since
				code, keys, owners = "", 0, 0
			}
			if result.Keys != 5 || result.Disabled.Keys != keys || result.Disabled.Owners != owners {
				t.Errorf("%+v", result)
			}
			if left, _ := filepath.Glob(db + ".restoring*"); left != nil {
				t.Errorf("%q is left", left)
			}
			s.start()
			s.wants(untouched.Raw, 200, "")
			for _, k := range []lifeKey{revoked, rotated, deleted, unlucky} {
				if code == "" {
					s.wants(k.Raw, 200, "")
				} else {
					s.wants(k.Raw, 401, code)
				}
			}
			if r := s.run("apikey", "audit", "--by", "ann", "--action", "key.revoked", "-o", "name"); r.code != 0 || strings.Count(r.stdout, "\n") != int(keys) {
				t.Errorf("%+v", r)
			}
			if r := s.run("apikey", "audit", "--verify"); r.code != 0 {
				t.Errorf("%+v", r)
			}
		})
	}
}

// TestF10_revokeSinceUnknown: where the audit log cannot tell what was changed, nothing is
// restored.
func TestF10_revokeSinceUnknown(t *testing.T) {
	full(t)
	db := filepath.Join(t.TempDir(), "a.db")
	s := startLife(t, lifeConfig(db))
	k := s.create()
	file := filepath.Join(s.Dir, "backup.db")
	s.backup(file)
	s.stop(syscall.SIGTERM)
	if err := os.Rename(db, db+".moved"); err != nil {
		t.Fatal(err)
	}
	for _, since := range []string{"backup", "1h"} {
		r := s.run("apikey", "restore", file, "--config", s.file(), "--revoke-since", since, "--yes")
		if r.code != 1 || !strings.Contains(r.stderr, "cannot tell what was changed") {
			t.Errorf("%s: %+v", since, r)
		}
	}
	if r := s.run("apikey", "restore", file, "--config", s.file(), "--revoke-since", "soon", "--yes"); r.code != 2 {
		t.Errorf("%+v", r)
	}
	if _, err := os.Stat(db); err == nil {
		t.Error("it was restored")
	}
	s.restore(file, "--config", s.file())
	s.start()
	s.wants(k.Raw, 200, "")
}

// cut serves the first bytes of a backup, and then ends. A length that is announced tells
// the client; without one, the end of the connection is the end of the answer.
func cut(t *testing.T, s life, size int, announced bool) (addr string) {
	t.Helper()
	whole := s.admin(http.MethodGet, "/apikey/backup", "")
	if whole.status != 200 || len(whole.body) <= size {
		t.Fatalf("%d, %d bytes", whole.status, len(whole.body))
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, out, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		header := "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.sqlite3\r\nConnection: close\r\n"
		if announced {
			header += fmt.Sprintf("Content-Length: %d\r\n", len(whole.body))
		}
		io.WriteString(out, header+"\r\n"+whole.body[:size]) //nolint:errcheck // the client complains
		out.Flush()                                          //nolint:errcheck // likewise
	}))
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

// TestF10_truncated: a stream that ends early is never a backup, and leaves the last one.
func TestF10_truncated(t *testing.T) {
	full(t)
	s := startLife(t, commandSite)
	s.create()
	dir := t.TempDir()
	file := filepath.Join(dir, "backup")
	s.backup(file)
	before := readAll(t, file)
	for _, size := range []int{0, 1, 99, 100, 4096, len(before) - 4096, len(before) - 1} {
		for _, announced := range []bool{true, false} {
			r := s.run("apikey", "backup", file, "--keep", "3", "--address", cut(t, s, size, announced))
			if r.code != 1 || !strings.Contains(r.stderr, "Error: writing "+file) {
				t.Errorf("cut after %d bytes, announced %v: %+v", size, announced, r)
			}
			if got := filesIn(t, dir); len(got) != 1 || readAll(t, file) != before {
				t.Fatalf("cut after %d bytes, announced %v: files %v", size, announced, got)
			}
		}
	}
	// The server ends in the middle.
	s.kill()
	if r := s.run("apikey", "backup", file); r.code != 1 || readAll(t, file) != before {
		t.Errorf("%+v", r)
	}
}

// TestF10_diskFull makes a backup where there is room for the last one only.
func TestF10_diskFull(t *testing.T) {
	full(t)
	unshare := tool(t, "unshare")
	if out, err := exec.Command(unshare, "-Urm", "true").CombinedOutput(); err != nil {
		lacking(t, fmt.Errorf("unshare: %w: %s", err, out))
	}
	s := startLife(t, commandSite)
	s.create()
	last, disk := filepath.Join(s.Dir, "last"), t.TempDir()
	s.backup(last)
	size := mustStat(t, last).Size()
	const script = `mount -t tmpfs -o size=$2 none "$1" && cp "$3" "$1/backup" && cd "$1" || exit 99
		"$4" apikey backup backup --keep 3; echo "exit status $?"; ls; cmp backup "$3" && echo unchanged`
	cmd := s.command()
	inside := exec.Command(unshare, "-Urm", "sh", "-c", script, "sh", disk, fmt.Sprint(size+size/2), last, cmd.Path) //nolint:gosec // a test's own
	inside.Env = cmd.Env
	out, err := inside.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if text := string(out); !strings.Contains(text, "no space left on device") || !strings.HasSuffix(text, "exit status 1\nbackup\nunchanged\n") {
		t.Errorf("%s", text)
	}
}

// TestF10_interrupted ends the command in the middle, and expects that it cleans up.
func TestF10_interrupted(t *testing.T) {
	full(t)
	s := startLife(t, commandSite)
	dir := t.TempDir()
	arrived, release := make(chan struct{}), make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/vnd.sqlite3")
		w.(http.Flusher).Flush()
		close(arrived)
		<-release
	}))
	defer srv.Close()
	defer close(release)
	cmd := s.command("apikey", "backup", filepath.Join(dir, "backup"), "--address", srv.Listener.Addr().String())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	await(t, "the command asks for a backup", arrived)
	eventually(t, "the command has a file", func() bool { return len(filesIn(t, dir)) == 1 })
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	cmd.Wait() //nolint:errcheck // the state is in cmd.ProcessState
	if cmd.ProcessState.ExitCode() != 1 || len(filesIn(t, dir)) != 0 {
		t.Errorf("%v, files %v", cmd.ProcessState, filesIn(t, dir))
	}
}
