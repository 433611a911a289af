package cli

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
	"github.com/caddy-apikey/caddy-apikey/internal/near"
)

// The values of --format.
const (
	asTable  = "table"  // for people; the default
	asWide   = "wide"   // as table, with all columns, and nothing cut
	asJSON   = "json"   // the answer of the admin API
	asNDJSON = "ndjson" // one JSON object in a line for each key or owner
	asCSV    = "csv"    // all columns, with exact values
	asName   = "name"   // the id of each key, or the userId of each owner
)

var (
	// listFormats are those of commands that show keys, owners or tiers.
	listFormats = []string{asTable, asWide, asJSON, asNDJSON, asCSV, asName}
	// plainFormats are those of all other commands.
	plainFormats = []string{asTable, asWide, asJSON, asNDJSON}
)

// formatsKey is the annotation of a command that lists its formats.
const formatsKey = "formats"

// setFormats says which formats a command has.
func setFormats(cmd *cobra.Command, formats []string) {
	if cmd.Annotations == nil {
		cmd.Annotations = map[string]string{}
	}
	cmd.Annotations[formatsKey] = strings.Join(formats, " ")
}

func formatsOf(cmd *cobra.Command) []string { return strings.Fields(cmd.Annotations[formatsKey]) }

// output are the flags that say how a result is printed.
type output struct {
	format  string
	json    bool // --json
	wide    bool // --wide
	columns []string
}

// defineOutput adds the flags of all commands.
func (h *Host) defineOutput(root *cobra.Command) {
	f := root.PersistentFlags()
	value := variable(&h.format, oneOf(listFormats...))
	f.VarP(value, "format", "o", "print as `FORMAT`: "+near.List(listFormats)+" (default table)")
	define(f, "json", variable(&h.json, parseBool), "print the JSON of the admin API, and nothing else; short for -o json")
	root.MarkFlagsMutuallyExclusive("format", "json")
	root.RegisterFlagCompletionFunc("format", func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) { //nolint:errcheck // the flag exists
		return formatsOf(cmd), cobra.ShellCompDirectiveNoFileComp
	})
}

// defineTable adds the flags of commands that print a table. columns are the names
// of all its columns.
func (h *Host) defineTable(cmd *cobra.Command, columns []string) {
	f := cmd.Flags()
	define(f, "wide", variable(&h.wide, parseBool), "show all columns, and do not cut cells to fit the terminal; short for -o wide")
	define(f, "columns", variable(&h.columns, someOf(columns)), "show these `COLUMNS`, separated by commas: "+near.List(columns))
	cmd.MarkFlagsMutuallyExclusive("wide", "columns")
	cmd.RegisterFlagCompletionFunc("columns", completeList(columns)) //nolint:errcheck // the flag exists
}

// someOf parses a list of words that is separated by commas.
func someOf(words []string) func(string) ([]string, error) {
	return func(s string) ([]string, error) {
		list := strings.Split(strings.ToLower(s), ",")
		for i, word := range list {
			if list[i] = strings.TrimSpace(word); !slices.Contains(words, list[i]) {
				return nil, fmt.Errorf("each column %s", near.OneOf(list[i], words...))
			}
		}
		return list, nil
	}
}

// finishFlags checks and completes the flags for one command.
func (o *output) finishFlags(cmd *cobra.Command) error {
	switch {
	case o.json:
		o.format = asJSON
	case o.format == "" && o.wide:
		o.format = asWide
	case o.format == "":
		o.format = asTable
	}
	o.wide = o.format == asWide
	if formats := formatsOf(cmd); len(formats) > 0 && !slices.Contains(formats, o.format) {
		return WrongUsage("--format: %s is not available here: must be %s", o.format, near.List(formats))
	}
	if o.columns != nil && (o.machine() || o.format == asName) {
		return WrongUsage("--columns: only for the formats %s, %s and %s", asTable, asWide, asCSV)
	}
	return nil
}

// machine reports whether the output is JSON. Then nothing else is printed but
// errors.
func (o *output) machine() bool { return o.format == asJSON || o.format == asNDJSON }

// answer prints a response of the API: as JSON, or as text returned by format.
func answer[T any](c *call, a admin.Answer[T], err error, format func(T) string) error {
	switch {
	case err != nil:
		return err
	case c.machine():
		return write(c.OutOrStdout(), string(a.Raw))
	default:
		return write(c.OutOrStdout(), format(a.Value))
	}
}

