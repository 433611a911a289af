package cli

import (
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/internal/near"
	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// Parsers check only the form of a value: the server knows what is allowed. Their
// errors do not repeat the value. The parser of a repeatable flag returns all
// values so far.

func parseText(s string) (string, error) { return s, nil }

func parseBool(s string) (bool, error) {
	b, err := strconv.ParseBool(s)
	if err != nil {
		return false, errors.New("must be true or false")
	}
	return b, nil
}

// parseNot is parseBool for a flag that turns something off.
func parseNot(s string) (bool, error) {
	b, err := parseBool(s)
	return !b, err
}

func parseNumber(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, errors.New("must be a whole number")
	}
	return n, nil
}

func parseCredits(s string) (int64, error) {
	n, err := parseNumber(s)
	if err != nil {
		return 0, errors.New(`must be a whole number, or "unlimited"`)
	}
	return n, nil
}

func oneOf(words ...string) func(string) (string, error) {
	return func(s string) (string, error) {
		if !slices.Contains(words, s) {
			return "", errors.New(near.OneOf(s, words...))
		}
		return s, nil
	}
}

// seconds parses a duration of at least so many seconds.
func (h *Host) seconds(atLeast int64) func(string) (int64, error) {
	return func(s string) (int64, error) {
		d, err := h.ParseDuration(s)
		if n := int64(d / time.Second); err == nil && d%time.Second == 0 && n >= atLeast {
			return n, nil
		}
		return 0, errors.New("must be a duration in whole seconds, such as 90d, 12h or 1h30m")
	}
}

// rate is an amount for each period.
type rate struct{ amount, millis int64 }

// parseRate parses "100/1d".
func (h *Host) parseRate(s string) (rate, error) {
	amount, period, _ := strings.Cut(s, "/")
	n, err := parseNumber(amount)
	d, err2 := h.ParseDuration(period)
	if err != nil || err2 != nil || d < time.Millisecond || d%time.Millisecond != 0 {
		return rate{}, errors.New("must be <number>/<duration>, such as 100/1m or 1000/1d")
	}
	return rate{n, d.Milliseconds()}, nil
}

func parseObject(s string) (json.RawMessage, error) {
	if !json.Valid([]byte(s)) || !strings.HasPrefix(strings.TrimSpace(s), "{") {
		return nil, errors.New("must be a JSON object")
	}
	return json.RawMessage(s), nil
}

// texts returns a parser of a repeatable flag.
func texts() func(string) ([]string, error) {
	var all []string
	return func(s string) ([]string, error) {
		all = append(all, s)
		return all, nil
	}
}

// permissions returns a parser of a repeatable "resource:action".
func permissions() func(string) (key.Permissions, error) {
	var all []string
	return func(s string) (key.Permissions, error) {
		all = append(all, s)
		return key.ParsePermissions(all)
	}
}

// pairs returns a parser of a repeatable "name=value".
func pairs(emptyValues bool, form string) func(string) (map[string]string, error) {
	all := map[string]string{}
	return func(s string) (map[string]string, error) {
		name, value, ok := strings.Cut(s, "=")
		if !ok || name == "" || value == "" && !emptyValues {
			return nil, errors.New("must be " + form)
		}
		all[name] = value
		return all, nil
	}
}

// metadata returns a parser of a repeatable "field=text".
func metadata() func(string) (json.RawMessage, error) {
	parse := pairs(true, "field=text")
	return func(s string) (json.RawMessage, error) {
		all, err := parse(s)
		if err != nil {
			return nil, err
		}
		return api.Marshal(all)
	}
}

// parseActor parses the name that an operator gives himself.
func parseActor(s string) (string, error) { return s, keyring.CheckActorName(s) }
