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

// result is what became of a row.
type result struct {
	*row
	skipped     error
	bare        float64   // median of the other side's answers per second
	unavailable int64     // answers with 503
	ratios      []float64 // of the pairs, sorted
	cpu         []float64 // the same, of the answers per second of processor time; empty: unknown
}

func (r result) String() string {
	if r.skipped != nil {
		return fmt.Sprintf("%s: skipped: %v", r.name, r.skipped)
	}
	return fmt.Sprintf("%s: %s, by CPU %s, other side %.0f/s", r.name, spread(r.ratios), spread(r.cpu), r.bare)
}

const (
	warmUp = 300 * time.Millisecond
	// Rows with many keys write many counters a second after they were counted.
	// Their runs are longer, and what is left to write is written before the
	// other side has its turn.
	manyStretch = 3
	manySettle  = 1500 * time.Millisecond
	// manyWarmUp bounds the time in which each of many keys is used once.
	manyWarmUp = time.Minute
)

// measure measures a row.
func (b *bench) measure(ctx context.Context, r row) (res result, err error) {
	res.row = &r
	if res.skipped = unsupported(r.app); res.skipped != nil {
		return res, nil
	}
	path := filepath.Join(b.dir, fmt.Sprintf("row%d", b.made), "keys.db")
	b.made++
	if r.many {
		if path, err = b.many.path(ctx); err != nil {
			return res, err
		}
	}
	defer func() { err = errors.Join(err, stop(path)) }()
	gate, bare, err := b.clients(ctx, &r, path)
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, gate.close(), bare.close()) }()
	if err := b.warm(&r, gate, bare); err != nil {
		return res, err
	}
	if err := b.alternate(&res, gate, bare); err != nil {
		return res, err
	}
	return res, b.profileRow(&r, gate)
}

// stop stops Caddy and waits until the store at path is closed, which happens in the
// background: SQLite removes its log then. Else the next row could find it in use.
func stop(path string) error {
	if err := caddy.Stop(); err != nil {
		return err
	}
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if _, err := os.Stat(path + "-wal"); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
	}
	return fmt.Errorf("%s is still open", path)
}

// clients loads the configuration of a row and connects to both sides.
func (b *bench) clients(ctx context.Context, r *row, path string) (gate, bare *client, err error) {
	if err := b.load(r, path, 0); err != nil {
		return nil, nil, err
	}
	sides, err := b.pickers(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	status := http.StatusOK
	if r.status != 0 {
		status = r.status
		// The other side's body gets the length of the refusal's.
		length, err := b.probe(status, sides[0]())
		if err != nil {
			return nil, nil, err
		}
		if err := b.load(r, path, length); err != nil {
			return nil, nil, err
		}
	}
	if gate, err = newClient(b.sites.gate, status, b.connections, sides[0]); err != nil {
		return nil, nil, err
	}
	if bare, err = newClient(b.sites.bare, status, b.connections, sides[1]); err != nil {
		return nil, nil, errors.Join(err, gate.close())
	}
	return gate, bare, nil
}

// pickers returns one for each side, so that neither uses up the keys of the other.
func (b *bench) pickers(ctx context.Context, r *row) (sides [2]picker, err error) {
	if r.many {
		choose := uniform
		if r.first {
			choose = unused
		}
		raws, err := b.many.raws()
		return [2]picker{choose(raws), choose(raws)}, err
	}
	keys, err := service()
	if err != nil {
		return sides, err
	}
	p, err := r.keys(ctx, keys)
	return [2]picker{p, p}, err
}

// probe returns the length of the gate's answer.
func (b *bench) probe(status int, p pick) (int, error) {
	c, err := dial(b.sites.gate, status, p)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	return c.do()
}

func (b *bench) warm(r *row, gate, bare *client) error {
	if _, _, err := bare.drive(warmUp, 0); err != nil {
		return err
	}
	if r.first {
		return nil
	}
	if !r.many {
		_, _, err := gate.drive(warmUp, 0)
		return err
	}
	n, took, err := gate.drive(manyWarmUp, int64(b.keys))
	progress("warmed up by %d requests in %s", n, took.Round(time.Millisecond))
	return err
}

// alternate runs the pairs, each in the other order than the one before.
func (b *bench) alternate(res *result, gate, bare *client) error {
	sides := [...]*client{gate, bare}
	d := b.duration
	if res.many {
		d *= manyStretch
	}
	var bares []float64
	for i := range b.options.pairs {
		var pair [2]speed
		for j := range pair {
			side := (i + j) % 2
			var err error
			if pair[side], err = sides[side].measure(d); err != nil {
				return err
			}
			if res.many && side == 0 {
				time.Sleep(manySettle)
			}
		}
		bares = append(bares, pair[1].rate)
		res.ratios = append(res.ratios, pair[0].rate/pair[1].rate)
		if pair[0].cpu > 0 {
			res.cpu = append(res.cpu, pair[1].cpu/pair[0].cpu)
		}
	}
	res.unavailable = gate.unavailable.Load()
	slices.Sort(res.ratios)
	slices.Sort(res.cpu)
	res.bare = median(bares)
	return nil
}

// median of at least one number.
func median(numbers []float64) float64 {
	sorted := slices.Sorted(slices.Values(numbers))
	n := len(sorted)
	return (sorted[n/2] + sorted[(n-1)/2]) / 2
}

// spread writes the median of sorted numbers and the space they take.
func spread(sorted []float64) string {
	if len(sorted) == 0 {
		return "?"
	}
	return fmt.Sprintf("**%.3f** (%.2f–%.2f)", median(sorted), sorted[0], sorted[len(sorted)-1])
}
