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

// secretWords are the values of the option "secret", the weakest first.
var secretWords = []string{"", secretCheck, secretRequired}

func checkSecret(word string) error {
	if !slices.Contains(secretWords, word) {
		return fmt.Errorf("secret: must be %q or %q", secretCheck, secretRequired)
	}
	return nil
}

// asking is what a handler asks of the keys of its configurations; nil are all.
type asking struct {
	secret  string
	configs []string
}

// secrets are what the handlers of a configuration ask of keys.
type secrets struct{ gates, apis []asking }

// weak reports whether an API asks for less than a gate does for the same keys.
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

// warn tells that half a credential is worth a whole one.
func (s *secrets) warn(logger *zap.Logger) {
	if s.weak() {
		logger.Warn(`an apikey_api asks for less than a gate: with the key alone one can make a key and its secret; give it the same option "secret"`)
	}
}
