package apikey

import (
	"fmt"
	"slices"

	"go.uber.org/zap"
)

const (
	secretCheck    = "check"
	secretRequired = "required"
	secretHeader   = "X-Api-Secret"
)

// secretWords are the values of the option "secret", in order of strictness.
var secretWords = []string{"", secretCheck, secretRequired}

func checkSecret(word string) error {
	if !slices.Contains(secretWords, word) {
		return fmt.Errorf("secret: must be %q or %q", secretCheck, secretRequired)
	}
	return nil
}

// asking is the option "secret" of a handler for the keys of its configurations; nil is all.
type asking struct {
	secret  string
	configs []string
}

// secrets are the options "secret" of all handlers of a configuration.
type secrets struct{ gates, apis []asking }

// weak reports whether an API is less strict than a gate for the same keys.
func (s *secrets) weak() bool {
	for _, gate := range s.gates {
		for _, api := range s.apis {
			if slices.Index(secretWords, api.secret) < slices.Index(secretWords, gate.secret) && overlap(gate.configs, api.configs) {
				return true
			}
		}
	}
	return false
}

func overlap(a, b []string) bool {
	return a == nil || b == nil || slices.ContainsFunc(a, func(id string) bool { return slices.Contains(b, id) })
}

// warn logs a warning if an API is weaker than a gate.
func (s *secrets) warn(logger *zap.Logger) {
	if s.weak() {
		logger.Warn(`an apikey_api checks secrets less strictly than a gate for the same keys: a key alone can create another key with its own secret; set the option "secret" of apikey_api as in the gate`)
	}
}
