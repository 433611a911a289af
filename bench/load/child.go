package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// childArgument makes this program a part of another run of it.
const childArgument = "child"

func child(args []string) error {
	ctx := context.Background()
	switch {
	case len(args) > 0 && args[0] == "create":
		return childCreate(ctx, args[1:])
	case len(args) == 2 && args[0] == "serve":
		return childServe(os.Stdin, os.Stdout, args[1])
	}
	return errors.New("child: unknown task")
}

func childCommand(ctx context.Context, args ...string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, append([]string{childArgument}, args...)...)
	cmd.Stderr = os.Stderr
	return cmd, nil
}

func runChild(ctx context.Context, args ...string) error {
	cmd, err := childCommand(ctx, args...)
	if err != nil {
		return err
	}
	return cmd.Run()
}

// childServe runs the configuration in the first line of in until in ends, and closes
// the store at path. It writes "ready" when it serves, and the bytes in use after each
// further line.
func childServe(in io.Reader, out io.Writer, path string) error {
	lines := bufio.NewScanner(in)
	if !lines.Scan() {
		return errors.New("serve: no configuration")
	}
	if err := caddy.Load(lines.Bytes(), true); err != nil {
		return err
	}
	fmt.Fprintln(out, "ready")
	for lines.Scan() {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		fmt.Fprintln(out, m.HeapAlloc)
	}
	return errors.Join(lines.Err(), stop(path))
}

// process is a Caddy in a process of its own.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

// startProcess returns when the configuration is served. path is that of its store; empty
// is none.
func startProcess(ctx context.Context, path string, config []byte) (*process, error) {
	cmd, err := childCommand(ctx, "serve", path)
	if err != nil {
		return nil, err
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p := &process{cmd, in, bufio.NewScanner(out)}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	if _, err := in.Write(append(config, '\n')); err != nil {
		return nil, errors.Join(err, p.stop())
	}
	if !p.out.Scan() || p.out.Text() != "ready" {
		return nil, errors.Join(errors.New("the server did not start"), p.stop())
	}
	return p, nil
}

// stop returns when the process has closed its store and ended.
func (p *process) stop() error { return errors.Join(p.in.Close(), p.cmd.Wait()) }

// cpuTime returns the time that the process has spent on processors.
func (p *process) cpuTime() (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("processor time: %w", err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // the name may have blanks in it
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, errors.New("processor time: the kernel does not say")
	}
	var ticks int64
	for _, field := range fields[11:13] { // utime and stime, the 14th and the 15th of all
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("processor time: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * (time.Second / 100), nil // proc_pid_stat(5): clock ticks, 100 a second
}

// folded is how long a process without requests may still have something to do: it writes
// counters after a second, and folds the journal of usage every ten.
const folded = 12 * time.Second

// settle waits until the process has nothing to do any more, ten minutes at most.
func (p *process) settle() error {
	before, err := p.cpuTime()
	for range 10 * time.Minute / folded {
		if err != nil {
			return err
		}
		time.Sleep(folded)
		var after time.Duration
		if after, err = p.cpuTime(); err == nil && after-before <= folded/50 {
			return nil
		}
		before = after
	}
	return errors.Join(err, errors.New("the server is never idle"))
}

// inUse returns the bytes on the heap that are reachable.
func (p *process) inUse() (int64, error) {
	if _, err := fmt.Fprintln(p.in, "memory"); err != nil {
		return 0, err
	}
	if !p.out.Scan() {
		return 0, errors.New("the server does not answer")
	}
	return strconv.ParseInt(p.out.Text(), 10, 64)
}

// resident returns the resident memory of the process as the kernel counts it.
func (p *process) resident() (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("resident memory: %w", err)
	}
	_, rest, ok := strings.Cut(string(status), "VmRSS:")
	if !ok {
		return 0, errors.New("resident memory: the kernel does not say")
	}
	kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	return kib * 1024, err
}
