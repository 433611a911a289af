package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
	"github.com/caddy-apikey/caddy-apikey/key"
)

// ruleNames are the scanners for which there are rules.
var ruleNames = []string{"gitleaks", "trufflehog", "github"}

// What stands before and behind a raw key: what is longer or shorter than the keys of the
// configuration is none. A text between two keys that one match takes is missing in the next,
// so a whole regular expression ends with a word boundary instead.
const (
	beforeKey = `\A|[^0-9A-Za-z]`
	behindKey = `\z|[^0-9A-Za-z]`
)

// pattern is a kind of raw key.
type pattern struct {
	name, prefix, regex string
	bounded             bool // its length is known
}

// whole returns the regular expression of a raw key, its first group, in its surroundings.
func (p pattern) whole() string {
	if p.bounded {
		return fmt.Sprintf(`(?:%s)(%s)\b`, beforeKey, p.regex)
	}
	return fmt.Sprintf(`(?:%s)(%s)`, beforeKey, p.regex)
}

// patterns returns those of the configurations and of further prefixes, each regular
// expression once, and the configurations whose keys have no prefix.
func patterns(configs admin.ConfigList, prefixes []string) (all []pattern, bare []string) {
	add := func(name, prefix string, length *int64) {
		// Other generators may use the characters of a prefix as well.
		characters, repeat := "[0-9A-Za-z_-]", fmt.Sprintf("{%d,%d}", minScanned, key.MaxLength)
		if length != nil {
			characters, repeat = "[0-9A-Za-z]", fmt.Sprintf("{%d}", *length)
		}
		p := pattern{name, prefix, prefix + characters + repeat, length != nil}
		if !slices.ContainsFunc(all, func(o pattern) bool { return o.regex == p.regex }) {
			all = append(all, p)
		}
	}
	for _, c := range configs.Configs {
		if c.Prefix == "" {
			bare = append(bare, c.ID)
			continue
		}
		add(c.ID, c.Prefix, c.Length)
	}
	for _, p := range prefixes {
		for _, c := range configs.Configs {
			add(c.ID+"-"+p, p, c.Length)
		}
	}
	return all, bare
}

// printRules prints rules for another scanner.
func (c *call) printRules(scanner string, configs admin.ConfigList, prefixes []string) error {
	all, bare := patterns(configs, prefixes)
	for _, id := range bare {
		c.warn("no rule for the configuration %s: its keys have no prefix, so a rule would find everything that is as long.", printable(id))
	}
	if len(all) == 0 {
		return errors.New("no configuration has a prefix: name one with --prefix")
	}
	return write(c.OutOrStdout(), rulesOf(scanner, all))
}

// rulesOf writes rules. Names and prefixes consist of letters, digits, "." (names only), "_"
// and "-", which need no escape in any of these formats.
func rulesOf(scanner string, all []pattern) string {
	var b strings.Builder
	switch scanner {
	case "gitleaks":
		b.WriteString("# Rules for gitleaks (https://github.com/gitleaks/gitleaks), beside its own.\n\n[extend]\nuseDefault = true\n")
		for _, p := range all {
			fmt.Fprintf(&b, "\n[[rules]]\nid = \"caddy-apikey-%s\"\ndescription = \"API key of caddy-apikey, configuration %[1]s\"\n", p.name)
			fmt.Fprintf(&b, "regex = '''%s'''\nsecretGroup = 1\nkeywords = [\"%s\"]\n", p.whole(), strings.ToLower(p.prefix))
		}
	case "trufflehog":
		b.WriteString("# Custom detectors for trufflehog (https://github.com/trufflesecurity/trufflehog).\ndetectors:\n")
		for _, p := range all {
			fmt.Fprintf(&b, "  - name: caddy-apikey-%s\n    keywords:\n      - \"%s\"\n    regex:\n      key: '%s'\n", p.name, p.prefix, p.whole())
		}
	case "github":
		b.WriteString("# Custom patterns for the secret scanning of GitHub, one for each block.\n")
		for _, p := range all {
			fmt.Fprintf(&b, "\nPattern name:  caddy-apikey-%s\nSecret format: %s\nBefore secret: %s\nAfter secret:  %s\n", p.name, p.regex, beforeKey, behindKey)
		}
	}
	return b.String()
}
