package keyring

import (
	"context"
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
	answered atomic.Pointer[time.Time] // when the store answered last
}

// run makes one look-up, which serves all who wait for it and does not end with one of
// them.
func (l *lookups) run(f func(context.Context) error) error {
	if n := l.running.Add(1); n > maxLookups {
		l.running.Add(-1)
		return fmt.Errorf("%w: %d look-ups are under way already", store.ErrUnavailable, maxLookups)
	}
	defer l.running.Add(-1)
	ctx, cancel := context.WithTimeout(context.Background(), l.patience)
	defer cancel()
	err := f(ctx)
	if err == nil {
		now := time.Now()
		l.answered.Store(&now)
	}
	return err
}

// wait waits for the result of a look-up.
func (l *lookups) wait(ctx context.Context, result <-chan singleflight.Result) (any, error) {
	began := time.Now()
	timer := time.NewTimer(l.silence)
	defer timer.Stop()
	for {
		select {
		case r := <-result:
			return r.Val, r.Err
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", store.ErrUnavailable, ctx.Err())
		case <-timer.C:
			more := l.more(time.Now(), began)
			if more <= 0 {
				return nil, fmt.Errorf("%w: gave up waiting for a look-up", store.ErrUnavailable)
			}
			timer.Reset(more)
		}
	}
}

// more returns for how long a request that began to wait then still waits, unless the
// store answers somebody meanwhile.
func (l *lookups) more(now, began time.Time) time.Duration {
	heard := began
	if at := l.answered.Load(); at != nil && at.After(began) {
		heard = *at
	}
	return min(l.silence-now.Sub(heard), l.patience-now.Sub(began))
}
