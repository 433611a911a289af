package e2e

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"
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
	return onTerminalOf(t, 80, cmd)
}

// onTerminalOf starts a command on a terminal of so many columns.
func onTerminalOf(t *testing.T, columns uint16, cmd *exec.Cmd) *terminal {
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
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns}); err != nil {
		t.Fatal(err)
	}
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

// answer waits for a prompt that does not show what is typed, and types a line.
func (term *terminal) answer(prompt, line string) {
	term.t.Helper()
	term.reply(prompt, line, false)
}

// reply waits for a prompt, and until the terminal shows what is typed or does not,
// and types a line.
func (term *terminal) reply(prompt, line string, echoes bool) {
	term.t.Helper()
	for deadline := time.Now().Add(startTimeout); !strings.HasSuffix(term.text(), prompt) || term.echoes() != echoes; {
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

// TestQ49_questions: what cannot be undone names what goes and asks, and an answer
// other than yes changes nothing.
func TestQ49_questions(t *testing.T) {
	full(t)
	c := startCLI(t)
	one := c.json("create", "--owner", "alice", "--name", "laptop")["id"].(string)
	two := c.json("create", "--owner", "alice")["id"].(string)
	old := c.json("create", "--owner", "bob", "--expires-in", "1s")["id"].(string)
	eventually(t, "the key has expired", func() bool { return c.json("show", old)["state"] == "expired" })
	const prompt = "Continue? [y/N] "
	for _, tt := range []struct {
		args  []string
		names []string
		after []string // what the output says after yes
	}{
		{[]string{"revoke", one, two}, []string{"disables 2 keys", one, `"laptop" of alice`, two}, []string{one, "is disabled"}},
		{[]string{"update", "--disabled", one, two}, []string{"disables 2 keys", one, two}, []string{"disabled"}},
		{[]string{"delete", one, "nope"}, []string{"deletes 2 keys permanently", one, "nope, which does not exist"}, []string{"Deleted key " + one, "nope: key not found", "1 of 2 keys failed"}},
		{[]string{"delete-expired"}, []string{"deletes 1 expired key permanently"}, []string{"Deleted 1 expired key."}},
		{[]string{"owner", "delete", "alice"}, []string{"deletes owner alice and 1 key permanently"}, []string{"Deleted owner alice and 1 key."}},
	} {
		before := c.exits(0, "list", "--json").stdout
		for _, answer := range []string{"\n", "n\n", "\x04"} {
			term := onTerminal(t, c.s.command(append([]string{"apikey"}, tt.args...)...))
			term.reply(prompt, answer, true)
			if code := term.wait(); code != 1 || !strings.Contains(term.text(), "nothing was changed") {
				t.Errorf("%v, answer %q: exit status %d: %s", tt.args, answer, code, term.text())
			}
			for _, name := range tt.names {
				if !strings.Contains(term.text(), name) {
					t.Errorf("%v: the question does not say %q: %s", tt.args, name, term.text())
				}
			}
		}
		if after := c.exits(0, "list", "--json").stdout; after != before {
			t.Errorf("%v was declined and has changed something: %s", tt.args, after)
		}
		term := onTerminal(t, c.s.command(append([]string{"apikey"}, tt.args...)...))
		term.reply(prompt, "y\n", true)
		term.wait()
		for _, text := range tt.after {
			if !strings.Contains(term.text(), text) {
				t.Errorf("%v: the output does not say %q: %s", tt.args, text, term.text())
			}
		}
	}
	term := onTerminal(t, c.s.command("apikey", "delete-expired"))
	if code := term.wait(); code != 1 || !strings.Contains(term.text(), "there are no expired keys") {
		t.Errorf("nothing to delete: exit status %d: %s", code, term.text())
	}
}

// On a terminal, a table fits and has colors; a pipe gets neither.
func TestCommandTableFits(t *testing.T) {
	full(t)
	c := startCLI(t)
	long := strings.Repeat("部署 long ", 3)
	id := c.json("create", "--owner", "a rather long name of an owner", "--name", strings.TrimSpace(long), "--expires-in", "90d")["id"].(string)
	escape := regexp.MustCompile("\x1b\\[[0-9;]*m")
	table := func(columns uint16, env string, args ...string) (lines []string, raw string) {
		t.Helper()
		cmd := c.s.command(append([]string{"apikey", "list"}, args...)...)
		cmd.Env = append(cmd.Env, "TERM=xterm", env)
		term := onTerminalOf(t, columns, cmd)
		if code := term.wait(); code != 0 {
			t.Fatalf("exit status %d: %s", code, term.text())
		}
		plain := escape.ReplaceAllString(strings.ReplaceAll(term.text(), "\r", ""), "")
		return strings.Split(strings.TrimSuffix(plain, "\n"), "\n"), term.text()
	}
	for _, columns := range []uint16{80, 100} {
		lines, raw := table(columns, "NO_COLOR=")
		for _, line := range lines {
			if n := text.StringWidth(line); n > int(columns) {
				t.Errorf("%d columns in a terminal of %d: %s", n, columns, line)
			}
		}
		if !strings.Contains(lines[1], id) || !strings.Contains(lines[1], "…") || !strings.Contains(lines[1], "active") {
			t.Errorf("%d columns: %s", columns, lines[1])
		}
		if !strings.Contains(raw, "\x1b[32mactive") {
			t.Errorf("no color: %q", raw)
		}
	}
	lines, raw := table(80, "NO_COLOR=1", "--wide")
	if strings.Contains(raw, "\x1b[") || strings.Contains(lines[1], "…") || !strings.Contains(lines[1], strings.TrimSpace(long)) {
		t.Errorf("--wide, without colors: %q", lines)
	}
	if r := c.exits(0, "list"); strings.ContainsAny(r.stdout, "\x1b…") || !strings.Contains(r.stdout, strings.TrimSpace(long)) {
		t.Errorf("in a pipe: %q", r.stdout)
	}
}

// TestF10_restoreAsks: a restore says what it is about to replace, and asks.
func TestF10_restoreAsks(t *testing.T) {
	full(t)
	s := startLife(t, commandSite)
	s.create()
	file := filepath.Join(s.Dir, "backup")
	s.backup(file)
	late := s.create()
	s.stop(syscall.SIGTERM)
	ask := func(answer string) (text string, code int) {
		term := onTerminalOf(t, 200, s.command("apikey", "restore", file))
		term.reply("Continue? [y/N] ", answer, true)
		code = term.wait()
		return term.text(), code
	}
	text, code := ask("n\n")
	if code != 1 || !containsAll(text, "This replaces "+s.db()+", which has 2 keys, by "+file+", which has 1 key.", "nothing was changed") {
		t.Errorf("exit status %d: %s", code, text)
	}
	s.start()
	s.wants(late.Raw, 200, "")
	s.stop(syscall.SIGTERM)
	if text, code := ask("y\n"); code != 0 {
		t.Errorf("exit status %d: %s", code, text)
	}
	s.start()
	s.wants(late.Raw, 401, "INVALID_API_KEY")
}
