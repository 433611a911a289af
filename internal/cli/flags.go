package cli

import (
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// The values of these flags are nil unless given, as in the API. Parsers check
// the form only: the server knows what is allowed.

// flagValue is a flag that is parsed when it is met.
type flagValue struct {
	text string // all that was given
	set  func(string) error
}

func (v *flagValue) String() string { return v.text }
func (v *flagValue) Type() string   { return "value" }

func (v *flagValue) Set(s string) error {
	v.text += " " + s
	return v.set(s)
}

// value defines a flag that may be given once. A later one replaces it.
func value[T any](f *pflag.FlagSet, dst **T, name, usage string, parse func(string) (T, error)) {
	each(f, name, usage, func(s string) error {
		v, err := parse(s)
		*dst = &v
		return err
	})
}

// each defines a flag that may be repeated.
func each(f *pflag.FlagSet, name, usage string, add func(string) error) {
	f.Var(&flagValue{set: add}, name, usage)
}

// boolean defines a flag that is true where it stands alone.
func boolean(f *pflag.FlagSet, name, usage string, set func(bool)) {
	f.BoolFunc(name, usage, func(s string) error {
		b, err := strconv.ParseBool(s)
		set(b)
		return err
	})
}

// on makes a setter of *dst.
func on(dst **bool) func(bool) { return func(b bool) { *dst = &b } }

// off makes a setter of the opposite.
func off(dst **bool) func(bool) { return func(b bool) { b = !b; *dst = &b } }

var errNumber = errors.New("must be a whole number")

func parseText(s string) (string, error) { return s, nil }

func parseNumber(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, errNumber
	}
	return n, nil
}

func oneOf(words ...string) func(string) (string, error) {
	return func(s string) (string, error) {
		if !slices.Contains(words, s) {
			return "", errors.New("must be one of " + strings.Join(words, ", "))
		}
		return s, nil
	}
}

// seconds reads a duration as seconds. It must be at least least.
func (h *Host) seconds(least int64) func(string) (int64, error) {
	return func(s string) (int64, error) {
		d, err := h.ParseDuration(s)
		if n := int64(d / time.Second); err == nil && d%time.Second == 0 && n >= least {
			return n, nil
		}
		return 0, errors.New("must be a duration in whole seconds, such as 90d, 12h or 1h30m")
	}
}

// rate is an amount for each period.
type rate struct{ amount, millis int64 }

// rate reads "100/1d".
func (h *Host) rate(s string) (rate, error) {
	amount, period, _ := strings.Cut(s, "/")
	n, err := parseNumber(amount)
	d, err2 := h.ParseDuration(period)
	if err != nil || err2 != nil || d < time.Millisecond || d%time.Millisecond != 0 {
		return rate{}, errors.New("must be <number>/<duration>, such as 100/1m or 1000/1d")
	}
	return rate{n, d.Milliseconds()}, nil
}

// parseObject reads a JSON object.
func parseObject(s string) (json.RawMessage, error) {
	if !json.Valid([]byte(s)) || !strings.HasPrefix(strings.TrimSpace(s), "{") {
		return nil, errors.New("must be a JSON object")
	}
	return json.RawMessage(s), nil
}
