package keyring

import (
	"errors"
	"fmt"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/ratelimit"
)

// Settings are what one configuration of the server says about keys. They are
// not changed once in use.
type Settings struct {
	Rules Rules // of the configuration "default"
	// Configs are the rules of further configurations, each ConfigID once.
	Configs []Rules
	// Lease is how many credits of a key this process may have leased and not
	// spent. 0: none, each debit is durable before the request goes on.
	Lease int64
	// CacheSize is how many bytes the keys in memory may take. 0: DefaultCacheSize.
	CacheSize int64
	// AuditKeep is how long entries of the audit log are kept, in milliseconds, or
	// KeepForever. 0: DefaultAuditKeep. Of several configurations the longest counts.
	AuditKeep int64
	// GuessLimit is a fixed window for the invalid keys of an address, or of a /64 of IPv6.
	// Max 0: there is no limit.
	GuessLimit ratelimit.Policy
	// Observers are told of all decisions and changes.
	Observers []Observer
	// Listeners are told of all events that Events or a webhook wants.
	Listeners []Listener
	Events    Subscription
	// Webhooks are sent events, each URL once.
	Webhooks []Webhook
	// Zone is where "today" and "month" begin and end. Default: UTC.
	Zone *time.Location
	// Tiers are the plans that owners may have, each name once. DefaultTier is that
	// of owners without one; empty: none.
	Tiers       []Tier
	DefaultTier string
	// Organizations are the IDs of the configurations whose keys may belong to
	// organizations.
	Organizations []string
}

// Rules say how keys of one configuration are made and checked.
type Rules struct {
	ConfigID string

	Prefix       string // of new keys that do not say
	SecretPrefix string
	Length       int
	Checksum     bool
	Start        int // leading characters that are shown; 0: none
	Generator    key.Generator
	Validators   []key.Validator

	NameLength   Range
	PrefixLength Range
	RequireName  bool
	Metadata     bool // keys may have metadata
	Expiration   Expiration
	RateLimit    *ratelimit.Policy // of new keys that do not say
	RateLimiting bool              // rate limits on keys are enforced
	Permissions  key.Permissions   // of new keys that do not say
	Session      bool              // keys stand for their owners
	Public       bool              // keys are made to be seen: one that is reported as leaked stays
	// MaxKeys is how many enabled, unexpired keys an owner may have in the configuration
	// before nobody but an operator makes or enables one. Of all states there may be ten
	// times as many. 0: any number.
	MaxKeys int64
}

// Range is an inclusive range of lengths in characters.
type Range struct{ Min, Max int }

func (r Range) has(n int) bool { return r.Min <= n && n <= r.Max }

// Expiration says how long keys live. Durations are milliseconds, 0 is none.
type Expiration struct {
	Default, Min int64
	// Max binds everybody who chooses; who is no operator leaves no key without an end.
	Max int64
	// Fixed: callers may not choose.
	Fixed bool
	// Keep is how long an expired key stays before it is deleted, or KeepForever.
	Keep int64
}

// What is usual for keys that a configuration says nothing of.
const (
	DefaultPrefix  = "ak_"
	DefaultMaxKeys = 1000
	DefaultStart   = 6
)

// DefaultRules returns the rules of a configuration that says nothing.
func DefaultRules() Rules {
	const day = 24 * 60 * 60 * 1000
	return Rules{
		ConfigID:     key.DefaultConfig,
		Prefix:       DefaultPrefix,
		SecretPrefix: "clsk_",
		Length:       key.DefaultLength,
		Checksum:     true,
		Start:        DefaultStart,
		Generator:    key.Random{},
		NameLength:   Range{1, 32},
		PrefixLength: Range{1, key.MaxPrefixLen},
		Metadata:     true,
		Expiration:   Expiration{Keep: 30 * day},
		RateLimiting: true,
		Session:      true,
		MaxKeys:      DefaultMaxKeys,
	}
}

// accepts reports whether all validators let a raw key pass.
func (r *Rules) accepts(raw string) (bool, error) {
	for _, v := range r.Validators {
		if ok, err := askValidator(v, raw); !ok {
			return false, err
		}
	}
	return true, nil
}

// errRefused is what generate returns for a raw key that the validators refuse.
var errRefused = errors.New("the validators reject keys that the generator creates with this prefix")

// generate makes a raw key that these rules accept.
func (r *Rules) generate(prefix string) (string, error) {
	raw, err := r.askGenerator(prefix)
	if err != nil {
		return "", fmt.Errorf("making a key: %w", err)
	}
	if err := key.CheckShape(raw, false); err != nil {
		return "", fmt.Errorf("the generator returned an invalid key: %w", err)
	}
	ok, err := r.accepts(raw)
	if err != nil {
		return "", fmt.Errorf("checking a new key: %w", err)
	}
	if !ok {
		return "", errRefused
	}
	return raw, nil
}

// generateFor is generate for a prefix that a caller chose.
func (r *Rules) generateFor(prefix string) (string, error) {
	raw, err := r.generate(prefix)
	if errors.Is(err, errRefused) {
		return "", invalid("prefix", "%v", err)
	}
	return raw, err
}

// Check reports rules that could never make a key that works.
func (r *Rules) Check() error {
	_, err := r.generate(r.Prefix)
	return err
}

// FieldError is bad input. It names the field and what is allowed, and never
// repeats a value.
type FieldError struct {
	Field   string
	Code    string
	Message string
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Message }

// Codes of a FieldError. All but InvalidField are those of the reference.
const (
	InvalidField            = "INVALID_FIELD"
	InvalidNameLength       = "INVALID_NAME_LENGTH"
	NameRequired            = "NAME_REQUIRED"
	InvalidPrefixLength     = "INVALID_PREFIX_LENGTH"
	ExpiresInTooSmall       = "EXPIRES_IN_IS_TOO_SMALL"
	ExpiresInTooLarge       = "EXPIRES_IN_IS_TOO_LARGE"
	KeyDisabledExpiration   = "KEY_DISABLED_EXPIRATION"
	MetadataDisabled        = "METADATA_DISABLED"
	InvalidMetadataType     = "INVALID_METADATA_TYPE"
	RefillAmountAndInterval = "REFILL_AMOUNT_AND_INTERVAL_REQUIRED"
	RefillIntervalAndAmount = "REFILL_INTERVAL_AND_AMOUNT_REQUIRED"
	NoValuesToUpdate        = "NO_VALUES_TO_UPDATE"
	NoSuchConfig            = "NO_DEFAULT_API_KEY_CONFIGURATION_FOUND"
)

func invalid(field, format string, args ...any) *FieldError {
	return &FieldError{field, InvalidField, fmt.Sprintf(format, args...)}
}
