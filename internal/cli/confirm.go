package cli

import (
	"bufio"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
)

// consent is the flag --yes of commands that cannot be undone.
type consent struct{ yes bool }

func (y *consent) define(cmd *cobra.Command) {
	define(cmd.Flags(), "yes", variable(&y.yes, parseBool), "do not ask; required where standard input is not a terminal")
}

// possible returns an error if the question cannot be asked and --yes is missing.
// what is what the command is about to do.
func (y *consent) possible(c *call, what string) error {
	if y.yes || terminalOf(c.InOrStdin()) != nil {
		return nil
	}
	return WrongUsage("this %s, and standard input is not a terminal on which to ask: --yes is required", what)
}

var errDeclined = errors.New("nothing was changed")

// ask prints what is about to happen and asks whether to go on, unless there is
// --yes.
func (y *consent) ask(c *call, what string) error {
	if y.yes {
		return nil
	}
	fmt.Fprintf(c.ErrOrStderr(), "%s\nContinue? [y/N] ", what)
	line, err := bufio.NewReader(c.InOrStdin()).ReadString('\n')
	if err != nil {
		fmt.Fprintln(c.ErrOrStderr())
		return errDeclined
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	}
	return errDeclined
}

// maxNamed is how many keys a question names.
const maxNamed = 10

// askAboutKeys asks before something is done to the keys that the arguments name.
// verb says what: "deletes 2 keys permanently".
func (y *consent) askAboutKeys(c *call, verb, manner string) error {
	what := fmt.Sprintf("%s %s%s", verb, countOf(int64(len(c.args)), "key"), manner)
	if err := y.possible(c, what); err != nil || y.yes {
		return err
	}
	text := "This " + what + ":"
	for i, id := range c.args {
		if i == maxNamed {
			text += fmt.Sprintf("\n  and %d more", len(c.args)-i)
			break
		}
		a, err := c.client.Key(c.ctx, id)
		switch {
		case isNotFound(err):
			text += fmt.Sprintf("\n  %s, which does not exist", printable(id))
		case err != nil:
			return err
		default:
			text += "\n  " + keyLine(a.Value)
		}
	}
	return y.ask(c, text)
}

// isNotFound reports whether the admin API knows no such key or owner.
func isNotFound(err error) bool {
	var refused *admin.APIError
	return errors.As(err, &refused) && refused.Status == http.StatusNotFound && refused.Code != ""
}

// keyLine names a key for people.
func keyLine(k admin.Key) string {
	name := ""
	if k.Name != nil {
		name = fmt.Sprintf(" %q", printable(*k.Name))
	}
	return fmt.Sprintf("%s%s of %s", printable(k.ID), name, printable(k.UserID))
}

// countOf returns a number of things: "1 key", "3 keys".
func countOf(n int64, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
