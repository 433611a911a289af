package keyring

import (
	"context"
	"errors"
	"slices"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// Rotation says how the raw key of a key is replaced.
type Rotation struct {
	// Grace is for how many milliseconds the replaced raw key, and at most those
	// before it, go on working. 0: not at all.
	Grace int64
	// WithSecret makes a new secret, which goes with all raw keys of the key.
	WithSecret bool
	// ExpiresIn, in seconds from now, gives the key another end. Nil: it keeps its own.
	ExpiresIn *int64
}

// Rotate gives a key a new raw key.
func (s *Editor) Rotate(ctx context.Context, id string, r Rotation) (Issued, error) {
	if err := s.mayChange(); err != nil {
		return Issued{}, err
	}
	if r.Grace < 0 || r.Grace > key.MaxTime-s.engine.clock().wall {
		return Issued{}, invalid("grace", "must be an integer from 0, and end before the year 10000")
	}
	st, err := s.engine.open(ctx)
	if err != nil {
		return Issued{}, err
	}
	for {
		issued, err := s.rotateOnce(ctx, st, id, r)
		if !errors.Is(err, errReplaced) {
			return issued, err
		}
	}
}

// errReplaced is returned where another key has taken the place of the one that a raw key
// was generated for.
var errReplaced = errors.New("the key was replaced")

// rotateOnce generates a raw key and puts it into place: first one, then the other,
// because a generator is another's module, and a transaction holds all other writes up.
func (s *Editor) rotateOnce(ctx context.Context, st *opened, id string, r Rotation) (Issued, error) {
	before, err := st.Get(ctx, id)
	if err != nil {
		return Issued{}, err
	}
	now := s.engine.clock().wall
	if _, err := s.checkRotation(before.Key, r, now); err != nil {
		return Issued{}, err
	}
	issued := Issued{}
	if issued.Raw, err = s.rulesFor(before.Key).generateFor(prefixOf(before.Key)); err != nil {
		return Issued{}, err
	}
	e, err := s.update(ctx, st, id, s.noteOf(ActionKeyRotated), func(e *store.Entry) error {
		if e.Key.ConfigID != before.Key.ConfigID || prefixOf(e.Key) != prefixOf(before.Key) {
			return errReplaced
		}
		return s.rotate(e, r, &issued, s.engine.clock().wall)
	})
	if err != nil {
		return Issued{}, err
	}
	issued.Info = s.info(e)
	return issued, nil
}

func prefixOf(k *key.Key) string {
	if k.Prefix == nil {
		return ""
	}
	return *k.Prefix
}

// checkRotation returns a copy of a key that may be rotated, with its new expiry.
func (s *Editor) checkRotation(k *key.Key, r Rotation, now int64) (_ *sketch, err error) {
	if err := s.knows(k); err != nil {
		return nil, err
	}
	made := &sketch{*k}
	if r.ExpiresIn != nil {
		if made.ExpiresAt, err = s.rulesFor(k).expiry(*r.ExpiresIn, now); err != nil {
			return nil, err
		}
	}
	return made, s.actor.Scope.rotate(&made.Key)
}

// rotate replaces the raw key of an entry by the one that was issued.
func (s *Editor) rotate(e *store.Entry, r Rotation, issued *Issued, now int64) error {
	k, err := s.checkRotation(e.Key, r, now)
	if err != nil {
		return err
	}
	in, rec := s.engine.cache.current(k.ID)
	k.Rotate(r.Grace, lastOfPresent(e, in, rec), now)
	k.open(issued.Raw)
	if r.WithSecret {
		if issued.Secret, err = k.lock(s.rulesFor(e.Key)); err != nil {
			return err
		}
	}
	k.UpdatedAt = max(now, k.UpdatedAt)
	e.Key = &k.Key
	return nil
}

// lastOfPresent returns when the present raw key of a key was last used. The store
// knows that of the key as a whole: it is the present one's unless another was used
// then, or it was before there was the present one.
func lastOfPresent(e *store.Entry, in *entry, rec *record) int64 {
	last, others := e.LastRequest, e.Key.Previous
	if rec != nil {
		if own := rec.usesOf(e.Key.Hash).Load(); own != 0 {
			return own
		}
		last, others = max(last, in.last(rec)), rec.used(others)
	}
	if last < e.Key.RotatedAt || slices.ContainsFunc(others, func(p key.PreviousKey) bool { return p.LastRequest >= last }) {
		return 0
	}
	return last
}

// EndGrace ends all previous raw keys of a key.
func (s *Editor) EndGrace(ctx context.Context, id string) (Info, error) {
	if err := s.mayChange(); err != nil {
		return Info{}, err
	}
	st, err := s.engine.open(ctx)
	if err != nil {
		return Info{}, err
	}
	e, err := s.update(ctx, st, id, s.noteOf(ActionKeyUpdated), func(e *store.Entry) error {
		if err := s.knows(e.Key); err != nil || e.Key.Previous == nil {
			return err
		}
		k := e.Key.Clone()
		k.Previous, k.UpdatedAt = nil, max(s.engine.clock().wall, k.UpdatedAt)
		e.Key = k
		return nil
	})
	if err != nil {
		return Info{}, err
	}
	return s.info(e), nil
}
