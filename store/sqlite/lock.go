package sqlite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

const (
	lockSuffix = ".lock"
	lockMode   = fs.FileMode(0o600)

	// lockWait is how long Open waits for another process that may just be
	// ending, and lockRetry how often it looks.
	lockWait  = 2 * time.Second
	lockRetry = 20 * time.Millisecond

	// lockMarker stands in the lock file once a database was made beside it.
	// Where it stands and the database is missing, nobody begins an empty one.
	lockMarker = "a caddy-apikey database belongs beside this file\n"

	// lockPid is written over itself at each start: always the same length, so
	// that the marker behind it is never moved or cut.
	lockPid = "pid %-10d\n"
)

var errInUse = errors.New("one database serves one process")

// fileLock keeps other processes, and other stores of this one, away from a
// database for as long as it is open. The lock is on a file of its own: one
// on the database itself would collide with SQLite's.
type fileLock struct {
	path  string
	flock *flock.Flock
	had   bool // the marker was there: a database was made here once
}

// lockDatabase takes the lock of the database at path.
func lockDatabase(ctx context.Context, path string) (*fileLock, error) {
	l := &fileLock{path: path + lockSuffix}
	l.flock = flock.New(l.path, flock.SetFlag(os.O_CREATE|os.O_RDWR), flock.SetPermissions(lockMode))

	limited, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	ok, err := l.flock.TryLockContext(limited, lockRetry)
	switch {
	case ctx.Err() != nil:
		err = errors.Join(ctx.Err(), l.release())
		return nil, fmt.Errorf("waiting for the lock %s: %w", l.path, err)
	case errors.Is(err, context.DeadlineExceeded):
		return nil, fmt.Errorf("%s is in use by %s, which holds %s: %w", path, l.holder(), l.path, errInUse)
	case err != nil:
		return nil, fmt.Errorf("cannot lock %s: %w: the folder and the lock file must be writable", path, err)
	case !ok:
		return nil, fmt.Errorf("cannot lock %s", path)
	}
	if err := l.enter(); err != nil {
		return nil, errors.Join(err, l.release())
	}
	return l, nil
}

// enter notes who holds the lock, and reads whether a database was made here.
func (l *fileLock) enter() error {
	text, err := os.ReadFile(l.path)
	if err != nil {
		return fmt.Errorf("reading the lock file: %w", err)
	}
	l.had = bytes.Contains(text, []byte(lockMarker))
	return l.write()
}

// remember notes that the database exists now.
func (l *fileLock) remember() error {
	if l.had {
		return nil
	}
	l.had = true
	return l.write()
}

func (l *fileLock) write() error {
	text := fmt.Sprintf(lockPid, os.Getpid())
	if l.had {
		text += lockMarker
	}
	f, err := os.OpenFile(l.path, os.O_WRONLY, lockMode)
	if err != nil {
		return fmt.Errorf("writing the lock file: %w", err)
	}
	_, err = f.WriteAt([]byte(text), 0)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("writing the lock file %s: %w", l.path, err)
	}
	return nil
}

// holder names the process that holds the lock, as well as it can.
func (l *fileLock) holder() string {
	const unknown = "another process"
	text, err := os.ReadFile(l.path)
	if err != nil {
		return unknown
	}
	line, _, _ := strings.Cut(string(text), "\n")
	number, ok := strings.CutPrefix(line, "pid ")
	pid, err := strconv.Atoi(strings.TrimSpace(number))
	switch {
	case !ok || err != nil:
		return unknown
	case pid == os.Getpid():
		return fmt.Sprintf("this process already (pid %d)", pid)
	}
	return fmt.Sprintf("%s (pid %d)", unknown, pid)
}

// release gives the lock back. The file stays, as the memory that it is.
func (l *fileLock) release() error { return l.flock.Unlock() }
