package e2e

import (
	"bufio"
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// This file fills disks, and watches the system calls of a real server.

// attach runs strace on a server until end is called.
func (l life) attach(args ...string) (end func()) {
	l.t.Helper()
	strace := tool(l.t, "strace")
	tracer := exec.Command(strace, append(args, "-f", "-qq", "-p", strconv.Itoa(l.cmd.Process.Pid))...) //nolint:gosec // a test's own
	var said bytes.Buffer
	tracer.Stderr = &said
	if err := tracer.Start(); err != nil {
		l.t.Fatal(err)
	}
	traced := func() bool {
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", l.cmd.Process.Pid))
		return regexp.MustCompile(`TracerPid:\s+[1-9]`).Match(status)
	}
	eventually(l.t, "strace looks on", traced)
	ended := false
	end = func() {
		if ended {
			return
		}
		ended = true
		tracer.Process.Signal(syscall.SIGINT) //nolint:errcheck // it may have ended
		tracer.Wait()                         //nolint:errcheck // a signal has ended it
	}
	l.t.Cleanup(end)
	return end
}

// fullDisk is one way in which nothing can be written any more.
type fullDisk struct {
	// start starts a server. fill lets it write nothing more, and free lets it again.
	start func(t *testing.T) (s life, fill, free func())
	// always: no write fits at all.
	always bool
}

// failingWrites has the system refuse all writes to the database and its log.
func failingWrites(errno string) fullDisk {
	return fullDisk{func(t *testing.T) (life, func(), func()) {
		db := filepath.Join(t.TempDir(), "a.db")
		s := startLife(t, lifeConfig(db))
		var end func()
		return s, func() {
			end = s.attach("-o", os.DevNull, "-P", db, "-P", db+"-wal", "-e", "trace=pwrite64", "-e", "inject=pwrite64:error="+errno)
		}, func() { end() }
	}, true}
}

var fullDisks = map[string]fullDisk{
	"no space, injected": failingWrites("ENOSPC"),
	"a small file system": {func(t *testing.T) (life, func(), func()) {
		unshare := tool(t, "unshare")
		if out, err := exec.Command(unshare, "-Urm", "true").CombinedOutput(); err != nil {
			lacking(t, fmt.Errorf("unshare: %w: %s", err, out))
		}
		disk := t.TempDir()
		db := filepath.Join(disk, "a.db")
		s := startLife(t, lifeConfig(db), withWrapper(unshare, "-Urm", "sh", "-c", `mount -t tmpfs -o size=2m none "$0" && exec "$@"`, disk))
		inside := fmt.Sprintf("/proc/%d/root%s", s.cmd.Process.Pid, disk)
		filler := filepath.Join(inside, "filler")
		return s, func() {
				f, err := os.Create(filler)
				if err != nil {
					t.Fatal(err)
				}
				for err == nil {
					_, err = f.Write(make([]byte, 4096))
				}
				f.Close()
				if !errors.Is(err, syscall.ENOSPC) {
					t.Fatal(err)
				}
			}, func() {
				if err := os.Remove(filler); err != nil {
					t.Fatal(err)
				}
			}
	}, false},
	"a limit of the size of files": {func(t *testing.T) (life, func(), func()) {
		prlimit := tool(t, "prlimit")
		db := filepath.Join(t.TempDir(), "a.db")
		s := startLife(t, lifeConfig(db))
		limit := func(bytes string) {
			if out, err := exec.Command(prlimit, "--pid", strconv.Itoa(s.cmd.Process.Pid), "--fsize="+bytes+":unlimited").CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}
		return s, func() { limit("4096") }, func() { limit("unlimited") }
	}, true},
}

// TestF3_diskFull: on a full disk, changes and requests that take credits get a 503, others are
// served, and nothing that was answered is lost. When there is space again, all works again.
func TestF3_diskFull(t *testing.T) {
	full(t)
	for name, disk := range fullDisks {
		t.Run(name, func(t *testing.T) { testFullDisk(t, disk) })
	}
}

// TestF4_whileRunning: a file system that becomes read-only under a server, as it does after
// an error of the disk, is like one that is full.
func TestF4_whileRunning(t *testing.T) {
	full(t)
	testFullDisk(t, failingWrites("EROFS"))
}

func testFullDisk(t *testing.T, disk fullDisk) {
	s, fill, free := disk.start(t)
	unlimited, limited, revoked := s.create(), s.create(`"remaining":1000`), s.create()
	for _, k := range []lifeKey{unlimited, limited, revoked} {
		s.wants(k.Raw, 200, "")
	}
	fill()
	// What fits into space that SQLite has already is still written.
	big := fmt.Sprintf(`{"userId":"big","metadata":{"a":%q}}`, strings.Repeat("x", 15<<10))
	eventually(t, "changes are refused", func() bool {
		return s.admin(http.MethodPost, "/apikey/keys", big).status == http.StatusServiceUnavailable
	})
	passed, began, lines := 1, time.Now(), strings.Count(s.Log(), `"level":"error"`)
	for range 100 {
		s.wants(unlimited.Raw, 200, "")
		switch a := s.get(limited.Raw); {
		case a.status == 200 && !disk.always:
			passed++
		case a.status != 503 || a.code() != "STORE_UNAVAILABLE":
			t.Fatalf("a request that takes credits: %v", a)
		}
	}
	a := s.admin(http.MethodPatch, "/apikey/keys/"+revoked.ID, `{"enabled":false}`)
	if a.status != 503 && (disk.always || a.status != 200) {
		t.Errorf("a revocation: %v", a)
	}
	if h := s.admin(http.MethodGet, "/apikey/health", ""); disk.always && h.status != 503 {
		t.Errorf("health: %v", h)
	}
	// The server does not fill its log with what it cannot write.
	if n, most := strings.Count(s.Log(), `"level":"error"`)-lines, 10*(1+int(time.Since(began).Seconds())); n > most {
		t.Errorf("%d errors are in the log, more than 10 a second", n)
	}
	free()
	eventually(t, "changes are made again", func() bool {
		return s.admin(http.MethodPatch, "/apikey/keys/"+revoked.ID, `{"enabled":false}`).status == 200
	})
	s.wants(revoked.Raw, 401, "KEY_DISABLED")
	s.wants(limited.Raw, 200, "")
	if left := s.show(limited.ID).Remaining; left == nil || *left != int64(1000-passed-1) {
		t.Errorf("%d credits are left after %d requests", *left, passed+1)
	}
	copied := filepath.Join(s.Dir, "copy.db")
	s.backup(copied)
	sound(t, copied)
	s.noPanic()
}

// sound checks a database.
func sound(t *testing.T, db string) {
	t.Helper()
	c, err := sql.Open("sqlite", "file:"+db+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var result string
	if err := c.QueryRow("PRAGMA integrity_check").Scan(&result); err != nil || result != "ok" {
		t.Errorf("integrity_check: %s, %v", result, err)
	}
}

// TestF11_descriptors: a server that has no file descriptors left neither ends nor loses its
// database. It goes on serving who is connected, takes credits for it, and serves others again
// when clients have gone.
func TestF11_descriptors(t *testing.T) {
	full(t)
	prlimit := tool(t, "prlimit")
	db := filepath.Join(t.TempDir(), "a.db")
	s := startLife(t, lifeConfig(db))
	k := s.create(`"remaining":1000`)
	connected := &http.Client{Timeout: testTimeout, Transport: &http.Transport{MaxConnsPerHost: 1}}
	defer connected.CloseIdleConnections()
	passed := int64(0)
	serves := func() {
		t.Helper()
		a, err := s.try(connected, "/", k.Raw)
		if err != nil || a.status != 200 {
			t.Fatalf("a client that is connected: %v, %v", a, err)
		}
		passed++
	}
	serves()
	files := s.open(db)
	limit := len(s.descriptors()) + 5
	if out, err := exec.Command(prlimit, "--pid", strconv.Itoa(s.cmd.Process.Pid), fmt.Sprintf("--nofile=%d", limit)).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var flood []net.Conn
	for range 100 {
		c, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "http://"))
		if err != nil {
			break // the queue of the listener is full
		}
		defer c.Close()
		flood = append(flood, c)
	}
	eventually(t, "no descriptor is left", func() bool { return len(s.descriptors()) >= limit })
	for range 20 {
		serves()
	}
	for _, c := range flood {
		c.Close()
	}
	eventually(t, "requests are served again", func() bool {
		a, err := s.retry("/", k.Raw)
		if err == nil && a.status == 200 {
			passed++
		}
		return err == nil && a.status == 200
	})
	if left := s.show(k.ID).Remaining; left == nil || *left != 1000-passed {
		t.Errorf("%d credits are left after %d requests", *left, passed)
	}
	if now := s.open(db); now[3] != files[3] || now[0] == 0 {
		t.Errorf("open files of the database: %v, before %v", now, files)
	}
	s.noPanic()
}

