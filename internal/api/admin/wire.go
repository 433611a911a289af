package admin

import (
	"encoding/json"

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

// AuditLog is one page of the audit log, the newest entries first.
type AuditLog struct {
	Entries    []AuditEntry `json:"entries"`
	NextCursor *string      `json:"nextCursor" doc:"cursor of the next page; null on the last. A page may have fewer entries than limit, even none, before that"`
	Head       *AuditPoint  `json:"head" doc:"the newest entry of all; null before the first"`
	Anchor     *AuditPoint  `json:"anchor" doc:"the newest entry that was removed for its age; null where none was"`
}

// AuditEntry is one entry of the audit log. What does not apply is absent, so that an entry
// without its chain is what chain was made of.
type AuditEntry struct {
	ID      int64           `json:"id" doc:"1 for the first, then without a gap"`
	Time    api.Time        `json:"time"`
	Action  string          `json:"action" doc:"such as key.created"`
	Actor   AuditActor      `json:"actor"`
	KeyID   string          `json:"keyId,omitempty"`
	UserID  string          `json:"userId,omitempty" doc:"owner"`
	Changes json.RawMessage `json:"changes,omitempty" doc:"by field, {\"from\": …, \"to\": …}; of metadata only the names of its members"`
	Count   int64           `json:"count,omitempty" doc:"of an entry about many: how many"`
	IDsHash string          `json:"idsSha256,omitempty" doc:"of an entry about many: SHA-256 in hexadecimal of their ids, each followed by a line feed"`
	Chain   string          `json:"chain" doc:"SHA-256 in hexadecimal over the chain of the entry before and this entry without chain as canonical JSON (RFC 8785)"`
}

// AuditActor is who did what an entry tells of.
type AuditActor struct {
	Kind    string `json:"kind" enum:"operator|key|person|system"`
	ID      string `json:"id,omitempty" doc:"of the key or the person"`
	Name    string `json:"name,omitempty" doc:"that an operator has given himself in the header X-Actor"`
	Address string `json:"address,omitempty" doc:"that the call came from"`
}

// AuditPoint is an entry of the audit log.
type AuditPoint struct {
	ID    int64  `json:"id"`
	Chain string `json:"chain"`
}

// DeliveryList is one page of the events that webhooks have not taken, the newest first.
type DeliveryList struct {
	Deliveries []Delivery `json:"deliveries"`
	NextCursor *string    `json:"nextCursor" doc:"cursor of the next page; null on the last"`
}

// Delivery is an event on its way to a webhook.
type Delivery struct {
	ID          string    `json:"id" doc:"webhook-id of each attempt"`
	Event       string    `json:"event" doc:"such as apikey_key_created"`
	URL         string    `json:"url"`
	State       string    `json:"state" enum:"pending|dead" doc:"dead: it is tried no more"`
	Attempts    int64     `json:"attempts"`
	NextAttempt *api.Time `json:"nextAttempt" doc:"null: none. While an attempt is under way, when it is taken for lost"`
	LastStatus  *int64    `json:"lastStatus" doc:"HTTP status of the last attempt; null: nothing was answered yet"`
	CreatedAt   api.Time  `json:"createdAt" doc:"of the event, or when somebody had it retried"`
}

// Findings is one page of the report, in the order in which the keys were made.
type Findings struct {
	Findings   []Finding `json:"findings"`
	NextCursor *string   `json:"nextCursor" doc:"cursor of the next page; null on the last. A page may have no findings before that"`
}

// Finding is what a rule has found of a key.
type Finding struct {
	Rule        string    `json:"rule" enum:"no_expiry|not_rotated|idle|no_limit|unused_permission|in_grace|above_tier"`
	KeyID       string    `json:"keyId"`
	UserID      string    `json:"userId" doc:"owner"`
	Since       *api.Time `json:"since" doc:"since when it is so: no_expiry, unused_permission: the key was made; not_rotated: the raw key was made; idle: the last use, or the key was made; in_grace: the rotation; null where nobody knows"`
	Controls    []string  `json:"controls" doc:"controls of security standards that object to it"`
	Permissions []string  `json:"permissions,omitempty" doc:"of unused_permission and above_tier: which ones"`
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
	Version  string      `json:"version" doc:"of the plugin"`
	Keys     int64       `json:"keys"`
	Backlog  int64       `json:"backlog" doc:"writes that wait"`
	Degraded []string    `json:"degraded" doc:"what does not work because the store is away: identity, credits, limits, statistics"`
	Audit    *AuditPoint `json:"audit" doc:"the newest entry of the audit log; null before the first"`
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
	Degraded []string `json:"degraded" doc:"what does not work because the store is away: identity, credits, limits, statistics"`
	Error
}

// Error is the body of every answer that is an error.
type Error struct {
	Message string `json:"error" doc:"a sentence"`
	Code    string `json:"code"`
	Field   string `json:"field,omitempty" doc:"the field that is to blame"`
}
