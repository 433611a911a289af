// Command load measures the gate under closed-loop load, side by side with a bare
// Caddy in the same process, and prints a table for docs/performance.md:
//
//	go run ./bench/load
//
// Each row compares sites of one Caddy on loopback ports: one with the gate, one
// without, and where the target refers to it one with the floor, which does what no
// gate can do without. They are driven in turn, in changing orders, by the same client
// with the same requests, and what counts is the median of the ratios of the runs. All
// numbers are measured by this program. It ends by itself.
//
// What is about a whole process (start, memory) is measured in processes of its
// own, which this program starts.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"regexp"
	"time"
)

// options are what the command line says.
type options struct {
	pairs       int
	duration    time.Duration
	connections int
	rows        *regexp.Regexp
	keys        int
	flood       int64
	floodTime   time.Duration
	dir         string
	write       string
	profile     string
	check       bool
}

func parse() (o options, err error) {
	rows := ""
	flag.IntVar(&o.pairs, "pairs", 61, "pairs of runs per row; with many keys a tenth of it")
	flag.DurationVar(&o.duration, "duration", 150*time.Millisecond, "length of one run; with many keys twenty times as long")
	flag.IntVar(&o.connections, "connections", 64, "keep-alive connections, each with one request at a time")
	flag.StringVar(&rows, "rows", "", "only rows whose name matches this regular expression")
	flag.IntVar(&o.keys, "keys", 1_000_000, "keys of the rows about many keys")
	flag.Int64Var(&o.flood, "flood", 5_000_000, "distinct unknown keys of the row about growth")
	flag.DurationVar(&o.floodTime, "flood-time", 4*time.Minute, "end the flood after this time at the latest")
	flag.StringVar(&o.dir, "dir", "", "keep the store with many keys in this folder, for the next run (default: a temporary one)")
	flag.StringVar(&o.write, "write", "", "put the table into this file, between its two comments \"load\", instead of printing it")
	flag.StringVar(&o.profile, "profile", "", "after each row, profile the gate's side once more into this folder, for go tool pprof")
	flag.BoolVar(&o.check, "check", false, "fail where something grows with the number of keys three times as much as it may")
	flag.Parse()
	if flag.NArg() > 0 || o.pairs < 1 || o.connections < 1 || o.keys < 1 || o.duration <= 0 {
		flag.Usage()
		return o, fmt.Errorf("wrong usage")
	}
	o.rows, err = regexp.Compile(rows)
	return o, err
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == childArgument {
		exit(child(os.Args[2:]))
	}
	o, err := parse()
	if err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(2)
	}
	exit(run(context.Background(), &o))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func run(ctx context.Context, o *options) error {
	dir, err := os.MkdirTemp("", "caddy-apikey-load")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{options: o, dir: dir, many: manyKeys{dir: o.dir, n: o.keys}}
	if b.many.dir == "" {
		b.many.dir = dir
	}
	if b.sites, err = newSites(); err != nil {
		return err
	}
	r := report{began: time.Now(), machine: describeMachine(dir), options: o}
	for _, row := range rows() {
		if !o.rows.MatchString(row.name) {
			continue
		}
		progress("%s …", row.name)
		res, err := b.measure(ctx, row)
		if err != nil {
			return fmt.Errorf("%s: %w", row.name, err)
		}
		r.rows = append(r.rows, res)
		progress("%s", res.line())
	}
	if r.scale, err = b.scale(ctx); err != nil {
		return err
	}
	return r.deliver(o.write)
}

func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}
