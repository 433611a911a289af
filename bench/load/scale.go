package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"time"
)

// finding is one measurement of a whole process.
type finding struct{ name, value, target, verdict string }

const (
	starts = 5
	// leastBuilding is how long the building of the filter must take for it to be measured.
	leastBuilding = 30 * time.Millisecond
	// use is how long keys are used before the memory is measured, at most.
	use = time.Minute
	// quiet is how long the server gets to write what is counted.
	quiet = 3 * time.Second

	mib = 1 << 20

	startTarget    = 100 * time.Millisecond
	slowStart      = 300 * time.Millisecond // with manyMore keys
	manyMore       = 10_000_000
	buildingTarget = 0.6
	storedTarget   = 120e6
	usedTarget     = 300e6
	growthTarget   = 32 * mib
)

// scale measures what is about a whole process with many keys.
func (b *bench) scale(ctx context.Context) (all []finding, err error) {
	for _, part := range []struct {
		name    string
		measure func(context.Context) ([]finding, error)
	}{{"start", b.startUp}, {"filter", b.filter}, {"memory", b.memory}, {"growth", b.growth}} {
		if !b.rows.MatchString(part.name) {
			continue
		}
		progress("%s …", part.name)
		found, err := part.measure(ctx)
		if err != nil {
			return all, fmt.Errorf("%s: %w", part.name, err)
		}
		for _, f := range found {
			progress("%s: %s (%s)", f.name, f.value, f.verdict)
		}
		all = append(all, found...)
	}
	return all, nil
}

// serve starts a process that serves a store, and an answer of another site.
func (b *bench) serve(ctx context.Context, path string, bare object) (*process, error) {
	cfg, err := config(appConfig(nil, path), map[string][]object{
		b.sites.gate: {{"handler": "apikey"}, pass()}, b.sites.bare: {bare},
	})
	if err != nil {
		return nil, err
	}
	return startProcess(ctx, path, cfg)
}

// startUp compares the time from the start of a process to its first answer, with
// many keys and with none, in turn.
func (b *bench) startUp(ctx context.Context) ([]finding, error) {
	many, err := b.many.path(ctx)
	if err != nil {
		return nil, err
	}
	raws, err := b.many.raws()
	if err != nil {
		return nil, err
	}
	none := filepath.Join(b.dir, "none", "keys.db")
	var with, without []float64
	for range starts {
		d, err := b.startOnce(ctx, many, http.StatusOK, uniform(raws)())
		if err != nil {
			return nil, err
		}
		with = append(with, d.Seconds())
		if d, err = b.startOnce(ctx, none, http.StatusUnauthorized, strangers()); err != nil {
			return nil, err
		}
		without = append(without, d.Seconds())
	}
	more, most := median(with)-median(without), startTarget.Seconds()
	if b.keys >= manyMore {
		most = slowStart.Seconds()
	}
	return []finding{
		{fmt.Sprintf("start to first answer, %d keys", b.keys), seconds(median(with)), "", ""},
		{"start to first answer, empty store", seconds(median(without)), "", ""},
		{"difference", seconds(more), "≤ " + seconds(most), verdict(more <= most)},
	}, nil
}

func (b *bench) startOnce(ctx context.Context, path string, status int, p pick) (took time.Duration, err error) {
	began := time.Now()
	server, err := b.serve(ctx, path, pass())
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, server.stop()) }()
	c, err := dial(b.sites.gate, status, p)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	_, err = c.do()
	return time.Since(began), err
}

// filter compares keys that nobody knows with a static answer, right after the start of a
// process, while the filter over all keys is built.
func (b *bench) filter(ctx context.Context) ([]finding, error) {
	path, err := b.many.path(ctx)
	if err != nil {
		return nil, err
	}
	building, refusal, err := b.building(ctx, path)
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("unknown keys in the first %s after the start, %d keys, requests/s of a static answer", building.Round(time.Millisecond), b.keys)
	if building < leastBuilding {
		return []finding{{name, "too short to measure", "", ""}}, nil
	}
	var ratios []float64
	for i := range 2 * starts {
		var rates [2]float64
		for j := range rates {
			side := (i + j) % 2
			if rates[side], err = b.whileBuilding(ctx, path, refusal, []string{b.sites.gate, b.sites.bare}[side], building); err != nil {
				return nil, err
			}
		}
		ratios = append(ratios, rates[0]/rates[1])
	}
	slices.Sort(ratios)
	return []finding{{
		name, spread(ratios), fmt.Sprintf("≥ %.2f", buildingTarget), verdict(median(ratios) >= buildingTarget),
	}}, nil
}

