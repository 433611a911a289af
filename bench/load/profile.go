package main

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"runtime/pprof"
	"time"
)

// profileTime is how long a profile is.
const profileTime = 5 * time.Second

var notInNames = regexp.MustCompile(`[^a-z0-9]+`)

// profileRow drives the gate once more and writes where the time goes.
func (b *bench) profileRow(r *row, gate *client) (err error) {
	if b.profile == "" {
		return nil
	}
	if err := os.MkdirAll(b.profile, 0o755); err != nil {
		return err
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
	_, _, err = gate.drive(profileTime, 0)
	return err
}
