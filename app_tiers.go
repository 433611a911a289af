package apikey

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // so that time_zone means the same on a host without zone files
	"unicode"
	"unicode/utf8"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-apikey/caddy-apikey/internal/near"
	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// Plans are the tiers of owners.
type Plans struct {
	// Tiers are named plans with limits that all keys of an owner share.
	// Default: none.
	Tiers []Tier `json:"tiers,omitempty"`

	// DefaultTier is the name of the tier of owners without a tier, and of owners
	// whose tier is not configured. Default: none.
	DefaultTier string `json:"default_tier,omitempty"`

	// TimeZone is the time zone of calendar days and months: a name of the IANA
	// time zone database, such as "Asia/Shanghai". Default: "UTC".
	TimeZone string `json:"time_zone,omitempty"`
}

// Tier is a named plan.
type Tier struct {
	// Name is the name of the tier: 1 to 64 printable characters without spaces.
	// Required.
	Name string `json:"name"`

	// Limits are shared by all keys of an owner. All of them apply. Default: none.
	Limits []TierLimit `json:"limits,omitempty"`

	// Permissions are the permissions of new keys that are created without any, as
	// "resource:action". An action alone, such as "read", means "api:read".
	// Default: those of the app.
	Permissions []string `json:"permissions,omitempty"`
}

// TierLimit allows at most Max requests per period.
type TierLimit struct {
	// Max is the number of requests in the period, from 1 to 2^53-1. Required.
	Max int64 `json:"max"`
	// Per is "day" or "month", by the calendar in the time zone, or a duration such
	// as "1m". The windows of a duration begin with the owner's first request.
	Per Period `json:"per"`
}

// Period is a duration, "day" or "month".
type Period struct {
	unit keyring.Unit
	text string // as written in the configuration
}

var (
	errPeriod = errors.New("must be a duration such as 1m or 1h, or day, or month")

	// plain matches text that can be written in a rate header.
	plain = regexp.MustCompile(`^[0-9a-z.]{1,32}$`)
)

func parsePeriod(s string) (Period, error) {
	switch s {
	case keyring.Day.String():
		return Period{keyring.Day, s}, nil
	case keyring.Month.String():
		return Period{keyring.Month, s}, nil
	}
	d, err := caddy.ParseDuration(s)
	if err != nil {
		return Period{}, errPeriod
	}
	if d < time.Millisecond || d%time.Millisecond != 0 {
		return Period{}, errors.New("must be a whole number of milliseconds, at least 1")
	}
	p := Period{keyring.Unit(d.Milliseconds()), s}
	if !plain.MatchString(s) {
		p.text = p.unit.String()
	}
	return p, nil
}

// UnmarshalJSON accepts a string, or an integer in nanoseconds.
func (p *Period) UnmarshalJSON(b []byte) (err error) {
	var s string
	if json.Unmarshal(b, &s) != nil {
		n, nerr := strconv.ParseInt(string(b), 10, 64)
		if nerr != nil {
			return fmt.Errorf("per: %w", errPeriod)
		}
		s = time.Duration(n).String()
	}
	if *p, err = parsePeriod(s); err != nil {
		return fmt.Errorf("per: %w", err)
	}
	return nil
}

// MarshalJSON is the inverse of UnmarshalJSON.
func (p Period) MarshalJSON() ([]byte, error) { return json.Marshal(p.text) }

// checkPlans validates each option on its own: the default tier may be named
// before the tier is specified.
func (p *Plans) checkPlans() error {
	for i := range p.Tiers {
		if err := checkTier(&p.Tiers[i], p.Tiers[:i]); err != nil {
			return err
		}
	}
	_, err := p.zone()
	return err
}

// checkTier checks a tier that comes after others.
func checkTier(t *Tier, others []Tier) error {
	if err := t.check(); err != nil {
		return err
	}
	if hasTier(others, t.Name) {
		return fmt.Errorf("tier %s already specified", t.Name)
	}
	return nil
}

func hasTier(tiers []Tier, name string) bool {
	return slices.ContainsFunc(tiers, func(t Tier) bool { return t.Name == name })
}

func tierNames(tiers []Tier) (names []string) {
	for _, t := range tiers {
		names = append(names, t.Name)
	}
	return names
}

func (p *Plans) checkDefaultTier() error {
	if p.DefaultTier != "" && !hasTier(p.Tiers, p.DefaultTier) {
		text := fmt.Sprintf("default_tier: there is no tier %q", p.DefaultTier)
		if meant := near.Word(p.DefaultTier, tierNames(p.Tiers)...); meant != "" {
			text += fmt.Sprintf(". Did you mean %q?", meant)
		}
		return errors.New(text)
	}
	return nil
}

// zone returns the time zone. The name "Local" is refused, because it means
// something else on every host.
func (p *Plans) zone() (*time.Location, error) {
	if p.TimeZone == "" {
		return time.UTC, nil
	}
	zone, err := time.LoadLocation(p.TimeZone)
	if err != nil || p.TimeZone == "Local" {
		return nil, fmt.Errorf("time_zone: %q is not a name in the IANA time zone database, such as Asia/Shanghai", p.TimeZone)
	}
	return zone, nil
}

func (t *Tier) check() error {
	bad := func(r rune) bool { return !unicode.IsPrint(r) || r == ' ' }
	if n := utf8.RuneCountInString(t.Name); n < 1 || n > 64 || !utf8.ValidString(t.Name) || strings.ContainsFunc(t.Name, bad) {
		return errors.New("tier: the name must be 1 to 64 printable characters without spaces")
	}
	seen := map[keyring.Unit]bool{}
	for _, l := range t.Limits {
		switch {
		case l.Max < 1 || l.Max > key.MaxCount:
			return fmt.Errorf("tier %s: limit: the maximum must be from 1 to %d", t.Name, key.MaxCount)
		case l.Per.unit == 0:
			return fmt.Errorf("tier %s: limit: per %w", t.Name, errPeriod)
		case seen[l.Per.unit]:
			return fmt.Errorf("tier %s: limit: %s already specified", t.Name, l.Per.text)
		}
		seen[l.Per.unit] = true
	}
	_, err := t.permissions()
	return err
}

// permissions returns nil if the tier specifies none.
func (t *Tier) permissions() (key.Permissions, error) {
	if t.Permissions == nil {
		return nil, nil
	}
	p, err := key.ParsePermissions(t.Permissions)
	if err != nil {
		return nil, fmt.Errorf("tier %s: permissions: %w", t.Name, err)
	}
	return p, nil
}

// provisionPlans compiles the tiers and the time zone into s.
func (p *Plans) provisionPlans(s *keyring.Settings) (err error) {
	if s.Zone, err = p.zone(); err != nil {
		return err
	}
	s.DefaultTier = p.DefaultTier
	for _, t := range p.Tiers {
		tier := keyring.Tier{Name: t.Name}
		for _, l := range t.Limits {
			tier.Limits = append(tier.Limits, keyring.TierLimit{Max: l.Max, Unit: l.Per.unit, Text: l.Per.text})
		}
		if tier.Permissions, err = t.permissions(); err != nil {
			return err
		}
		s.Tiers = append(s.Tiers, tier)
	}
	return nil
}
