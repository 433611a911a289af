package betterauth

import (
	"errors"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// verification is the answer to verify.
type verification struct {
	Valid bool       `json:"valid"`
	Error *errorBody `json:"error"`
	Key   *keyObject `json:"key"`
}

// verify judges a raw key that the holder of another one asks about. It counts as a
// use of the key.
func (c *call) verify() (any, error) {
	if err := c.adminKey(); err != nil {
		return nil, err
	}
	d, err := c.Keys.Verify(c.Context(), c.in.text("key"), c.question())
	if err != nil {
		return nil, err
	}
	if d.Outcome != keyring.Allowed {
		return verification{Error: refused(c.Call, d)}, nil
	}
	info, err := c.Keys.Describe(c.Context(), &d)
	if errors.Is(err, store.ErrNotFound) { // deleted since
		return verification{Error: refused(c.Call, keyring.Decision{Outcome: keyring.Invalid})}, nil
	}
	if err != nil {
		return nil, err
	}
	return verification{Valid: true, Key: objectOf(info)}, nil
}

// question returns what is asked of the key. To ask for no permission in particular,
// the field is left out: an empty list is refused, as it may be a mistake of whoever
// fills it.
func (c *call) question() *keyring.Request {
	q := &keyring.Request{Cost: 1, ConfigIDs: c.configs}
	if id := c.in.text("configId"); id != "" {
		if !c.covers(id) {
			id = "" // no key is of that one
		}
		q.ConfigIDs = []string{id}
	}
	p := sent[key.Permissions](c.in, "permissions")
	if p == nil {
		return q
	}
	if len(*p) == 0 {
		q.RequireAny = [][]key.Permission{nil}
	}
	for resource, actions := range *p {
		if len(actions) == 0 {
			q.RequireAny = append(q.RequireAny, nil)
		}
		for _, action := range actions {
			q.Require = append(q.Require, key.Permission{Resource: resource, Action: action})
		}
	}
	return q
}
