package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

// replaceFile writes a file that is complete or stays as it is, also if it is interrupted.
// path is its name in messages, and target the file itself. keep, if there is one, is called
// when the new file is complete, before it replaces the old one.
func (c *call) replaceFile(path, target string, write func(*os.File) error, keep func() error) (err error) {
	ctx, stop := signal.NotifyContext(c.ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	c.ctx = ctx
	f, err := os.CreateTemp(filepath.Dir(target), filepath.Base(target)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s was not written: interrupted", path)
	case err != nil:
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if keep != nil {
		if err := keep(); err != nil {
			return err
		}
	}
	if err := os.Rename(f.Name(), target); err != nil {
		return err
	}
	if dir, err := os.Open(filepath.Dir(target)); err == nil {
		_ = dir.Sync() // what no file system or no system can do is no reason to fail
		_ = dir.Close()
	}
	return nil
}

// fileTarget returns the file that is written for a path. A link is followed, and only a
// regular file is replaced.
func fileTarget(path string) (string, error) {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return path, nil
	}
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	info, err := os.Stat(target)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s exists and is not a regular file", path)
	}
	return target, nil
}
