package apikey

import (
	"fmt"

	"github.com/caddy-apikey/caddy-apikey/key"
)

const (
	creditsStrict = "strict"
	creditsLease  = "lease"
)

// Credits say how credits are taken from keys that have a limited number of them.
// In both modes no credit is spent twice, whatever crashes.
type Credits struct {
	// Mode is "strict" or "lease". In strict mode each credit is taken durably
	// before its request goes on: a crash costs the credits of requests that
	// were on their way, and nothing else. In lease mode credits are taken
	// durably in blocks, about a second of a key's traffic and at most a tenth
	// of its balance, and spent from memory: requests do not wait for the disk,
	// and a crash costs what was leased. Default: "strict".
	Mode string `json:"mode,omitempty"`

	// Max is how many credits of one key may be leased and not spent, from 1 to
	// 2^53-1. Required in lease mode, and not allowed in strict mode.
	Max int64 `json:"max,omitempty"`
}

func (c *Credits) check() error {
	if c == nil {
		return nil
	}
	switch c.Mode {
	case "", creditsStrict:
		if c.Max != 0 {
			return fmt.Errorf("credits: %s takes no maximum", creditsStrict)
		}
	case creditsLease:
		if c.Max < 1 || c.Max > key.MaxCount {
			return fmt.Errorf("credits: the maximum of %s must be from 1 to %d", creditsLease, key.MaxCount)
		}
	default:
		return fmt.Errorf("credits: the mode must be %q or %q", creditsStrict, creditsLease)
	}
	return nil
}

// lease is the setting of the keyring; 0 is strict.
func (c *Credits) lease() int64 {
	if c == nil {
		return 0
	}
	return c.Max
}
