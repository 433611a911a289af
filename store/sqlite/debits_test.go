package sqlite

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// Movements that share a transaction have the results that they would have had one
// after the other, whether debits are summed or not.
func TestDebits_asOneByOne(t *testing.T) {
	s := openHooked(t, hooks{})
	r := rand.New(rand.NewPCG(7, 7))
	summed := 0
	for round := range 150 {
		amount := int64(r.IntN(60))
		interval := int64(1000)
		var refill int64
		if r.IntN(3) == 0 {
			refill = int64(1 + r.IntN(40))
		}
		remaining := &amount
		if r.IntN(10) == 0 {
			remaining = nil
		}
		if refill == 0 {
			interval = 0
		}
		credits := key.NewCredits(remaining, refill, interval, now)
		account := store.OfKey(testKey(round).ID)
		_, err := s.Create(t.Context(), testKey(round), credits, store.KeyLimit{}, nil)
		must(t, err)
		want, err := s.Account(t.Context(), account)
		must(t, err)
		onlyTakes := r.IntN(2) == 0
		leased := int64(0)
		release := held(t, s)
		var wg sync.WaitGroup
		for i := range 1 + r.IntN(40) {
			at := now + int64(r.IntN(1500))
			if refill != 0 && r.IntN(2) == 0 {
				at = now
			}
			m := key.Move{Take: int64(1 + r.IntN(4))}
			if !onlyTakes {
				switch r.IntN(8) {
				case 0:
					m.Give = int64(r.IntN(3))
				case 1:
					m = key.Move{Lease: 3, Holder: key.Holder{Name: "a", Epoch: 1}}
				case 2:
					m = key.Move{Used: leased, Holder: key.Holder{Name: "a", Epoch: 1}}
				case 3:
					m = key.Move{Hold: 2}
				}
			}
			after, did, keep, moveErr := want.Credits.Move(m, at)
			if moveErr == nil && keep {
				after.Version++
				want.Credits = after
				leased += did.Leased - m.Used
			}
			wg.Go(func() {
				got, err := s.MoveCredits(t.Context(), account, m, at)
				switch {
				case moveErr != nil:
					if !errors.Is(err, moveErr) {
						t.Errorf("round %d, movement %d: %v, want %v", round, i, err, moveErr)
					}
				case err != nil:
					t.Error(err)
				case got.Moved != did || got.Credits != after:
					t.Errorf("round %d, movement %d, %+v:\n%+v, want\n%+v %+v", round, i, m, got, did, after)
				}
			})
			waitBacklog(t, s, i+1)
		}
		release()
		wg.Wait()
		got, err := s.Account(t.Context(), account)
		must(t, err)
		if got.Credits != want.Credits {
			t.Errorf("round %d: %+v, want %+v", round, got.Credits, want.Credits)
		}
		if onlyTakes && want.Credits.Version > 1 {
			summed++
		}
	}
	if summed < 20 {
		t.Errorf("only %d rounds of debits", summed)
	}
}

// Debits and other writes of one account keep their order within a transaction.
func TestDebits_beforeAndAfter(t *testing.T) {
	s := openHooked(t, hooks{})
	createTest(t, s, 1, 10)
	release := held(t, s)
	account := store.OfKey(testKey(1).ID)
	var wg sync.WaitGroup
	queued := 0
	then := func(f func() error) {
		wg.Go(func() {
			if err := f(); err != nil {
				t.Error(err)
			}
		})
		queued++
		waitBacklog(t, s, queued)
	}
	take := func(n int64, ok bool, left int64) func() error {
		return func() error {
			got, err := s.MoveCredits(t.Context(), account, key.Move{Take: n}, now)
			if err == nil && (got.OK != ok || got.Credits.Remaining != left) {
				err = fmt.Errorf("taking %d: %+v, want %v and %d left", n, got, ok, left)
			}
			return err
		}
	}
	then(take(4, true, 6))
	then(take(7, false, 6))
	then(take(5, true, 1))
	then(func() error {
		_, err := s.UpdateAccount(t.Context(), account, func(c *key.Credits) error {
			if c.Remaining != 1 {
				return fmt.Errorf("%d are left, want 1", c.Remaining)
			}
			*c, _ = c.Add(9, now)
			return nil
		})
		return err
	})
	then(take(3, true, 7))
	then(take(3, true, 4))
	release()
	wg.Wait()
}
