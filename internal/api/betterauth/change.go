package betterauth

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// success is the answer of calls that have nothing else to say.
type success struct {
	Success bool `json:"success"`
}

func (c *call) update() (any, error) {
	switch {
	case c.Caller == nil:
		return nil, errSession
	case c.in.text("userId") != "" && c.in.text("userId") != c.Caller.UserID:
		return nil, errSession
	case c.in.hasAny(serverOnly...), c.in.has("remaining"):
		return nil, errServerOnly
	}
	id := c.KeyID(c.in.text("keyId"))
	if _, err := c.find(id, actionUpdate); err != nil {
		return nil, err
	}
	info, err := c.change(id)
	if bad := new(keyring.FieldError); errors.As(err, &bad) && bad.Code == keyring.MetadataDisabled {
		// The plugin passes over metadata that it does not keep.
		delete(c.in, "metadata")
		info, err = c.change(id)
	}
	if err != nil {
		return nil, err
	}
	return objectOf(info), nil
}

// change makes the change that was asked for.
func (c *call) change(id string) (keyring.Info, error) {
	if !c.in.hasAny("name", "enabled", "expiresIn", "metadata") {
		return keyring.Info{}, errNoValues
	}
	// What has begun is not undone by a caller who leaves.
	return c.Keys.As(c.Caller.Actor(c.only(actionUpdate))).Update(context.WithoutCancel(c.Context()), id, keyring.Patch{
		Name:       keyring.Field[string]{Set: c.in.has("name"), Value: sent[string](c.in, "name")},
		Enabled:    keyring.Field[bool]{Set: c.in.has("enabled"), Value: sent[bool](c.in, "enabled")},
		ExpiresIn:  keyring.Field[int64]{Set: c.in.has("expiresIn"), Value: seconds(c.in)},
		Attributes: keyring.Attributes{Metadata: keyring.Field[json.RawMessage]{Set: c.in.has("metadata"), Value: sent[json.RawMessage](c.in, "metadata")}},
	})
}

// only tells the keys with which the caller may do something. It is asked at the very
// change, as a key may have got another owner since it was found.
func (c *call) only(action string) func(*key.Key) bool {
	return func(k *key.Key) bool { return c.visible(k) && c.allowed(k, action) == nil }
}

// deleted returns the ID of the key that a call deletes.
func deleted(c *api.Call) string {
	var problems issues
	return problems.readObject(c.Body, deleteFields).text("keyId")
}

func (c *call) delete() (any, error) {
	id := c.KeyID(c.in.text("keyId"))
	if _, err := c.find(id, actionDelete); err != nil {
		return nil, err
	}
	if err := c.Keys.As(c.Caller.Actor(c.only(actionDelete))).Delete(c.Context(), id); err != nil {
		return nil, err
	}
	return success{true}, nil
}

// deleteAllExpired deletes the keys of everybody whose time is over.
func (c *call) deleteAllExpired() (any, error) {
	if err := c.adminKey(); err != nil {
		return nil, err
	}
	if _, err := c.Keys.As(c.Caller.Actor(nil)).DeleteExpired(c.Context()); err != nil {
		return nil, err
	}
	return struct {
		success
		Error *errorBody `json:"error"`
	}{success{true}, nil}, nil
}

// adminKey refuses people: they have no key to show.
func (c *call) adminKey() error {
	if c.Caller.Decision == nil {
		return errAdminKey
	}
	return nil
}
