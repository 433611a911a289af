package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// bench is one run of this program.
type bench struct {
	*options
	dir   string
	sites sites
	many  manyKeys
	made  int // stores
}

// side is one of those that a row compares, in the order gate, bare, floor.
type side struct {
	*client
	// cpu returns the processor time of the server that is not in this process.
	cpu func() (time.Duration, error)
	// settle waits until the server has done what it does later.
	settle func() error
}

// speed is what one run of a side has measured.
type speed struct {
	rate     float64 // answers per second
	cpu      float64 // processor time per answer, in seconds, the client's share included; 0: unknown
	p50, p99 time.Duration
}

// result is what became of a row.
type result struct {
	*row
	skipped     error
	unavailable int64     // answers with 503
	runs        [][]speed // of each pair, of each side
}

const (
	warmUp = 300 * time.Millisecond
	// Rows with many keys write many counters a second after they were counted. Their runs
	// are longer and fewer, and what is left to do after one is counted in.
	manyStretch = 20
	manyFewer   = 10
	// manyWarmUp bounds the time in which each of many keys is used once.
	manyWarmUp = 2 * time.Minute
)

// measure measures a row.
func (b *bench) measure(ctx context.Context, r row) (res result, err error) {
	res.row = &r
	if res.skipped = unsupported(r.app); res.skipped != nil {
		return res, nil
	}
	sides, end, err := b.start(ctx, &r)
	defer func() { err = errors.Join(err, end()) }()
	if err != nil {
		return res, err
	}
	if err := b.warm(&r, sides); err != nil {
		return res, err
	}
	if err := b.alternate(&res, sides); err != nil {
		return res, err
	}
	return res, b.profileRow(&r, sides[0].client)
}

// start starts the sides of a row. end ends what was started, also after an error.
func (b *bench) start(ctx context.Context, r *row) (sides []side, end func() error, err error) {
	var ends []func() error
	end = func() error {
		var errs []error
		for _, f := range slices.Backward(ends) {
			errs = append(errs, f())
		}
		return errors.Join(errs...)
	}
	connect := func(addr string, p picker, of *process) error {
		s := side{cpu: func() (time.Duration, error) { return 0, nil }, settle: func() error { return nil }}
		if of != nil {
			s.cpu = of.cpuTime
			if addr == b.sites.gate { // a bare Caddy has nothing to do later
				s.settle = of.settle
			}
		}
		s.client, err = newClient(addr, r.answer(), b.connections, p)
		if err == nil {
			sides, ends = append(sides, s), append(ends, s.close)
		}
		return err
	}
	if r.many {
		return sides, end, b.startApart(ctx, r, connect, func(f func() error) { ends = append(ends, f) })
	}
	path := filepath.Join(b.dir, fmt.Sprintf("row%d", b.made), "keys.db")
	b.made++
	ends = append(ends, func() error { return stop(path) })
	if err := b.load(r, path, pass()); err != nil {
		return nil, end, err
	}
	keys, err := service()
	if err != nil {
		return nil, end, err
	}
	p, err := r.keys(ctx, keys)
	if err != nil {
		return nil, end, err
	}
	if r.status != 0 {
		refusal, err := b.refusal(r.status, p())
		if err == nil {
			err = stop(path) // a connection to a server that is being replaced may be reset
		}
		if err == nil {
			err = b.load(r, path, refusal)
		}
		if err != nil {
			return nil, end, err
		}
	}
	for _, addr := range b.addresses(r) {
		if err := connect(addr, p, nil); err != nil {
			return nil, end, err
		}
	}
	return sides, end, nil
}

// addresses are those of the sides.
func (b *bench) addresses(r *row) []string {
	all := []string{b.sites.gate, b.sites.bare, b.sites.floor}
	if r.floor == 0 {
		return all[:2]
	}
	return all
}

// answer is the status that both sides answer with.
func (r *row) answer() int {
	if r.status != 0 {
		return r.status
	}
	return http.StatusOK
}

// startApart starts each side in a process of its own.
func (b *bench) startApart(ctx context.Context, r *row, connect func(string, picker, *process) error, atEnd func(func() error)) error {
	path, err := b.many.path(ctx)
	if err != nil {
		return err
	}
	raws, err := b.many.raws()
	if err != nil {
		return err
	}
	choose := uniform
	if r.first {
		choose = unused
	}
	for _, s := range []struct {
		addr, path string
		app        object
		handle     []object
	}{
		{b.sites.gate, path, appConfig(r.app, path), []object{{"handler": "apikey"}, pass()}},
		{b.sites.bare, "", nil, []object{pass()}},
	} {
		cfg, err := config(s.app, map[string][]object{s.addr: s.handle})
		if err != nil {
			return err
		}
		p, err := startProcess(ctx, s.path, cfg)
		if err != nil {
			return err
		}
		atEnd(p.stop)
		if err := connect(s.addr, choose(raws), p); err != nil { // neither uses up the keys of the other
			return err
		}
	}
	return nil
}

