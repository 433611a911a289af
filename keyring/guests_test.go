package keyring

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// TestQ40_storePanics: a store that panics fails the requests that need it, whether they
// look a key up, take credits or settle a lease, and whatever writes behind them. What the
// panic says stays out of the error, for it might be a key.
func TestQ40_storePanics(t *testing.T) {
	for name, lease := range map[string]int64{"strict": 0, "lease": 100} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t).leasing(lease).with(tier("free", per(Day, 1000)))
			known := g.create(Draft{Remaining: ptr(int64(1000))})
			unknown, free := g.create(Draft{}), g.create(Draft{})
			g.want(known.Raw, Allowed)
			g.want(free.Raw, Allowed)
			g.spy.panics.Store(true)
			for _, raw := range []string{known.Raw, unknown.Raw} {
				d, err := g.Verify(context.Background(), raw, &Request{Cost: 900}) // more than is leased
				if d.Outcome != Unavailable || !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "panicked") || strings.Contains(err.Error(), "canary") {
					t.Errorf("%q, %v", d.Outcome.Code(), err)
				}
			}
			g.want(free.Raw, Allowed) // needs nothing of the store
			if err := g.engine.flush(context.Background(), g.engine.store.Load()); !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("flush: %v", err)
			}
			g.spy.panics.Store(false)
			g.want(known.Raw, Allowed, Request{Cost: 900})
			g.want(unknown.Raw, Allowed)
		})
	}
}

// scripted is a generator and validator whose behaviour tests change.
type scripted struct {
	key.Random
	before func() // is called first
}

func (s *scripted) Generate(prefix string, length int, checksum bool) (string, error) {
	if s.before != nil {
		s.before()
	}
	return s.Random.Generate(prefix, length, checksum)
}

func (s *scripted) Valid(string) bool {
	if s.before != nil {
		s.before()
	}
	return true
}

// TestQ40_generatorPanics: a generator or validator that panics fails its request.
func TestQ40_generatorPanics(t *testing.T) {
	generator, validator := new(scripted), new(scripted)
	g := newRig(t, func(r *Rules) { r.Generator, r.Validators = generator, []key.Validator{validator} })
	k := g.create(Draft{})
	generator.before = func() { panic("canary") }
	_, created := g.Create(context.Background(), Draft{UserID: "alice"})
	_, rotated := g.Rotate(context.Background(), k.Key.ID, Rotation{})
	for _, err := range []error{created, rotated} {
		if err == nil || !strings.Contains(err.Error(), "the generator panicked: string") || strings.Contains(err.Error(), "canary") {
			t.Errorf("%v", err)
		}
	}
	generator.before = nil
	validator.before = func() { panic("canary") }
	for _, configs := range [][]string{nil, {key.DefaultConfig}} {
		d, err := g.Verify(context.Background(), k.Raw, &Request{Cost: 1, ConfigIDs: configs})
		if d.Outcome != Unavailable || err == nil || !strings.Contains(err.Error(), "a validator panicked") {
			t.Errorf("%q, %v", d.Outcome.Code(), err)
		}
	}
	validator.before = nil
	g.want(k.Raw, Allowed)
	g.rotate(k.Key.ID, Rotation{})
}

// TestQ40_generatorHangs: a request does not wait for ever for a raw key.
func TestQ40_generatorHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		defer close(release)
		r := DefaultRules()
		r.Generator = &scripted{before: func() { <-release }}
		if _, err := r.generate("ak_"); err == nil || !strings.Contains(err.Error(), "has not answered for 2s") {
			t.Errorf("%v", err)
		}
	})
}

// TestQ40_slowGenerator: other changes do not wait for a generator, and a key that changes
// meanwhile keeps its change.
func TestQ40_slowGenerator(t *testing.T) {
	generator := new(scripted)
	g := newRig(t, func(r *Rules) { r.Generator = generator })
	k, other := g.create(Draft{}), g.create(Draft{})
	asked, release := make(chan struct{}), make(chan struct{})
	var calls atomic.Int64
	generator.before = func() {
		if calls.Add(1) == 1 {
			close(asked)
			<-release
		}
	}
	rotated := make(chan error)
	go func() {
		_, err := g.Rotate(context.Background(), k.Key.ID, Rotation{})
		rotated <- err
	}()
	<-asked
	g.update(other.Key.ID, Patch{Name: to("other")})
	g.update(k.Key.ID, Patch{Name: to("changed")})
	g.create(Draft{})
	close(release)
	if err := <-rotated; err != nil {
		t.Fatal(err)
	}
	if i := g.get(k.Key.ID); *i.Key.Name != "changed" || i.Key.RotatedAt == 0 {
		t.Errorf("%+v", i.Key)
	}
}
