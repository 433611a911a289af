package apikey

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-apikey/caddy-apikey/keyring"
)

func init() {
	httpcaddyfile.RegisterGlobalOption("apikey", parseGlobalOption)
	httpcaddyfile.RegisterHandlerDirective("apikey", parseDirective)
	httpcaddyfile.RegisterDirectiveOrder("apikey", httpcaddyfile.Before, "basic_auth")
	httpcaddyfile.RegisterHandlerDirective("apikey_api", parseSelfService)
	httpcaddyfile.RegisterDirectiveOrder("apikey_api", httpcaddyfile.After, "forward_auth")
}

func parseGlobalOption(d *caddyfile.Dispenser, existing any) (any, error) {
	if existing != nil {
		d.Next()
		return nil, d.Err("the global option apikey stands twice")
	}
	var a App
	if err := a.UnmarshalCaddyfile(d); err != nil {
		return nil, err
	}
	return httpcaddyfile.App{Name: "apikey", Value: caddyconfig.JSON(a, nil)}, nil
}

func parseDirective(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	var g Gate
	if err := g.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	return &g, nil
}

// options reads the options of a block. Each is checked when it is read, so that
// the error names its line, and may stand once unless it is listed as repeatable.
func options(d *caddyfile.Dispenser, repeatable string, read func(option string) error, check func() error) error {
	seen := map[string]bool{}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		option := d.Val()
		if seen[option] && !strings.Contains(" "+repeatable+" ", " "+option+" ") {
			return d.Errf("%s stands twice", option)
		}
		seen[option] = true
		if err := read(option); err != nil {
			return err
		}
		if err := check(); err != nil {
			return d.WrapErr(err)
		}
	}
	return nil
}

// UnmarshalCaddyfile sets up the app from Caddyfile tokens. Syntax:
//
//	apikey {
//		store sqlite [<file>]
//		table_prefix <text>
//		headers <name...>
//		bearer [on|off]
//		secret_prefix <text>
//		credits strict|lease <max>
//		prefix <text>|off
//		length <n>
//		checksum [on|off]
//		start <n>|off
//		generator <module> { ... }
//		validate <module> ...|off
//		name_length <min> <max>
//		prefix_length <min> <max>
//		require_name [on|off]
//		metadata [on|off]
//		expiration {
//			default <duration>|off
//			min <duration>|off
//			max <duration>|off
//			fixed [on|off]
//			keep <duration>|forever
//		}
//		rate_limit <max>/<window> [fixed_window|sliding_window|token_bucket]|off
//		rate_limiting [on|off]
//		permissions <permission...>|off
//		time_zone <name>
//		tier <name> {
//			limit <max>/<duration>|<max>/day|<max>/month
//			permissions <permission...>
//		}
//		default_tier <name>
//		config <id> {
//			session [on|off]
//			<prefix, length, checksum, start, generator, validate, name_length,
//			prefix_length, require_name, metadata, expiration, rate_limit,
//			rate_limiting, permissions>
//		}
//	}
func (a *App) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // option name
	if d.NextArg() {
		return d.ArgErr()
	}
	// Where these options stand.
	var defaultTier caddyfile.Dispenser
	var configs []caddyfile.Dispenser
	err := options(d, "validate headers permissions tier config", func(option string) error {
		switch option {
		case "store":
			return a.unmarshalStore(d)
		case "table_prefix":
			return one(d, &a.TablePrefix)
		case "headers":
			return some(d, &a.Headers)
		case "bearer":
			return onOff(d, &a.Bearer)
		case "secret_prefix":
			return ptr(d, &a.SecretPrefix)
		case "credits":
			a.Credits = new(Credits)
			return a.Credits.unmarshal(d)
		case "tier", "default_tier", "time_zone":
			err := a.unmarshalPlans(d, option)
			if option == "default_tier" {
				defaultTier = *d
			}
			return err
		case "config":
			configs = append(configs, *d)
			return a.unmarshalConfig(d)
		}
		return a.KeyRules.unmarshalOption(d, option)
	}, a.check)
	if err != nil {
		return err
	}
	if err := a.checkDefaultTier(); err != nil {
		return defaultTier.WrapErr(err)
	}
	return a.completeConfigs(configs)
}

func (a *App) unmarshalStore(d *caddyfile.Dispenser) (err error) {
	a.StoreRaw, err = guest(d, "apikey.stores", "store")
	return err
}

// unmarshalOption reads one option that a configuration of keys may have.
func (r *KeyRules) unmarshalOption(d *caddyfile.Dispenser, option string) error {
	switch option {
	case "prefix":
		return orOff(d, keyring.DefaultPrefix, func(s string) error { r.Prefix = &s; return nil })
	case "length":
		return integer(d, &r.Length)
	case "checksum":
		return onOff(d, &r.Checksum)
	case "start":
		return r.unmarshalStart(d)
	case "generator":
		var err error
		r.GeneratorRaw, err = guest(d, "apikey.generators", "generator")
		return err
	case "validate":
		return orNone(d, &r.ValidatorsRaw, func() error {
			raw, err := guest(d, "apikey.validators", "validator")
			r.ValidatorsRaw = append(r.ValidatorsRaw, raw)
			return err
		})
	case "name_length":
		return lengths(d, &r.NameLength)
	case "prefix_length":
		return lengths(d, &r.PrefixLength)
	case "require_name":
		return onOff(d, &r.RequireName)
	case "metadata":
		return onOff(d, &r.Metadata)
	case "expiration":
		r.Expiration = new(Expiration)
		return r.Expiration.unmarshal(d)
	case "rate_limit":
		return r.unmarshalRateLimit(d)
	case "rate_limiting":
		return onOff(d, &r.RateLimiting)
	case "permissions":
		return orNone(d, &r.Permissions, func() error { return some(d, &r.Permissions) })
	}
	return d.Errf("unknown option %q", option)
}

