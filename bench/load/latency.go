package main

import (
	"math/bits"
	"time"
)

// latencies counts durations in steps of at most 1/64: 64 to each power of two.
type latencies [64 * latencySteps]int64

const (
	latencyBits  = 6
	latencySteps = 1 << latencyBits
)

func (l *latencies) add(d time.Duration) { l[latencyStep(uint64(max(d, 0)))]++ }

func latencyStep(n uint64) int {
	if n < latencySteps {
		return int(n)
	}
	shift := bits.Len64(n) - 1 - latencyBits // n>>shift has one bit more than latencyBits, and it is 1
	return (shift+1)*latencySteps + int(n>>shift)%latencySteps
}

// latencyOf is the least duration of a step.
func latencyOf(step int) time.Duration {
	if step < latencySteps {
		return time.Duration(step)
	}
	return time.Duration(latencySteps+step%latencySteps) << (step/latencySteps - 1)
}

// merge adds the counts of others.
func (l *latencies) merge(o *latencies) {
	for i, n := range o {
		l[i] += n
	}
}

// quantile returns the duration that a share of all do not exceed by more than a step.
func (l *latencies) quantile(share float64) time.Duration {
	var all, seen int64
	for _, n := range l {
		all += n
	}
	for i, n := range l {
		if seen += n; float64(seen) >= share*float64(all) && seen > 0 {
			return latencyOf(i)
		}
	}
	return 0
}
