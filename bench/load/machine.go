package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
)

// describeMachine says where the numbers come from.
func describeMachine(dir string) string {
	return fmt.Sprintf("%s, GOMAXPROCS %d, %s %s/%s, fsync %s (median of %d), load average %s at the start",
		processor(), runtime.GOMAXPROCS(0), runtime.Version(), runtime.GOOS, runtime.GOARCH, fsync(dir), fsyncs, loadAverage())
}

func processor() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown processor"
	}
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown processor"
}

func loadAverage() string {
	avg, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	one, _, _ := strings.Cut(string(avg), " ")
	return one
}

const fsyncs = 200

// fsync returns how long the disk takes to write 4 KiB for good.
func fsync(dir string) string {
	f, err := os.CreateTemp(dir, "fsync")
	if err != nil {
		return "unknown"
	}
	defer f.Close()
	var times []float64
	for range fsyncs {
		began := time.Now()
		if _, err := f.Write(make([]byte, 4096)); err != nil {
			return "unknown"
		}
		if err := f.Sync(); err != nil {
			return "unknown"
		}
		times = append(times, time.Since(began).Seconds())
	}
	return fmt.Sprintf("%.2f ms", median(times)*1000)
}
