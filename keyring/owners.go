package keyring

import (
	"context"
	"errors"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// Owner returns an owner.
func (s *Service) Owner(ctx context.Context, userID string) (store.OwnerInfo, error) {
	st, err := s.engine.open(ctx)
	if err != nil {
		return store.OwnerInfo{}, err
	}
	return st.Owner(ctx, userID)
}

// Owners returns a page of owners.
func (s *Service) Owners(ctx context.Context, limit int, cursor string) (store.OwnerPage, error) {
	st, err := s.engine.open(ctx)
	if err != nil {
		return store.OwnerPage{}, err
	}
	return st.Owners(ctx, limit, cursor)
}

// OwnerPatch is a change of an owner.
type OwnerPatch struct {
	Tier    Field[string] // null: the default tier
	Enabled Field[bool]
}

// PutOwner makes or changes an owner.
func (s *Editor) PutOwner(ctx context.Context, userID string, p OwnerPatch) (store.OwnerInfo, error) {
	if err := CheckUserID(userID); err != nil {
		return store.OwnerInfo{}, err
	}
	if err := s.checkTier(p.Tier.Value); err != nil {
		return store.OwnerInfo{}, err
	}
	st, err := s.engine.open(ctx)
	if err != nil {
		return store.OwnerInfo{}, err
	}
	if err := s.checkNewOwner(ctx, st, userID); err != nil {
		return store.OwnerInfo{}, err
	}
	now := s.engine.clock().wall
	var before key.Owner
	record := s.record(s.noteOwner(&before))
	c, err := st.PutOwner(context.WithoutCancel(ctx), userID, now, func(o *key.Owner) error {
		before = *o
		if p.Tier.Set {
			o.Tier = p.Tier.Value
		}
		return must(p.Enabled, "enabled", &o.Enabled)
	}, record.note)
	if err != nil {
		return store.OwnerInfo{}, err
	}
	s.changed(record, c)
	return *c.Owner, nil
}

// checkNewOwner checks whether there may be an owner of that name. An organization
// that is here stays within reach where none can be made any more.
func (s *Service) checkNewOwner(ctx context.Context, st store.Store, userID string) error {
	if _, ok := key.OrganizationOf(userID); !ok || s.set.Organizations != nil {
		return nil
	}
	_, err := st.Owner(ctx, userID)
	if errors.Is(err, store.ErrNotFound) {
		return errNoOrganization
	}
	return err
}

// DeleteOwner removes an owner and all its keys.
func (s *Editor) DeleteOwner(ctx context.Context, userID string) error {
	st, err := s.engine.open(ctx)
	if err != nil {
		return err
	}
	var change store.Change
	record := s.record(s.noteOwnerDeleted)
	err = s.engine.queue.forget(userID, func() (err error) {
		change, err = st.DeleteOwner(context.WithoutCancel(ctx), userID, record.note)
		return err
	})
	if err == nil {
		s.changed(record, change)
	}
	return err
}
