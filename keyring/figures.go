package keyring

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/caddy-apikey/caddy-apikey/store"
)

const (
	// figuresFor is for how long figures hold, at most.
	figuresFor = time.Minute
	// figuresShare lets them hold for this many times as long as it took to count them: where
	// that is quick they are fresh at each look, and elsewhere it is a small part of the time.
	figuresShare = 50
)

// Within is how far ahead store.Figures.Expiring looks.
var Within = []time.Duration{24 * time.Hour, 7 * 24 * time.Hour, 30 * 24 * time.Hour}

// figures are numbers of the whole store. They are counted in the background, when somebody
// asks for them and those that are there are too old.
type figures struct {
	asked chan chan<- struct{} // by whom: what is closed when there are some
	last  atomic.Pointer[store.Figures]
}

// Figures returns numbers of the whole store, which are up to a minute old. Where they have
// to be counted it waits for that until ctx ends, and then returns those before. It returns
// nil where there are none, or the store keeps none.
func (r *Engine) Figures(ctx context.Context) *store.Figures {
	if r.store.Load() == nil {
		return nil
	}
	counted := make(chan struct{})
	select {
	case r.figures.asked <- counted:
		select {
		case <-counted:
		case <-ctx.Done():
		}
	case <-ctx.Done():
	}
	return r.figures.last.Load()
}

// count counts figures for those who ask for them.
func (r *Engine) count(ctx context.Context, st *opened) {
	var at time.Time
	var hold time.Duration
	for {
		select {
		case <-ctx.Done():
			return
		case counted := <-r.figures.asked:
			// Only the clock of a test runs back.
			if age := r.now().Sub(at); age < 0 || age >= hold {
				at = r.now()
				hold = 0
				if err := r.countOnce(ctx, st, at); err == nil {
					hold = min(figuresFor, figuresShare*r.now().Sub(at))
				} else if ctx.Err() == nil {
					r.workFailed(fmt.Errorf("counting keys: %w", err))
				}
			}
			close(counted)
		}
	}
}

func (r *Engine) countOnce(ctx context.Context, st *opened, at time.Time) error {
	g, ok := st.Store.(guarded)
	if !ok {
		return nil
	}
	var until []int64
	for _, d := range Within {
		until = append(until, at.Add(d).UnixMilli())
	}
	f, err := g.Figures(ctx, at.UnixMilli(), until)
	switch {
	case err == nil:
		r.figures.last.Store(&f)
	case errors.Is(err, errors.ErrUnsupported):
		err = nil
	}
	return err
}
