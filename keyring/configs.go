package keyring

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/caddy-apikey/caddy-apikey/key"
)

// Configs returns the IDs of the configurations, "default" first.
func (s *Service) Configs() []string { return s.set.configIDs() }

func (s *Settings) configIDs() []string {
	ids := []string{s.Rules.ConfigID}
	for i := range s.Configs {
		ids = append(ids, s.Configs[i].ConfigID)
	}
	return ids
}

// Format is how the raw keys look that a configuration makes.
type Format struct {
	ConfigID string
	Prefix   string // of keys that do not say; empty: none
	Length   int    // after the prefix; 0: only the generator knows
	Checksum bool
}

// Formats returns the format of each configuration, in the order of Configs.
func (s *Service) Formats() []Format {
	var all []Format
	for _, id := range s.Configs() {
		r := s.set.rules(id)
		f := Format{ConfigID: id, Prefix: r.Prefix, Checksum: r.Checksum}
		if _, ok := r.Generator.(key.Random); ok {
			f.Length = r.Length
		}
		all = append(all, f)
	}
	return all
}

// HasPlainKeys reports whether a raw key without a checksum is stored.
func (s *Service) HasPlainKeys(ctx context.Context) (bool, error) {
	st, err := s.engine.open(ctx)
	if err != nil {
		return false, err
	}
	return st.HasPlainKeys(ctx)
}

// HasConfig reports whether there is a configuration of that ID.
func (s *Service) HasConfig(id string) bool { return s.set.rules(id) != nil }

// rules returns the rules of a configuration, or nil where there is none of that
// ID. There are few, so a walk is as good as a map.
func (s *Settings) rules(id string) *Rules {
	if id == s.Rules.ConfigID {
		return &s.Rules
	}
	for i := range s.Configs {
		if s.Configs[i].ConfigID == id {
			return &s.Configs[i]
		}
	}
	return nil
}

// rulesOf returns the rules of the configuration that somebody asks for. Nil is
// "default".
func (s *Service) rulesOf(configID *string) (*Rules, error) {
	if configID == nil {
		return &s.set.Rules, nil
	}
	if r := s.set.rules(*configID); r != nil {
		return r, nil
	}
	var ids []string
	for _, id := range s.Configs() {
		ids = append(ids, strconv.Quote(id))
	}
	return nil, &FieldError{"configId", NoSuchConfig, "must be a configuration of this server: " + strings.Join(ids, ", ")}
}

// rulesFor returns the rules of the configuration of a stored key. Where that is
// not configured any more, those of "default" hold, and the log says so; but its
// keys stand for nobody, as the configuration that is gone may have had it.
func (s *Service) rulesFor(k *key.Key) *Rules {
	if r := s.set.rules(k.ConfigID); r != nil {
		return r
	}
	if e := (UnknownConfig{k.ConfigID}); s.engine.warned.first(e) {
		s.engine.report(&e)
	}
	return &s.unknownConfig
}

// UnknownConfig is reported for a key whose configuration is not configured, once
// for each in a process.
type UnknownConfig struct{ ConfigID string }

func (e *UnknownConfig) Error() string {
	return fmt.Sprintf("the configuration %q of a key does not exist: the rules of %q apply", e.ConfigID, key.DefaultConfig)
}

// sole returns the rules that judge every key of some configurations, or nil
// where that depends on the key.
func (s *Service) sole(configIDs []string) *Rules {
	switch {
	case len(configIDs) == 1:
		return s.set.rules(configIDs[0])
	case len(s.set.Configs) == 0:
		return &s.set.Rules
	}
	return nil
}

// wants reports whether keys of a configuration are asked for.
func (q *Request) wants(configID string) bool {
	return q.ConfigIDs == nil || slices.Contains(q.ConfigIDs, configID)
}
