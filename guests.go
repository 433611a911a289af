package apikey

import (
	"errors"
	"fmt"
	"regexp"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-apikey/caddy-apikey/key"
)

func init() {
	caddy.RegisterModule(&RandomGenerator{})
	caddy.RegisterModule(&MatchValidator{})
}

// RandomGenerator is the default generator. It generates base62 characters from
// the random source of the system.
type RandomGenerator struct {
	key.Random
}

// CaddyModule returns the Caddy module information.
func (*RandomGenerator) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "apikey.generators.random", New: func() caddy.Module { return new(RandomGenerator) }}
}

// UnmarshalCaddyfile sets up the generator from Caddyfile tokens. Syntax:
//
//	generator random
func (*RandomGenerator) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // module name
	if d.NextArg() {
		return d.ArgErr()
	}
	if d.NextBlock(d.Nesting()) {
		return d.Errf("generator random: unknown option %q", d.Val())
	}
	return nil
}

// MatchValidator accepts raw keys that match a regular expression.
type MatchValidator struct {
	// Pattern is the regular expression, in the syntax of Go's package regexp.
	// Required.
	Pattern string `json:"pattern"`

	regexp *regexp.Regexp
}

// CaddyModule returns the Caddy module information.
func (*MatchValidator) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "apikey.validators.match", New: func() caddy.Module { return new(MatchValidator) }}
}

// Provision compiles the pattern.
func (v *MatchValidator) Provision(caddy.Context) (err error) {
	if v.regexp, err = regexp.Compile(v.Pattern); err != nil {
		return fmt.Errorf("validate match: %w", err)
	}
	return nil
}

// Validate implements caddy.Validator.
func (v *MatchValidator) Validate() error {
	if v.Pattern == "" {
		return errors.New("validate match: the pattern is missing")
	}
	return nil
}

// Valid implements key.Validator.
func (v *MatchValidator) Valid(raw string) bool { return v.regexp.MatchString(raw) }

// UnmarshalCaddyfile sets up the validator from Caddyfile tokens. Syntax:
//
//	validate match <regexp>
func (v *MatchValidator) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // module name
	if !d.AllArgs(&v.Pattern) {
		return d.ArgErr()
	}
	if _, err := regexp.Compile(v.Pattern); err != nil {
		return d.WrapErr(err)
	}
	return nil
}

// Interface guards
var (
	_ key.Generator         = (*RandomGenerator)(nil)
	_ caddyfile.Unmarshaler = (*RandomGenerator)(nil)
	_ key.Validator         = (*MatchValidator)(nil)
	_ caddy.Provisioner     = (*MatchValidator)(nil)
	_ caddy.Validator       = (*MatchValidator)(nil)
	_ caddyfile.Unmarshaler = (*MatchValidator)(nil)
)
