package apikey

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func parseSelfService(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	var s SelfService
	if err := s.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	return &s, nil
}

// UnmarshalCaddyfile sets up the self-service API from Caddyfile tokens. Syntax:
//
//	apikey_api [<matcher>] {
//		dialect rest|better_auth
//		base <path>
//		headers <name...>
//		bearer [on|off]
//		query <name>
//		from <placeholder>
//		secret [required]
//		user <placeholder>
//		grant <permission...>
//		message <text>
//		config <id...>
//		trusted_origins <origin...>
//		organization <placeholder> {
//			role <placeholder>
//			config <id...>
//			allow <role> <action...>
//			creator_role <role>
//		}
//	}
func (s *SelfService) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // directive name
	directive := *d
	if d.NextArg() {
		return d.ArgErr()
	}
	err := options(d, "headers grant config trusted_origins", func(option string) error {
		if ok, err := s.unmarshalPlace(d, option); ok {
			return err
		}
		return s.unmarshalOption(d, option)
	}, s.check)
	if err != nil {
		return err
	}
	if err := s.checkWhole(); err != nil {
		return directive.WrapErr(err)
	}
	return nil
}

func (s *SelfService) unmarshalOption(d *caddyfile.Dispenser, option string) error {
	switch option {
	case "dialect":
		return word(d, &s.Dialect)
	case "base":
		return word(d, &s.Base)
	case "secret":
		return unmarshalSecret(d, &s.Secret)
	case "user":
		return word(d, &s.User)
	case "grant":
		return some(d, &s.Grant)
	case "message":
		return word(d, &s.Message)
	case "config":
		return some(d, &s.Configs)
	case "trusted_origins":
		return some(d, &s.TrustedOrigins)
	case "organization":
		s.Organization = new(Organization)
		return s.Organization.unmarshal(d)
	}
	return d.Errf("unknown option %q", option)
}

// Interface guard
var _ caddyfile.Unmarshaler = (*SelfService)(nil)
