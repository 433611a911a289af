package apikey

import (
	"cmp"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-apikey/caddy-apikey/internal/api/leaks"
)

// UnmarshalCaddyfile sets up the self-service API from Caddyfile tokens. Syntax:
//
//	apikey_api [<matcher>] {
//		dialect rest|better_auth
//		base <path>
//		headers <name...>|off
//		authorization <scheme...>|off
//		bearer [on|off]
//		query <name>
//		from <placeholder>
//		secret [required]
//		user <placeholder>
//		grant <permission...>
//		message <text>
//		extended
//		config <id...>
//		trusted_origins <origin...>
//		organization <placeholder> {
//			role <placeholder>
//			config <id...>
//			allow <role> <action...>
//			creator_role <role>
//		}
//		leak_reports [<path>]
//	}
func (s *SelfService) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // directive name
	directive := *d
	if d.NextArg() {
		return d.ArgErr()
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch d.Val() {
		case "dialect":
			err = readNonEmpty(d, &s.Dialect)
		case "base":
			err = readNonEmpty(d, &s.Base)
		case "secret":
			err = unmarshalSecret(d, &s.Secret)
		case "user":
			err = readNonEmpty(d, &s.User)
		case "grant":
			err = appendArgs(d, &s.Grant)
		case "message":
			err = readNonEmpty(d, &s.Message)
		case "extended":
			err = readFlag(d, &s.Extended)
		case "config":
			err = appendArgs(d, &s.Configs)
		case "trusted_origins":
			err = appendArgs(d, &s.TrustedOrigins)
		case "organization":
			err = s.unmarshalOrganization(d)
		case "leak_reports":
			err = s.unmarshalLeakReports(d)
		default:
			err = s.CredentialSources.unmarshalOption(d, inAPI)
		}
		if err = cmp.Or(err, located(d, s.check())); err != nil {
			return err
		}
	}
	if err := s.checkTogether(); err != nil {
		return directive.WrapErr(err)
	}
	return nil
}

// unmarshalOrganization reads organization <placeholder> { … }.
func (s *SelfService) unmarshalOrganization(d *caddyfile.Dispenser) error {
	if err := once(d, s.Organization != nil); err != nil {
		return err
	}
	o := new(Organization)
	s.Organization = o
	if err := readNonEmpty(d, &o.ID); err != nil {
		return err
	}
	if err := o.check(); err != nil {
		return d.WrapErr(err)
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch d.Val() {
		case "role":
			err = readNonEmpty(d, &o.Role)
		case "config":
			err = appendArgs(d, &o.Configs)
		case "creator_role":
			err = readNonEmpty(d, &o.CreatorRole)
		case "allow":
			err = o.unmarshalAllow(d)
		default:
			err = unknownOption(d, inOrganization)
		}
		if err = cmp.Or(err, located(d, o.check())); err != nil {
			return err
		}
	}
	return nil
}

// unmarshalAllow reads allow <role> <action...>.
func (o *Organization) unmarshalAllow(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) < 2 {
		return d.Err("allow: must be a role and one or more actions")
	}
	if o.Allow == nil {
		o.Allow = map[string][]string{}
	}
	if o.Allow[args[0]] != nil {
		return d.Errf("allow: %q already specified", args[0])
	}
	o.Allow[args[0]] = args[1:]
	return nil
}

// unmarshalLeakReports reads leak_reports [<path>].
func (s *SelfService) unmarshalLeakReports(d *caddyfile.Dispenser) error {
	if err := once(d, s.LeakReports != ""); err != nil {
		return err
	}
	if d.CountRemainingArgs() == 0 {
		s.LeakReports = leaks.DefaultPath
		return nil
	}
	return readNonEmpty(d, &s.LeakReports)
}

// Interface guard
var _ caddyfile.Unmarshaler = (*SelfService)(nil)
