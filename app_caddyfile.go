package apikey

import (
	"cmp"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/dustin/go-humanize"

	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// UnmarshalCaddyfile sets up the app from Caddyfile tokens. Syntax:
//
//	apikey {
//		store sqlite [<file>]
//		table_prefix <text>
//		headers <name...>|off
//		authorization <scheme...>|off
//		bearer [on|off]
//		secret_prefix <text>
//		credits strict|lease <max>
//		cache_size <size>
//		audit keep <duration>|forever
//		guess_limit <max>/<window>|off
//		thresholds <percent...>|off
//		expiring <duration...>|off
//		idle <duration>|off
//		webhook <url> {
//			secret <text>
//			events <name...>
//			thresholds <percent...>|off
//			expiring <duration...>|off
//			idle <duration>|off
//		}
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
//		max_keys <n>|off
//		permissions <permission...>|off
//		time_zone <name>
//		tier <name> {
//			limit <max>/<duration>|<max>/day|<max>/month
//			permissions <permission...>
//		}
//		default_tier <name>
//		config <id> {
//			session [on|off]
//			public
//			<prefix, length, checksum, start, generator, validate, name_length,
//			prefix_length, require_name, metadata, expiration, rate_limit,
//			rate_limiting, max_keys, permissions>
//		}
//	}
func (a *App) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // option name
	if d.NextArg() {
		return d.ArgErr()
	}
	// Where the options begin that can only be validated at the end of the block.
	var defaultTierAt caddyfile.Dispenser
	var configsAt []caddyfile.Dispenser
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch d.Val() {
		case "store":
			err = readModule(d, "apikey.stores", "store", &a.StoreRaw)
		case "table_prefix":
			err = readString(d, &a.TablePrefix)
		case "headers", "authorization", "bearer":
			err = unmarshalSource(d, &a.Headers, &a.Authorization)
		case "secret_prefix":
			err = readStringPtr(d, &a.SecretPrefix)
		case "credits":
			err = a.unmarshalCredits(d)
		case "cache_size":
			err = a.unmarshalCacheSize(d)
		case "audit":
			err = a.unmarshalAudit(d)
		case "guess_limit":
			err = a.unmarshalGuessLimit(d)
		case "thresholds", "expiring", "idle":
			_, err = a.Notices.unmarshalOption(d)
		case "webhook":
			err = a.unmarshalWebhook(d)
		case "time_zone":
			err = readString(d, &a.TimeZone)
		case "tier":
			err = a.unmarshalTier(d)
		case "default_tier":
			defaultTierAt = *d
			err = readString(d, &a.DefaultTier)
		case "config":
			configsAt = append(configsAt, *d)
			err = a.unmarshalConfig(d)
		default:
			err = a.KeyRules.unmarshalOption(d, inApp)
		}
		if err = cmp.Or(err, located(d, a.check())); err != nil {
			return err
		}
	}
	if err := a.checkDefaultTier(); err != nil {
		return defaultTierAt.WrapErr(err)
	}
	for i := range a.Configs {
		if err := a.Configs[i].checkInherited(&a.KeyRules); err != nil {
			return configsAt[i].WrapErr(err)
		}
	}
	return nil
}

