package main

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"runtime/pprof"
)

// profileRuns is how many runs long a profile is.
const profileRuns = 5

var notInNames = regexp.MustCompile(`[^a-z0-9]+`)

// profileRow drives the gate once more and writes where the time goes.
func (b *bench) profileRow(r *row, gate *client) (err error) {
	if b.profile == "" {
		return nil
	}
	f, err := os.Create(filepath.Join(b.profile, notInNames.ReplaceAllString(r.name, "-")+".pprof"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := pprof.StartCPUProfile(f); err != nil {
		return err
	}
	defer pprof.StopCPUProfile()
	_, _, err = gate.drive(profileRuns*b.duration, 0)
	return err
}
