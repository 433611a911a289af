package keyring

import (
	"context"
	"errors"
	"unicode/utf8"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/ratelimit"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// OwnerRecord is all that is stored of an owner, but for its usage.
type OwnerRecord = store.OwnerEntry

// ImportOwners is Import for owners. It comes before that of their keys, which
// would make the owners as new ones are. A tier that is not configured here is
// taken all the same: it may come later, and the rest of the owner matters more.
func (s *Editor) ImportOwners(ctx context.Context, batch []OwnerRecord, dryRun bool) ([]Imported, error) {
	st, err := s.engine.open(ctx)
	if err != nil {
		return nil, err
	}
	take := s.importOwners
	if dryRun {
		take = foreseeOwners
	}
	ctx = context.WithoutCancel(ctx)
	return importGood(batch, s.checkRecord, func(good []OwnerRecord) ([]Imported, error) { return take(ctx, st, good) })
}

// importOwners stores owners.
func (s *Editor) importOwners(ctx context.Context, st *opened, batch []OwnerRecord) ([]Imported, error) {
	record := s.record(s.noteMany(ActionOwnersImported))
	changes, err := st.ImportOwners(ctx, batch, record.note)
	if err != nil {
		return nil, err
	}
	s.changed(record, made(changes)...)
	results := make([]Imported, len(batch))
	for i := range batch {
		if changes[i].Revision != 0 {
			results[i].Status = Created
		} else if results[i], err = compareOwner(ctx, st, &batch[i].Owner); err != nil {
			return nil, err
		}
	}
	return results, nil
}

// foreseeOwners answers as importOwners would, and writes nothing.
func foreseeOwners(ctx context.Context, st *opened, batch []OwnerRecord) (results []Imported, err error) {
	results = make([]Imported, len(batch))
	for i := range batch {
		if results[i], err = compareOwner(ctx, st, &batch[i].Owner); err != nil {
			return nil, err
		}
	}
	return results, nil
}

// compareOwner holds an owner that is to be imported against what is here.
func compareOwner(ctx context.Context, st store.Store, o *key.Owner) (Imported, error) {
	there, err := st.Owner(ctx, o.UserID)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return Imported{Status: Created}, nil
	case err != nil:
		return Imported{}, err
	}
	return sameStanding(&there.Owner, o), nil
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
		return conflict("enabled", "differs from the existing owner")
	case tier(here) != tier(other):
		return conflict("tier", "differs from the existing owner")
	default:
		return Imported{Status: Exists}
	}
}

func (s *Service) checkRecord(o *OwnerRecord) error {
	if err := CheckUserID(o.UserID); err != nil {
		return err
	}
	if _, ok := key.OrganizationOf(o.UserID); ok && s.set.Organizations == nil {
		return errNoOrganization
	}
	if o.Tier != nil && (*o.Tier == "" || utf8.RuneCountInString(*o.Tier) > maxUserID || !printable(*o.Tier)) {
		return invalid("tier", "must be 1 to %d UTF-8 characters without control characters", maxUserID)
	}
	for _, c := range o.Windows {
		if u, ok := unitOf(c.Unit); !ok || u == Rate || new(ratelimit.State).UnmarshalBinary(c.State) != nil {
			return invalid("windows", "must be exported values")
		}
	}
	return nil
}
