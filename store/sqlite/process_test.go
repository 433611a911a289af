package sqlite_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
	"github.com/caddy-apikey/caddy-apikey/store/sqlite"
)

// childVar makes the test binary another process: "<what>:<path>".
const childVar = "APIKEY_SQLITE_TEST_CHILD"

func init() {
	what, path, ok := strings.Cut(os.Getenv(childVar), ":")
	if !ok {
		return
	}
	o, err := sqlite.New(sqlite.Options{Path: path})
	if err == nil {
		err = childMain(what, o)
	}
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func childMain(what string, o store.Opener) error {
	ctx := context.Background()
	s, err := o.Open(ctx)
	if err != nil {
		return err
	}
	fmt.Println("open", os.Getpid())
	switch what {
	case "hold": // until standard input ends
		_, _ = io.Copy(io.Discard, os.Stdin)
	case "endure": // a sick disk: says what became of each call
		for range 300 {
			if got, err := s.MoveCredits(ctx, store.OfKey(newKey(1).ID), key.Move{Take: 1}, now); err != nil {
				fmt.Println("failed", err)
			} else if got.OK {
				fmt.Println("took")
			}
		}
	case "backup": // onto a disk that has no room for it
		for n := 0; ; n++ {
			b, err := s.(store.Backuper).Backup(ctx)
			if err != nil {
				fmt.Println("failed", err)
				break
			}
			if err := b.Close(); err != nil {
				return err
			}
			k := newKey(n)
			k.Metadata = []byte(`{"m":"` + strings.Repeat("x", 16_000) + `"}`)
			if _, err := s.Create(ctx, k, key.Credits{}, store.KeyLimit{}, nil); err != nil {
				return err
			}
		}
		for n := range 3 { // there is room again
			if _, err := s.Create(ctx, newKey(1<<20+n), key.Credits{}, store.KeyLimit{}, nil); err != nil {
				return err
			}
		}
		left, err := os.ReadDir(filepath.Dir(o.(*sqlite.Opener).Path()))
		if err != nil {
			return err
		}
		for _, l := range left {
			fmt.Println("left", l.Name())
		}
	case "spend": // until killed; each line is a credit that is gone
		for w := range 8 {
			go func() {
				for {
					if got, err := s.MoveCredits(ctx, store.OfKey(newKey(w%2+1).ID), key.Move{Take: 1}, now); err != nil || !got.OK {
						fmt.Println("failed", got, err)
						return
					}
					fmt.Println("took")
				}
			}()
		}
		select {}
	}
	return s.Close()
}

// child starts this test binary as another process and waits for its first line.
func child(t *testing.T, what, path string, under ...string) (cmd *exec.Cmd, out *bufio.Scanner, stdin io.Closer) {
	t.Helper()
	under = append(under, os.Args[0])
	cmd = exec.Command(under[0], under[1:]...) //nolint:gosec // ourselves
	cmd.Env = append(os.Environ(), childVar+"="+what+":"+path)
	in, err := cmd.StdinPipe()
	must(t, err)
	pipe, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	out = bufio.NewScanner(pipe)
	if !out.Scan() {
		t.Fatal("the other process said nothing")
	}
	return cmd, out, in
}

func TestC9_secondStoreInThisProcess(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys.db")
	s := open(t, path)
	refused(t, path, "in use", "this process already", fmt.Sprint(os.Getpid()), path+".lock")
	create(t, s, 1, 5) // undisturbed
	must(t, s.Close())
	open(t, path)
}

func TestC9_secondProcess(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys.db")
	cmd, _, stdin := child(t, "hold", path)
	refused(t, path, "in use", fmt.Sprintf("pid %d", cmd.Process.Pid))
	must(t, stdin.Close())
	// Opening waits for the other process to end, but not forever: on a busy machine
	// that may take longer.
	for range 10 {
		s, err := opener(t, path).Open(t.Context())
		if err == nil {
			must(t, s.Close())
			return
		}
		t.Log(err)
	}
	t.Error("the store does not open after the other process has ended")
}

func TestC9_lockWaitEndsWithContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	open(t, path)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := opener(t, path).Open(ctx)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// TestK3_kill kills a process that spends and checks that what it had
// answered is in the database, and that the database is whole.
func TestK3_kill(t *testing.T) {
	t.Parallel()
	rounds := 12
	switch {
	case os.Getenv("APIKEY_LONG") != "": // CONTRIBUTING.md has the command
		rounds = 200
	case testing.Short():
		rounds = 3
	}
	const credits = 1 << 40
	path := filepath.Join(t.TempDir(), "keys.db")
	s := open(t, path)
	create(t, s, 1, credits)
	create(t, s, 2, credits)
	must(t, s.Close())
	var acknowledged int64
	for round := range rounds {
		cmd, out, _ := child(t, "spend", path)
		stop := 1 + rand.IntN(400)
		for n := 0; n < stop && out.Scan(); n++ {
			if out.Text() != "took" {
				t.Fatal(out.Text())
			}
			acknowledged++
		}
		must(t, cmd.Process.Kill())
		for out.Scan() { // what it had said before it died
			if out.Text() == "took" {
				acknowledged++
			}
		}
		_ = cmd.Wait()

		s := open(t, path)
		var spent int64
		for n := 1; n <= 2; n++ {
			e, err := s.Get(t.Context(), newKey(n).ID)
			must(t, err)
			spent += credits - e.Credits.Remaining
		}
		must(t, s.Close())
		// Each kill may swallow the answers of eight calls.
		if spent < acknowledged || spent > acknowledged+8*int64(round+1) {
			t.Fatalf("round %d: %d spent, %d acknowledged", round, spent, acknowledged)
		}
		if got := query(t, path, "PRAGMA integrity_check"); got != "ok" {
			t.Fatalf("round %d: %s", round, got)
		}
	}
	t.Logf("%d credits acknowledged over %d kills", acknowledged, rounds)
}

// TestC10_foreignReader reads through another process while we write (bar E10).
func TestC10_foreignReader(t *testing.T) {
	shell, err := exec.LookPath("sqlite3")
	if err != nil {
		lacking(t, "sqlite3 is not installed")
	}
	path := filepath.Join(t.TempDir(), "keys.db")
	s := open(t, path)
	_, err = s.Health(t.Context())
	must(t, err)
	for n := 1; n <= 100; n++ {
		create(t, s, n, 5)
		if n%25 != 0 {
			continue
		}
		out, err := exec.Command(shell, path, "SELECT count(*) FROM keys").CombinedOutput() //nolint:gosec // a test's own path
		if err != nil || strings.TrimSpace(string(out)) != fmt.Sprint(n) {
			t.Fatalf("after %d keys another process sees %s (%v)", n, out, err)
		}
		if _, err := os.Stat(path + "-wal"); err != nil {
			t.Fatal("the log was taken away: ", err)
		}
	}
}

// lacking skips a test for want of something, but fails it in CI, which has it.
func lacking(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("in CI this must be there: %s", what)
	}
	t.Skip(what)
}

