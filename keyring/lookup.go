package keyring

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/caddy-apikey/caddy-apikey/store"
)

const (
	// lookupPatience bounds how long a request waits for a look-up while the store
	// answers others; lookupTimeout holds where it answers nobody.
	lookupPatience = 2 * time.Second
	// maxLookups is how many look-ups are under way at a time. More are refused at once.
	maxLookups = 1000
)

// lookups waits for what requests read from the store. A store that is busy answers,
// if late, and is waited for; one that is away answers nobody, and a request must not
// wait long to be told.
type lookups struct {
	silence, patience time.Duration // lookupTimeout and lookupPatience; longer in tests

	running  atomic.Int64
	answered atomic.Uint64 // how often the store has answered
}

// Metadata returns a top-level field of the metadata of the key that a decision is about,
// as text. Metadata is kept in memory from the first time on that any is asked for. Keys
// that are there without it are then found again by the next request, which fails where the
// store cannot be asked; the requests that are under way read theirs here.
func (s *Service) Metadata(ctx context.Context, d *Decision, field string) string {
	if d.rec == nil {
		return ""
	}
	fields, ok := d.rec.fields()
	if !ok {
		s.engine.cache.metadata.Store(true)
		var err error
		if fields, err = s.engine.loadMetadata(ctx, d.rec); err != nil {
			s.engine.report(fmt.Errorf("the metadata of key %s is empty for a request: %w", d.rec.key.ID, err))
		}
	}
	return fields[field]
}

func (r *Engine) loadMetadata(ctx context.Context, rec *record) (map[string]string, error) {
	st, err := r.open(ctx)
	if err != nil {
		return nil, err
	}
	found, err := r.lookups.ask(ctx, &r.cache.loads, "metadata of "+rec.key.ID, func(ctx context.Context) (any, error) {
		return st.Get(ctx, rec.key.ID)
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil // deleted just now
	}
	if err != nil {
		return nil, err
	}
	return rec.setFields(found.(store.Entry).Key.Metadata), nil
}

// ask makes one look-up for all who ask for the same at the same time. It does not end with
// the request of one of them, but it does when the first has waited for too long: else the
// look-ups of a store that is away would pile up, which nobody waits for.
func (l *lookups) ask(ctx context.Context, group *singleflight.Group, what string, f func(context.Context) (any, error)) (any, error) {
	shared, end := context.WithTimeout(context.Background(), l.patience)
	defer func() {
		if ctx.Err() == nil { // else others may wait for it, and it ends by itself
			end()
		}
	}()
	return l.wait(ctx, group.DoChan(what, func() (any, error) { return l.run(shared, f) }))
}

// run makes one look-up, unless too many are under way.
func (l *lookups) run(ctx context.Context, f func(context.Context) (any, error)) (any, error) {
	if n := l.running.Add(1); n > maxLookups {
		l.running.Add(-1)
		return nil, fmt.Errorf("%w: %d look-ups are under way already", store.ErrUnavailable, maxLookups)
	}
	defer l.running.Add(-1)
	v, err := f(ctx)
	if err == nil {
		l.answered.Add(1)
	}
	return v, err
}

// silentSteps are the steps in which silence is counted: a process that did not run for a
// while, as on a machine that was paused, has not heard a store that was silent.
const silentSteps = 5

// wait waits for the result of a look-up, or gives up.
func (l *lookups) wait(ctx context.Context, result <-chan singleflight.Result) (any, error) {
	began, heard := time.Now(), l.answered.Load()
	step := time.NewTicker(l.silence / silentSteps)
	defer step.Stop()
	for silent := 0; ; {
		select {
		case r := <-result:
			return r.Val, r.Err
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", store.ErrUnavailable, ctx.Err())
		case <-step.C:
		}
		select {
		case r := <-result: // it came while nobody looked
			return r.Val, r.Err
		default:
		}
		silent++
		if at := l.answered.Load(); at != heard { // somebody else was answered
			silent, heard = 0, at
		}
		if silent >= silentSteps || time.Since(began) >= l.patience {
			return nil, fmt.Errorf("%w: gave up waiting for a look-up", store.ErrUnavailable)
		}
	}
}