func (r *KeyRules) unmarshalRateLimit(d *caddyfile.Dispenser) error {
	word := onlyOnOff(d)
	if word == "on" {
		return nil
	}
	r.RateLimit = new(RateLimit)
	if word == "off" {
		return nil
	}
	return r.RateLimit.unmarshal(d)
}

func (r *KeyRules) unmarshalStart(d *caddyfile.Dispenser) error {
	return orOff(d, strconv.Itoa(keyring.DefaultStart), func(s string) error {
		n := 0
		if s != "" {
			var err error
			if n, err = strconv.Atoi(s); err != nil || n == 0 {
				return d.Errf("start: must be from 1 to 12, or off")
			}
		}
		r.Start = &n
		return nil
	})
}

func (e *Expiration) unmarshal(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.ArgErr()
	}
	return options(d, "", func(option string) error {
		switch option {
		case "default":
			return durationOrOff(d, &e.Default)
		case "min":
			return durationOrOff(d, &e.Min)
		case "max":
			return durationOrOff(d, &e.Max)
		case "fixed":
			return onOff(d, &e.Fixed)
		case "keep":
			e.Keep = new(Keep)
			if e.Keep.Forever = d.CountRemainingArgs() == 1 && peek(d) == forever; e.Keep.Forever {
				d.NextArg()
				return nil
			}
			return duration(d, &e.Keep.Duration)
		}
		return d.Errf("unknown option %q of expiration", option)
	}, e.check)
}

// unmarshal reads <max>/<window> [<algorithm>].
func (l *RateLimit) unmarshal(d *caddyfile.Dispenser) error {
	if !d.NextArg() {
		return d.ArgErr()
	}
	limit, window, ok := strings.Cut(d.Val(), "/")
	if !ok {
		return d.Errf("rate_limit: must be <max>/<window>, such as 100/1m")
	}
	var err error
	if l.Max, err = strconv.ParseInt(limit, 10, 64); err != nil {
		return d.Errf("rate_limit: the maximum must be an integer")
	}
	w, err := caddy.ParseDuration(window)
	if err != nil {
		return d.Errf("rate_limit: the window must be a duration such as 1m or 1d")
	}
	l.Window = caddy.Duration(w)
	if d.NextArg() {
		l.Algorithm = d.Val()
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	return nil
}

// UnmarshalCaddyfile sets up the gate from Caddyfile tokens. Syntax:
//
//	apikey [<matcher>] [<permission...>] {
//		headers <name...>
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
//		rate_headers draft|legacy|both|off
//		refund_on <status...>
//	}
func (g *Gate) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // directive name
	g.Require = d.RemainingArgs()
	if err := g.check(); err != nil {
		return d.WrapErr(err)
	}
	return options(d, "headers config require require_any identity_header refund_on", func(option string) error {
		if ok, err := g.unmarshalPlace(d, option); ok {
			return err
		}
		return g.unmarshalOption(d, option)
	}, g.check)
}

// unmarshalPlace reads the options that say where a key may sit.
func (k *KeyPlaces) unmarshalPlace(d *caddyfile.Dispenser, option string) (bool, error) {
	switch option {
	case "headers":
		return true, some(d, &k.Headers)
	case "bearer":
		return true, onOff(d, &k.Bearer)
	case "query":
		return true, word(d, &k.Query)
	case "from":
		return true, word(d, &k.From)
	}
	return false, nil
}

func (g *Gate) unmarshalOption(d *caddyfile.Dispenser, option string) error {
	switch option {
	case "config":
		return some(d, &g.Configs)
	case "require":
		return some(d, &g.Require)
	case "require_any":
		var list []string
		err := some(d, &list)
		g.RequireAny = append(g.RequireAny, list)
		return err
	case "cost":
		return word(d, (*string)(&g.Cost))
	case "secret":
		return unmarshalSecret(d, &g.Secret)
	case "optional":
		return flag(d, &g.Optional)
	case "preflight":
		return flag(d, &g.Preflight)
	case "keep_key":
		return flag(d, &g.KeepKey)
	case "session":
		return onOff(d, &g.Session)
	case "identity_header":
		var h IdentityHeader
		if !d.AllArgs(&h.Name, &h.Value) {
			return d.ArgErr()
		}
		g.IdentityHeaders = append(g.IdentityHeaders, h)
		return nil
	case "rate_headers":
		err := word(d, &g.RateHeaders)
		if g.RateHeaders == "on" {
			g.RateHeaders = rateDraft
		}
		return err
	case "refund_on":
		return g.unmarshalRefund(d)
	}
	return d.Errf("unknown option %q", option)
}

