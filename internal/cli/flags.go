package cli

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
)

// flagValue is the pflag.Value of a flag that sets a field of a request. A field
// stays absent from the request unless its flag is given.
type flagValue struct {
	given  []string // all values that were given
	isBool bool
	set    func(string) error
	// clear sets the field to null, or for false makes it absent again. Nil: the
	// field has no null.
	clear func(null bool)
}

func (v *flagValue) String() string { return strings.Join(v.given, " ") }

func (v *flagValue) Type() string {
	if v.isBool {
		return "bool"
	}
	return "value"
}

func (v *flagValue) Set(s string) error {
	v.given = append(v.given, s)
	return v.set(s)
}

// parsed returns a flagValue that passes each parsed value to assign.
func parsed[T any](parse func(string) (T, error), assign func(T)) *flagValue {
	_, isBool := any(*new(T)).(bool)
	return &flagValue{isBool: isBool, set: func(s string) error {
		v, err := parse(s)
		if err == nil {
			assign(v)
		}
		return err
	}}
}

// variable sets a plain variable.
func variable[T any](to *T, parse func(string) (T, error)) *flagValue {
	return parsed(parse, func(v T) { *to = v })
}

// pointer sets a field that is absent if it is nil.
func pointer[T any](to **T, parse func(string) (T, error)) *flagValue {
	return parsed(parse, func(v T) { *to = &v })
}

// optional sets a field that may be absent, null or a value.
func optional[T any](to *api.Optional[T], parse func(string) (T, error)) *flagValue {
	v := parsed(parse, func(v T) { *to = api.Some(v) })
	v.clear = func(null bool) { *to = api.Optional[T]{Set: null} }
	return v
}

// credits is like optional. "unlimited" is null.
func credits(to *api.Optional[int64]) *flagValue {
	v := optional(to, parseCredits)
	number := v.set
	v.set = func(s string) error {
		if s == "unlimited" {
			v.clear(true)
			return nil
		}
		return number(s)
	}
	return v
}

// rate is like optional for two fields: an amount and its period.
func (h *Host) rate(amount, millis *api.Optional[int64]) *flagValue {
	v := parsed(h.parseRate, func(r rate) { *amount, *millis = api.Some(r.amount), api.Some(r.millis) })
	v.clear = func(null bool) { *amount, *millis = api.Optional[int64]{Set: null}, api.Optional[int64]{Set: null} }
	return v
}

// define adds a flag. A boolean flag without a value is true.
func define(f *pflag.FlagSet, name string, v *flagValue, usage string) {
	flag := f.VarPF(v, name, "", usage)
	if v.isBool {
		flag.NoOptDefVal = "true"
	}
}

// defineNo adds "no-<name>", which clears what the flag of that name sets.
func defineNo(cmd *cobra.Command, name string, v *flagValue, usage string) {
	no := parsed(parseBool, v.clear)
	define(cmd.Flags(), "no-"+name, no, usage)
	cmd.MarkFlagsMutuallyExclusive(name, "no-"+name)
}