// answerOne prints one key or owner.
func answerOne[T any](c *call, a admin.Answer[T], err error, l *listing[T], text func(T) string) error {
	if err != nil || c.machine() || c.format != asCSV && c.format != asName {
		return answer(c, a, err, text)
	}
	return write(c.OutOrStdout(), l.render(c, []T{a.Value}))
}

// answerList prints a page. items returns what is in it, and name is the field of
// the page that holds the list.
func answerList[P, T any](c *call, a admin.Answer[P], err error, name string, items func(P) []T, l *listing[T]) error {
	switch {
	case err != nil:
		return err
	case c.format == asNDJSON:
		lines, err := linesOf(a.Raw, name)
		if err != nil {
			return err
		}
		return write(c.OutOrStdout(), lines)
	case c.format == asJSON:
		return write(c.OutOrStdout(), string(a.Raw))
	default:
		return write(c.OutOrStdout(), l.render(c, items(a.Value)))
	}
}

// linesOf returns the items of a page, each in a line, as the server sent them.
func linesOf(page json.RawMessage, name string) (string, error) {
	var fields map[string]json.RawMessage
	var list []json.RawMessage
	if err := json.Unmarshal(page, &fields); err != nil {
		return "", fmt.Errorf("reading a page: %w", err)
	}
	if err := json.Unmarshal(fields[name], &list); err != nil {
		return "", fmt.Errorf("reading a page: %w", err)
	}
	var b bytes.Buffer
	for _, item := range list {
		if err := json.Compact(&b, item); err != nil {
			return "", fmt.Errorf("reading a page: %w", err)
		}
		b.WriteByte('\n')
	}
	return b.String(), nil
}

// done prints a line where the response of the API is empty. With --format json it
// prints nothing.
func (c *call) done(err error, id, format string, args ...any) error {
	switch {
	case err != nil || c.format == asJSON:
		return err
	case c.format == asNDJSON:
		return write(c.OutOrStdout(), string(resultOf(id, nil, nil)))
	case c.format == asName:
		return write(c.OutOrStdout(), printable(id))
	}
	return write(c.OutOrStdout(), fmt.Sprintf(format, args...))
}

// note prints a line on standard error, unless the output is JSON.
func (c *call) note(format string, args ...any) {
	if !c.machine() {
		fmt.Fprintf(c.ErrOrStderr(), format+"\n", args...)
	}
}

// write writes text and adds a final newline if it is missing.
func write(w io.Writer, text string) error {
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	if _, err := io.WriteString(w, text); err != nil {
		return fmt.Errorf("writing the output: %w", err)
	}
	return nil
}

// writeCSV returns rows as CSV. It changes rows.
func writeCSV(rows [][]string) string {
	for _, row := range rows {
		for i := range row {
			row[i] = inertCell(row[i])
		}
	}
	var b strings.Builder
	w := csv.NewWriter(&b)
	w.WriteAll(rows) //nolint:errcheck // a Builder has no errors
	return b.String()
}

// inertCell keeps a spreadsheet from running a cell as a formula: names and owners are
// chosen by others. An apostrophe makes it text, as OWASP recommends. A number stays one.
func inertCell(s string) string {
	first, _ := utf8.DecodeRuneInString(s)
	if _, err := strconv.ParseInt(s, 10, 64); err == nil || !strings.ContainsRune(formulaStarts, first) {
		return s
	}
	return "'" + s
}

// formulaStarts are the characters that begin a formula, in full width too.
const formulaStarts = "=+-@\t\r＝＋－＠"

// terminalOf returns the file of a terminal, or nil if v is none.
func terminalOf(v any) *os.File {
	if f, ok := v.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return f
	}
	return nil
}

// width returns the number of columns of the terminal, or 0 if standard output is
// none.
func (c *call) width() int {
	f := terminalOf(c.OutOrStdout())
	if f == nil {
		return 0
	}
	if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
		return width
	}
	return defaultColumns
}

// colored reports whether the output may be colored: on a terminal that can do it,
// unless the user does not want it (https://no-color.org).
func (c *call) colored() bool {
	return terminalOf(c.OutOrStdout()) != nil && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}