func (g *Gate) unmarshalRefund(d *caddyfile.Dispenser) error {
	var list []string
	if err := some(d, &list); err != nil {
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

// guest reads a guest module and returns its JSON.
func guest(d *caddyfile.Dispenser, namespace, inlineKey string) (json.RawMessage, error) {
	if !d.NextArg() {
		return nil, d.ArgErr()
	}
	name := d.Val()
	u, err := caddyfile.UnmarshalModule(d, namespace+"."+name)
	if err != nil {
		return nil, err
	}
	return caddyconfig.JSONModuleObject(u, inlineKey, name, nil), nil
}

// one reads exactly one argument.
func one(d *caddyfile.Dispenser, dst *string) error {
	if !d.AllArgs(dst) {
		return d.ArgErr()
	}
	return nil
}

// word reads exactly one argument that is not empty: an empty one would silently
// be the default.
func word(d *caddyfile.Dispenser, dst *string) error {
	if err := one(d, dst); err != nil {
		return err
	}
	if *dst == "" {
		return d.Err("must not be empty")
	}
	return nil
}

func ptr(d *caddyfile.Dispenser, dst **string) error {
	*dst = new(string)
	return one(d, *dst)
}

// some reads one or more arguments; several lines add up.
func some(d *caddyfile.Dispenser, dst *[]string) error {
	args := d.RemainingArgs()
	if len(args) == 0 {
		return d.ArgErr()
	}
	*dst = append(*dst, args...)
	return nil
}

// flag reads an option that stands alone.
func flag(d *caddyfile.Dispenser, dst *bool) error {
	if d.NextArg() {
		return d.ArgErr()
	}
	*dst = true
	return nil
}

// onOff reads [on|off].
func onOff(d *caddyfile.Dispenser, dst **bool) error {
	value := true
	if d.NextArg() {
		switch d.Val() {
		case "on":
		case "off":
			value = false
		default:
			return d.Errf("must be on or off, not %q", d.Val())
		}
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	*dst = &value
	return nil
}

// orOff reads one argument; "off" is the empty string, "on" what is usual.
func orOff(d *caddyfile.Dispenser, usual string, set func(string) error) error {
	var s string
	if err := one(d, &s); err != nil {
		return err
	}
	switch s {
	case "off":
		s = ""
	case "on":
		s = usual
	}
	return set(s)
}

func integer(d *caddyfile.Dispenser, dst *int) error {
	var s string
	if err := one(d, &s); err != nil {
		return err
	}
	n, err := strconv.Atoi(s)
	if err != nil || n == 0 {
		return d.Errf("must be an integer above 0, not %q", s)
	}
	*dst = n
	return nil
}

func lengths(d *caddyfile.Dispenser, dst **Range) error {
	var least, most string
	if !d.AllArgs(&least, &most) {
		return d.ArgErr()
	}
	r := new(Range)
	var err error
	if r.Min, err = strconv.Atoi(least); err == nil {
		r.Max, err = strconv.Atoi(most)
	}
	if err != nil {
		return d.Errf("must be two integers")
	}
	*dst = r
	return nil
}

func duration(d *caddyfile.Dispenser, dst *caddy.Duration) error {
	var s string
	if err := one(d, &s); err != nil {
		return err
	}
	value, err := caddy.ParseDuration(s)
	if err != nil {
		return d.Errf("must be a duration such as 90d or 1h30m, not %q", s)
	}
	*dst = caddy.Duration(value)
	return nil
}

// durationOrOff reads a duration. "off" is none; "on" says nothing.
func durationOrOff(d *caddyfile.Dispenser, dst **caddy.Duration) error {
	word := onlyOnOff(d)
	if word == "on" {
		return nil
	}
	*dst = new(caddy.Duration)
	if word == "off" {
		return nil
	}
	return duration(d, *dst)
}

// orNone reads an option whose lines add up. "off" is none, and then the only
// line; "on" says nothing.
func orNone[T any](d *caddyfile.Dispenser, list *[]T, read func() error) error {
	word := onlyOnOff(d)
	switch off := word == "off"; {
	case word == "on":
		return nil
	case *list != nil && (off || len(*list) == 0):
		return d.Err("off must be the only line of this option")
	case off:
		*list = []T{}
		return nil
	}
	return read()
}

// onlyOnOff reads the argument if it is a single one, and on or off. Else it
// returns nothing, and leaves it.
func onlyOnOff(d *caddyfile.Dispenser) string {
	if d.CountRemainingArgs() != 1 || peek(d) != "on" && peek(d) != "off" {
		return ""
	}
	d.NextArg()
	return d.Val()
}

// peek returns the next argument without reading it.
func peek(d *caddyfile.Dispenser) string {
	next := *d
	next.NextArg()
	return next.Val()
}

// Interface guards
var (
	_ caddyfile.Unmarshaler = (*App)(nil)
	_ caddyfile.Unmarshaler = (*Gate)(nil)
)
