package near

import (
	"strings"
	"testing"
)

func TestWord(t *testing.T) {
	words := []string{"rate_limit", "rate_limiting", "optional", "sliding_window", "keep", "max", "Pro"}
	for in, want := range map[string]string{
		"rate_limt": "rate_limit", "rate-limit": "rate_limit", "Optional": "optional", "optoinal": "optional",
		"sliding": "sliding_window", "keeps": "keep", "maximum": "max", "pro": "Pro", "colour": "", "": "", "x": "",
		strings.Repeat("optional", 9): "",
	} {
		if got := Word(in, words...); got != want {
			t.Errorf("%s: got %q, want %q", in, got, want)
		}
	}
}

func TestOneOf(t *testing.T) {
	for _, tt := range []struct {
		word, want string
		words      []string
	}{
		{"slidng", "must be fixed or sliding: did you mean sliding?", []string{"fixed", "sliding"}},
		{"x", "must be sqlite", []string{"sqlite"}},
		{"x", "must be aa, bb or cc", []string{"aa", "bb", "cc"}},
	} {
		if got := OneOf(tt.word, tt.words...); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}
