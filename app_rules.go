package apikey

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-apikey/caddy-apikey/internal/near"
	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring"
	"github.com/caddy-apikey/caddy-apikey/ratelimit"
)

// KeyRules are the rules for creating and verifying keys.
type KeyRules struct {
	// Prefix is the prefix of new keys that are created without one: at most 32
	// characters of a-z, A-Z, 0-9, _ and -. An empty string is no prefix.
	// Default: "ak_".
	Prefix *string `json:"prefix,omitempty"`

	// Length is the number of characters after the prefix, checksum included,
	// from 33 to 480. With 33 it has 160 random bits. Default: 64.
	Length int `json:"length,omitempty"`

	// Checksum ends new keys with a checksum of six characters, by which mistyped
	// and leaked keys are recognized. Default: true.
	Checksum *bool `json:"checksum,omitempty"`

	// Start is the number of leading characters of a key that are stored and
	// shown, from 0 to 12. Default: 6.
	Start *int `json:"start,omitempty"`

	// GeneratorRaw generates raw keys: a module of the namespace
	// apikey.generators. Default: {"generator": "random"}.
	GeneratorRaw json.RawMessage `json:"generator,omitempty" caddy:"namespace=apikey.generators inline_key=generator"`

	// ValidatorsRaw validate raw keys before they are looked up: modules of the
	// namespace apikey.validators. All must accept a key. Default: none.
	ValidatorsRaw []json.RawMessage `json:"validators,omitzero" caddy:"namespace=apikey.validators inline_key=validator"`

	// NameLength is the allowed length of names, in characters. Default: 1 to 32.
	NameLength *Range `json:"name_length,omitempty"`

	// PrefixLength is the allowed length of prefixes that callers choose, in
	// characters. Default: 1 to 32.
	PrefixLength *Range `json:"prefix_length,omitempty"`

	// RequireName requires a name for new keys. Default: false.
	RequireName *bool `json:"require_name,omitempty"`

	// Metadata allows metadata on keys. Default: true.
	Metadata *bool `json:"metadata,omitempty"`

	// Expiration limits the lifetime of keys. Default: new keys do not expire,
	// unless they are created with an expiration.
	Expiration *Expiration `json:"expiration,omitempty"`

	// MaxKeys is how many enabled, unexpired keys an owner may have before the self-service
	// API creates or enables no more, up to 1000000. Of all states there may be ten times as
	// many; keys that their owner has disabled are deleted like expired ones. Operators are
	// not bound. 0 is no limit. Default: 1000.
	MaxKeys *int64 `json:"max_keys,omitempty"`

	// RateLimit is the rate limit of new keys that are created without one. An
	// empty object is no limit. Default: none.
	RateLimit *RateLimit `json:"rate_limit,omitempty"`

	// RateLimiting enforces the rate limits of keys. Default: true.
	RateLimiting *bool `json:"rate_limiting,omitempty"`

	// Permissions are the permissions of new keys that are created without any, as
	// "resource:action". An action alone, such as "read", means "api:read".
	// Default: none.
	Permissions []string `json:"permissions,omitzero"`
}

// Range is an inclusive range of lengths.
type Range struct {
	// Min is the shortest length, at least 0. Default: 0.
	Min int `json:"min"`
	// Max is the longest length, at most 1000 for names and 32 for prefixes. Required.
	Max int `json:"max"`
}

// Expiration limits the lifetime of keys.
type Expiration struct {
	// Default is the lifetime of new keys that are created without one; 0 means
	// that they do not expire. Default: 0.
	Default *caddy.Duration `json:"default,omitempty"`
	// Min is the shortest lifetime that can be chosen. Default: 1s.
	Min *caddy.Duration `json:"min,omitempty"`
	// Max is the longest lifetime that can be chosen, by operators too; 0 means no
	// maximum. In self-service, a key that is created without a lifetime has that of
	// Default, else of Max, and a lifetime of null is Max. Only operators can leave a
	// key without an expiry. Default: 0.
	Max *caddy.Duration `json:"max,omitempty"`
	// Fixed prevents everybody from choosing a lifetime. Default: false.
	Fixed *bool `json:"fixed,omitempty"`
	// Keep is how long an expired key is kept, a duration or "forever". While it is
	// kept, it is refused with KEY_EXPIRED. Older ones are deleted in the background,
	// at most every ten seconds, once this process has seen them expired for an hour.
	// Default: "30d".
	Keep *Keep `json:"keep,omitempty"`
}

