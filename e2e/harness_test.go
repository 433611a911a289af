package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	_ "modernc.org/sqlite" // some tests make databases, or look into them
)

// This file runs the real Caddy in processes of its own; doc.go shows how a test
// uses it.

// Waits end with a failure after so long. They only matter where something hangs,
// and are long enough for a machine that does much else.
const (
	startTimeout = 2 * time.Minute
	stopTimeout  = 2 * time.Minute
	pollEvery    = 10 * time.Millisecond
)

// moduleDir is the root folder of this module.
var moduleDir = sync.OnceValues(func() (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		if _, missing := os.Stat(filepath.Join(dir, "go.mod")); missing == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("these tests need the module's source, and there is no go.mod above them")
		}
		dir = filepath.Dir(dir)
	}
	return dir, err
})

// source returns the path of a file or a folder of this repository.
func source(t testing.TB, path ...string) string {
	t.Helper()
	dir, err := moduleDir()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, filepath.Join(path...))
}

// sources returns the files of this repository that match a pattern, such as
// "docs/*.md", as paths from its root.
func sources(t testing.TB, pattern string) []string {
	t.Helper()
	files, err := fs.Glob(os.DirFS(source(t)), pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %d files, %v", pattern, len(files), err)
	}
	return files
}

// dependOnSources reads all folders with code. The test binary does not contain
// what runs in other processes, so "go test" cannot know that a result which it
// has kept is out of date; but it does look at the files that a test has listed.
func dependOnSources(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && path != dir && (d.Name()[0] == '.' || d.Name() == "node_modules") {
			return filepath.SkipDir
		}
		return err
	})
}

// binary is a build of cmd/caddy, made once per test run.
type binary struct {
	once sync.Once
	dir  string
	path string
	err  error
}

var caddyBinary, clockBinary, raceBinary binary

// buildCaddy builds cmd/caddy as it is shipped and returns its path.
func buildCaddy(t testing.TB) string {
	t.Helper()
	return caddyBinary.build(t)
}

// buildClockCaddy builds cmd/caddy with a clock that tests shift.
func buildClockCaddy(t testing.TB) string {
	t.Helper()
	return clockBinary.build(t, "-tags", "testclock")
}

// buildRaceCaddy builds cmd/caddy with the race detector, which takes minutes.
func buildRaceCaddy(t testing.TB) string {
	t.Helper()
	return raceBinary.build(t, "-race")
}

func (b *binary) build(t testing.TB, flags ...string) string {
	t.Helper()
	b.once.Do(func() {
		b.err = b.make(source(t), flags)
	})
	if b.err != nil {
		t.Fatalf("building cmd/caddy: %v", b.err)
	}
	return b.path
}

