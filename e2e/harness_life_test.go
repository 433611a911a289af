package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// This file adds to the harness what tests of a server's life need: loading
// configurations, looking at its files and goroutines, and starts that must fail.

// life is a server whose insides are looked at.
type life struct{ *server }

func startLife(t testing.TB, caddyfile string, options ...option) life {
	t.Helper()
	l := life{startCaddy(t, caddyfile, options...)}
	l.awaitConfig(0)
	return l
}

// start starts the server, for the first time or again on the same files.
func (l life) start() {
	l.t.Helper()
	before := strings.Count(l.Log(), servingMessage)
	l.server.start()
	l.awaitConfig(before)
}

const servingMessage = "serving initial configuration"

// awaitConfig waits until the configuration rules the admin API too, which is a
// little after the site answers.
func (l life) awaitConfig(before int) {
	l.t.Helper()
	eventually(l.t, "the server says that it serves", func() bool { return strings.Count(l.Log(), servingMessage) > before })
}

// times is how often a test does what it does: now and then in its short form,
// which runs with the others, or as often as the reliability bar asks for in the
// long one. CONTRIBUTING.md has the command.
func times(short, long int) int {
	if isLong() {
		return long
	}
	return short
}

func isLong() bool { return os.Getenv("APIKEY_LONG") != "" }

// lifeConfig is a Caddyfile with a database, and lines of the site in place of
// the gate and "respond ok".
func lifeConfig(db string, site ...string) string {
	if site == nil {
		site = []string{"apikey", "respond ok"}
	}
	return fmt.Sprintf("{\n\tapikey {\n\t\tstore sqlite %s\n\t}\n}\n{$SITE} {\n\t%s\n}\n", db, strings.Join(site, "\n\t"))
}

// newLife is a server that has its files and is not running.
func newLife(t testing.TB, caddyfile string) life {
	t.Helper()
	l := life{newServer(t)}
	l.write(caddyfile)
	return l
}

func (l life) write(caddyfile string) {
	l.t.Helper()
	l.caddyfile = caddyfile
	if err := os.WriteFile(l.file(), []byte(caddyfile), 0o600); err != nil {
		l.t.Fatal(err)
	}
}

