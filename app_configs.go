package apikey

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-apikey/caddy-apikey/internal/near"
	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// Config is a named configuration with its own rules for creating and verifying
// keys. Options that it does not specify are inherited from the app.
type Config struct {
	// ID is the name of the configuration: 1 to 64 characters of a-z, A-Z, 0-9, ".",
	// _ and -, and not "default". Required.
	ID string `json:"id"`

	// Session identifies the owner of a key as the user of a request. If it is
	// false, the keys of the configuration set no http.auth.user.* placeholders and
	// get-session refuses them. Default: true.
	Session *bool `json:"session,omitempty"`
	// Public marks keys that are made to be seen, such as those in a web page. One that
	// is reported as leaked stays, and the report is in the audit log. Default: false.
	Public bool `json:"public,omitempty"`

	KeyRules
}

var configID = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,64}$`)

// checkConfigs validates each configuration on its own: see checkInherited.
func (a *App) checkConfigs() error {
	for i := range a.Configs {
		c := &a.Configs[i]
		if err := checkConfigID(c.ID, a.Configs[:i]); err != nil {
			return err
		}
		if err := c.check(); err != nil {
			return fmt.Errorf("config %s: %w", c.ID, err)
		}
	}
	return nil
}

// checkConfigID checks the ID of a configuration that comes after others.
func checkConfigID(id string, others []Config) error {
	switch {
	case !configID.MatchString(id):
		return errors.New("config: the id must be 1 to 64 characters of a-z A-Z 0-9 . _ -")
	case id == key.DefaultConfig:
		return fmt.Errorf("config: %q is reserved for the options outside of config", id)
	case slices.ContainsFunc(others, func(c Config) bool { return c.ID == id }):
		return fmt.Errorf("config %s already specified", id)
	}
	return nil
}

// checkInherited validates the options of a configuration together with those
// that it inherits.
func (c *Config) checkInherited(from *KeyRules) error {
	r := c.inherit(from)
	if err := r.check(); err != nil {
		return fmt.Errorf("config %s, with inherited options: %w", c.ID, err)
	}
	return nil
}

// inherit returns the rules with the options that are not specified copied from
// others.
func (r KeyRules) inherit(from *KeyRules) KeyRules {
	r.Prefix = cmp.Or(r.Prefix, from.Prefix)
	r.Length = cmp.Or(r.Length, from.Length)
	r.Checksum = cmp.Or(r.Checksum, from.Checksum)
	r.Start = cmp.Or(r.Start, from.Start)
	r.NameLength = cmp.Or(r.NameLength, from.NameLength)
	r.PrefixLength = cmp.Or(r.PrefixLength, from.PrefixLength)
	r.RequireName = cmp.Or(r.RequireName, from.RequireName)
	r.Metadata = cmp.Or(r.Metadata, from.Metadata)
	r.Expiration = r.Expiration.inherit(from.Expiration)
	r.RateLimit = cmp.Or(r.RateLimit, from.RateLimit)
	r.RateLimiting = cmp.Or(r.RateLimiting, from.RateLimiting)
	r.MaxKeys = cmp.Or(r.MaxKeys, from.MaxKeys)
	if r.GeneratorRaw == nil {
		r.GeneratorRaw = from.GeneratorRaw
	}
	if r.ValidatorsRaw == nil {
		r.ValidatorsRaw = from.ValidatorsRaw
	}
	if r.Permissions == nil {
		r.Permissions = from.Permissions
	}
	return r
}

func (e *Expiration) inherit(from *Expiration) *Expiration {
	if e == nil || from == nil {
		return cmp.Or(e, from)
	}
	return &Expiration{
		Default: cmp.Or(e.Default, from.Default),
		Min:     cmp.Or(e.Min, from.Min),
		Max:     cmp.Or(e.Max, from.Max),
		Fixed:   cmp.Or(e.Fixed, from.Fixed),
		Keep:    cmp.Or(e.Keep, from.Keep),
	}
}

// provisionRules compiles the rules of all configurations.
func (a *App) provisionRules(ctx caddy.Context, s *keyring.Settings) (err error) {
	// Loading a guest module empties the field that holds its JSON, so all that is
	// inherited is copied before.
	inherited := make([]KeyRules, len(a.Configs))
	for i := range a.Configs {
		inherited[i] = a.Configs[i].inherit(&a.KeyRules)
	}
	if s.Rules, err = a.KeyRules.provision(ctx); err != nil {
		return err
	}
	override(&s.Rules.SecretPrefix, a.SecretPrefix)
	s.Configs = make([]keyring.Rules, len(a.Configs))
	for i := range a.Configs {
		id := a.Configs[i].ID
		if s.Configs[i], err = inherited[i].provision(ctx); err != nil {
			return fmt.Errorf("config %s: %w", id, err)
		}
		s.Configs[i].ConfigID = id
		s.Configs[i].SecretPrefix = s.Rules.SecretPrefix
		s.Configs[i].Public = a.Configs[i].Public
		override(&s.Configs[i].Session, a.Configs[i].Session)
	}
	return nil
}

// checkUsable generates a key by the rules of each configuration. That fails if
// the validators refuse what the generator makes.
func checkUsable(s *keyring.Settings) error {
	const format = "this configuration cannot create keys: %w"
	if err := s.Rules.Check(); err != nil {
		return fmt.Errorf(format, err)
	}
	for i := range s.Configs {
		if err := s.Configs[i].Check(); err != nil {
			return fmt.Errorf("config %s: "+format, s.Configs[i].ConfigID, err)
		}
	}
	return nil
}

// checkConfigList checks a list of configurations whose keys are accepted.
func checkConfigList(ids []string) error {
	if ids != nil && len(ids) == 0 {
		return errors.New("config: the list is empty, so no key would be accepted")
	}
	for i, id := range ids {
		if slices.Contains(ids[:i], id) {
			return fmt.Errorf("config: %q already specified", id)
		}
	}
	return nil
}

// checkKnown returns an error for the first configuration that does not exist.
func checkKnown(keys *keyring.Service, ids []string) error {
	for _, id := range ids {
		if !keys.HasConfig(id) {
			return unknownConfig(id, keys.Configs())
		}
	}
	return nil
}

// unknownConfig returns an error about a configuration that is not one of those
// that are known.
func unknownConfig(id string, known []string) error {
	quoted := make([]string, len(known))
	for i, name := range known {
		quoted[i] = strconv.Quote(name)
	}
	text := fmt.Sprintf("config: there is no configuration %q: it must be one of %s", id, strings.Join(quoted, ", "))
	if meant := near.Word(id, known...); meant != "" {
		text += fmt.Sprintf(". Did you mean %q?", meant)
	}
	return errors.New(text)
}
