package keyring

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/ratelimit"
)

const (
	maxUserID     = 255
	maxMetadata   = 16 << 10
	maxAllowedIPs = 100
)

// CheckUserID checks the name of an owner, a user or an organization.
func CheckUserID(id string) error {
	if err := checkID("userId", id); err != nil {
		return err
	}
	if organization, ok := key.OrganizationOf(id); ok {
		return checkID("userId", organization)
	}
	return nil
}

// checkID checks what stands in paths and headers.
func checkID(field, id string) error {
	n := utf8.RuneCountInString(id)
	if n < 1 || n > maxUserID || !printable(id) || strings.TrimFunc(id, isSpace) != id || id == "." || id == ".." {
		return invalid(field, "must be 1 to %d UTF-8 characters without control characters, without white space at either end, and not \".\" or \"..\"", maxUserID)
	}
	return nil
}

// isSpace reports whether somebody may trim a character as white space, or show none
// for it: then two owners would look like one.
func isSpace(c rune) bool {
	switch c {
	case '\u180e', '\u200b', '\u2060', '\ufeff':
		return true
	}
	return unicode.IsSpace(c)
}

// checkOwner checks the owner of a key. Only keys of configurations that belong to
// organizations can have one of those as their owner: nobody else can be taken for one.
func (s *Service) checkOwner(userID, configID string) error {
	if err := CheckUserID(userID); err != nil {
		return err
	}
	if _, ok := key.OrganizationOf(userID); ok && !slices.Contains(s.set.Organizations, configID) {
		return errNoOrganization
	}
	return nil
}

var errNoOrganization = invalid("userId", `must not begin with "org:", except for keys of the configurations in an organization block`)

// printable reports whether s is UTF-8 without control characters, so that it
// can stand in a header, a log line and a terminal.
func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// atMost returns the check of a text that may have n characters.
func atMost(n int, field string) func(string) (string, error) {
	return func(s string) (string, error) {
		if utf8.RuneCountInString(s) > n || !printable(s) {
			return "", invalid(field, "must be at most %d UTF-8 characters without control characters", n)
		}
		return s, nil
	}
}

func (r *Rules) checkName(name *string) error {
	if name == nil {
		if r.RequireName {
			return &FieldError{"name", NameRequired, "is required"}
		}
		return nil
	}
	if !r.NameLength.has(utf8.RuneCountInString(*name)) {
		return &FieldError{"name", InvalidNameLength, sprintf("must be %d to %d characters", r.NameLength.Min, r.NameLength.Max)}
	}
	if !printable(*name) {
		return invalid("name", "must be UTF-8 without control characters")
	}
	return nil
}

func (r *Rules) checkPrefix(prefix string) error {
	if !r.PrefixLength.has(utf8.RuneCountInString(prefix)) {
		return &FieldError{"prefix", InvalidPrefixLength, sprintf("must be %d to %d characters", r.PrefixLength.Min, r.PrefixLength.Max)}
	}
	if !key.ValidPrefix(prefix) {
		return invalid("prefix", "must be of a-z A-Z 0-9 _ -")
	}
	return nil
}

// checkMetadata returns the metadata in compact form. Without rules, as of an import, every
// object that is not too large passes.
func (r *Rules) checkMetadata(raw json.RawMessage) (json.RawMessage, error) {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	if r != nil && !r.Metadata {
		return nil, &FieldError{"metadata", MetadataDisabled, "is switched off in this configuration"}
	}
	return compactObject(raw)
}

func compactObject(raw json.RawMessage) (json.RawMessage, error) {
	if raw[0] != '{' {
		return nil, &FieldError{"metadata", InvalidMetadataType, "must be an object or null"}
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, raw); err != nil {
		return nil, &FieldError{"metadata", InvalidMetadataType, "must be an object or null"}
	}
	if compact.Len() > maxMetadata {
		return nil, invalid("metadata", "must be at most %d bytes of JSON", maxMetadata)
	}
	return compact.Bytes(), nil
}

// firstExpiry returns when a key that is made now ends; 0 is never. Only operators
// may leave a key without an end where there is a maximum.
func (r *Rules) firstExpiry(d *Draft, now int64) (int64, error) {
	e := r.Expiration
	if d.ExpiresIn.Value != nil {
		return r.expiry(*d.ExpiresIn.Value, now)
	}
	longest := d.ExpiresIn.Set && !e.Fixed && e.Max != 0
	if d.scope != nil && (longest || e.Default == 0) {
		return endAfter(e.Max, now), nil
	}
	return endAfter(e.Default, now), nil
}

