package keyring

import (
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/caddy-apikey/caddy-apikey/key"
)

// Outcome is what became of a request for entry.
type Outcome uint8

const (
	// Allowed lets the request in.
	Allowed Outcome = iota
	// Missing: there was no key. Only callers of this package return it.
	Missing
	// Ambiguous: there were several keys. Only callers of this package return it.
	Ambiguous
	// Invalid: not the shape of a key, unknown, or of another configuration.
	Invalid
	// Disabled: the key or its owner is switched off.
	Disabled
	// Expired: the key's time is over.
	Expired
	// InvalidSecret: the secret is missing or wrong.
	InvalidSecret
	// IPNotAllowed: the key may not be used from there.
	IPNotAllowed
	// Forbidden: the key lacks a permission.
	Forbidden
	// TooEarly: the request came in TLS early data, and must not be decided on it.
	TooEarly
	// RateLimited: a rate limit is full.
	RateLimited
	// UsageExceeded: too few credits are left.
	UsageExceeded
	// Unavailable: the store could not be asked.
	Unavailable
)

// NumOutcomes is how many outcomes there are.
const NumOutcomes = Outcome(len(outcomes))

// outcome is all that there is to say about an Outcome.
type outcome struct {
	code      string // in every API and in http.apikey.error.code
	title     string // a sentence for people
	status    int    // of HTTP
	statistic kind   // how the usage of a key counts it
	grpc      uint32 // status of a gRPC response (grpc/grpc, doc/statuscodes.md)
	challenge string // parameter of WWW-Authenticate with a 401 (RFC 6750, section 3)
	// check reports whether the record of a key is refused with the outcome, whatever the
	// request asks for. now is set only for keys that expire. Nil: another check returns the
	// outcome.
	check func(e *entry, rec *record, now int64) bool
}

// outcomes has a row for each outcome. A new outcome is a row at the end: with its check,
// if the record alone decides. It needs a constant only if other code names it.
var outcomes = [...]outcome{
	Allowed:       {"", "The request is allowed.", 200, allowed, 0, "", nil},
	Missing:       {"MISSING_API_KEY", "An API key is required.", 401, uncounted, 16, "", nil},
	Ambiguous:     {"AMBIGUOUS_API_KEY", "The request carries more than one API key.", 400, uncounted, 3, "", nil},
	Invalid:       {"INVALID_API_KEY", "The API key is not valid.", 401, denied, 16, invalidToken, nil},
	Disabled:      {"KEY_DISABLED", "The API key is disabled.", 401, denied, 16, invalidToken, isDisabled},
	Expired:       {"KEY_EXPIRED", "The API key has expired.", 401, denied, 16, invalidToken, isExpired},
	InvalidSecret: {"INVALID_SECRET", "The secret of the API key is missing or wrong.", 401, denied, 16, invalidToken, nil},
	IPNotAllowed:  {"IP_NOT_ALLOWED", "The API key may not be used from this address.", 403, denied, 7, "", nil},
	Forbidden:     {"INSUFFICIENT_PERMISSIONS", "The API key lacks a permission that is required here.", 403, denied, 7, "", nil},
	TooEarly:      {"TOO_EARLY", "The request must be repeated after the TLS handshake.", 425, uncounted, 14, "", nil},
	RateLimited:   {"RATE_LIMITED", "The rate limit of the API key is reached.", 429, limited, 8, "", nil},
	UsageExceeded: {"USAGE_EXCEEDED", "The API key has too few credits left.", 429, limited, 8, "", nil},
	Unavailable:   {"STORE_UNAVAILABLE", "API keys cannot be checked at the moment.", 503, uncounted, 14, "", nil},
}

const invalidToken = `error="invalid_token"` //nolint:gosec // the name of an error, not a token

// Code returns the code that every API of ours uses for the outcome.
func (o Outcome) Code() string { return outcomes[o].code }

// Label returns the outcome as logs and metrics name it: "allowed", or the code in
// lower case.
func (o Outcome) Label() string {
	if o == Allowed {
		return "allowed"
	}
	return strings.ToLower(o.Code())
}

// Title returns a short sentence for people.
func (o Outcome) Title() string { return outcomes[o].title }

// Status returns the HTTP status.
func (o Outcome) Status() int { return outcomes[o].status }

// GRPCStatus returns the status of a gRPC response.
func (o Outcome) GRPCStatus() uint32 { return outcomes[o].grpc }

// Challenge returns the parameter of WWW-Authenticate that belongs to a 401, if any.
func (o Outcome) Challenge() string { return outcomes[o].challenge }

// Request is what is asked of a key. It is the same for many requests, but for
// Secret, ClientIP and Cost.
type Request struct {
	// Require are permissions that the key must all have; of each list in
	// RequireAny it must have one.
	Require    []key.Permission
	RequireAny [][]key.Permission
	// Cost is how many credits and rate slots the request takes. 0 takes nothing.
	Cost int64
	// CheckSecret asks for the secret of keys that have one; RequireSecret
	// refuses keys that have none.
	CheckSecret, RequireSecret bool
	Secret                     string
	// CheckIP asks whether the key may be used from ClientIP. An address that is
	// not known (zero) is in no network.
	CheckIP  bool
	ClientIP netip.Addr
	// EarlyData: the request may have been replayed, and ClientIP may be forged
	// (RFC 8470). It is TooEarly where that matters.
	EarlyData bool
	// ConfigIDs are the configurations whose keys are asked for; a key of another
	// one is Invalid. Nil: all.
	ConfigIDs []string
	// DryRun decides without taking or counting anything.
	DryRun bool
	// RecordOnly checks the record alone: limits and credits are not looked at, and
	// nothing is taken or counted.
	RecordOnly bool
	// CountGuess counts an invalid key against ClientIP, see Settings.GuessLimit.
	CountGuess bool
	// Counted is what statistics know of the request, where it may meet several
	// gates. Nil: this is its only decision.
	Counted *Counted
}