// Keep is a duration or "forever".
type Keep struct {
	Duration caddy.Duration
	Forever  bool
}

const forever = "forever"

// UnmarshalJSON accepts a duration or "forever".
func (k *Keep) UnmarshalJSON(b []byte) error {
	if string(b) == `"`+forever+`"` {
		*k = Keep{Forever: true}
		return nil
	}
	*k = Keep{}
	return k.Duration.UnmarshalJSON(b)
}

// MarshalJSON is the inverse of UnmarshalJSON.
func (k Keep) MarshalJSON() ([]byte, error) {
	if k.Forever {
		return json.Marshal(forever)
	}
	return json.Marshal(k.Duration)
}

// RateLimit allows at most Max requests per Window.
type RateLimit struct {
	// Max is the number of requests in a window, from 1 to 2^53-1. Required.
	Max int64 `json:"max,omitempty"`
	// Window is a whole number of milliseconds, at least one. Required.
	Window caddy.Duration `json:"window,omitempty"`
	// Algorithm is "fixed_window", "sliding_window" or "token_bucket".
	// Default: "fixed_window".
	Algorithm string `json:"algorithm,omitempty"`
}

// maxMaxKeys bounds max_keys: to count the keys of an owner takes time.
const maxMaxKeys = 1_000_000

// check validates each option on its own.
func (r *KeyRules) check() error {
	if r.Prefix != nil && !key.ValidPrefix(*r.Prefix) {
		return fmt.Errorf("prefix: must be at most %d characters of a-z A-Z 0-9 _ -", key.MaxPrefixLen)
	}
	if r.Length != 0 && (r.Length < key.MinLength || r.Length > key.MaxLength) {
		return fmt.Errorf("length: must be from %d to %d", key.MinLength, key.MaxLength)
	}
	if r.MaxKeys != nil && (*r.MaxKeys < 0 || *r.MaxKeys > maxMaxKeys) {
		return fmt.Errorf("max_keys: must be from 1 to %d, or off", maxMaxKeys)
	}
	if r.Start != nil && (*r.Start < 0 || *r.Start > key.DisplayLen) {
		return fmt.Errorf("start: must be from 1 to %d, or off", key.DisplayLen)
	}
	_, err := r.permissions()
	return errors.Join(r.NameLength.check("name_length", 1000), r.PrefixLength.check("prefix_length", key.MaxPrefixLen),
		r.Expiration.check(), r.RateLimit.check(), err)
}

func (r *Range) check(option string, highest int) error {
	if r != nil && (r.Min < 0 || r.Max < 1 || r.Max < r.Min || r.Max > highest) {
		return fmt.Errorf("%s: must be a minimum and a maximum from 0 to %d, the minimum not above the maximum", option, highest)
	}
	return nil
}

func (e *Expiration) check() error {
	if e == nil {
		return nil
	}
	var def, lowest, highest caddy.Duration
	override(&def, e.Default)
	override(&lowest, e.Min)
	override(&highest, e.Max)
	for name, d := range map[string]caddy.Duration{"default": def, "min": lowest, "max": highest} {
		if d < 0 || d != 0 && time.Duration(d) < time.Second {
			return fmt.Errorf("expiration %s: must be at least one second", name)
		}
	}
	if highest != 0 && lowest > highest {
		return errors.New("expiration min: must not be above max")
	}
	if def != 0 && (def < lowest || highest != 0 && def > highest) {
		return errors.New("expiration default: must be between min and max")
	}
	if e.Keep != nil && e.Keep.Duration < 0 {
		return errors.New(`expiration keep: must be a duration of at least 0, or "forever"`)
	}
	return nil
}

func (l *RateLimit) check() error {
	if l.none() {
		return nil
	}
	if err := checkRate("rate_limit", l.Max, l.Window); err != nil {
		return err
	}
	_, err := l.algorithm()
	return err
}

// checkRate validates a maximum per window.
func checkRate(option string, limit int64, window caddy.Duration) error {
	if limit < 1 || limit > key.MaxCount {
		return fmt.Errorf("%s: the maximum must be from 1 to %d", option, key.MaxCount)
	}
	if w := time.Duration(window); w < time.Millisecond || w%time.Millisecond != 0 {
		return fmt.Errorf("%s: the window must be a whole number of milliseconds, at least 1", option)
	}
	return nil
}

