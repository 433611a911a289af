package keyring

import (
	"context"
	"errors"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/ratelimit"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// OwnerRecord is all that is stored of an owner, but for its usage.
type OwnerRecord struct {
	key.Owner
	Counters []store.OwnerCounter
}

// importers is how many owners are imported side by side: they share commits.
const importers = 64

// ImportOwners is Import for owners. It comes before that of their keys, which
// would make the owners as new ones are. A tier that is not configured here is
// taken all the same: it may come later, and the rest of the owner matters more.
func (s *Service) ImportOwners(ctx context.Context, batch []OwnerRecord, dryRun bool) ([]Imported, error) {
	st, err := s.ring.open(ctx)
	if err != nil {
		return nil, err
	}
	results := make([]Imported, len(batch))
	var all errgroup.Group
	all.SetLimit(importers)
	for i := range batch {
		all.Go(func() (err error) {
			results[i], err = s.ring.importOwner(context.WithoutCancel(ctx), st, &batch[i], dryRun)
			return err
		})
	}
	if err := all.Wait(); err != nil {
		return nil, err
	}
	var counters []store.OwnerCounted
	for i := range batch {
		if results[i].Status != Created || dryRun {
			continue
		}
		for _, c := range batch[i].Counters {
			counters = append(counters, store.OwnerCounted{UserID: batch[i].UserID, OwnerCounter: c})
		}
	}
	if err := st.SaveOwnerCounters(context.WithoutCancel(ctx), counters); err != nil {
		return nil, err
	}
	for _, c := range counters {
		s.ring.owners.reload(c.UserID)
	}
	return results, nil
}

var errThere = errors.New("the owner exists") // ends a change that makes owners only

func (r *Ring) importOwner(ctx context.Context, st *opened, o *OwnerRecord, dryRun bool) (Imported, error) {
	if err := checkOwner(o); err != nil {
		bad, _ := errors.AsType[*FieldError](err)
		return Imported{Refused, bad}, nil
	}
	if dryRun {
		there, err := st.Owner(ctx, o.UserID)
		switch {
		case errors.Is(err, store.ErrNotFound):
			return Imported{Status: Created}, nil
		case err != nil:
			return Imported{}, err
		}
		return sameStanding(&there.Owner, &o.Owner), nil
	}
	defer r.changing.lock("owner " + o.UserID)()
	var there key.Owner
	made, err := st.PutOwner(ctx, o.UserID, o.CreatedAt, func(now *key.Owner) error {
		if there = *now; there.Generation != 0 {
			return errThere
		}
		now.Tier, now.Enabled, now.UpdatedAt = o.Tier, o.Enabled, o.UpdatedAt
		return nil
	})
	if errors.Is(err, errThere) {
		return sameStanding(&there, &o.Owner), nil
	}
	if err != nil {
		return Imported{}, err
	}
	r.owners.publish(made.Owner, r.changes.Add(1), r.clock().wall)
	return Imported{Status: Created}, nil
}

// sameStanding compares an owner that is here with one that was to be imported.
func sameStanding(here, other *key.Owner) Imported {
	tier := func(o *key.Owner) string {
		if o.Tier == nil {
			return ""
		}
		return *o.Tier
	}
	switch {
	case here.Enabled != other.Enabled:
		return conflict("enabled", "is another one of the owner that is here")
	case tier(here) != tier(other):
		return conflict("tier", "is another one of the owner that is here")
	default:
		return Imported{Status: Exists}
	}
}

func checkOwner(o *OwnerRecord) error {
	if err := CheckUserID(o.UserID); err != nil {
		return err
	}
	if o.Tier != nil && (*o.Tier == "" || utf8.RuneCountInString(*o.Tier) > maxUserID || !printable(*o.Tier)) {
		return invalid("tier", "must be 1 to %d UTF-8 characters without control characters", maxUserID)
	}
	for _, c := range o.Counters {
		if _, ok := unitOf(c.Unit); !ok || new(ratelimit.State).UnmarshalBinary(c.State) != nil {
			return invalid("windows", "must be as they were exported")
		}
	}
	return nil
}