// endAfter returns the end of a life that begins now; 0 is never.
func endAfter(life, now int64) int64 {
	if life == 0 {
		return 0
	}
	return min(now+life, key.MaxTime)
}

// expiry returns when a key ends that somebody gives so many seconds from now.
func (r *Rules) expiry(seconds, now int64) (int64, error) {
	e := r.Expiration
	if e.Fixed {
		return 0, &FieldError{"expiresIn", KeyDisabledExpiration, "cannot be chosen in this configuration"}
	}
	longest := (key.MaxTime - now) / 1000
	if e.Max > 0 {
		longest = min(longest, e.Max/1000)
	}
	switch shortest := max(1, e.Min/1000); {
	case seconds < 1:
		return 0, invalid("expiresIn", "must be an integer from 1 to %d", key.MaxCount)
	case seconds < shortest:
		return 0, &FieldError{"expiresIn", ExpiresInTooSmall, sprintf("must be at least %d seconds", shortest)}
	case seconds > longest:
		return 0, &FieldError{"expiresIn", ExpiresInTooLarge, sprintf("must be at most %d seconds", longest)}
	}
	return now + seconds*1000, nil
}

// checkCount checks an optional count.
func checkCount(field string, n *int64, least int64) error {
	if n != nil && (*n < least || *n > key.MaxCount) {
		return invalid(field, "must be an integer from %d to %d", least, key.MaxCount)
	}
	return nil
}

func checkRefill(amount, interval *int64) error {
	if err := checkCount("refillAmount", amount, 1); err != nil {
		return err
	}
	if err := checkCount("refillInterval", interval, 1); err != nil {
		return err
	}
	switch {
	case amount != nil && interval == nil:
		return &FieldError{"refillInterval", RefillAmountAndInterval, "is required with refillAmount"}
	case amount == nil && interval != nil:
		return &FieldError{"refillAmount", RefillIntervalAndAmount, "is required with refillInterval"}
	}
	return nil
}

func checkRateCounts(limit, window *int64) error {
	if err := checkCount("rateLimitMax", limit, 1); err != nil {
		return err
	}
	return checkCount("rateLimitTimeWindow", window, 1)
}

func checkRateLimit(limit, window *int64) error {
	if err := checkRateCounts(limit, window); err != nil {
		return err
	}
	switch {
	case limit != nil && window == nil:
		return invalid("rateLimitTimeWindow", "is required with rateLimitMax")
	case limit == nil && window != nil:
		return invalid("rateLimitMax", "is required with rateLimitTimeWindow")
	}
	return nil
}

// Algorithms returns the names of the rate-limit algorithms that a key can have.
func Algorithms() []string { return ratelimit.Algorithms() }

func parseAlgorithm(name string) (ratelimit.Algorithm, error) {
	a, err := ratelimit.ParseAlgorithm(name)
	if err != nil {
		return 0, invalid("rateLimitAlgorithm", "%v", err)
	}
	return a, nil
}

// ParseAllowedIPs reads addresses and networks in CIDR form.
func ParseAllowedIPs(list []string) ([]netip.Prefix, error) {
	if len(list) > maxAllowedIPs {
		return nil, invalid("allowedIps", "must be at most %d networks", maxAllowedIPs)
	}
	networks := make([]netip.Prefix, 0, len(list))
	for _, s := range list {
		network, err := netip.ParsePrefix(s)
		if err != nil {
			addr, aerr := netip.ParseAddr(s)
			if aerr != nil || addr.Zone() != "" {
				return nil, invalid("allowedIps", "must be addresses or networks such as 192.0.2.0/24 or 2001:db8::/32")
			}
			network = netip.PrefixFrom(addr, addr.BitLen())
		}
		if addr := network.Addr(); addr.Is4In6() {
			if network.Bits() < 96 {
				return nil, invalid("allowedIps", "must be at least /96 where an IPv4 address is written as IPv6")
			}
			network = netip.PrefixFrom(addr.Unmap(), network.Bits()-96)
		}
		networks = append(networks, network.Masked())
	}
	return networks, nil
}
