//go:build unix

package sqlite

import (
	"syscall"
	"testing"
	"time"
)

// cpuTime returns the CPU time that the process has spent.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