// stop stops Caddy and waits until the store at path is closed, which happens in the
// background: SQLite removes its log then. Else the next row could find it in use, or would
// begin by reading the log. An empty path is no store.
func stop(path string) error {
	if err := caddy.Stop(); err != nil || path == "" {
		return err
	}
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if _, err := os.Stat(path + "-wal"); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
	}
	return fmt.Errorf("%s is still open", path)
}

// refusal returns the handler of a static answer that is like the gate's.
func (b *bench) refusal(status int, p pick) (object, error) {
	c, err := dial(b.sites.gate, status, p)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	headers, length, err := c.ownHeaders()
	h := respond(status, strings.Repeat("x", length))
	h["headers"] = headers
	return h, err
}

func (b *bench) warm(r *row, sides []side) error {
	for _, s := range sides[1:] {
		if _, _, err := s.drive(warmUp, 0); err != nil {
			return err
		}
	}
	gate := sides[0]
	switch {
	case r.first:
		return gate.settle() // the filter over all keys is built
	case !r.many:
		_, _, err := gate.drive(warmUp, 0)
		return err
	}
	// Each key once, and then as often as it takes until memory holds what it can.
	gate, err := b.unusedFirst(gate)
	if err != nil {
		return err
	}
	n, took, err := gate.drive(manyWarmUp, int64(b.keys))
	progress("warmed up by %d requests in %s", n, took.Round(time.Millisecond))
	return errors.Join(err, gate.close(), gate.settle())
}

// unusedFirst is a side that uses no key twice.
func (b *bench) unusedFirst(s side) (side, error) {
	raws, err := b.many.raws()
	if err != nil {
		return s, err
	}
	s.client, err = newClient(b.sites.gate, http.StatusOK, b.connections, unused(raws))
	return s, err
}

// alternate runs each side as often as there are pairs, in orders that change.
func (b *bench) alternate(res *result, sides []side) error {
	// Short runs, because a machine that others disturb changes its speed from one second
	// to the next: both sides of a pair should meet it at the same.
	d, pairs := b.duration, b.options.pairs
	if res.many {
		d, pairs = d*manyStretch, max(1, pairs/manyFewer)
	}
	for i := range pairs {
		speeds := make([]speed, len(sides))
		for j := range sides {
			n := (i + j) % len(sides)
			var err error
			if speeds[n], err = sides[n].measure(d); err != nil {
				return err
			}
		}
		res.runs = append(res.runs, speeds)
	}
	res.unavailable = sides[0].unavailable.Load()
	return nil
}

// measure drives a side for a time.
func (s *side) measure(d time.Duration) (speed, error) {
	before, err := s.cpu()
	if err != nil {
		return speed{}, err
	}
	own := cpuTime()
	n, took, err := s.drive(d, 0)
	spent := cpuTime() - own
	if err == nil {
		err = s.settle()
	}
	after, cpuErr := s.cpu()
	all := s.latencies()
	return speed{
		float64(n) / took.Seconds(), (spent + after - before).Seconds() / float64(max(n, 1)), all.quantile(0.5), all.quantile(0.99),
	}, errors.Join(err, cpuErr)
}

// of returns one number of each run of a side, sorted.
func (r *result) of(side int, number func(speed) float64) (all []float64) {
	for _, run := range r.runs {
		all = append(all, number(run[side]))
	}
	slices.Sort(all)
	return all
}

// ratios returns a number of the gate by that of another side, of each run, sorted.
func (r *result) ratios(other int, number func(speed) float64) (all []float64) {
	for _, run := range r.runs {
		if other < len(run) && number(run[0]) > 0 {
			all = append(all, number(run[0])/number(run[other]))
		}
	}
	slices.Sort(all)
	return all
}

const (
	bare  = 1
	floor = 2
)

func rate(s speed) float64 { return s.rate }

// perCPU is how many answers a second of processor time gives.
func perCPU(s speed) float64 {
	if s.cpu == 0 {
		return 0
	}
	return 1 / s.cpu
}
func p50(s speed) float64 { return s.p50.Seconds() }
func p99(s speed) float64 { return s.p99.Seconds() }

// median of at least one number.
func median(numbers []float64) float64 {
	sorted := slices.Sorted(slices.Values(numbers))
	n := len(sorted)
	return (sorted[n/2] + sorted[(n-1)/2]) / 2
}

// spread writes the median of sorted numbers and their quartiles.
func spread(sorted []float64) string {
	if len(sorted) == 0 {
		return ""
	}
	n := len(sorted)
	return fmt.Sprintf("**%.3f** (%.2f–%.2f)", median(sorted), sorted[n/4], sorted[n-1-n/4])
}
