package keyring

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// update changes a key. What this process has leased of its credits is returned with that.
func (s *Editor) update(ctx context.Context, st *opened, id string, note keyNote, change func(*store.Entry) error) (stored store.Entry, err error) {
	ctx = context.WithoutCancel(ctx)
	var before store.Entry
	record := s.record(func(changes []store.Change) ([]store.AuditEntry, error) { return note(&before, changes[0].Entry) })
	err = s.engine.alone(ctx, st, id, func(recalled *settlement) (after key.Credits, unchanged bool, err error) {
		changed, err := st.Update(ctx, id, func(stored *store.Entry) error {
			credits, err := returned(stored.Credits, recalled)
			if err != nil {
				return err
			}
			// Nobody has leased what is left: this process has returned all of its own.
			stored.Credits = credits.Forfeit()
			before = *stored
			err = change(stored)
			unchanged = err != nil
			return err
		}, record.note)
		if err != nil {
			return after, unchanged, err
		}
		stored = *changed.Entry
		s.changed(record, changed)
		return stored.Credits, false, nil
	})
	return stored, err
}

// alone runs f with a key whose lease is being returned: there is one such change of a
// key at a time. f returns the credits after its change, or an error, and whether that is
// its own: then the lease is as before.
func (r *Engine) alone(ctx context.Context, st *opened, id string, f func(recalled *settlement) (key.Credits, bool, error)) error {
	for {
		e, err := r.cache.pin(ctx, st, id)
		if err != nil {
			return err
		}
		if recalled := r.accounts.recall(e.ensureAccount()); recalled != nil {
			defer r.cache.unpin(e)
			return r.finishRecalled(e, recalled, f)
		}
		r.cache.unpin(e) // deleted just now
	}
}

func (r *Engine) finishRecalled(e *entry, recalled *settlement, f func(recalled *settlement) (key.Credits, bool, error)) error {
	t, told := store.Taken{}, errUnfinished
	defer func() { e.account.Load().finish(recalled, t, told, r.clock) }()
	credits, unchanged, err := f(recalled)
	if !unchanged {
		t.Credits, told = credits, err
	}
	return err
}

// errUnfinished is what a settlement is told of a change that was not made.
var errUnfinished = errors.New("the change was not made")

// returned makes the movement of a settlement that returns a lease.
func returned(c key.Credits, s *settlement) (key.Credits, error) {
	if s == nil || s.Used == 0 && s.Returned == 0 {
		return c, nil
	}
	after, _, _, err := c.Move(s.Move, s.now)
	return after, err
}

// Patch is a change of a key. What is not set stays.
type Patch struct {
	UserID    Field[string]
	Name      Field[string]
	ExpiresIn Field[int64] // seconds from now
	Attributes
	Remaining           Field[int64]
	RemainingDelta      Field[int64] // added to what remains
	RefillAmount        Field[int64]
	RefillInterval      Field[int64]
	RateLimitEnabled    Field[bool]
	RateLimitMax        Field[int64]
	RateLimitTimeWindow Field[int64]
	RateLimitAlgorithm  Field[string]
	Permissions         Field[key.Permissions]
	AllowedIPs          Field[[]netip.Prefix]
	Enabled             Field[bool]

	scope *Scope // of whoever asks
}

// ErrTooFewCredits is returned for a deduction that would fall below zero.
var ErrTooFewCredits = errors.New("remainingDelta: the key has too few credits left")

// Update changes a key.
func (s *Editor) Update(ctx context.Context, id string, p Patch) (Info, error) {
	if err := s.mayChange(); err != nil {
		return Info{}, err
	}
	p.scope = s.actor.Scope
	st, err := s.engine.open(ctx)
	if err != nil {
		return Info{}, err
	}
	e, err := s.update(ctx, st, id, s.noteOf(ActionKeyUpdated), func(e *store.Entry) error {
		now := s.engine.clock().wall
		if err := s.knows(e.Key); err != nil {
			return err
		}
		k := e.Key.Clone()
		if err := s.rulesFor(k).patch(k, p, now); err != nil {
			return err
		}
		if p.UserID.Set {
			if err := s.checkOwner(k.UserID, k.ConfigID); err != nil {
				return err
			}
		}
		if err := s.patchScope(p, &e.Owner).patch(e.Key, k, p); err != nil {
			return err
		}
		credits, err := p.credits(e.Credits.At(now), now)
		if err != nil {
			return err
		}
		k.UpdatedAt = max(now, k.UpdatedAt)
		if revived(e.Key, k) != "" {
			e.Limit = s.keyLimit(s.rulesFor(k), now)
		}
		e.Key, e.Credits = k, credits
		return nil
	})
	if err != nil {
		return Info{}, err
	}
	return s.info(e), nil
}