// Limit is one limit that applied to a request, as rate headers show it.
type Limit struct {
	Name      string
	Scope     LimitScope
	Quota     int64
	Window    int64 // milliseconds; 0: none
	Remaining int64 // by this limit alone
	Reset     int64 // milliseconds until the whole quota is there again; 0: it is there, or see Final
	// Final: what is gone never comes back.
	Final bool
	// Full: the limit does not admit the request.
	Full bool
}

// LimitScope is whose requests a limit counts.
type LimitScope string

const (
	// ScopeKey limits count the requests of one key.
	ScopeKey LimitScope = "key"
	// ScopeOwner limits count the requests of all keys of an owner.
	ScopeOwner LimitScope = "owner"
	// ScopeAddress limits count the requests from an address.
	ScopeAddress LimitScope = "address"
)

// creditsLimit is the name of a key's credits among the limits.
const creditsLimit = "credits"

// Decision is the answer to a Request.
type Decision struct {
	Outcome Outcome
	// Limits are those that apply to the key, where the decision got as far.
	Limits []Limit
	// Limit is the name of the limit that refused the request, empty where none did.
	Limit string
	// Wait is how many milliseconds later the request would pass, where Waitable.
	Wait     int64
	Waitable bool
	// Cost is what was taken.
	Cost int64

	at int64 // when it was made, in Unix milliseconds; 0: a refusal for which the time did not matter
	// lookedUp: the store was asked for the key.
	lookedUp bool

	hash  key.Hash
	entry *entry
	rec   *record
	rules *Rules // of the key's configuration
	plan  *plan  // of the owner; nil: none
	// previous: it was a previous raw key, in its grace, that opened the key.
	previous bool

	// What the request has taken, at this gate and at the ones before: of rate limits,
	// of credits, and the use that it has noted.
	reserved reservation
	earlier  []reservation
	credits  int64
	use      use
}

// use is a use of a raw key: last holds its time, and held the time before.
type use struct {
	last       *atomic.Int64
	at, before int64
}

// extend takes over what earlier gates have taken of the same request.
func (d *Decision) extend(before *Decision) {
	switch {
	case d.reserved.n == 0:
		d.reserved, d.earlier = before.reserved, before.earlier
	case before.reserved.n > 0:
		d.earlier = append(slices.Clip(before.earlier), before.reserved)
	}
	d.Cost += before.Cost
	d.credits += before.credits
	if d.use.last == nil {
		d.use = before.use
	} else if d.use.before == before.use.at {
		d.use.before = before.use.before // that was this request
	}
}

func (d *Decision) refuse(o Outcome, wait int64, waitable bool) {
	d.Outcome, d.Wait, d.Waitable = o, wait, waitable
}

// Key returns the record that the raw key opened, or nil where it opened none.
func (d *Decision) Key() *key.Key {
	if d.rec == nil {
		return nil
	}
	return d.rec.key
}

// Refuser returns the limit that refused the request, or nil.
func (d *Decision) Refuser() *Limit {
	for i := range d.Limits {
		if d.Limit != "" && d.Limits[i].Name == d.Limit {
			return &d.Limits[i]
		}
	}
	return nil
}

// Detail returns a sentence for people that explains the outcome. It needs no
// escaping in JSON.
func (d *Decision) Detail() string {
	switch l := d.Refuser(); {
	case l == nil:
	case l.Scope == ScopeOwner:
		return "The limit per " + l.Name + " of the owner's tier is reached."
	case l.Scope == ScopeAddress:
		return "Too many invalid API keys came from this address."
	}
	return d.Outcome.Title()
}

// Opens reports whether raw is the raw key that the decision is about.
func (d *Decision) Opens(raw string) bool { return d.hash.Equal(key.HashOf(raw)) }

// Config returns the configuration whose rules hold for the key, empty where there is none.
func (d *Decision) Config() string {
	if d.rules == nil {
		return ""
	}
	return d.rules.ConfigID
}

// Previous reports whether the raw key is one that rotation has replaced, and that
// works until the end of its grace.
func (d *Decision) Previous() bool { return d.previous }

// Permissions returns the key's permissions, separated by blanks.
func (d *Decision) Permissions() string {
	if d.rec == nil {
		return ""
	}
	return d.rec.permissions
}

// Session reports whether the key stands for its owner.
func (d *Decision) Session() bool { return d.rules != nil && d.rules.Session }

// Tier returns the name of the owner's tier, empty where there is none.
func (d *Decision) Tier() string {
	if d.plan == nil {
		return ""
	}
	return d.plan.Name
}

// String keeps hashes and records out of logs.
func (d *Decision) String() string { return d.Outcome.Code() }
