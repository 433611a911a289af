package main

import (
	"testing"
	"time"
)

func TestLatencies(t *testing.T) {
	for _, d := range []time.Duration{0, 1, 63, 64, 65, 127, 128, 129, time.Microsecond, 12345, time.Millisecond, time.Second, time.Hour, 1 << 62} {
		if at := latencyOf(latencyStep(uint64(d))); at > d || d-at > d/latencySteps {
			t.Errorf("%d is counted as %d", d, at)
		}
	}
	var a, b latencies
	for i := range 990 {
		a.add(time.Millisecond + time.Duration(i))
	}
	for range 10 {
		b.add(time.Second)
	}
	b.add(-1)
	a.merge(&b)
	for share, want := range map[float64]time.Duration{0: 0, 0.5: time.Millisecond, 0.99: time.Millisecond, 0.999: time.Second, 1: time.Second} {
		if got := a.quantile(share); got > want || want-got > want/latencySteps {
			t.Errorf("%v: %s, want %s", share, got, want)
		}
	}
}