// patchScope returns the scope of a change. Permissions are granted where they are
// set; what a key has had before, the tier does not take.
func (s *Service) patchScope(p Patch, o *key.Owner) *Scope {
	if pl, _ := s.plans.of(o); pl != nil && p.Permissions.Set {
		return p.scope.under(pl.Permissions)
	}
	return p.scope
}

// errUnknownKey is returned for a key that whoever asks may not know of.
var errUnknownKey = fmt.Errorf("key: %w", store.ErrNotFound)

// patch changes the record.
func (r *Rules) patch(k *key.Key, p Patch, now int64) error {
	if err := r.patchWords(k, p); err != nil {
		return err
	}
	if err := r.patchExpiry(k, p, now); err != nil {
		return err
	}
	if err := p.Put(k, r); err != nil {
		return err
	}
	if p.Permissions.Set {
		k.Permissions = valueOr(p.Permissions, nil)
	}
	if p.AllowedIPs.Set {
		k.AllowedIPs = valueOr(p.AllowedIPs, nil)
	}
	if err := patchEnabled(k, p); err != nil {
		return err
	}
	return patchRateLimit(k, p)
}

// patchEnabled also notes who disables a key. An owner who disables it once more
// cannot take that over from an operator.
func patchEnabled(k *key.Key, p Patch) error {
	was := k.Enabled
	if err := must(p.Enabled, "enabled", &k.Enabled); err != nil {
		return err
	}
	switch {
	case k.Enabled:
		k.DisabledBy = ""
	case p.Enabled.Set && (was || p.scope == nil):
		k.DisabledBy = p.scope.disables()
	}
	return nil
}

// patchWords changes who the key belongs to and what it is called.
func (r *Rules) patchWords(k *key.Key, p Patch) error {
	if err := must(p.UserID, "userId", &k.UserID); err != nil {
		return err
	}
	if p.Name.Set {
		k.Name = p.Name.Value
		if err := r.checkName(k.Name); err != nil {
			return err
		}
	}
	return nil
}

func (r *Rules) patchExpiry(k *key.Key, p Patch, now int64) error {
	if !p.ExpiresIn.Set {
		return nil
	}
	var err error
	switch {
	case p.ExpiresIn.Value != nil:
		k.ExpiresAt, err = r.expiry(*p.ExpiresIn.Value, now)
	case r.Expiration.Fixed:
		err = &FieldError{"expiresIn", KeyDisabledExpiration, "cannot be chosen in this configuration"}
	case p.scope == nil: // operators alone may leave a key without an end
		k.ExpiresAt = 0
	default:
		k.ExpiresAt = endAfter(r.Expiration.Max, now)
	}
	return err
}

func patchRateLimit(k *key.Key, p Patch) error {
	if err := must(p.RateLimitEnabled, "rateLimitEnabled", &k.RateLimitEnabled); err != nil {
		return err
	}
	limit := merge(p.RateLimitMax, k.RateLimitMax)
	window := merge(p.RateLimitTimeWindow, k.RateLimitTimeWindow)
	if p.RateLimitMax.Set || p.RateLimitTimeWindow.Set {
		// Clearing one of the two lifts the limit; setting one needs the other.
		check := checkRateLimit
		if p.RateLimitMax.cleared() || p.RateLimitTimeWindow.cleared() {
			check = checkRateCounts
		}
		if err := check(limit, window); err != nil {
			return err
		}
		k.RateLimitMax, k.RateLimitTimeWindow = orZero(limit), orZero(window)
	}
	if !p.RateLimitAlgorithm.Set {
		return nil
	}
	var err error
	k.RateLimitAlgorithm, err = parseAlgorithm(valueOr(p.RateLimitAlgorithm, "fixed_window"))
	return err
}

