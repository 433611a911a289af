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
	if d.Outcome != keyring.Allowed {
		return refused(&d), nil
	}
	info, err := c.Keys.Describe(c.Context(), &d)
	if errors.Is(err, store.ErrNotFound) { // deleted since
		return refused(&keyring.Decision{Outcome: keyring.Invalid}), nil
	}
	if err != nil {
		return Verification{}, err
	}
	k := keyOf(info)
	return Verification{Valid: true, Key: &k}, nil
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
	e := &VerifyError{Code: d.Outcome.Code(), Message: d.Outcome.Title()}
	if d.Waitable && (d.Outcome == keyring.RateLimited || d.Outcome == keyring.UsageExceeded) {
		e.Details = &VerifyDetails{RetryAfter: max(1, (d.Wait+999)/1000)}
	}
	return Verification{Error: e}
}
