package cli

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
	"github.com/caddy-apikey/caddy-apikey/key"
)

func (h *Host) scan() *cobra.Command {
	var prefixes []string
	var rules string
	cmd := h.command("scan {PATH | -} [flags]", "Finds raw keys in files, and says which are live", scanArgs, func(c *call) error {
		switch {
		case rules == "" && len(c.args) == 0:
			return WrongUsage("exactly one argument is required: a file, a folder, or - for standard input")
		case rules != "" && len(c.args) > 0:
			return WrongUsage("--rules takes no argument: it prints rules, and scans nothing")
		case rules != "" && c.format != asTable:
			return WrongUsage("--format: not available with --rules, which has a format of its own")
		}
		configs, err := c.client.Configs(c.ctx)
		if err != nil {
			return err
		}
		if rules != "" {
			return c.printRules(rules, configs.Value, prefixes)
		}
		return c.scan(c.args[0], configs.Value, prefixes)
	})
	cmd.Long = `Finds raw keys in a file, in all files below a folder, or in standard input (-), by
their prefix and checksum, and asks the server for each of them. No raw key is printed.

Prefixes are those of the running configuration, and those of --prefix. Keys without a
checksum are not found, because nothing distinguishes them from other text.

A folder is scanned with hidden and binary files. Symbolic links in it are not followed.
What is compressed, such as the history of git, is not unpacked: pipe it into this command.

A key is live if a gate admits it now, or will when a limit has room again. Exit status:
0 if no live key was found and everything was read, 1 if not.

--rules prints rules for other scanners instead.`
	cmd.Example = `  caddy apikey scan /srv/www
  git log -p --all | caddy apikey scan -
  caddy apikey scan --rules gitleaks > .gitleaks.toml`
	setFormats(cmd, listFormats)
	h.defineTable(cmd, findingListing.names())
	f := cmd.Flags()
	define(f, "prefix", variable(&prefixes, prefixTexts()), "look for keys with these `characters` in front as well; repeatable")
	define(f, "rules", variable(&rules, oneOf(ruleNames...)), "print rules for another `scanner`: "+strings.Join(ruleNames, ", "))
	completeFlag(cmd, "rules", completeWords(ruleNames...))
	cmd.ValidArgsFunction = nil // files
	return cmd
}

// scanArgs repeats no path, which may contain a raw key.
func scanArgs(args []string) error {
	if len(args) > 1 || len(args) == 1 && args[0] == "" {
		return WrongUsage("exactly one argument is required: a file, a folder, or - for standard input")
	}
	return nil
}

// prefixTexts parses the prefixes of a repeatable flag.
func prefixTexts() func(string) ([]string, error) {
	parse := texts()
	return func(s string) ([]string, error) {
		if s == "" || !key.ValidPrefix(s) {
			return nil, fmt.Errorf("must be 1 to %d of a-z A-Z 0-9 _ -", key.MaxPrefixLen)
		}
		return parse(s)
	}
}

// finding is a raw key in a text.
type finding struct {
	File   string  `json:"file"`
	Line   int64   `json:"line"`
	Column int64   `json:"column"`
	Start  string  `json:"start"`
	KeyID  *string `json:"keyId"`
	UserID *string `json:"userId"`
	verdict
}

// verdict is what the server says of a raw key.
type verdict struct {
	State string `json:"state"`
	Live  bool   `json:"live"`
}

// The states of a raw key that no key object has.
const (
	stateUnknown  = "unknown"  // of no key of this server, or replaced and its grace is over
	stateRejected = "rejected" // stored, but the configuration admits no such key
)

// verdictOf says whether a raw key opens anything, now or when a limit has room again.
func verdictOf(v admin.Verification) verdict {
	switch {
	case v.Key == nil:
		return verdict{stateUnknown, false}
	case v.Valid:
		return verdict{v.Key.State, true}
	}
	switch v.Error.Code {
	case "KEY_DISABLED":
		return verdict{"disabled", false}
	case "KEY_EXPIRED":
		return verdict{"expired", false}
	case "INVALID_API_KEY":
		return verdict{stateRejected, false}
	default:
		return verdict{v.Key.State, true}
	}
}

var findingListing = &listing[finding]{
	name: func(f finding) string { return textOf(f.KeyID) },
	columns: []column[finding]{
		{name: "place", value: func(f finding) string { return fmt.Sprintf("%s:%d", f.File, f.Line) }},
		{name: "column", value: func(f finding) string { return strconv.FormatInt(f.Column, 10) }, whole: true},
		{
			name: "start", value: func(f finding) string { return f.Start },
			text: func(f finding, _ time.Time) string { return f.Start + "..." },
		},
		{name: "id", value: func(f finding) string { return textOf(f.KeyID) }, whole: true},
		{name: "owner", value: func(f finding) string { return textOf(f.UserID) }},
		{
			name: "status", value: func(f finding) string { return f.State }, whole: true,
			color: func(f finding) text.Color {
				if f.Live {
					return text.FgRed
				}
				return text.FgGreen
			},
		},
		{name: "live", value: func(f finding) string { return formatBool(f.Live) }, whole: true},
	},
}

