//go:build !unix

package sqlite

import (
	"testing"
	"time"
)

func cpuTime(b *testing.B) time.Duration {
	b.Skip("this system does not tell the CPU time of a process")
	return 0
}
