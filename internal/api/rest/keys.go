package rest

import (
	"context"
	"slices"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// CreateKey is the body of POST /api-keys.
type CreateKey struct {
	Name        *string  `json:"name,omitzero" doc:"default \"Default Key\""`
	Permissions []string `json:"permissions,omitzero" enum:"read|write|admin" doc:"default: read and write, as far as the caller has them"`
}

const defaultName = "Default Key"

// Created is the answer to POST /api-keys.
type Created struct {
	ID          string   `json:"id"`
	Key         string   `json:"key"`
	Secret      string   `json:"secret"`
	Name        string   `json:"name"`
	Permissions []string `json:"permissions"`
	Tier        string   `json:"tier"`
	Message     string   `json:"message"`
}

// Keys is the answer to GET /api-keys.
type Keys struct {
	Keys []Key `json:"keys"`
}

// Key is one key in a list.
type Key struct {
	ID          string   `json:"_id"`
	Key         string   `json:"key"`
	Name        string   `json:"name"`
	Permissions []string `json:"permissions"`
	Tier        string   `json:"tier"`
	Enabled     bool     `json:"enabled"`
	CreatedAt   api.Time `json:"createdAt"`
}

// Done is the answer to DELETE /api-keys/{id}.
type Done struct {
	Success bool `json:"success"`
}

// actions are the permissions of the dialect, in the order in which they are written.
var actions = []string{api.Read, api.Write, api.Admin}

func (h *handler) create(c *api.Call, in CreateKey) (Created, error) {
	return h.createExtended(c, CreateExtendedKey{CreateKey: in})
}

func (h *handler) createExtended(c *api.Call, in CreateExtendedKey) (Created, error) {
	draft := keyring.Draft{
		UserID: c.Caller.UserID, ConfigID: h.configID(c), Name: in.Name, DefaultName: defaultName,
		DefaultPermissions: key.Permissions{key.DefaultResource: {api.Read, api.Write}},
		ExpiresIn:          in.ExpiresIn,
		WithSecret:         true,
	}
	if in.Permissions != nil {
		draft.Permissions = key.Permissions{key.DefaultResource: unique(in.Permissions)}
	}
	made, err := c.Keys.As(c.Caller.Actor(nil)).Create(c.Context(), draft)
	if err != nil {
		return Created{}, err
	}
	return Created{
		ID: made.Key.ID, Key: made.Raw, Secret: made.Secret, Name: nameOf(made.Key),
		Permissions: actionsOf(made.Key.Permissions), Tier: tierOf(made.Tier), Message: h.Message,
	}, nil
}

// configID returns the configuration of a new key: that of the key which makes it,
// or it might open what its maker cannot. Nil is "default", which the bounds refuse to
// a key whose configuration is gone.
func (h *handler) configID(c *api.Call) *string {
	if d := c.Caller.Decision; d != nil {
		if id := d.Key().ConfigID; c.Keys.HasConfig(id) {
			return &id
		}
		return nil
	}
	if h.configs != nil {
		return &h.configs[0]
	}
	return nil
}

// unique returns a list without repetitions.
func unique(list []string) []string {
	list = slices.Clone(list)
	slices.Sort(list)
	return slices.Compact(list)
}

func (h *handler) list(c *api.Call) (api.List[Keys], error) {
	return api.List[Keys]{
		Each: func(write func(any) error) error {
			_, err := h.each(c, nil, "", func(i keyring.Info) error { return write(keyOf(i)) })
			return err
		},
		Answer: func() Keys { return Keys{Keys: []Key{}} },
	}, nil
}

// each calls f with the keys that the caller may know of, the oldest first: at most so
// many, nil is all, from a cursor on. next is where the following keys begin; empty
// after the last.
func (h *handler) each(c *api.Call, most *int64, cursor string, f func(keyring.Info) error) (next string, err error) {
	q := store.List{Filter: store.Filter{UserID: c.Caller.UserID}, Limit: pageSize, Cursor: cursor}
	for left := api.Or(most, key.MaxCount); left > 0; {
		q.Limit = int(min(left, pageSize))
		page, err := c.Keys.List(c.Context(), q)
		if err != nil {
			return "", err
		}
		for _, info := range page.Keys {
			if !h.serves(c, info.Key.UserID, info.Key.ConfigID) {
				continue
			}
			if err := f(info); err != nil {
				return "", err
			}
			left--
		}
		if q.Cursor = page.Next; q.Cursor == "" {
			break
		}
	}
	return q.Cursor, nil
}

// pageSize is how many keys are read from the store at a time.
const pageSize = 500

func (h *handler) revoke(c *api.Call) (Done, error) {
	no := false
	_, err := h.patch(c, keyring.Patch{Enabled: keyring.Field[bool]{Set: true, Value: &no}})
	return Done{true}, err
}

// patch changes the key that a call is about.
func (h *handler) patch(c *api.Call, p keyring.Patch) (keyring.Info, error) {
	id, err := keyID(c)
	if err != nil {
		return keyring.Info{}, err
	}
	// What has begun is not undone by a caller who leaves.
	return c.Keys.As(c.Caller.Actor(h.only(c))).Update(context.WithoutCancel(c.Context()), id, p)
}

// keyID returns the ID of the key that a call is about.
func keyID(c *api.Call) (string, error) {
	id, err := c.ID()
	return c.KeyID(id), err
}

// only tells the keys that the caller may know of.
func (h *handler) only(c *api.Call) func(*key.Key) bool {
	return func(k *key.Key) bool { return h.serves(c, k.UserID, k.ConfigID) }
}

func keyOf(i keyring.Info) Key {
	k := i.Key
	return Key{
		ID: k.ID, Key: shown(i) + "...", Name: nameOf(k), Permissions: actionsOf(k.Permissions),
		Tier: tierOf(i.Tier), Enabled: k.Enabled,
		CreatedAt: api.TimeOf(k.CreatedAt),
	}
}

// shown returns what people tell a key by: its first characters, or its prefix
// where the configuration shows none of them.
func shown(i keyring.Info) string {
	switch {
	case i.Start != nil:
		return *i.Key.Start
	case i.Key.Prefix != nil:
		return *i.Key.Prefix
	}
	return ""
}

func nameOf(k *key.Key) string {
	if k.Name == nil {
		return defaultName
	}
	return *k.Name
}

// freeTier is what the tier is called where none is configured.
const freeTier = "free"

func tierOf(name *string) string {
	if name == nil {
		return freeTier
	}
	return *name
}

// actionsOf returns the actions on the resource "api": those of the dialect first,
// also where a wildcard gives them.
func actionsOf(p key.Permissions) []string {
	list := []string{}
	for _, action := range actions {
		if p.Allows(key.Permission{Resource: key.DefaultResource, Action: action}) {
			list = append(list, action)
		}
	}
	others := slices.Clone(p[key.DefaultResource])
	slices.Sort(others)
	for _, action := range others {
		if action != key.Wildcard && !slices.Contains(list, action) {
			list = append(list, action)
		}
	}
	return list
}