// runToEnd runs the server, which must end by itself within the time given.
func (l life) runToEnd(within time.Duration, wrapper ...string) result {
	l.t.Helper()
	cmd := l.command("run", "--config", l.file())
	if len(wrapper) > 0 {
		wrapped := exec.Command(wrapper[0], append(wrapper[1:], cmd.Args...)...) //nolint:gosec // a test's own
		wrapped.Dir, wrapped.Env = cmd.Dir, cmd.Env
		cmd = wrapped
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	late := time.AfterFunc(within, func() { cmd.Process.Kill() }) //nolint:errcheck // it may have ended
	cmd.Wait()                                                    //nolint:errcheck // the state is in cmd.ProcessState
	if !late.Stop() {
		l.t.Errorf("the server was still running after %v\n%s", within, stderr.String())
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// failsToStart checks that a start ends with exit status 1 and one line that
// says all of why, without a panic.
func (l life) failsToStart(why ...string) {
	l.t.Helper()
	r := l.runToEnd(startTimeout)
	if r.code != 1 {
		l.t.Errorf("exit status %d\n%s", r.code, r.stderr)
	}
	l.errorLine(r.stderr, why...)
}

func (l life) errorLine(stderr string, why ...string) {
	l.t.Helper()
	if strings.Contains(stderr, "panic") || strings.Contains(stderr, "goroutine ") {
		l.t.Errorf("a panic:\n%s", stderr)
	}
	for line := range strings.Lines(stderr) {
		if strings.Contains(line, `"level":"error"`) && containsAll(line, why...) {
			return
		}
	}
	l.t.Errorf("no error that says %q:\n%s", why, stderr)
}

func containsAll(s string, parts ...string) bool {
	for _, p := range parts {
		if !strings.Contains(s, p) {
			return false
		}
	}
	return true
}

// lifeAnswer is an HTTP answer.
type lifeAnswer struct {
	status int
	header http.Header
	body   string
}

// code is the code of a refusal, or "".
func (a lifeAnswer) code() string {
	var p struct{ Code string }
	json.Unmarshal([]byte(a.body), &p) //nolint:errcheck // no JSON, no code
	return p.Code
}

func (a lifeAnswer) String() string { return fmt.Sprintf("%d %s", a.status, a.body) }

// lifeClient opens a connection for each request, so that none meets a
// connection that a server has just closed.
var lifeClient = &http.Client{Timeout: testTimeout, Transport: &http.Transport{DisableKeepAlives: true}}

// try sends a request and returns an error where there was no answer.
func (l life) try(client *http.Client, path, raw string) (lifeAnswer, error) {
	return lifeDo(client, l.newRequest(path, raw))
}

// retry is try, but it does not mind what a reload does to connections.
func (l life) retry(path, raw string) (lifeAnswer, error) {
	return lifeRetry(lifeClient, l.newRequest(path, raw))
}

func (l life) newRequest(path, raw string) *http.Request {
	req, err := http.NewRequest(http.MethodGet, l.URL+path, nil)
	if err != nil {
		panic(err) // a path of a test that is none
	}
	if raw != "" {
		req.Header.Set("X-API-Key", raw)
	}
	return req
}

// lifeRetry sends a request again whose connection was closed without an answer.
// With each reload, Caddy closes a socket that may have connections waiting, which
// no configuration has seen.
func lifeRetry(client *http.Client, req *http.Request) (a lifeAnswer, err error) {
	for range 5 {
		if a, err = lifeDo(client, req); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
			break
		}
		if req.GetBody != nil {
			req.Body, _ = req.GetBody() // of memory: no error
		}
	}
	return a, err
}

func lifeDo(client *http.Client, req *http.Request) (lifeAnswer, error) {
	resp, err := client.Do(req)
	if err != nil {
		return lifeAnswer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return lifeAnswer{resp.StatusCode, resp.Header, string(body)}, err
}

// get sends a request with a key to the site.
func (l life) get(raw string) lifeAnswer {
	l.t.Helper()
	a, err := l.retry("/", raw)
	if err != nil {
		l.t.Fatal(err)
	}
	return a
}

// wants sends a request with a key and checks status and code of the answer.
func (l life) wants(raw string, status int, code string) {
	l.t.Helper()
	if a := l.get(raw); a.status != status || a.code() != code {
		l.t.Errorf("answer %v, want %d %s", a, status, code)
	}
}

// admin calls the admin endpoint.
func (l life) admin(method, path, body string, header ...string) lifeAnswer {
	l.t.Helper()
	req, err := http.NewRequest(method, l.Admin+path, strings.NewReader(body))
	if err != nil {
		l.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	a, err := lifeRetry(lifeClient, req)
	if err != nil {
		l.t.Fatal(err)
	}
	return a
}

// load gives the server a Caddyfile, or JSON, as "caddy reload --force" does.
func (l life) load(config string) lifeAnswer {
	l.t.Helper()
	contentType := "text/caddyfile"
	if json.Valid([]byte(config)) {
		contentType = "application/json"
	}
	return l.admin(http.MethodPost, "/load", config, "Content-Type", contentType, "Cache-Control", "must-revalidate")
}

// loads gives the server a configuration that it must take.
func (l life) loads(config string) {
	l.t.Helper()
	if a := l.load(config); a.status != http.StatusOK {
		l.t.Fatalf("the configuration was refused: %v\n%s", a, config)
	}
}

// lifeKey is a key that was made.
type lifeKey struct {
	ID        string `json:"id"`
	Raw       string `json:"key"`
	Secret    string `json:"secret"`
	Remaining *int64 `json:"remaining"`
	Enabled   bool   `json:"enabled"`
}

// create makes a key; more are further fields, such as `"remaining":1`.
func (l life) create(more ...string) lifeKey {
	l.t.Helper()
	a := l.admin(http.MethodPost, "/apikey/keys", "{"+strings.Join(append([]string{`"userId":"alice"`}, more...), ",")+"}")
	var k lifeKey
	if err := json.Unmarshal([]byte(a.body), &k); a.status != http.StatusCreated || err != nil {
		l.t.Fatalf("create: %v", a)
	}
	return k
}

// show returns a key as the admin API shows it.
func (l life) show(id string) (k lifeKey) {
	l.t.Helper()
	a := l.admin(http.MethodGet, "/apikey/keys/"+id, "")
	if err := json.Unmarshal([]byte(a.body), &k); a.status != http.StatusOK || err != nil {
		l.t.Fatalf("show: %v", a)
	}
	return k
}

// db is where the database lies by default.
func (l life) db() string { return filepath.Join(l.Dir, "caddy", "apikey", "apikey.db") }

var lifeSuffixes = []string{"", "-wal", "-shm", ".lock"}

// open counts the descriptors that the server has of a database, of its log,
// its shared memory and its lock.
func (l life) open(db string) (n [4]int) {
	l.t.Helper()
	for _, name := range l.descriptors() {
		name = strings.TrimSuffix(name, " (deleted)")
		for i, suffix := range lifeSuffixes {
			if name == db+suffix {
				n[i]++
			}
		}
	}
	return n
}

// descriptors lists what the server has open.
func (l life) descriptors() (names []string) {
	l.t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", l.cmd.Process.Pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, e := range entries {
		if name, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil {
			names = append(names, name)
		}
	}
	return names
}

// locks counts the locks of all processes on the lock file of a database. The
// table of locks is no snapshot: while other processes lock files, a reader may
// miss a line or see it twice. So another number than 1 is read several times.
func (l life) locks(db string) (n int) {
	l.t.Helper()
	// The device in hexadecimal, as /proc/locks has it: inodes repeat from one
	// file system to another.
	id, err := exec.Command("stat", "-c", "%Hd %Ld %i", db+".lock").Output()
	if err != nil {
		l.t.Fatal(err)
	}
	var major, minor, inode uint64
	if _, err := fmt.Sscan(string(id), &major, &minor, &inode); err != nil {
		l.t.Fatal(err)
	}
	for range 100 {
		table, err := os.ReadFile("/proc/locks")
		if err != nil {
			l.t.Fatal(err)
		}
		if n = strings.Count(string(table), fmt.Sprintf(" %02x:%02x:%d ", major, minor, inode)); n == 1 {
			break
		}
	}
	return n
}

// goroutines counts the goroutines of the server.
func (l life) goroutines() int {
	l.t.Helper()
	a := l.admin(http.MethodGet, "/debug/pprof/goroutine?debug=1", "")
	first, _, _ := strings.Cut(a.body, "\n")
	n, err := strconv.Atoi(strings.TrimPrefix(first, "goroutine profile: total "))
	if err != nil {
		l.t.Fatalf("goroutine profile: %v", a)
	}
	return n
}

// resident is the memory of the server in KiB, after its garbage was collected.
func (l life) resident() (kib int) {
	l.t.Helper()
	l.admin(http.MethodGet, "/debug/pprof/heap?gc=1", "")
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", l.cmd.Process.Pid))
	if err != nil {
		l.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		l.t.Fatal(err)
	}
	return kib
}

// noPanic checks that nothing the server wrote tells of a panic.
func (l life) noPanic() {
	l.t.Helper()
	log := l.Log()
	for _, word := range []string{"panic", "DATA RACE", "nil pointer", "goroutine 1 ["} {
		if i := strings.Index(log, word); i >= 0 {
			l.t.Errorf("the server wrote %q: …%s", word, log[max(0, i-300):min(len(log), i+1500)])
		}
	}
}

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(startTimeout); !holds(); time.Sleep(pollEvery) {
		if time.Now().After(deadline) {
			t.Fatalf("still not so: %s", what)
		}
	}
}

// blocking is an upstream whose answers to /slow wait for release. The query
// parameter "status" is what it answers, on any path.
type blocking struct {
	*httptest.Server
	arrived chan struct{} // one for each request to /slow
	release func()        // lets all requests to /slow go on, for good
}

func newBlocking(t testing.TB) blocking {
	released, once := make(chan struct{}), atomic.Bool{}
	b := blocking{arrived: make(chan struct{}, 100), release: func() {
		if !once.Swap(true) {
			close(released)
		}
	}}
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/slow") {
			b.arrived <- struct{}{}
			<-released
		}
		if r.URL.Query().Get("status") == "drop" {
			panic(http.ErrAbortHandler) // closes the connection
		}
		if status, err := strconv.Atoi(r.URL.Query().Get("status")); err == nil {
			w.WriteHeader(status)
		}
	}))
	t.Cleanup(func() { b.release(); b.Close() })
	return b
}

// addr is where the upstream listens.
func (b blocking) addr() string { return b.Listener.Addr().String() }

// background sends a request that is answered later.
func (l life) background(path, raw string) <-chan lifeAnswer {
	answer := make(chan lifeAnswer, 1)
	go func() {
		a, err := l.retry(path, raw)
		if err != nil {
			a.body = err.Error()
		}
		answer <- a
	}()
	return answer
}

// await waits for something to come out of a channel.
func await[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(startTimeout):
		t.Fatalf("did not happen: %s", what)
		panic("unreachable")
	}
}

// portInUse is an address that no Caddy can listen on.
func portInUse(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln.Addr().String()
}

// tool finds a program that a test needs. Where it is missing the test is
// skipped, but never in CI.
func tool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		lacking(t, errors.New(name+" is not installed"))
	}
	return path
}

func lacking(t testing.TB, why error) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("in CI this must be there: %v", why)
	}
	t.Skip(why)
}

// decode reads JSON that must be there.
func decode(t testing.TB, text string, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
}