// building returns how long a process that nobody asks anything is busy after its start,
// and a static answer that is like the one to a key that nobody knows.
func (b *bench) building(ctx context.Context, path string) (took time.Duration, refusal object, err error) {
	server, err := b.serve(ctx, path, pass())
	if err != nil {
		return 0, nil, err
	}
	defer func() { err = errors.Join(err, server.stop()) }()
	began, last := time.Now(), time.Duration(0)
	for idle := 0; idle < 10; idle++ {
		spent, err := server.cpuTime()
		if err != nil {
			return 0, nil, err
		}
		if spent > last {
			idle, took, last = 0, time.Since(began), spent
		}
		time.Sleep(10 * time.Millisecond) // what the kernel counts in
	}
	refusal, err = b.refusal(http.StatusUnauthorized, strangers())
	return took, refusal, err
}

// whileBuilding starts a process and drives one of its sites at once.
func (b *bench) whileBuilding(ctx context.Context, path string, refusal object, addr string, building time.Duration) (rate float64, err error) {
	server, err := b.serve(ctx, path, refusal)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, server.stop()) }()
	c, err := newClient(addr, http.StatusUnauthorized, b.connections, strangers)
	if err != nil {
		return 0, err
	}
	n, took, err := c.drive(building, 0)
	return float64(n) / took.Seconds(), errors.Join(err, c.close())
}

// memory measures a process with many keys while they are used, and then while
// keys arrive that nobody knows.
func (b *bench) memory(ctx context.Context) (all []finding, err error) {
	path, err := b.many.path(ctx)
	if err != nil {
		return nil, err
	}
	raws, err := b.many.raws()
	if err != nil {
		return nil, err
	}
	server, err := b.serve(ctx, path, pass())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.stop()) }()
	_, _, stored, err := b.watch(server, http.StatusOK, same(string(raws[:rawLen])), quiet, 1000)
	if err != nil {
		return nil, err
	}
	all = append(all, finding{
		fmt.Sprintf("resident memory, the most, %d keys stored, one of them used", b.keys), megabytes(stored),
		"≤ " + megabytes(storedTarget), verdict(stored <= storedTarget),
	})
	used, err := b.usage(server, unused(raws))
	if err != nil {
		return nil, err
	}
	grown, err := b.flooded(server, same(string(raws[:rawLen])))
	return slices.Concat(all, used, grown), err
}

// usage uses every key once, if there is time.
func (b *bench) usage(server *process, p picker) ([]finding, error) {
	n, unavailable, most, err := b.watch(server, http.StatusOK, p, use, int64(b.keys))
	if err != nil {
		return nil, err
	}
	heap, err := server.inUse()
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("%d keys, %d of them used within %s", b.keys, min(n, int64(b.keys)), use)
	name += alsoUnavailable(unavailable)
	return []finding{
		{"resident memory, the most, " + name, megabytes(most), "≤ " + megabytes(usedTarget), verdict(most <= usedTarget)},
		{"reachable heap after that", megabytes(heap), "", ""},
	}, nil
}

// flooded compares with ordinary traffic: what the garbage collector needs for any
// traffic is no growth.
func (b *bench) flooded(server *process, ordinary picker) ([]finding, error) {
	_, _, before, err := b.watch(server, http.StatusOK, ordinary, use, 0)
	if err != nil {
		return nil, err
	}
	heapBefore, err := server.inUse()
	if err != nil {
		return nil, err
	}
	n, unavailable, most, err := b.watch(server, http.StatusUnauthorized, strangers, b.floodTime, b.flood)
	if err != nil {
		return nil, err
	}
	heapAfter, err := server.inUse()
	if err != nil {
		return nil, err
	}
	grown := most - before
	name := fmt.Sprintf("resident memory, the most, under %d distinct unknown keys, beside the most under one valid key", n)
	name += alsoUnavailable(unavailable)
	return []finding{
		{name, signed(grown), "≤ " + mebibytes(growthTarget), verdict(grown <= growthTarget)},
		{"growth of the reachable heap by that", signed(heapAfter - heapBefore), "", ""},
	}, nil
}

// watch drives the gate of a process and returns how many requests it answered,
// how many with 503, and the most memory that was resident, till a little after
// the end.
func (b *bench) watch(server *process, status int, p picker, d time.Duration, most int64) (n, unavailable, peak int64, err error) {
	c, err := newClient(b.sites.gate, status, b.connections, p)
	if err != nil {
		return 0, 0, 0, err
	}
	done := make(chan struct{})
	var driven error
	go func() {
		defer close(done)
		n, _, driven = c.drive(d, most)
		time.Sleep(quiet)
	}()
	for ended := false; !ended; {
		select {
		case <-done:
			ended = true
		case <-time.After(quiet / 20):
		}
		resident, rerr := server.resident()
		err = errors.Join(err, rerr)
		peak = max(peak, resident)
	}
	return n, c.unavailable.Load(), peak, errors.Join(err, driven, c.close())
}

func alsoUnavailable(n int64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(" (and %d answers were 503)", n)
}
