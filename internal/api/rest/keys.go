package rest

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/caddy-apikey/caddy-apikey/internal/caller"
	"github.com/caddy-apikey/caddy-apikey/internal/strictjson"
	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// CreateKey is the body of POST /api-keys.
type CreateKey struct {
	Name        *string  // nil: defaultName
	Permissions []string // nil: what of read and write the caller has
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
	CreatedAt   string   `json:"createdAt"`
}

// Done is the answer to DELETE /api-keys/{id}.
type Done struct {
	Success bool `json:"success"`
}

// actions are the permissions of the dialect, in the order in which they are written.
var actions = []string{caller.Read, caller.Write, caller.Admin}

func createKey(c *call) (any, error) {
	in, err := readCreate(c.body)
	if err != nil {
		return nil, err
	}
	draft := keyring.Draft{
		UserID: c.caller.UserID, ConfigID: c.configID(), Name: in.Name, DefaultName: defaultName,
		Permissions: key.Permissions{key.DefaultResource: in.Permissions},
		WithSecret:  true, Within: c.caller.Bounds,
	}
	if in.Permissions == nil {
		draft.Permissions = c.usual()
	}
	made, err := c.keys.Create(c.Context(), draft)
	if err != nil {
		return nil, err
	}
	return Created{
		ID: made.Key.ID, Key: made.Raw, Secret: made.Secret, Name: nameOf(made.Key),
		Permissions: actionsOf(made.Key.Permissions), Tier: tierOf(made.Tier), Message: c.o.Message,
	}, nil
}

// configID returns the configuration of a new key: that of the key which makes it,
// or it might open what its maker cannot. Nil is "default", which the bounds refuse to
// a key whose configuration is gone.
func (c *call) configID() *string {
	if d := c.caller.Decision; d != nil {
		if id := d.Key().ConfigID; c.keys.HasConfig(id) {
			return &id
		}
		return nil
	}
	if c.o.Configs != nil {
		return &c.o.Configs[0]
	}
	return nil
}

// usual returns what a new key may do where its maker does not say.
func (c *call) usual() key.Permissions {
	return c.caller.Bounds.Permissions.Part(key.Permissions{key.DefaultResource: {caller.Read, caller.Write}})
}

// readCreate reads a body. An empty one says nothing.
func readCreate(body []byte) (in CreateKey, err error) {
	if body == nil {
		return in, nil
	}
	seen := map[string]bool{}
	return in, strictjson.Object(body, func(name string, value json.RawMessage) (err error) {
		if seen[name] {
			return invalid(name, "stands there more than once")
		}
		switch name {
		case "name":
			in.Name, err = readName(value)
		case "permissions":
			in.Permissions, err = readPermissions(value)
		default:
			return unknown(name)
		}
		seen[name] = true
		return err
	})
}

// unknown refuses a name. One that looks like something else, such as a key in the
// wrong place, is not repeated.
func unknown(name string) error {
	if !strictjson.PlainWord(name) {
		return malformed("a field is not known here; its name is not repeated")
	}
	return invalid(name, "is not known here")
}

func readName(value json.RawMessage) (*string, error) {
	if string(value) == "null" {
		return nil, nil
	}
	s, ok := strictjson.String(value)
	if !ok {
		return nil, invalid("name", "must be a string")
	}
	return &s, nil
}

func readPermissions(value json.RawMessage) ([]string, error) {
	if string(value) == "null" {
		return nil, nil
	}
	var list []json.RawMessage
	if value == nil || json.Unmarshal(value, &list) != nil {
		return nil, errPermissions
	}
	all := []string{}
	for _, v := range list {
		s, ok := strictjson.String(v)
		if !ok || !slices.Contains(actions, s) {
			return nil, errPermissions
		}
		if !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	return all, nil
}

var errPermissions = invalid("permissions", "must be a list of read, write and admin")

func listKeys(c *call) (any, error) {
	q := store.List{Filter: store.Filter{UserID: c.caller.UserID}, Limit: pageSize}
	all := Keys{[]Key{}}
	for {
		page, err := c.keys.List(c.Context(), q)
		if err != nil {
			return nil, err
		}
		for _, info := range page.Keys {
			if c.mine(info.Key.UserID, info.Key.ConfigID) {
				all.Keys = append(all.Keys, keyOf(info))
			}
		}
		if q.Cursor = page.Next; q.Cursor == "" {
			return all, nil
		}
	}
}

// pageSize is how many keys are read from the store at a time.
const pageSize = 500

func revokeKey(c *call) (any, error) {
	id, err := c.id()
	if err != nil {
		return nil, err
	}
	no := false
	// What has begun is not undone by a caller who leaves.
	_, err = c.keys.Update(context.WithoutCancel(c.Context()), id, keyring.Patch{
		Enabled: keyring.Field[bool]{Set: true, Value: &no},
		Within:  c.caller.Bounds,
		Only:    func(k *key.Key) bool { return c.mine(k.UserID, k.ConfigID) },
	})
	return Done{true}, err
}

func keyOf(i keyring.Info) Key {
	k := i.Key
	return Key{
		ID: k.ID, Key: shown(i) + "...", Name: nameOf(k), Permissions: actionsOf(k.Permissions),
		Tier: tierOf(i.Tier), Enabled: k.Enabled,
		CreatedAt: time.UnixMilli(k.CreatedAt).UTC().Format("2006-01-02T15:04:05.000Z"),
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
