package betterauth

import (
	"encoding/json"
	"math"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// create makes a key. Its answer is the only one with the raw key.
func (c *call) create() (any, error) {
	configID := c.configOfNew()
	if c.in.hasAny(serverOnly...) || c.in["remaining"] != nil {
		return nil, errServerOnly
	}
	if c.in.has("userId") {
		return nil, errSession
	}
	owner, err := c.ownerOf(configID)
	if err != nil {
		return nil, err
	}
	draft := keyring.Draft{
		UserID: owner, ConfigID: &configID, Prefix: sent[string](c.in, "prefix"),
		ExpiresIn: keyring.Field[int64]{Set: c.in.has("expiresIn"), Value: seconds(c.in)},
	}
	if c.in.text("name") != "" {
		draft.Name = sent[string](c.in, "name")
	}
	draft.Metadata = keyring.Field[json.RawMessage]{Set: c.in.has("metadata"), Value: sent[json.RawMessage](c.in, "metadata")}
	made, err := c.Keys.As(c.Caller.Actor(nil)).Create(c.Context(), draft)
	if err != nil {
		return nil, err
	}
	o := objectOf(made.Info)
	o.Key = made.Raw
	return o, nil
}

// configOfNew returns the configuration of a new key: the one that the call names, or
// that of the key which makes it. The bounds of a key let it make no other, or it might
// open what its maker cannot; so one whose configuration is gone makes none.
func (c *call) configOfNew() string {
	configID := c.config()
	if c.Caller == nil || c.Caller.Decision == nil || c.in.text("configId") == configID {
		return configID
	}
	if own := c.Caller.Decision.Key().ConfigID; c.Keys.HasConfig(own) {
		return own
	}
	return configID
}

// ownerOf returns who a new key of a configuration belongs to.
func (c *call) ownerOf(configID string) (string, error) {
	if !c.Organization.has(configID) {
		if c.Caller == nil {
			return "", errSession
		}
		return c.Caller.UserID, nil
	}
	id := c.in.text("organizationId")
	switch {
	case id == "":
		return "", errOrganizationID
	case c.Caller == nil:
		return "", errSession
	}
	return key.OrganizationOwner(id), c.actFor(id, actionCreate)
}

// seconds returns the life of a key that was asked for. Fractions of a second are
// cut off, and what is longer than any limit stays so.
func seconds(in input) *int64 {
	n := sent[float64](in, "expiresIn")
	if n == nil {
		return nil
	}
	whole := int64(math.Min(*n, float64(key.MaxCount)))
	return &whole
}