func (b *binary) make(dir string, flags []string) (err error) {
	if err := dependOnSources(dir); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "caddy-apikey-test"); err != nil {
		return err
	}
	b.path = filepath.Join(b.dir, "caddy")
	if detectRaces {
		flags = append(flags, "-race")
	}
	args := append([]string{"build", "-o", b.path, "-ldflags=-w", "-buildvcs=false"}, flags...)
	progress.say("building Caddy: go %s ./cmd/caddy", strings.Join(args, " "))
	cmd := exec.Command("go", append(args, "./cmd/caddy")...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// detectRaces builds Caddy with the race detector. CONTRIBUTING.md has the command.
var detectRaces = os.Getenv("APIKEY_RACE") != ""

// raceReports is where the race detector writes, of the server and of its commands: a file
// for each process, with the number of the process at its end.
func (s *server) raceReports() string { return filepath.Join(s.Dir, "race-report") }

// noRaces fails the test where the race detector has reported anything but the races that
// Caddy itself has.
func (s *server) noRaces() {
	s.t.Helper()
	files, err := filepath.Glob(s.raceReports() + ".*")
	if err != nil {
		s.t.Fatal(err)
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, report := range strings.Split(string(text), "==================\n") {
			if strings.Contains(report, "DATA RACE") && !ofCaddy(report) {
				s.t.Errorf("a data race:\n%s", report)
			}
		}
	}
}

// ofCaddy reports whether a race is one that Caddy 2.11.9 has without this plugin: its access
// log reads how much of a body was read, while a transport may still be reading it.
func ofCaddy(report string) bool {
	return strings.Contains(report, "caddyhttp.(*Server).logRequest()\n") && strings.Contains(report, "caddyhttp.(*lengthReader).Read()\n")
}

// measures skips a test of how much memory or time something takes, which the race detector
// multiplies.
func measures(t testing.TB) {
	t.Helper()
	if detectRaces {
		t.Skip("APIKEY_RACE leaves this test out: it measures what the race detector changes")
	}
}

// server is a Caddy process with its own ports and its own files.
type server struct {
	URL   string // of the site, without a slash at the end
	Admin string // URL of the admin endpoint; for a Unix socket it needs adminClient
	Dir   string // temporary; the data directory is Dir/caddy

	t         testing.TB
	adminAddr string // as Caddy writes it: host:port, unix//path
	env       []string
	build     func(testing.TB) string // makes the binary; default: buildCaddy
	caddyfile string
	log       logBuffer // everything that all runs wrote
	wrapper   []string  // runs the server, as in "unshare -m"; it must end in exec

	cmd  *exec.Cmd
	done chan struct{} // closed when cmd has ended
}

// option changes a server before it starts.
type option func(*server)

// withAdmin sets the admin address, such as "unix//tmp/x.sock".
func withAdmin(addr string) option { return func(s *server) { s.adminAddr = addr } }

// withEnv adds "NAME=value" to the environment of the server and its commands.
func withEnv(env ...string) option { return func(s *server) { s.env = append(s.env, env...) } }

// withTestClock runs the build whose clock setClock shifts.
func withTestClock() option { return func(s *server) { s.build = buildClockCaddy } }

// withRaceDetector runs the build that reports data races in its log.
func withRaceDetector() option { return func(s *server) { s.build = buildRaceCaddy } }

// withWrapper runs the server through a command that ends in exec "$@".
func withWrapper(wrapper ...string) option { return func(s *server) { s.wrapper = wrapper } }

// newServer is a server with addresses and a folder, which has nothing to run yet.
func newServer(t testing.TB) *server {
	t.Helper()
	progress.mustKnow(t)
	s := &server{t: t, Dir: t.TempDir(), URL: "http://" + freeAddr(t), adminAddr: freeAddr(t)}
	s.Admin = "http://" + s.adminAddr
	t.Cleanup(func() {
		s.kill()
		s.noRaces()
		if t.Failed() {
			t.Logf("log of the server:\n%s", s.Log())
		}
	})
	return s
}

// startCaddy starts a server and waits until it answers. It ends with the test.
func startCaddy(t testing.TB, caddyfile string, options ...option) *server {
	t.Helper()
	s := newServer(t)
	s.caddyfile = caddyfile
	for _, o := range options {
		o(s)
	}
	s.Admin = "http://" + s.adminAddr
	if s.adminAddress().IsUnixNetwork() {
		s.Admin = "http://127.0.0.1" // the host that Caddy allows there
	}
	if err := os.WriteFile(s.file(), []byte(caddyfile), 0o600); err != nil {
		t.Fatal(err)
	}
	s.start()
	return s
}

// start starts the server, for the first time or again on the same files.
func (s *server) start() {
	s.t.Helper()
	s.launch(s.file())
	s.wait()
}

// launch starts the server with a configuration, without waiting for it.
func (s *server) launch(file string) {
	s.t.Helper()
	s.cmd = s.command("run", "--config", file)
	if s.wrapper != nil {
		wrapped := exec.Command(s.wrapper[0], append(s.wrapper[1:], s.cmd.Args...)...) //nolint:gosec // a test's own
		wrapped.Dir, wrapped.Env = s.cmd.Dir, s.cmd.Env
		s.cmd = wrapped
	}
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	if err := s.cmd.Start(); err != nil {
		s.t.Fatalf("starting caddy: %v", err)
	}
	cmd, done := s.cmd, make(chan struct{})
	s.done = done
	go func() {
		cmd.Wait() //nolint:errcheck // the state is in cmd.ProcessState
		close(done)
	}()
}

// wait polls the admin endpoint and the site until both answer, however.
func (s *server) wait() {
	s.t.Helper()
	site := !strings.Contains(s.caddyfile, "{$SITE}")
	admin := strings.Contains(s.caddyfile, "admin off")
	adminClient := s.adminClient()
	for deadline := time.Now().Add(startTimeout); !site || !admin; {
		// This waits for the load of a configuration that is under way.
		admin = admin || answers(adminClient, s.Admin+"/config/") == http.StatusOK
		site = site || answers(http.DefaultClient, s.URL) != 0
		select {
		case <-s.done:
			s.t.Fatalf("caddy ended: %v", s.cmd.ProcessState)
		case <-time.After(pollEvery):
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("caddy does not answer (site: %v, admin: %v)", site, admin)
		}
	}
}

// answers returns the status of an answer, 0 for none.
func answers(c *http.Client, url string) int {
	resp, err := c.Get(url)
	if err != nil {
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

// adminClient returns a client that reaches the admin endpoint wherever it is.
func (s *server) adminClient() *http.Client {
	s.t.Helper()
	addr := s.adminAddress()
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, addr.Network, addr.JoinHostPort(0))
		},
	}}
}

