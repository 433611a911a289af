package apikey

import (
	"fmt"

	"github.com/caddy-apikey/caddy-apikey/key"
)

const (
	creditsStrict = "strict"
	creditsLease  = "lease"
)

// Credits configures how credits are taken from keys with a limited number of
// them. In both modes no credit is spent twice, also after a crash.
type Credits struct {
	// Mode is "strict" or "lease". In strict mode, each credit is committed to the
	// store before its request continues, so a crash loses only the credits of
	// requests in flight. In lease mode, credits are committed in blocks and spent
	// from memory: requests do not wait for the disk, and a crash loses what was
	// leased. A block covers about a second of a key's traffic, and at most a tenth
	// of its balance. Default: "strict".
	Mode string `json:"mode,omitempty"`

	// Max is the maximum number of leased, unspent credits of one key, from 1 to
	// 2^53-1. Required in lease mode, not allowed in strict mode.
	Max int64 `json:"max,omitempty"`
}

func (c *Credits) check() error {
	if c == nil {
		return nil
	}
	switch c.Mode {
	case "", creditsStrict:
		if c.Max != 0 {
			return fmt.Errorf("credits: %s does not take a maximum", creditsStrict)
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

// lease returns the maximum for the keyring; 0 is strict mode.
func (c *Credits) lease() int64 {
	if c == nil {
		return 0
	}
	return c.Max
}
