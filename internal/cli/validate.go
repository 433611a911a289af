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

// usageError is a mistake in the command line. Its message must not contain the
// value of an argument or flag.
type usageError string

func (e usageError) Error() string { return string(e) }

// WrongUsage returns an error that ends the process with status 2.
func WrongUsage(format string, args ...any) error {
	return usageError(fmt.Sprintf(format, args...))
}

// argsRule checks the arguments of a subcommand.
type argsRule func(args []string) error

func noArgs(args []string) error {
	if len(args) > 0 {
		return WrongUsage("this command takes no arguments, only flags")
	}
	return nil
}

// oneArg requires one argument, which what describes.
func oneArg(what string) argsRule {
	return func(args []string) error {
		if len(args) != 1 || args[0] == "" {
			return WrongUsage("exactly one argument is required: %s", what)
		}
		return nil
	}
}

// validate checks the flags and arguments before the command runs.
func validate(cmd *cobra.Command, args []string) error {
	// cobra checks both as well, but later and with exit status 1.
	if err := cmd.ValidateRequiredFlags(); err != nil {
		return WrongUsage("%v", err)
	}
	if err := cmd.ValidateFlagGroups(); err != nil {
		return WrongUsage("%s", exclusive(err))
	}
	return noRawKeys(cmd, args)
}

// exclusive shortens cobra's message about mutually exclusive flags.
func exclusive(err error) string {
	_, group, _ := strings.Cut(err.Error(), "[")
	group, _, ok := strings.Cut(group, "]")
	if !ok {
		return err.Error()
	}
	return "these flags exclude each other: --" + strings.ReplaceAll(group, " ", ", --")
}

// noRawKeys refuses a raw key in any argument or flag. As part of a URL, such as a
// search or an ID, it would also appear in the server's log.
func noRawKeys(cmd *cobra.Command, args []string) (err error) {
	const advice = "other users can see it there, so rotate it. \"caddy apikey verify\" reads keys from standard input"
	for _, arg := range args {
		if containsRawKey(arg) {
			err = WrongUsage("an argument contains a raw key: %s", advice)
		}
	}
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if containsRawKey(f.Value.String()) {
			err = WrongUsage("--%s contains a raw key: %s", f.Name, advice)
		}
	})
	return err
}

// containsRawKey reports whether a sequence of key characters in s has a valid
// checksum.
func containsRawKey(s string) bool {
	for word := range strings.FieldsFuncSeq(s, func(r rune) bool { return r > unicode.MaxASCII || !key.IsKeyChar(byte(r)) }) { //nolint:gosec // ASCII
		if len(word) >= key.MinLength && key.ChecksumFits(word) {
			return true
		}
	}
	return false
}

// unknownCommand refuses arguments of a command that only has subcommands.
func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	message := "unknown subcommand"
	if repeatable(args[0]) {
		message += ": " + args[0]
	}
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		message += ". Did you mean " + strings.Join(near, " or ") + "?"
	}
	return usageError(message)
}

// flagError returns what is wrong with a flag, without its value.
func flagError(err error) error {
	var unknown *pflag.NotExistError
	var bad *pflag.InvalidValueError
	var missing *pflag.ValueRequiredError
	switch {
	case errors.As(err, &bad):
		return WrongUsage("--%s: %v", bad.GetFlag().Name, bad.Unwrap())
	case errors.As(err, &missing):
		return WrongUsage("--%s: a value is required", missing.GetFlag().Name)
	case errors.As(err, &unknown) && len(unknown.GetSpecifiedName()) == 1 && unknown.GetSpecifiedShortnames() != "":
		return WrongUsage("unknown flag: -%s", printable(unknown.GetSpecifiedName()))
	case errors.As(err, &unknown) && repeatable(unknown.GetSpecifiedName()):
		return WrongUsage("unknown flag: --%s", unknown.GetSpecifiedName())
	default:
		return WrongUsage("unknown flag")
	}
}

// repeatable reports whether a message may repeat s, because it is shorter than
// every raw key.
func repeatable(s string) bool { return len(s) < key.MinLength && s == printable(s) }