func (s *server) adminAddress() caddy.NetworkAddress {
	s.t.Helper()
	addr, err := caddy.ParseNetworkAddress(s.adminAddr)
	if err != nil {
		s.t.Fatal(err)
	}
	if addr.IsUnixNetwork() {
		addr.Host, _, _ = strings.Cut(addr.Host, "|") // the socket's permissions
	}
	return addr
}

// reload gives the server another Caddyfile, and fails the test if it is refused.
func (s *server) reload(caddyfile string) {
	s.t.Helper()
	if err := os.WriteFile(s.file(), []byte(caddyfile), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.caddyfile = caddyfile
	if r := s.run("reload", "--force", "--config", s.file()); r.code != 0 {
		s.t.Fatalf("reload: exit status %d\n%s", r.code, r.stderr)
	}
}

// stop sends a signal and waits for the end. It returns the exit status.
func (s *server) stop(sig os.Signal) int {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.t.Fatalf("signal: %v", err)
	}
	select {
	case <-s.done:
	case <-time.After(stopTimeout):
		s.t.Errorf("caddy goes on running after %v", sig)
		s.kill()
	}
	return s.cmd.ProcessState.ExitCode()
}

// ended reports whether the process of a server that was started has ended.
func (s *server) ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// kill ends the server without giving it a chance. It may have ended already.
func (s *server) kill() {
	if s.done == nil {
		return
	}
	s.cmd.Process.Signal(syscall.SIGKILL) //nolint:errcheck // nothing to end
	<-s.done
}

// result is what a command wrote, and its exit status.
type result struct {
	stdout, stderr string
	code           int
}

// run runs a command of the caddy binary, such as run("apikey", "list").
func (s *server) run(args ...string) result {
	s.t.Helper()
	return s.runWith("", args...)
}

// runWith runs a command with text on its standard input.
func (s *server) runWith(stdin string, args ...string) result {
	s.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := s.command(args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		s.t.Fatalf("running caddy: %v", err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// command returns a command of the caddy binary in the server's environment.
func (s *server) command(args ...string) *exec.Cmd {
	s.t.Helper()
	build := s.build
	if build == nil {
		build = buildCaddy
	}
	cmd := exec.Command(build(s.t), args...)
	cmd.Dir = s.Dir
	cmd.Env = append(os.Environ(),
		"XDG_DATA_HOME="+s.Dir, "XDG_CONFIG_HOME="+s.Dir, "HOME="+s.Dir,
		"CADDY_ADMIN="+s.adminAddr, "SITE="+s.URL)
	if detectRaces {
		cmd.Env = append(cmd.Env, "GORACE=exitcode=0 log_path="+s.raceReports())
	}
	cmd.Env = append(cmd.Env, s.env...)
	return cmd
}

// file is where the Caddyfile lies: under a name that Caddy does not find alone.
func (s *server) file() string { return filepath.Join(s.Dir, "test.caddyfile") }

// Log returns what the server has written so far.
func (s *server) Log() string { return s.log.String() }

// freeAddr returns an address on the loopback interface that nobody listens on and
// that no other test is given. Its port is below those that the system gives to
// outgoing connections, so that none of them takes it before the server does.
func freeAddr(t testing.TB) string {
	t.Helper()
	for range 1000 {
		port := 10_000 + rand.IntN(20_000)
		if _, given := portsGiven.LoadOrStore(port, true); given {
			continue
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		defer l.Close()
		return l.Addr().String()
	}
	t.Fatal("no port is free")
	return ""
}

var portsGiven sync.Map

// logBuffer is a buffer that may be written and read at the same time.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
