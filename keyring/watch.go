package keyring

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/caddy-apikey/caddy-apikey/key"
)

const (
	// watchEvery is how often it is looked whether the keys of watched requests still work.
	watchEvery = 500 * time.Millisecond
	// watchers is how many of them are looked up at a time.
	watchers = 16
)

// watch is a request that is to end with its key.
type watch struct {
	hash key.Hash // of the raw key that it came with
	end  func()
}

// watches are the requests that are to end with their keys.
type watches struct {
	mu sync.Mutex
	of map[*watch]struct{}
}

// Watch calls end, once, within a second of the moment when this process learns that the
// key of a decision does not work any more: it, its owner or the raw key that the request
// came with is disabled, deleted, expired or ended. stop ends the watch.
func (s *Service) Watch(d *Decision, end func()) (stop func()) {
	all, w := &s.engine.watches, &watch{d.hash, end}
	all.mu.Lock()
	defer all.mu.Unlock()
	if all.of == nil {
		all.of = make(map[*watch]struct{})
	}
	all.of[w] = struct{}{}
	return func() { all.remove(w) }
}

// remove reports whether the watch was still there.
func (all *watches) remove(w *watch) bool {
	all.mu.Lock()
	defer all.mu.Unlock()
	_, ok := all.of[w]
	delete(all.of, w)
	return ok
}

func (all *watches) list() (list []*watch) {
	all.mu.Lock()
	defer all.mu.Unlock()
	for w := range all.of {
		list = append(list, w)
	}
	return list
}

// endWatched ends the watched requests whose keys do not work any more.
func (r *Engine) endWatched(ctx context.Context, st *opened) error {
	var group errgroup.Group
	group.SetLimit(watchers)
	for _, w := range r.watches.list() {
		group.Go(func() error {
			if r.ended(ctx, st, w.hash) && r.watches.remove(w) {
				w.end()
			}
			return nil
		})
	}
	return group.Wait()
}

// ended reports whether a raw key that worked once works no longer. While the store is away,
// nobody knows that of a key that is not in memory.
func (r *Engine) ended(ctx context.Context, st *opened, hash key.Hash) bool {
	e, _, err := r.find(ctx, st, hash)
	if err != nil || e == nil {
		return err == nil
	}
	rec, now := e.rec.Load(), r.clock().wall
	if !rec.loaded() {
		return rec == nil // else it has just left memory, and is found again the next time
	}
	if !e.match(rec.key, hash, now).OK {
		return true
	}
	for _, o := range recordOutcomes {
		if outcomes[o].check(e, rec, now) {
			return true
		}
	}
	return false
}