// TestK4_order: a credit is on the disk before the request that it pays for goes on. The first
// byte to the upstream comes after an fsync of the log, which comes after a write to it.
func TestK4_order(t *testing.T) {
	full(t)
	tool(t, "strace")
	u := startUpstream(t)
	db := filepath.Join(t.TempDir(), "a.db")
	s := startLife(t, lifeConfig(db, "apikey", "reverse_proxy "+u.Addr))
	k := s.create(`"remaining":100000`)
	s.wants(k.Raw, 200, "")
	trace := filepath.Join(t.TempDir(), "trace")
	end := s.attach("-o", trace, "-yy", "-s", "4", "-e", "trace=pwrite64,fsync,fdatasync,write,sendto,writev")
	n := times(200, 1000)
	for range n {
		s.wants(k.Raw, 200, "")
	}
	end()
	f, err := os.Open(trace)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, port, _ := net.SplitHostPort(u.Addr)
	log := regexp.QuoteMeta(db + "-wal>")
	written := regexp.MustCompile(`^\d+ +pwrite64\(\d+<` + log)
	begun := regexp.MustCompile(`^(\d+) +f(?:data)?sync\(\d+<` + log)
	resumed := regexp.MustCompile(`^(\d+) +<\.\.\. f(?:data)?sync resumed>\) += 0`)
	forwarded := regexp.MustCompile(`^\d+ +(?:write|sendto|writev)\(\d+<TCP:\[[^]]*->[^]]*:` + port + `\]>`)
	var wrote, safe bool
	syncing := map[string]bool{} // by thread: an fsync after the write has begun
	sent, early := 0, 0
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := lines.Text()
		switch m := begun.FindStringSubmatch(line); {
		case written.MatchString(line):
			wrote = true
		case m != nil && strings.HasSuffix(line, "= 0"):
			safe = safe || wrote
		case m != nil:
			syncing[m[1]] = wrote
		case resumed.MatchString(line):
			thread := resumed.FindStringSubmatch(line)[1]
			safe, syncing[thread] = safe || syncing[thread], false
		case forwarded.MatchString(line):
			sent++
			if !safe {
				early++
			}
			wrote, safe = false, false
		}
	}
	if sent < n || early > 0 {
		t.Errorf("%d requests went to the upstream, %d of %d before their debit was on the disk", sent, early, n)
	}
}
