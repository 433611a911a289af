package keyring

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// TestM1_SlowSettlement: a store that does not answer a settlement holds no request, and
// what it did in the end is neither lost nor spent twice.
func TestM1_SlowSettlement(t *testing.T) {
	g := newRig(t).leasing(100)
	k := g.create(Draft{Remaining: ptr(int64(1000))})
	passed := g.warm(k.Raw, k.Key.ID)
	a := g.entry(k.Key.ID).account.Load()
	held, release := make(chan struct{}), make(chan struct{})
	g.spy.onMove(func(m key.Move) {
		if m.Returned > 0 {
			close(held)
			<-release
		}
	})
	all := 1000 - passed // only the lease and the rest together are enough
	g.engine.accounts.timeout = time.Millisecond
	d, err := g.Verify(context.Background(), k.Raw, &Request{Cost: all})
	<-held
	if d.Outcome != Unavailable || !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("the one that settles: %q, %v", d.Outcome.Code(), err)
	}
	g.engine.accounts.timeout = time.Minute
	close(release)
	settled(a)
	if left := g.get(k.Key.ID).Credits.Remaining; left != 0 {
		t.Errorf("%d remain, want none", left)
	}
}
