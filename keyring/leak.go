package keyring

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/ratelimit"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// reportLimit is how many reports of leaked keys count that come from one network.
var reportLimit = ratelimit.Policy{Algorithm: ratelimit.FixedWindow, Max: 10, Window: time.Minute.Milliseconds()}

// publicLeakEvery is how often the audit log tells that the same public key was reported.
// Everybody can see such a key, so that anybody could fill the log with it.
const publicLeakEvery = 24 * int64(time.Hour/time.Millisecond)

// ReportLeak takes a report that raw has leaked, from whoever is at an address. The present
// raw key of a key disables the key, and a previous one in its grace ends. Keys of a public
// configuration stay. Each of these is in the audit log.
//
// The result does not depend on raw: nil once the report has had its effect or has none, as
// beyond the limit of a network, and an error where the store is away. A report without a key,
// an empty raw, is answered alike.
func (s *Service) ReportLeak(ctx context.Context, raw string, from netip.Addr) error {
	if !s.engine.reports.take(networkOf(from), reportLimit, s.engine.clock).OK {
		return nil
	}
	ctx = context.WithoutCancel(ctx) // who has reported need not wait for the answer
	st, err := s.engine.open(ctx)
	if err != nil {
		return err
	}
	err = s.As(Actor{Kind: ActorSystem, Address: from}).leaked(ctx, st, raw)
	// A report that changes nothing fails like the others.
	asking, cancel := context.WithTimeout(ctx, s.engine.lookups.patience)
	defer cancel()
	_, away := st.Health(asking)
	return errors.Join(err, away)
}

// leaked does what a report of a leaked raw key has to do. It asks the store whatever raw is,
// and whatever memory knows, so that a store that is away is seen by every report.
func (s *Editor) leaked(ctx context.Context, st *opened, raw string) error {
	var found store.Entry
	hash := key.HashOf(raw)
	asking, cancel := context.WithTimeout(ctx, s.engine.lookups.patience)
	defer cancel()
	_, err := s.engine.lookups.run(asking, func(ctx context.Context) (_ any, err error) {
		found, err = st.Find(ctx, hash)
		return nil, unlessNotFound(err)
	})
	if err != nil || found.Key == nil || key.CheckShape(raw, false) != nil {
		return err
	}
	if s.rulesFor(found.Key).Public {
		return s.leakedPublic(ctx, st, found.Key)
	}
	var ended *key.PreviousKey
	_, err = s.update(ctx, st, found.Key.ID, s.noteLeaked(&ended), func(e *store.Entry) error {
		ended = nil
		now := s.engine.clock().wall
		k, match := e.Key.Clone(), e.Key.Match(hash, now)
		switch {
		case !match.OK || match.Previous < 0 && k.DisabledBy == key.DisabledByLeak:
			return errNoEffect
		case match.Previous < 0:
			k.Enabled, k.DisabledBy = false, key.DisabledByLeak
		default:
			ended = &e.Key.Previous[match.Previous]
			if k.Previous = slices.Delete(slices.Clone(k.Previous), match.Previous, match.Previous+1); len(k.Previous) == 0 {
				k.Previous = nil
			}
		}
		k.UpdatedAt = max(now, k.UpdatedAt)
		e.Key = k
		return nil
	})
	if errors.Is(err, errNoEffect) {
		return nil
	}
	return unlessNotFound(err)
}

// errNoEffect is what a change returns that has nothing to change: then nothing else of the
// key, such as what is leased of its credits, changes either.
var errNoEffect = errors.New("the report has no effect")

// unlessNotFound is nil for a key that is not there, or not there any more.
func unlessNotFound(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}

// noteLeaked notes what a report has changed. Of a previous raw key that it has ended, the
// entry has what is shown of that.
func (s *Editor) noteLeaked(ended **key.PreviousKey) keyNote {
	return func(before, after *store.Entry) ([]store.AuditEntry, error) {
		changes := keyChanges(before, after)
		if p := *ended; p != nil {
			shown, err := json.Marshal(struct {
				Start string    `json:"start,omitempty"`
				Until time.Time `json:"until"`
			}{p.Start[:min(s.rulesFor(after.Key).Start, len(p.Start))], time.UnixMilli(p.Until).UTC()})
			if err != nil {
				return nil, err
			}
			changes["previousKey"] = key.FieldChange{From: shown}
		}
		return s.engine.keyEntry(&s.actor, ActionKeyLeakReported, after.Key, changes)
	}
}

// leakedPublic notes the report of a key that stays. Of reports at the same time, one does
// it for all.
func (s *Editor) leakedPublic(ctx context.Context, st *opened, k *key.Key) error {
	_, err, _ := s.engine.cache.loads.Do("leak of "+k.ID, func() (any, error) {
		since := s.engine.clock().wall - publicLeakEvery
		page, err := st.Audit(ctx, store.AuditQuery{KeyID: k.ID, Action: ActionKeyLeakReported, Since: since, Limit: 1})
		if err != nil || len(page.Entries) > 0 {
			return nil, err
		}
		record := s.record(func([]store.Change) ([]store.AuditEntry, error) {
			return s.engine.keyEntry(&s.actor, ActionKeyLeakReported, k, nil)
		})
		noted, err := record.note(nil)
		if err == nil {
			err = st.AppendAudit(ctx, noted)
		}
		if err == nil {
			s.set.happened(record.events)
		}
		return nil, err
	})
	if err != nil {
		return fmt.Errorf("noting the report of a public key: %w", err)
	}
	return nil
}
