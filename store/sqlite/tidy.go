package sqlite

import (
	"context"
	"sync/atomic"
	"time"
)

const (
	foldEvery  = 10 * time.Second
	indexEvery = time.Second
)

// tidy does what is done behind the writes, at once what an earlier process left: it folds
// usage and indexes keys. An error leaves all as it is, for the next time.
func (s *Store) tidy() {
	defer close(s.tidied)
	fold, index := time.NewTicker(foldEvery), time.NewTicker(indexEvery)
	defer fold.Stop()
	defer index.Stop()
	s.folds.repeat(s.foldSome)
	s.indexes.repeat(s.indexSome)
	for {
		select {
		case <-s.closing:
			return
		case <-fold.C:
			s.folds.repeat(s.foldSome)
		case <-index.C:
			if s.writer.unindexed.Swap(false) || s.indexes.failed.Load() > 0 {
				s.indexes.repeat(s.indexSome)
			}
		}
	}
}

// attempts are those to do something in the background. Health returns the error that the
// last ones have ended with.
type attempts struct {
	failed atomic.Int32 // one after another
	err    atomic.Pointer[error]
}

// repeat does something until nothing of it is left.
func (a *attempts) repeat(some func(context.Context) (more bool, err error)) {
	for {
		more, err := some(context.Background())
		if err != nil {
			a.err.Store(&err)
			a.failed.Add(1)
			return
		}
		a.failed.Store(0)
		if !more {
			return
		}
	}
}

// persistent returns the error of the last attempt, if the one before failed as well: what
// does not last is as good as done.
func (a *attempts) persistent() error {
	if a.failed.Load() < 2 {
		return nil
	}
	return *a.err.Load()
}