// TestF2_fsyncFails makes fsync fail a few times. What was answered with an
// error must not be stored, and what comes after must be again.
func TestF2_fsyncFails(t *testing.T) {
	t.Parallel()
	strace, err := exec.LookPath("strace")
	if err != nil {
		lacking(t, "strace is not installed")
	}
	const credits = 1000
	for _, when := range []string{"20", "20..22", "20+7"} {
		t.Run(when, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "keys.db")
			s := open(t, path)
			create(t, s, 1, credits)
			must(t, s.Close())
			cmd, out, _ := child(t, "endure", path, strace, "-f", "-qq", "-o", "/dev/null",
				"-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO:when="+when)
			var took, failures, tookAfter int64
			for out.Scan() {
				switch line := out.Text(); {
				case line == "took":
					took++
					if failures > 0 {
						tookAfter++
					}
				case strings.HasPrefix(line, "failed") && strings.Contains(line, store.ErrUnavailable.Error()):
					failures++
				default:
					t.Error(line)
				}
			}
			_ = cmd.Wait()
			if took+failures == 0 {
				lacking(t, "strace cannot trace here")
			}
			e, err := open(t, path).Get(t.Context(), newKey(1).ID)
			must(t, err)
			if spent := credits - e.Credits.Remaining; spent != took {
				t.Errorf("%d spent, %d acknowledged", spent, took)
			}
			if failures == 0 || tookAfter == 0 {
				t.Errorf("%d failures, and %d successes after the first", failures, tookAfter)
			}
			t.Logf("%d taken, %d failed, %d taken after the first failure", took, failures, tookAfter)
		})
	}
}
