package admin

import (
	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/key"
)

// Key is the key object.
type Key struct {
	ID          string          `json:"id" doc:"24 hexadecimal characters that sort by time; imported keys keep theirs"`
	ConfigID    string          `json:"configId" doc:"configuration that the key belongs to"`
	Name        *string         `json:"name"`
	Start       *string         `json:"start" doc:"first characters of the raw key"`
	Prefix      *string         `json:"prefix"`
	UserID      string          `json:"userId" doc:"owner"`
	Enabled     bool            `json:"enabled"`
	DisabledBy  *string         `json:"disabledBy" enum:"owner|operator|leak" doc:"who disabled the key; null where it is enabled"`
	State       string          `json:"state" enum:"active|disabled|expired|exhausted" doc:"what a gate would say: disabled (the key or its owner), expired, exhausted (no credits left, no refill due), or active"`
	Permissions key.Permissions `json:"permissions" doc:"actions by resource"`
	Attributes
	Tier                *string       `json:"tier" doc:"the owner's tier, or null where none is configured"`
	Remaining           *int64        `json:"remaining" doc:"credits left; null is unlimited"`
	RefillAmount        *int64        `json:"refillAmount" min:"1" doc:"credits after a refill"`
	RefillInterval      *int64        `json:"refillInterval" min:"1" doc:"milliseconds"`
	LastRefillAt        *api.Time     `json:"lastRefillAt"`
	RateLimitEnabled    bool          `json:"rateLimitEnabled"`
	RateLimitMax        *int64        `json:"rateLimitMax" min:"1" doc:"requests in a window"`
	RateLimitTimeWindow *int64        `json:"rateLimitTimeWindow" min:"1" doc:"milliseconds"`
	RateLimitAlgorithm  string        `json:"rateLimitAlgorithm" enum:"{algorithms}"`
	RequestCount        int64         `json:"requestCount" doc:"requests in the current window"`
	LastRequest         *api.Time     `json:"lastRequest"`
	AllowedIPs          []string      `json:"allowedIps" doc:"networks in CIDR form; null is everywhere"`
	ExpiresAt           *api.Time     `json:"expiresAt"`
	CreatedAt           api.Time      `json:"createdAt"`
	UpdatedAt           api.Time      `json:"updatedAt"`
	RotatedAt           *api.Time     `json:"rotatedAt" doc:"when the raw key was last replaced"`
	PreviousKeys        []PreviousKey `json:"previousKeys" doc:"replaced raw keys that still work, the oldest first"`
}

// PreviousKey is a raw key that rotation replaced, and that still works.
type PreviousKey struct {
	Start       *string   `json:"start" doc:"first characters"`
	Until       api.Time  `json:"until" doc:"when it stops working"`
	LastRequest *api.Time `json:"lastRequest" doc:"its last use"`
}

// IssuedKey is a key object with what is shown only once.
type IssuedKey struct {
	Key
	Raw    string `json:"key" doc:"the raw key, shown only here"`
	Secret string `json:"secret,omitempty" doc:"the secret, shown only here; absent where none was asked for"`
}

// KeyList is one page of keys.
type KeyList struct {
	Keys       []Key   `json:"keys"`
	Total      *int64  `json:"total" doc:"keys that pass the filter, on all pages; null where there are more than 10000 and no index counts them"`
	NextCursor *string `json:"nextCursor" doc:"cursor of the next page; null on the last"`
}

// Deleted is the answer to deleting expired keys.
type Deleted struct {
	Deleted int64 `json:"deleted"`
}

// Verification is the answer to a verification.
type Verification struct {
	Valid bool         `json:"valid"`
	Error *VerifyError `json:"error"`
	Key   *Key         `json:"key" doc:"the key, also where it is refused; null only for an unknown one"`
}

// VerifyError says why a key is refused.
type VerifyError struct {
	Code    string         `json:"code"`
	Message string         `json:"message"`
	Details *VerifyDetails `json:"details"`
}

// VerifyDetails says when to try again.
type VerifyDetails struct {
	RetryAfter int64 `json:"retryAfter" min:"1" doc:"seconds"`
}

// Owner is the owner object.
type Owner struct {
	UserID    string   `json:"userId"`
	Tier      *string  `json:"tier" doc:"null where none is configured"`
	Enabled   bool     `json:"enabled" doc:"false stops all keys of the owner"`
	KeyCount  int64    `json:"keyCount"`
	CreatedAt api.Time `json:"createdAt"`
	UpdatedAt api.Time `json:"updatedAt"`
}

// OwnerList is one page of owners, sorted by userId.
type OwnerList struct {
	Owners     []Owner `json:"owners"`
	NextCursor *string `json:"nextCursor" doc:"cursor of the next page; null on the last"`
}

// Usage is what a key, or all keys of an owner, have used. Days and months are
// those of the calendar in the time zone of the configuration.
type Usage struct {
	Tier   *string     `json:"tier" doc:"the owner's tier, or null where none is configured"`
	Usage  UsageSums   `json:"usage"`
	Limits UsageLimits `json:"limits"`
	Days   []UsageDay  `json:"days" doc:"without a gap, the oldest first, ending today"`
}

// UsageSums are the requests that were let in.
type UsageSums struct {
	Today int64 `json:"today" doc:"requests let in today"`
	Month int64 `json:"month" doc:"requests let in since the first of this month"`
}

// UsageLimits are limits of the tier.
type UsageLimits struct {
	PerDay    *int64 `json:"perDay" min:"1" doc:"null where the tier has none"`
	PerMinute *int64 `json:"perMinute" min:"1" doc:"null where the tier has none"`
}

// UsageDay is one calendar day.
type UsageDay struct {
	Date    string `json:"date" doc:"such as 2026-11-21"`
	Allowed int64  `json:"allowed"`
	Limited int64  `json:"limited" doc:"refused because a limit was reached"`
	Denied  int64  `json:"denied" doc:"refused for any other reason"`
}

// Health is what a healthy store says.
type Health struct {
	Status string      `json:"status" enum:"ok"`
	Store  StoreHealth `json:"store"`
	Process
	Version  string   `json:"version" doc:"of the plugin"`
	Keys     int64    `json:"keys"`
	Backlog  int64    `json:"backlog" doc:"writes that wait"`
	Degraded []string `json:"degraded" doc:"what does not work because the store is away: identity, credits, statistics"`
}

// Process tells which process answers.
type Process struct {
	PID       int64    `json:"pid" doc:"number of the process on its machine"`
	StartedAt api.Time `json:"startedAt" doc:"when the process started"`
}

// StoreHealth tells which store is used.
type StoreHealth struct {
	Kind     string `json:"kind"`
	Database string `json:"database" doc:"which database it is: for SQLite the path of the file"`
	Version  string `json:"version" doc:"of the engine"`
	Schema   int64  `json:"schema" doc:"version of the tables"`
}

// Unhealthy is the answer where the store could not be asked.
type Unhealthy struct {
	Status string `json:"status" enum:"unavailable"`
	Process
	Version  string   `json:"version" doc:"of the plugin"`
	Degraded []string `json:"degraded" doc:"what does not work because the store is away: identity, credits, statistics"`
	Error
}

// Error is the body of every answer that is an error.
type Error struct {
	Message string `json:"error" doc:"a sentence"`
	Code    string `json:"code"`
	Field   string `json:"field,omitempty" doc:"the field that is to blame"`
}
