package admin

import (
	"github.com/caddy-apikey/caddy-apikey/keyring"
	"github.com/caddy-apikey/caddy-apikey/store"
)

func listOwners(c *call, in ListOwners) (OwnerList, error) {
	page, err := c.svc.Owners(c.Context(), int(or(in.Limit, defaultLimit)), or(in.Cursor, ""))
	if err != nil {
		return OwnerList{}, err
	}
	list := OwnerList{Owners: make([]Owner, len(page.Owners)), NextCursor: maybeText(page.Next)}
	for i, o := range page.Owners {
		list.Owners[i] = c.ownerOf(o)
	}
	return list, nil
}

func getOwner(c *call) (Owner, error) {
	userID, err := c.owner()
	if err != nil {
		return Owner{}, err
	}
	o, err := c.svc.Owner(c.Context(), userID)
	return c.ownerOf(o), err
}

func putOwner(c *call, in PutOwner) (Owner, error) {
	userID, err := c.owner()
	if err != nil {
		return Owner{}, err
	}
	o, err := c.svc.PutOwner(c.Context(), userID, keyring.OwnerPatch{
		Tier: keyring.Field[string](in.Tier), Enabled: keyring.Field[bool](in.Enabled),
	})
	return c.ownerOf(o), err
}

func deleteOwner(c *call) (none, error) {
	userID, err := c.owner()
	if err != nil {
		return none{}, err
	}
	return none{}, c.svc.DeleteOwner(c.Context(), userID)
}

func (c *call) ownerOf(o store.OwnerInfo) Owner {
	return Owner{
		UserID: o.UserID, Tier: c.svc.TierOf(&o.Owner), Enabled: o.Enabled, KeyCount: o.KeyCount,
		CreatedAt: timeOf(o.CreatedAt), UpdatedAt: timeOf(o.UpdatedAt),
	}
}
