package admin

import (
	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/keyring"
	"github.com/caddy-apikey/caddy-apikey/store"
)

func listOwners(c *api.Call, in ListOwners) (OwnerList, error) {
	page, err := c.Keys.Owners(c.Context(), int(api.Or(in.Limit, defaultLimit)), api.Or(in.Cursor, ""))
	if err != nil {
		return OwnerList{}, err
	}
	list := OwnerList{Owners: make([]Owner, len(page.Owners)), NextCursor: api.MaybeText(page.Next)}
	for i, o := range page.Owners {
		list.Owners[i] = ownerOf(c, o)
	}
	return list, nil
}

func getOwner(c *api.Call) (Owner, error) {
	userID, err := owner(c)
	if err != nil {
		return Owner{}, err
	}
	o, err := c.Keys.Owner(c.Context(), userID)
	return ownerOf(c, o), err
}

func putOwner(c *api.Call, in PutOwner) (Owner, error) {
	userID, err := owner(c)
	if err != nil {
		return Owner{}, err
	}
	o, err := edit(c, func(e *keyring.Editor) (store.OwnerInfo, error) {
		return e.PutOwner(c.Context(), userID, keyring.OwnerPatch{Tier: in.Tier, Enabled: in.Enabled})
	})
	return ownerOf(c, o), err
}

func deleteOwner(c *api.Call) (api.None, error) {
	userID, err := owner(c)
	if err != nil {
		return api.None{}, err
	}
	return edit(c, func(e *keyring.Editor) (api.None, error) { return api.None{}, e.DeleteOwner(c.Context(), userID) })
}

func ownerOf(c *api.Call, o store.OwnerInfo) Owner {
	return Owner{
		UserID: o.UserID, Tier: c.Keys.TierOf(&o.Owner), Enabled: o.Enabled, KeyCount: o.KeyCount,
		CreatedAt: api.TimeOf(o.CreatedAt), UpdatedAt: api.TimeOf(o.UpdatedAt),
	}
}