// unmarshalCredits reads credits strict|lease <max>.
func (a *App) unmarshalCredits(d *caddyfile.Dispenser) error {
	if err := once(d, a.Credits != nil); err != nil {
		return err
	}
	c := new(Credits)
	a.Credits = c
	if !d.NextArg() {
		return d.ArgErr()
	}
	c.Mode = d.Val()
	if c.Mode == creditsLease {
		if !d.NextArg() {
			return d.ArgErr()
		}
		var err error
		if c.Max, err = strconv.ParseInt(d.Val(), 10, 64); err != nil {
			return d.Errf("credits: the maximum of %s must be an integer, not %q", creditsLease, d.Val())
		}
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	return nil
}

// unmarshalCacheSize reads cache_size <size>.
func (a *App) unmarshalCacheSize(d *caddyfile.Dispenser) error {
	if err := once(d, a.CacheSize != 0); err != nil {
		return err
	}
	var text string
	if err := readString(d, &text); err != nil {
		return err
	}
	n, err := humanize.ParseBytes(text)
	if err != nil || n > maxCacheSize { // also what an int64 does not hold
		return d.WrapErr(errCacheSize)
	}
	a.CacheSize = int64(n)
	return nil
}

// unmarshalConfig reads config <id> { … }.
func (a *App) unmarshalConfig(d *caddyfile.Dispenser) error {
	var c Config
	if err := readString(d, &c.ID); err != nil {
		return err
	}
	if err := checkConfigID(c.ID, a.Configs); err != nil {
		return d.WrapErr(err)
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch d.Val() {
		case "session":
			err = readOnOff(d, &c.Session)
		case "public":
			err = readFlag(d, &c.Public)
		default:
			err = c.KeyRules.unmarshalOption(d, inConfig)
		}
		if err = cmp.Or(err, located(d, c.check())); err != nil {
			return err
		}
	}
	a.Configs = append(a.Configs, c)
	return nil
}

// unmarshalOption reads the options that the app and each config have. block is
// the one that d is in.
func (r *KeyRules) unmarshalOption(d *caddyfile.Dispenser, block place) error {
	switch d.Val() {
	case "prefix":
		return r.unmarshalPrefix(d)
	case "length":
		return readPositive(d, &r.Length)
	case "checksum":
		return readOnOff(d, &r.Checksum)
	case "start":
		return r.unmarshalStart(d)
	case "generator":
		return readModule(d, "apikey.generators", "generator", &r.GeneratorRaw)
	case "validate":
		return r.unmarshalValidate(d)
	case "name_length":
		return readRange(d, &r.NameLength)
	case "prefix_length":
		return readRange(d, &r.PrefixLength)
	case "require_name":
		return readOnOff(d, &r.RequireName)
	case "metadata":
		return readOnOff(d, &r.Metadata)
	case "expiration":
		return r.unmarshalExpiration(d)
	case "max_keys":
		return r.unmarshalMaxKeys(d)
	case "rate_limit":
		return r.unmarshalRateLimit(d)
	case "rate_limiting":
		return readOnOff(d, &r.RateLimiting)
	case "permissions":
		if done, err := readListSwitch(d, &r.Permissions); done {
			return err
		}
		return appendArgs(d, &r.Permissions)
	}
	return unknownOption(d, block)
}

// unmarshalPrefix reads prefix <text>|on|off.
func (r *KeyRules) unmarshalPrefix(d *caddyfile.Dispenser) error {
	if err := readStringPtr(d, &r.Prefix); err != nil {
		return err
	}
	switch *r.Prefix {
	case "on":
		*r.Prefix = keyring.DefaultPrefix
	case "off":
		*r.Prefix = ""
	}
	return nil
}

// unmarshalMaxKeys reads max_keys <n>|on|off.
func (r *KeyRules) unmarshalMaxKeys(d *caddyfile.Dispenser) error {
	var s string
	if err := readOnce(d, r.MaxKeys != nil, &s); err != nil {
		return err
	}
	n, err := strconv.ParseInt(s, 10, 64)
	switch {
	case s == "on":
		n = keyring.DefaultMaxKeys
	case s == "off":
		n = 0
	case err != nil || n < 1:
		return d.Errf("max_keys: must be from 1 to %d, or off", maxMaxKeys)
	}
	r.MaxKeys = &n
	return nil
}

// unmarshalStart reads start <n>|on|off.
func (r *KeyRules) unmarshalStart(d *caddyfile.Dispenser) error {
	var s string
	if err := readOnce(d, r.Start != nil, &s); err != nil {
		return err
	}
	n, err := strconv.Atoi(s)
	switch {
	case s == "on":
		n = keyring.DefaultStart
	case s == "off":
		n = 0
	case err != nil || n == 0:
		return d.Errf("start: must be from 1 to 12, or off")
	}
	r.Start = &n
	return nil
}

// unmarshalValidate reads validate <module> …|on|off.
func (r *KeyRules) unmarshalValidate(d *caddyfile.Dispenser) error {
	if done, err := readListSwitch(d, &r.ValidatorsRaw); done {
		return err
	}
	var raw json.RawMessage
	if err := readModule(d, "apikey.validators", "validator", &raw); err != nil {
		return err
	}
	r.ValidatorsRaw = append(r.ValidatorsRaw, raw)
	return nil
}

// unmarshalExpiration reads expiration { … }.
func (r *KeyRules) unmarshalExpiration(d *caddyfile.Dispenser) error {
	if err := once(d, r.Expiration != nil); err != nil {
		return err
	}
	e := new(Expiration)
	r.Expiration = e
	if d.NextArg() {
		return d.ArgErr()
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch d.Val() {
		case "default":
			err = readDurationOrOff(d, &e.Default)
		case "min":
			err = readDurationOrOff(d, &e.Min)
		case "max":
			err = readDurationOrOff(d, &e.Max)
		case "fixed":
			err = readOnOff(d, &e.Fixed)
		case "keep":
			err = e.unmarshalKeep(d)
		default:
			err = unknownOption(d, inExpiration)
		}
		if err = cmp.Or(err, located(d, e.check())); err != nil {
			return err
		}
	}
	return nil
}

// unmarshalKeep reads keep <duration>|forever.
func (e *Expiration) unmarshalKeep(d *caddyfile.Dispenser) error {
	if err := once(d, e.Keep != nil); err != nil {
		return err
	}
	return readKeep(d, &e.Keep)
}

// readKeep reads <duration>|forever.
func readKeep(d *caddyfile.Dispenser, keep **Keep) error {
	*keep = new(Keep)
	if d.CountRemainingArgs() == 1 && peek(d) == forever {
		d.NextArg()
		(*keep).Forever = true
		return nil
	}
	return readDuration(d, &(*keep).Duration)
}

// unmarshalRateLimit reads rate_limit <max>/<window> [<algorithm>]|on|off.
func (r *KeyRules) unmarshalRateLimit(d *caddyfile.Dispenser) error {
	if err := once(d, r.RateLimit != nil); err != nil {
		return err
	}
	word := readSwitch(d)
	if word == "on" {
		return nil
	}
	l := new(RateLimit)
	r.RateLimit = l
	if word == "off" {
		return nil
	}
	if !d.NextArg() {
		return d.ArgErr()
	}
	if err := readRate(d, "rate_limit", &l.Max, &l.Window); err != nil {
		return err
	}
	if d.NextArg() {
		l.Algorithm = d.Val()
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	return nil
}

// readRate reads the argument that d is at as <max>/<window>.
func readRate(d *caddyfile.Dispenser, option string, limit *int64, window *caddy.Duration) error {
	count, per, ok := strings.Cut(d.Val(), "/")
	if !ok {
		return d.Errf("%s: must be <max>/<window>, such as 100/1m", option)
	}
	var err error
	if *limit, err = strconv.ParseInt(count, 10, 64); err != nil {
		return d.Errf("%s: the maximum must be an integer", option)
	}
	w, err := caddy.ParseDuration(per)
	if err != nil {
		return d.Errf("%s: the window must be a duration such as 1m or 1d", option)
	}
	*window = caddy.Duration(w)
	return nil
}

// unmarshalTier reads tier <name> { … }.
func (p *Plans) unmarshalTier(d *caddyfile.Dispenser) error {
	var t Tier
	if err := readString(d, &t.Name); err != nil {
		return err
	}
	if err := checkTier(&t, p.Tiers); err != nil {
		return d.WrapErr(err)
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch d.Val() {
		case "limit":
			err = t.unmarshalLimit(d)
		case "permissions":
			err = appendArgs(d, &t.Permissions)
		default:
			err = unknownOption(d, inTier)
		}
		if err = cmp.Or(err, located(d, t.check())); err != nil {
			return err
		}
	}
	p.Tiers = append(p.Tiers, t)
	return nil
}

// unmarshalLimit reads limit <max>/<duration|day|month>.
func (t *Tier) unmarshalLimit(d *caddyfile.Dispenser) error {
	var s string
	if err := readString(d, &s); err != nil {
		return err
	}
	limit, per, ok := strings.Cut(s, "/")
	if !ok {
		return d.Errf("limit: must be <max>/<duration>, <max>/day or <max>/month")
	}
	var l TierLimit
	var err error
	if l.Max, err = strconv.ParseInt(limit, 10, 64); err != nil {
		return d.Errf("limit: the maximum must be an integer")
	}
	if l.Per, err = parsePeriod(per); err != nil {
		return d.Errf("limit: the period %v", err)
	}
	t.Limits = append(t.Limits, l)
	return nil
}

// Interface guard
var _ caddyfile.Unmarshaler = (*App)(nil)
