package sqlite

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

const (
	foldEvery  = 10 * time.Second
	indexEvery = time.Second
)

// tidy does what is done behind the writes, at once what an earlier process left: it folds
// usage, indexes keys and clears what deleted owners have left. An error leaves all as it
// is, for the next time.
func (s *Store) tidy() {
	defer close(s.tidied)
	if s.writer.hooks.noTidying {
		<-s.closing
		return
	}
	fold, index := time.NewTicker(foldEvery), time.NewTicker(indexEvery)
	defer fold.Stop()
	defer index.Stop()
	s.clearAll()
	s.foldAll()
	s.indexAll()
	for {
		select {
		case <-s.closing:
			return
		case <-s.clearNow:
			s.clearAll()
		case <-fold.C:
			s.foldAll()
			if s.clears.failed.Load() > 0 {
				s.clearAll()
			}
		case <-s.foldNow:
			s.foldAll()
		case <-index.C:
			if s.writer.unindexed.Swap(false) || s.indexes.failed.Load() > 0 {
				s.indexAll()
			}
		}
	}
}

// wake has tidy do at once what a channel stands for.
func wake(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default: // it has been woken
	}
}

func (s *Store) clearAll() {
	s.repeat(&s.clears, s.clearSome, "the rows of deleted owners stay for now")
}

func (s *Store) foldAll() {
	s.repeat(&s.folds, s.foldSome, "usage stays in the journal for now")
}

func (s *Store) indexAll() {
	s.repeat(&s.indexes, s.indexSome, "searching the list of keys is slow for now")
}

// attempts are those to do something in the background. Health returns the error that the
// last ones have ended with.
type attempts struct {
	failed atomic.Int32 // one after another
	err    atomic.Pointer[error]
}

// repeat does something until nothing of it is left. The first of several failures is
// reported, with what follows from it.
func (s *Store) repeat(a *attempts, some func(context.Context) (more bool, err error), follows string) {
	for more := true; more; {
		var err error
		if more, err = some(context.Background()); err != nil {
			a.err.Store(&err)
			if a.failed.Add(1) == 1 {
				s.reportUnlessClosed(fmt.Errorf("%s: %w", follows, err))
			}
			return
		}
		a.failed.Store(0)
	}
}

func (s *Store) reportUnlessClosed(err error) {
	select {
	case <-s.closing:
	default:
		s.report(err)
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
