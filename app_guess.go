package apikey

import (
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-apikey/caddy-apikey/ratelimit"
)

// GuessLimit allows an address at most Max invalid keys per Window.
type GuessLimit struct {
	// Max is the number of invalid keys in a window, from 1 to 2^53-1. Required.
	Max int64 `json:"max,omitempty"`
	// Window is a whole number of milliseconds, at least one. It starts with the first
	// invalid key. Required.
	Window caddy.Duration `json:"window,omitempty"`
}

func (l *GuessLimit) none() bool { return l == nil || *l == GuessLimit{} }

func (l *GuessLimit) check() error {
	if l.none() {
		return nil
	}
	return checkRate("guess_limit", l.Max, l.Window)
}

// policy is the limit as keyring.Settings have it.
func (l *GuessLimit) policy() ratelimit.Policy {
	if l.none() {
		return ratelimit.Policy{}
	}
	return ratelimit.Policy{Algorithm: ratelimit.FixedWindow, Max: l.Max, Window: millis(l.Window)}
}

// unmarshalGuessLimit reads guess_limit <max>/<window>|off.
func (a *App) unmarshalGuessLimit(d *caddyfile.Dispenser) error {
	var text string
	if err := readOnce(d, a.GuessLimit != nil, &text); err != nil {
		return err
	}
	a.GuessLimit = new(GuessLimit)
	if text == "off" {
		return nil
	}
	return readRate(d, "guess_limit", &a.GuessLimit.Max, &a.GuessLimit.Window)
}