// scanning is one execution of scan.
type scanning struct {
	c        *call
	scanner  *scanner
	known    map[[sha256.Size]byte]finding // without their places
	findings []finding
	unread   int64
}

// maxKnown bounds how many answers of the server are kept.
const maxKnown = 100_000

func (c *call) scan(path string, configs admin.ConfigList, prefixes []string) error {
	plain := configs.PlainKeys
	for _, config := range configs.Configs {
		prefixes = append(prefixes, config.Prefix)
		plain = plain || !config.Checksum
	}
	if plain {
		c.warn("keys without a checksum exist or are configured. They are not found, because nothing distinguishes them from other text.")
	}
	s := &scanning{c: c, scanner: newScanner(prefixes), known: map[[sha256.Size]byte]finding{}, findings: []finding{}}
	if err := s.walk(path); err != nil {
		return err
	}
	raw, err := api.Marshal(map[string]any{"findings": s.findings})
	if err != nil {
		return err
	}
	a := admin.Answer[[]finding]{Value: s.findings, Raw: json.RawMessage(raw)}
	if len(s.findings) == 0 && s.unread == 0 {
		c.note("No keys were found.")
	}
	if err := answerList(c, a, nil, "findings", func(l []finding) []finding { return l }, findingListing); err != nil {
		return err
	}
	return s.result()
}

// result is the error that makes the exit status 1.
func (s *scanning) result() error {
	live := map[string]bool{}
	for _, f := range s.findings {
		if f.Live {
			live[*f.KeyID] = true
		}
	}
	var problems []string
	if n := int64(len(live)); n > 0 {
		problems = append(problems, countOf(n, "live key")+" found")
	}
	if s.unread > 0 {
		problems = append(problems, countOf(s.unread, "path")+" could not be read")
	}
	if problems == nil {
		return nil
	}
	return errors.New(strings.Join(problems, "; "))
}

// warn prints a line on standard error in every format.
func (c *call) warn(format string, args ...any) {
	fmt.Fprintf(c.ErrOrStderr(), "Warning: "+format+"\n", args...)
}

// walk scans a path. The one that is given may be a link or a pipe; below a folder only
// regular files are opened, and nothing outside of it.
func (s *scanning) walk(path string) error {
	if path == "-" {
		return s.read("-", s.c.InOrStdin())
	}
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("cannot read %s: %w", s.name(path), cause(err))
	}
	if !info.IsDir() {
		f, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("cannot read %s: %w", s.name(path), cause(err))
		}
		defer f.Close() //nolint:errcheck // only read
		return s.read(path, f)
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return fmt.Errorf("cannot read %s: %w", s.name(path), cause(err))
	}
	defer root.Close() //nolint:errcheck // only read
	return fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		full := filepath.Join(path, filepath.FromSlash(name))
		if err != nil {
			s.unreadable(full, err)
			return nil
		}
		if !d.Type().IsRegular() {
			return nil
		}
		f, err := root.Open(name)
		if err != nil {
			s.unreadable(full, err)
			return nil
		}
		defer f.Close() //nolint:errcheck // only read
		return s.read(full, f)
	})
}

// read scans one text. What it returns is an error of the server, which ends the scan.
func (s *scanning) read(path string, r io.Reader) error {
	var asking error
	name := s.name(path)
	err := s.scanner.scan(textReader(r), func(raw string, prefix int, at place) error {
		f, err := s.ask(raw, prefix)
		if err != nil {
			asking = err
			return err
		}
		f.File, f.Line, f.Column = name, at.line, at.column
		s.findings = append(s.findings, f)
		return nil
	})
	if asking == nil && err != nil {
		s.unreadable(path, err)
	}
	return asking
}

// name returns a path as it is shown: a raw key may stand in it too.
func (s *scanning) name(path string) string { return printable(s.scanner.mask(path)) }

func (s *scanning) unreadable(path string, err error) {
	s.unread++
	s.c.warn("cannot read %s: %v", s.name(path), cause(err))
}

// cause returns an error without the path.
func cause(err error) error {
	if at, ok := errors.AsType[*fs.PathError](err); ok {
		return at.Err
	}
	return err
}

// ask asks the server about a raw key, once for each.
func (s *scanning) ask(raw string, prefix int) (finding, error) {
	hash := sha256.Sum256([]byte(raw))
	if f, ok := s.known[hash]; ok {
		return f, nil
	}
	dry := true
	a, err := s.c.client.Verify(s.c.ctx, admin.VerifyKey{Key: raw, DryRun: &dry})
	switch v := a.Value; {
	case err != nil:
		return finding{}, err
	case v.Error != nil && v.Error.Code == "STORE_UNAVAILABLE":
		return finding{}, invalid(v)
	}
	// As much is shown as the server shows of the key, else the prefix.
	f, shown := finding{verdict: verdictOf(a.Value)}, prefix
	if k := a.Value.Key; k != nil {
		f.KeyID, f.UserID = &k.ID, &k.UserID
		if k.Start != nil {
			shown = max(shown, len(*k.Start))
		}
	}
	f.Start = raw[:min(shown, len(raw))]
	if len(s.known) >= maxKnown {
		clear(s.known)
	}
	s.known[hash] = f
	return f, nil
}
