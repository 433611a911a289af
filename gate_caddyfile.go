package apikey

import (
	"cmp"
	"strconv"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// UnmarshalCaddyfile sets up the gate from Caddyfile tokens. Syntax:
//
//	apikey [<matcher>] [<permission...>] {
//		headers <name...>|off
//		authorization <scheme...>|off
//		bearer [on|off]
//		query <name>
//		from <placeholder>
//		config <id...>
//		require <permission...>
//		require_any <permission...>
//		cost <n>|<placeholder>
//		secret [required]
//		optional
//		preflight
//		keep_key
//		session [on|off]
//		identity_header <name> <value>
//		rate_headers draft|draft-11|legacy|both|off
//		refund_on <status...>
//		cut_on_revoke
//	}
func (g *Gate) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // directive name
	g.Require = d.RemainingArgs()
	if err := g.check(); err != nil {
		return d.WrapErr(err)
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch d.Val() {
		case "config":
			err = appendArgs(d, &g.Configs)
		case "require":
			err = appendArgs(d, &g.Require)
		case "require_any":
			var list []string
			err = appendArgs(d, &list)
			g.RequireAny = append(g.RequireAny, list)
		case "cost":
			err = readNonEmpty(d, (*string)(&g.Cost))
		case "secret":
			err = unmarshalSecret(d, &g.Secret)
		case "optional":
			err = readFlag(d, &g.Optional)
		case "preflight":
			err = readFlag(d, &g.Preflight)
		case "keep_key":
			err = readFlag(d, &g.KeepKey)
		case "session":
			err = readOnOff(d, &g.Session)
		case "identity_header":
			var h IdentityHeader
			if !d.AllArgs(&h.Name, &h.Value) {
				return d.ArgErr()
			}
			g.IdentityHeaders = append(g.IdentityHeaders, h)
		case "rate_headers":
			err = readNonEmpty(d, &g.RateHeaders)
			if g.RateHeaders == "on" {
				g.RateHeaders = rateDraft
			}
		case "refund_on":
			err = g.unmarshalRefundOn(d)
		case "cut_on_revoke":
			err = readFlag(d, &g.CutOnRevoke)
		default:
			err = g.CredentialSources.unmarshalOption(d, inGate)
		}
		if err = cmp.Or(err, located(d, g.check())); err != nil {
			return err
		}
	}
	return nil
}

func (g *Gate) unmarshalRefundOn(d *caddyfile.Dispenser) error {
	var list []string
	if err := appendArgs(d, &list); err != nil {
		return err
	}
	for _, s := range list {
		status, err := strconv.Atoi(s)
		if err != nil {
			return d.Errf("refund_on: must be status codes from 200 to 599")
		}
		g.RefundOn = append(g.RefundOn, status)
	}
	return nil
}

// unmarshalOption reads the options that the gate and the self-service API share.
// block is the one that d is in.
func (k *CredentialSources) unmarshalOption(d *caddyfile.Dispenser, block place) error {
	switch d.Val() {
	case "headers", "authorization", "bearer":
		return unmarshalSource(d, &k.Headers, &k.Authorization)
	case "query":
		return readNonEmpty(d, &k.Query)
	case "from":
		return readNonEmpty(d, &k.From)
	}
	return unknownOption(d, block)
}

// unmarshalSecret reads secret [required].
func unmarshalSecret(d *caddyfile.Dispenser, dst *string) error {
	if err := once(d, *dst != ""); err != nil {
		return err
	}
	*dst = secretCheck
	if d.NextArg() {
		if *dst = d.Val(); *dst != secretRequired {
			return d.Errf("secret: the only allowed argument is %q", secretRequired)
		}
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	return nil
}

// Interface guard
var _ caddyfile.Unmarshaler = (*Gate)(nil)
