package e2e

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is a pseudo-terminal with a command on it.
type terminal struct {
	t      *testing.T
	master *os.File
	cmd    *exec.Cmd
	ended  chan struct{} // all output has been read

	mu    sync.Mutex
	shown bytes.Buffer
}

// onTerminal starts a command on a terminal of its own.
func onTerminal(t *testing.T, cmd *exec.Cmd) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		lacking(t, fmt.Errorf("there are no terminals: %w", err))
	}
	t.Cleanup(func() { master.Close() })
	fd := int(master.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	term := &terminal{t: t, master: master, cmd: cmd, ended: make(chan struct{})}
	go func() {
		io.Copy(term, master) //nolint:errcheck // ends with EIO
		close(term.ended)
	}()
	return term
}

func (term *terminal) Write(p []byte) (int, error) {
	term.mu.Lock()
	defer term.mu.Unlock()
	return term.shown.Write(p)
}

func (term *terminal) text() string {
	term.mu.Lock()
	defer term.mu.Unlock()
	return term.shown.String()
}

// answer waits for a prompt and types a line.
func (term *terminal) answer(prompt, line string) {
	term.t.Helper()
	for deadline := time.Now().Add(startTimeout); !strings.HasSuffix(term.text(), prompt) || term.echoes(); {
		if time.Now().After(deadline) {
			term.cmd.Process.Kill() //nolint:errcheck // the test has failed
			term.t.Fatalf("no prompt %q: %q", prompt, term.text())
		}
		time.Sleep(pollEvery)
	}
	if _, err := io.WriteString(term.master, line); err != nil {
		term.t.Fatal(err)
	}
}

// echoes reports whether the terminal shows what is typed.
func (term *terminal) echoes() bool {
	state, err := unix.IoctlGetTermios(int(term.master.Fd()), unix.TCGETS)
	return err == nil && state.Lflag&unix.ECHO != 0
}

func (term *terminal) wait() int {
	term.cmd.Wait() //nolint:errcheck // the state is in ProcessState
	<-term.ended
	return term.cmd.ProcessState.ExitCode()
}

// On a terminal, verify asks and does not show what is typed.
func TestCommandVerifyAsks(t *testing.T) {
	full(t)
	c := startCLI(t)
	lines := strings.Fields(c.exits(0, "create", "--owner", "alice", "--with-secret").stdout)
	term := onTerminal(t, c.s.command("apikey", "verify", "--with-secret"))
	term.answer("API key: ", lines[0]+"\n")
	term.answer("Secret: ", lines[1]+"\n")
	if code := term.wait(); code != 0 || !strings.Contains(term.text(), "Valid: key") {
		t.Errorf("exit status %d: %q", code, term.text())
	}
	for _, secret := range lines {
		if strings.Contains(term.text(), secret[5:15]) {
			t.Error("the terminal shows what was typed")
		}
	}
}

// Who gives up at the prompt gets a terminal back that shows what is typed.
func TestCommandVerifyInterrupted(t *testing.T) {
	full(t)
	c := startCLI(t)
	term := onTerminal(t, c.s.command("apikey", "verify"))
	term.answer("API key: ", "\x03")
	if code := term.wait(); code != 130 {
		t.Errorf("exit status %d: %q", code, term.text())
	}
	if !term.echoes() {
		t.Error("the terminal stays blind")
	}
}

// On a terminal, an import shows a bar, and takes it away at the end.
func TestImportShowsProgress(t *testing.T) {
	full(t)
	c := startCLI(t)
	rows := make([]map[string]any, 1000)
	for i := range rows {
		rows[i] = betterAuthRow(rawKeyOf(fmt.Sprintf("k%d", i)), map[string]any{"id": fmt.Sprintf("id%d", i)})
	}
	db := betterAuthDB(t, rows...)
	file := c.s.Dir + "/keys.ndjson"
	for _, args := range [][]string{{"import", "better-auth", db}, {"export", "--output", file}, {"import", file}} {
		term := onTerminal(t, c.s.command(append([]string{"apikey"}, args...)...))
		code := term.wait()
		_, last, gone := strings.Cut(term.text(), "100%\r\x1b[K")
		if code != 0 || !gone || !strings.Contains(term.text(), "#....") || strings.Contains(last, "#") {
			t.Errorf("%v: exit status %d: %q", args, code, term.text())
		}
		if r := c.exits(0, args...); strings.Contains(r.stdout+r.stderr, "%") {
			t.Errorf("a bar without a terminal: %q", r.stderr)
		}
		if args[0] == "import" {
			r := onTerminal(t, c.s.command(append([]string{"apikey", "--json"}, args...)...))
			if r.wait(); strings.Contains(r.text(), "%") {
				t.Error("a bar beside JSON")
			}
		}
	}
}