func (l *RateLimit) none() bool { return l == nil || *l == RateLimit{} }

func (l *RateLimit) algorithm() (ratelimit.Algorithm, error) {
	if l.Algorithm == "" {
		return ratelimit.FixedWindow, nil
	}
	algorithm, err := ratelimit.ParseAlgorithm(l.Algorithm)
	if err != nil {
		return 0, fmt.Errorf("rate_limit: the algorithm %s", near.OneOf(l.Algorithm, ratelimit.Algorithms()...))
	}
	return algorithm, nil
}

// permissions returns nil if there are none.
func (r *KeyRules) permissions() (key.Permissions, error) {
	if len(r.Permissions) == 0 {
		return nil, nil
	}
	p, err := key.ParsePermissions(r.Permissions)
	if err != nil {
		return nil, fmt.Errorf("permissions: %w", err)
	}
	return p, nil
}

// provision loads the guest modules and returns the rules with all defaults.
func (r *KeyRules) provision(ctx caddy.Context) (rules keyring.Rules, err error) {
	rules = keyring.DefaultRules()
	override(&rules.Prefix, r.Prefix)
	override(&rules.Checksum, r.Checksum)
	override(&rules.Start, r.Start)
	override(&rules.RequireName, r.RequireName)
	override(&rules.Metadata, r.Metadata)
	override(&rules.RateLimiting, r.RateLimiting)
	override(&rules.MaxKeys, r.MaxKeys)
	if r.Length != 0 {
		rules.Length = r.Length
	}
	if r.NameLength != nil {
		rules.NameLength = keyring.Range(*r.NameLength)
	}
	if r.PrefixLength != nil {
		rules.PrefixLength = keyring.Range(*r.PrefixLength)
	}
	if rules.Permissions, err = r.permissions(); err != nil {
		return rules, err
	}
	r.Expiration.provision(&rules.Expiration)
	if l := r.RateLimit; !l.none() {
		algorithm, err := l.algorithm()
		if err != nil {
			return rules, err
		}
		rules.RateLimit = &ratelimit.Policy{Algorithm: algorithm, Max: l.Max, Window: millis(l.Window)}
	}
	return rules, r.loadGuests(ctx, &rules)
}

func (e *Expiration) provision(x *keyring.Expiration) {
	if e == nil {
		return
	}
	for dst, d := range map[*int64]*caddy.Duration{&x.Default: e.Default, &x.Min: e.Min, &x.Max: e.Max} {
		if d != nil {
			*dst = millis(*d)
		}
	}
	override(&x.Fixed, e.Fixed)
	if e.Keep != nil {
		x.Keep = millis(e.Keep.Duration)
		if e.Keep.Forever {
			x.Keep = keyring.KeepForever
		}
	}
}

func (r *KeyRules) loadGuests(ctx caddy.Context, rules *keyring.Rules) error {
	if r.GeneratorRaw != nil {
		if err := checkInlineModule("apikey.generators", "generator", r.GeneratorRaw); err != nil {
			return err
		}
		mod, err := ctx.LoadModule(r, "GeneratorRaw")
		if err != nil {
			return fmt.Errorf("loading the generator module: %w", err)
		}
		generator, ok := mod.(key.Generator)
		if !ok {
			return fmt.Errorf("generator module %T does not implement key.Generator", mod)
		}
		rules.Generator = generator
	}
	if r.ValidatorsRaw == nil {
		return nil
	}
	for _, raw := range r.ValidatorsRaw {
		if err := checkInlineModule("apikey.validators", "validator", raw); err != nil {
			return err
		}
	}
	mods, err := ctx.LoadModule(r, "ValidatorsRaw")
	if err != nil {
		return fmt.Errorf("loading validator modules: %w", err)
	}
	for _, mod := range mods.([]any) {
		validator, ok := mod.(key.Validator)
		if !ok {
			return fmt.Errorf("validator module %T does not implement key.Validator", mod)
		}
		rules.Validators = append(rules.Validators, validator)
	}
	return nil
}

// override sets *dst to *src, unless src is nil.
func override[T any](dst, src *T) {
	if src != nil {
		*dst = *src
	}
}

func millis(d caddy.Duration) int64 { return time.Duration(d).Milliseconds() }