// credits changes the ledger row.
func (p Patch) credits(c key.Credits, now int64) (key.Credits, error) {
	if p.Remaining.Set {
		if p.RemainingDelta.Set {
			return c, invalid("remainingDelta", "cannot be combined with remaining")
		}
		if err := checkCount("remaining", p.Remaining.Value, 0); err != nil {
			return c, err
		}
		if !c.Limited {
			c = c.SkipRefills(now)
		}
		c = c.WithRemaining(p.Remaining.Value)
	}
	if p.RefillAmount.Set || p.RefillInterval.Set {
		amount, interval := merge(p.RefillAmount, c.RefillAmount), merge(p.RefillInterval, c.RefillInterval)
		if err := checkRefill(amount, interval); err != nil {
			return c, err
		}
		c = changeRefill(c, orZero(amount), orZero(interval), now)
	}
	if !p.RemainingDelta.Set {
		return c, nil
	}
	return p.delta(c, now)
}

// changeRefill starts a new grid only where the interval is another one.
func changeRefill(c key.Credits, amount, interval, now int64) key.Credits {
	if amount != 0 && interval == c.RefillInterval {
		c.RefillAmount = amount
		return c
	}
	return c.WithRefill(amount, interval, now)
}

func (p Patch) delta(c key.Credits, now int64) (key.Credits, error) {
	n := p.RemainingDelta.Value
	if n == nil || *n < -key.MaxCount || *n > key.MaxCount {
		return c, invalid("remainingDelta", "must be an integer from %d to %d", -key.MaxCount, key.MaxCount)
	}
	if !c.Limited {
		return c, invalid("remainingDelta", "needs a key with limited credits: set remaining first")
	}
	c, ok := c.Add(*n, now)
	if !ok {
		return c, ErrTooFewCredits
	}
	return c, nil
}

// merge returns the value after a change; nil is none.
func merge(f Field[int64], old int64) *int64 {
	if f.Set {
		return f.Value
	}
	if old == 0 {
		return nil
	}
	return &old
}

// must sets a value that cannot be cleared.
func must[T any](f Field[T], name string, dst *T) error {
	if !f.Set {
		return nil
	}
	if f.Value == nil {
		return invalid(name, "must not be null")
	}
	*dst = *f.Value
	return nil
}

func valueOr[T any](f Field[T], otherwise T) T {
	if f.Value == nil {
		return otherwise
	}
	return *f.Value
}

// Delete removes a key.
func (s *Editor) Delete(ctx context.Context, id string) error {
	if err := s.mayChange(); err != nil {
		return err
	}
	st, err := s.engine.open(ctx)
	if err != nil {
		return err
	}
	if s.actor.Only == nil {
		return s.delete(ctx, st, id)
	}
	// Alone, because the key may be given to somebody else just now.
	return s.engine.alone(ctx, st, id, func(*settlement) (key.Credits, bool, error) {
		e, err := st.Get(ctx, id)
		if err == nil {
			err = s.knows(e.Key)
		}
		if err == nil {
			err = s.delete(ctx, st, id)
		}
		return key.Credits{}, true, err
	})
}

// delete removes a key while no counters are written, so that none of it come to a key
// that is imported under the same ID.
func (s *Editor) delete(ctx context.Context, st *opened, id string) error {
	var change store.Change
	record := s.record(s.engine.noteDeleted(&s.actor))
	err := s.engine.queue.pause(func() (err error) {
		change, err = st.Delete(context.WithoutCancel(ctx), id, record.note)
		return err
	})
	if err == nil {
		s.changed(record, change)
	}
	return err
}

// DeleteExpired removes every key whose time is over, whatever Keep says.
func (s *Editor) DeleteExpired(ctx context.Context) (int, error) {
	if err := s.mayChange(); err != nil {
		return 0, err
	}
	st, err := s.engine.open(ctx)
	if err != nil {
		return 0, err
	}
	end := s.engine.clock().wall + 1
	return s.engine.deleteExpired(ctx, st, store.Expired{Before: func(string) int64 { return end }, Previous: end}, &s.actor, s.set)
}
