package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/caddy-apikey/caddy-apikey/keyring"
	"github.com/caddy-apikey/caddy-apikey/store"
	"github.com/caddy-apikey/caddy-apikey/store/sqlite"
)

const (
	// fewKeys is how many keys the store has that larger ones are compared with.
	fewKeys = 10_000
	// growthRounds is how often each is measured, in turn.
	growthRounds = 9

	million = 1_000_000
)

// growing is something that may cost more the more keys there are.
type growing struct {
	name   string
	target float64 // times what it costs with fewKeys
	most   int     // keys up to which the target holds; 0: any number
	times  int     // how often it is done in a round
	do     func(ctx context.Context, k *filled, i int) error
}

// filled is a store with keys, served without Caddy.
type filled struct {
	keys  *keyring.Service
	many  manyKeys
	raws  []byte
	close func() error
}

func growths() []growing {
	return []growing{
		{"a valid key in memory", 1.2, 0, 50_000, func(ctx context.Context, k *filled, i int) error {
			return k.verify(ctx, k.raw(i%100), keyring.Allowed)
		}},
		{"an unknown key", 1.2, 0, 50_000, func(ctx context.Context, k *filled, _ int) error {
			raw, err := newRaw()
			if err != nil {
				return err
			}
			return k.verify(ctx, raw, keyring.Invalid)
		}},
		{"a page of the list", 1.7, million, 200, func(ctx context.Context, k *filled, _ int) error {
			_, err := k.keys.List(ctx, store.List{Sort: store.SortName, Reverse: true})
			return err
		}},
		{"a page of the list of one owner", 1.7, million, 200, func(ctx context.Context, k *filled, _ int) error {
			_, err := k.keys.List(ctx, store.List{Filter: store.Filter{UserID: k.many.key(k.any(), k.raw(0)).UserID}})
			return err
		}},
		{"a committed change", 1.7, million, 200, func(ctx context.Context, k *filled, i int) error {
			name := fmt.Sprintf("changed %d", i)
			_, err := k.keys.As(keyring.Actor{Kind: keyring.ActorOperator}).Update(ctx, k.many.key(k.any(), k.raw(0)).ID, keyring.Patch{Name: keyring.Field[string]{Set: true, Value: &name}})
			return err
		}},
	}
}

// growth compares what is done in a store with many keys with the same in one with few.
func (b *bench) growth(ctx context.Context) (all []finding, err error) {
	var stores [2]*filled
	for i, n := range []int{fewKeys, b.keys} {
		if stores[i], err = b.open(ctx, n); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, stores[i].close()) }()
	}
	for _, g := range growths() {
		var ratios []float64
		for round := range growthRounds + 1 {
			var took [2]time.Duration
			for j := range stores {
				n := (round + j) % 2
				if took[n], err = g.measure(ctx, stores[n]); err != nil {
					return nil, fmt.Errorf("%s: %w", g.name, err)
				}
			}
			if round > 0 { // the first one warms up
				ratios = append(ratios, took[1].Seconds()/took[0].Seconds())
			}
		}
		slices.Sort(ratios)
		f := finding{name: fmt.Sprintf("%s, %d keys, of the time it takes with %d", g.name, b.keys, fewKeys), value: spread(ratios)}
		if g.most == 0 || b.keys <= g.most {
			f.target, f.verdict = fmt.Sprintf("≤ %.1f", g.target), verdict(median(ratios) <= g.target)
		}
		all = append(all, f)
		if most := g.target * slack; b.check && median(ratios) > most {
			return nil, fmt.Errorf("%s takes %.2f times as long with %d keys as with %d: more than %.1f", g.name, median(ratios), b.keys, fewKeys, most)
		}
	}
	return all, nil
}

// slack is how many times a target a growth may be on a busy machine.
const slack = 3

func (g *growing) measure(ctx context.Context, k *filled) (time.Duration, error) {
	began := time.Now()
	for i := range g.times {
		if err := g.do(ctx, k, i); err != nil {
			return 0, err
		}
	}
	return time.Since(began), nil
}

// open opens a store with n keys.
func (b *bench) open(ctx context.Context, n int) (*filled, error) {
	k := &filled{many: manyKeys{dir: b.many.dir, n: n}}
	path, err := k.many.path(ctx)
	if err != nil {
		return nil, err
	}
	if k.raws, err = k.many.raws(); err != nil {
		return nil, err
	}
	opener, err := sqlite.New(sqlite.Options{Path: path})
	if err != nil {
		return nil, err
	}
	engine := keyring.New(opener, time.Now, func(err error) { progress("%v", err) })
	if err := engine.Open(ctx); err != nil {
		return nil, err
	}
	k.keys, k.close = keyring.NewService(engine, &keyring.Settings{Rules: keyring.DefaultRules()}), engine.Close
	return k, k.filterBuilt(ctx)
}

// filterBuilt waits until unknown keys are told without a look-up.
func (k *filled) filterBuilt(ctx context.Context) error {
	for range 600 {
		began := time.Now()
		for range 1000 {
			raw, err := newRaw()
			if err == nil {
				err = k.verify(ctx, raw, keyring.Invalid)
			}
			if err != nil {
				return err
			}
		}
		if time.Since(began) < 10*time.Millisecond { // a look-up takes longer than 10 µs
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return errors.New("the filter is not built within a minute")
}

func (k *filled) any() int { return rand.IntN(k.many.n) }

func (k *filled) raw(i int) string { return string(k.raws[i*rawLen : (i+1)*rawLen]) }

func (k *filled) verify(ctx context.Context, raw string, want keyring.Outcome) error {
	d, err := k.keys.Verify(ctx, raw, &keyring.Request{Cost: 1})
	if err == nil && d.Outcome != want {
		err = fmt.Errorf("%s instead of %s", d.Outcome.Label(), want.Label())
	}
	return err
}
