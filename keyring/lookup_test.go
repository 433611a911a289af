package keyring

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// slowStore answers one look-up after another, each after a while, and holds no keys.
type slowStore struct {
	store.Store
	each   time.Duration
	turn   chan struct{}
	left   atomic.Int64 // look-ups that it still answers
	served atomic.Int64
}

func (s *slowStore) Find(ctx context.Context, _ key.Hash) (store.Entry, error) {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return store.Entry{}, errors.Join(store.ErrUnavailable, ctx.Err())
	}
	if s.left.Add(-1) < 0 {
		<-ctx.Done()
		return store.Entry{}, errors.Join(store.ErrUnavailable, ctx.Err())
	}
	time.Sleep(s.each)
	s.served.Add(1)
	return store.Entry{}, store.ErrNotFound
}

func (*slowStore) ReportSpending(store.Spending) {}

func (*slowStore) ForfeitLeases(context.Context, string, store.ForfeitNote) (int64, error) {
	return 0, nil
}
func (*slowStore) HasPlainKeys(context.Context) (bool, error) { return false, nil }
func (*slowStore) Subscribe(func([]store.Change)) func()      { return func() {} }
func (*slowStore) Close() error                               { return nil }
func (*slowStore) Health(context.Context) (store.Status, error) {
	return store.Status{}, store.ErrUnavailable // so that no filter excludes a key
}
func (*slowStore) SaveUsage(context.Context, store.UsageBatch) error { return nil }

type slowOpener struct{ *slowStore }

func (slowOpener) Identity() string                            { return "slow" }
func (o slowOpener) Open(context.Context) (store.Store, error) { return o.slowStore, nil }

// TestF6_BusyStore: look-ups wait in turn as long as the store answers others, and for two
// seconds at most; where it answers nobody, for 250 ms. No more than a thousand wait.
func TestF6_BusyStore(t *testing.T) {
	const each = 100 * time.Millisecond
	for _, tt := range []struct {
		name             string
		callers, answers int
		invalid          int           // are answered
		last             time.Duration // after which the last request has its answer
	}{
		{"busy", 15, 100, 15, 15 * each},
		{"too busy", 30, 100, 20, 2 * time.Second},
		{"away", 30, 0, 0, 250 * time.Millisecond},
		{"going away", 30, 5, 5, 5*each + 250*time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &slowStore{each: each, turn: make(chan struct{}, 1)}
				s.left.Store(int64(tt.answers))
				invalid, unavailable, last := askAtOnce(t, s, tt.callers)
				// At the very end of two seconds, either may come first.
				if invalid < tt.invalid-1 || invalid > tt.invalid || invalid+unavailable != tt.callers || last < tt.last || last > tt.last+lookupTimeout/silentSteps {
					t.Errorf("%d answered and %d unavailable after %v, want %d after %v", invalid, unavailable, last, tt.invalid, tt.last)
				}
			})
		})
	}
	t.Run("too many", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := &slowStore{each: time.Millisecond, turn: make(chan struct{}, 1)}
			s.left.Store(1 << 30)
			invalid, unavailable, last := askAtOnce(t, s, 3*maxLookups)
			if invalid != maxLookups || unavailable != 2*maxLookups || last != maxLookups*time.Millisecond {
				t.Errorf("%d answered and %d unavailable after %v", invalid, unavailable, last)
			}
		})
	})
}

// askAtOnce asks for as many unknown keys, each another, at the same time.
func askAtOnce(t *testing.T, s *slowStore, callers int) (invalid, unavailable int, last time.Duration) {
	r := New(slowOpener{s}, time.Now, func(error) {})
	if err := r.Open(context.Background()); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	service := NewService(r, &Settings{Rules: DefaultRules()})
	began := time.Now()
	outcomes := make(chan Outcome, callers)
	for range callers {
		raw, err := key.Random{}.Generate("ak_", 64, true)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			d, _ := service.Verify(context.Background(), raw, &Request{Cost: 1})
			outcomes <- d.Outcome
		}()
	}
	for range callers {
		switch o := <-outcomes; o {
		case Invalid:
			invalid++
		case Unavailable:
			unavailable++
		default:
			t.Errorf("%q", o.Code())
		}
	}
	last = time.Since(began)
	synctest.Wait()
	time.Sleep(lookupPatience) // until the look-ups have ended that nobody waits for
	return invalid, unavailable, last
}
