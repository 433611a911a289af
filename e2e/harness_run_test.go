package e2e

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// This file decides which tests run, how many at the same time, and says how far
// they are.

// Tests wait for processes and disks more than they compute, so there are more at
// a time than processors, but not many: each has a server or two.
const mostTests = 8

func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		n := min(2*runtime.GOMAXPROCS(0), mostTests)
		flag.Set("test.parallel", strconv.Itoa(n)) //nolint:errcheck // a flag that there is
	}
	progress.open()
	code := m.Run()
	for _, b := range []*binary{&caddyBinary, &clockBinary, &raceBinary} {
		if b.dir != "" {
			os.RemoveAll(b.dir)
		}
	}
	os.Exit(code)
}

// full begins a test that runs beside others, but not with -short. A test calls
// full or quick first.
func full(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("-short leaves this test out; without it, it runs")
	}
	progress.begin(t)
}

// quick begins a test that runs beside others, also with -short. Together, these
// tests make, use and take away keys once by each way there is, in some seconds.
func quick(t *testing.T) {
	t.Helper()
	progress.begin(t)
}

// reporter tells a person at a terminal how far the tests are: "go test ./..."
// shows nothing of a package before it has ended.
type reporter struct {
	terminal *os.File // nil: nobody is told

	mu      sync.Mutex
	known   map[string]bool
	running map[string]time.Time // when they began
	ended   int
}

var progress = &reporter{known: map[string]bool{}, running: map[string]time.Time{}}

// open looks for the terminal. There is none in CI, and with -v the tests are
// shown anyway.
func (r *reporter) open() {
	if os.Getenv("CI") != "" || testing.Verbose() {
		return
	}
	terminal, err := os.OpenFile("/dev/tty", os.O_WRONLY, 0)
	if err != nil {
		return
	}
	r.terminal = terminal
	go func() {
		for range time.Tick(10 * time.Second) {
			r.tell()
		}
	}()
}

// begin lets a test run beside others, once all of them are known.
func (r *reporter) begin(t *testing.T) {
	t.Helper()
	name := t.Name()
	r.mu.Lock()
	r.known[name] = true
	r.mu.Unlock()
	t.Parallel()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running[name] = time.Now()
	t.Cleanup(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.running, name)
		r.ended++
	})
}

// mustKnow fails a test that has not begun with full or quick.
func (r *reporter) mustKnow(t testing.TB) {
	t.Helper()
	name, _, _ := strings.Cut(t.Name(), "/")
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.known[name] {
		t.Fatalf("%s must begin with full(t) or quick(t)", name)
	}
}

// tell says how many tests have ended, and which run, the oldest first.
func (r *reporter) tell() {
	r.mu.Lock()
	defer r.mu.Unlock()
	var names []string
	for name := range r.running {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(r.running[a].UnixNano(), r.running[b].UnixNano()) })
	for i, name := range names {
		names[i] = fmt.Sprintf("%s (%.0fs)", name, time.Since(r.running[name]).Seconds())
	}
	r.say("%d of %d tests are done; running %s", r.ended, len(r.known), strings.Join(names, ", "))
}

// say writes a line to the terminal, if the tests run in its foreground.
func (r *reporter) say(format string, args ...any) {
	if r.terminal == nil {
		return
	}
	group, err := unix.IoctlGetInt(int(r.terminal.Fd()), unix.TIOCGPGRP)
	if err != nil || group != unix.Getpgrp() {
		return
	}
	fmt.Fprintf(r.terminal, "e2e: "+format+"\n", args...)
}
