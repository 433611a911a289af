package admin

import (
	"errors"
	"net/netip"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring"
	"github.com/caddy-apikey/caddy-apikey/store"
)

func verifyKey(c *api.Call, in VerifyKey) (Verification, error) {
	q, err := in.request()
	if err != nil {
		return Verification{}, err
	}
	d, err := c.Keys.Verify(c.Context(), in.Key, q)
	if err != nil {
		return Verification{}, err
	}
	info, err := describe(c, &d, in.Key)
	switch {
	case errors.Is(err, store.ErrNotFound): // unknown, or deleted since
		return refused(&keyring.Decision{Outcome: keyring.Invalid}), nil
	case err != nil:
		return Verification{}, err
	}
	v, k := Verification{Valid: true}, keyOf(info)
	if d.Outcome != keyring.Allowed {
		v = refused(&d)
	}
	v.Key = &k
	return v, nil
}

// describe returns the key that raw opens. An operator learns whose it is, whatever
// was decided. What was refused without a lookup may still be stored.
func describe(c *api.Call, d *keyring.Decision, raw string) (keyring.Info, error) {
	if d.Key() == nil {
		return c.Keys.Lookup(c.Context(), raw)
	}
	return c.Keys.Describe(c.Context(), d)
}

// request translates the body.
func (in VerifyKey) request() (*keyring.Request, error) {
	q := &keyring.Request{Cost: api.Or(in.Cost, 1), DryRun: api.Or(in.DryRun, false), Secret: api.Or(in.Secret, ""), CheckSecret: in.Secret != nil}
	for resource, actions := range in.Permissions {
		for _, action := range actions {
			q.Require = append(q.Require, key.Permission{Resource: resource, Action: action})
		}
	}
	if in.ConfigID != nil {
		q.ConfigIDs = []string{*in.ConfigID}
	}
	if in.IP == nil {
		return q, nil
	}
	var err error
	q.CheckIP = true
	if q.ClientIP, err = netip.ParseAddr(*in.IP); err != nil {
		return nil, api.Invalid("ip", "must be an IP address")
	}
	return q, nil
}

func refused(d *keyring.Decision) Verification {
	e := &VerifyError{Code: d.Outcome.Code(), Message: d.Detail()}
	if d.Waitable && (d.Outcome == keyring.RateLimited || d.Outcome == keyring.UsageExceeded) {
		e.Details = &VerifyDetails{RetryAfter: max(1, (d.Wait+999)/1000)}
	}
	return Verification{Error: e}
}
