package cli

import (
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/caddy-apikey/caddy-apikey/key"
)

// usageError is a command line that makes no sense. It must not repeat values.
type usageError string

func (e usageError) Error() string { return string(e) }

// WrongUsage returns an error that ends the process with status 2.
func WrongUsage(format string, args ...any) error {
	return usageError(fmt.Sprintf(format, args...))
}

// rule says which arguments a subcommand takes.
type rule func(args []string) error

func noArgs(args []string) error {
	if len(args) > 0 {
		return WrongUsage("there are no arguments here, only flags")
	}
	return nil
}

// oneArg demands one argument. what tells people which.
func oneArg(what string) rule {
	return func(args []string) error {
		if len(args) != 1 || args[0] == "" {
			return WrongUsage("one argument is needed: %s", what)
		}
		return nil
	}
}

// check looks at a whole command line before anything is done.
func check(cmd *cobra.Command, args []string) error {
	// cobra checks both later, but would exit with 1 then.
	if err := cmd.ValidateRequiredFlags(); err != nil {
		return WrongUsage("%v", err)
	}
	if err := cmd.ValidateFlagGroups(); err != nil {
		return WrongUsage("%s", together(err))
	}
	return noRawKeys(cmd, args)
}

// together shortens what cobra says of flags that exclude each other.
func together(err error) string {
	_, group, _ := strings.Cut(err.Error(), "[")
	group, _, ok := strings.Cut(group, "]")
	if !ok {
		return err.Error()
	}
	return "only one of these may be given: --" + strings.ReplaceAll(group, " ", ", --")
}

// noRawKeys refuses a raw key wherever it stands: in a URL, such as a search or
// an ID, it would get into the server's log too.
func noRawKeys(cmd *cobra.Command, args []string) (err error) {
	const advice = "others can see it there, so it should be rotated. \"caddy apikey verify\" reads keys from standard input"
	for _, arg := range args {
		if holdsRawKey(arg) {
			err = WrongUsage("an argument holds a raw key: %s", advice)
		}
	}
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if holdsRawKey(f.Value.String()) {
			err = WrongUsage("--%s holds a raw key: %s", f.Name, advice)
		}
	})
	return err
}

// holdsRawKey reports whether a run of key characters in s has the checksum of
// a raw key.
func holdsRawKey(s string) bool {
	for word := range strings.FieldsFuncSeq(s, func(r rune) bool { return r > unicode.MaxASCII || !key.IsKeyChar(byte(r)) }) {
		if len(word) >= key.MinLength && key.ChecksumFits(word) {
			return true
		}
	}
	return false
}

// unknownCommand refuses the arguments of a command that only has subcommands.
func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	message := "there is no such subcommand"
	if shown(args[0]) {
		message += ": " + args[0]
	}
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		message += ". Is it one of these: " + strings.Join(near, ", ") + "?"
	}
	return usageError(message)
}

// flagError says what is wrong with a flag, without the value it was given.
func flagError(err error) error {
	var unknown *pflag.NotExistError
	var bad *pflag.InvalidValueError
	var missing *pflag.ValueRequiredError
	switch {
	case errors.As(err, &bad):
		return WrongUsage("--%s: %v", bad.GetFlag().Name, bad.Unwrap())
	case errors.As(err, &missing):
		return WrongUsage("--%s: needs a value", missing.GetFlag().Name)
	case errors.As(err, &unknown) && len(unknown.GetSpecifiedName()) == 1 && unknown.GetSpecifiedShortnames() != "":
		return WrongUsage("there is no such flag: -%s", printable(unknown.GetSpecifiedName()))
	case errors.As(err, &unknown) && shown(unknown.GetSpecifiedName()):
		return WrongUsage("there is no such flag: --%s", unknown.GetSpecifiedName())
	default:
		return WrongUsage("there is no such flag")
	}
}

// shown reports whether a wrong word may be repeated: raw keys are longer.
func shown(s string) bool { return len(s) < key.MinLength && s == printable(s) }
