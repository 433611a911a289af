package admin

import (
	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/key"
)

// CreateKey is the body of POST /apikey/keys.
type CreateKey struct {
	UserID    string  `json:"userId" min:"1" max:"255" doc:"owner"`
	ConfigID  *string `json:"configId,omitzero" doc:"one of the configurations; default \"default\""`
	Name      *string `json:"name,omitzero"`
	Prefix    *string `json:"prefix,omitzero"`
	ExpiresIn *int64  `json:"expiresIn,omitzero" min:"1" doc:"seconds; default that of the configuration, else never"`
	Attributes
	Remaining           *int64          `json:"remaining,omitzero" doc:"credits; default unlimited"`
	RefillAmount        *int64          `json:"refillAmount,omitzero" min:"1" doc:"credits after a refill"`
	RefillInterval      *int64          `json:"refillInterval,omitzero" min:"1" doc:"milliseconds"`
	RateLimitEnabled    *bool           `json:"rateLimitEnabled,omitzero" doc:"default true"`
	RateLimitMax        *int64          `json:"rateLimitMax,omitzero" min:"1" doc:"requests in a window"`
	RateLimitTimeWindow *int64          `json:"rateLimitTimeWindow,omitzero" min:"1" doc:"milliseconds"`
	RateLimitAlgorithm  *string         `json:"rateLimitAlgorithm,omitzero" enum:"{algorithms}"`
	Permissions         key.Permissions `json:"permissions,omitzero" doc:"map {\"files\":[\"read\"]} or list [\"files:read\"]"`
	AllowedIPs          []string        `json:"allowedIps,omitzero" min:"1" max:"100" doc:"addresses or networks; default everywhere"`
	Enabled             *bool           `json:"enabled,omitzero" doc:"default true"`
	WithSecret          *bool           `json:"withSecret,omitzero" doc:"make a secret too; default false"`
}

// PatchKey is the body of PATCH /apikey/keys/{id}. What is absent stays, null clears.
type PatchKey struct {
	UserID    api.Optional[string] `json:"userId,omitzero" null:"no" min:"1" max:"255" doc:"owner"`
	Name      api.Optional[string] `json:"name,omitzero"`
	ExpiresIn api.Optional[int64]  `json:"expiresIn,omitzero" min:"1" doc:"seconds from now; null is never"`
	Attributes
	Remaining           api.Optional[int64]           `json:"remaining,omitzero" doc:"credits; null is unlimited"`
	RemainingDelta      api.Optional[int64]           `json:"remainingDelta,omitzero" null:"no" min:"-9007199254740991" doc:"added to remaining; not beside it"`
	RefillAmount        api.Optional[int64]           `json:"refillAmount,omitzero" min:"1" doc:"credits after a refill"`
	RefillInterval      api.Optional[int64]           `json:"refillInterval,omitzero" min:"1" doc:"milliseconds"`
	RateLimitEnabled    api.Optional[bool]            `json:"rateLimitEnabled,omitzero" null:"no"`
	RateLimitMax        api.Optional[int64]           `json:"rateLimitMax,omitzero" min:"1" doc:"requests in a window"`
	RateLimitTimeWindow api.Optional[int64]           `json:"rateLimitTimeWindow,omitzero" min:"1" doc:"milliseconds"`
	RateLimitAlgorithm  api.Optional[string]          `json:"rateLimitAlgorithm,omitzero" enum:"{algorithms}" doc:"null is fixed_window"`
	Permissions         api.Optional[key.Permissions] `json:"permissions,omitzero" doc:"map {\"files\":[\"read\"]} or list [\"files:read\"]"`
	AllowedIPs          api.Optional[[]string]        `json:"allowedIps,omitzero" min:"1" max:"100" doc:"addresses or networks; null is everywhere"`
	Enabled             api.Optional[bool]            `json:"enabled,omitzero" null:"no"`
}

// ListKeys is the query of GET /apikey/keys. Nil does not narrow.
type ListKeys struct {
	UserID   *string `query:"userId" min:"1" max:"255"`
	ConfigID *string `query:"configId" min:"1" max:"255"`
	Enabled  *bool   `query:"enabled"`
	Prefix   *string `query:"prefix" min:"1" max:"255" doc:"exactly this prefix"`
	Query    *string `query:"q" max:"255" doc:"part of the name, of the start or of the owner"`

	Tier          *string   `query:"tier" min:"1" max:"255" doc:"the owner's, be it by default"`
	Permission    *string   `query:"permission" min:"1" max:"257" doc:"that the key has, such as files:read, be it by a wildcard"`
	State         *string   `query:"state" enum:"active|disabled|expired|exhausted"`
	ExpiresBefore *api.Time `query:"expiresBefore" doc:"expires, and before this time"`
	UnusedSince   *api.Time `query:"unusedSince" doc:"from before this time, and not used since"`
	CreatedBefore *api.Time `query:"createdBefore"`
	RotatedBefore *api.Time `query:"rotatedBefore" doc:"the raw key is from before this time"`

	Sort   *string `query:"sort" enum:"createdAt|-createdAt|name|-name|lastRequest|-lastRequest|expiresAt|-expiresAt" doc:"default createdAt"`
	Limit  *int64  `query:"limit" min:"1" max:"500" doc:"default 50"`
	Cursor *string `query:"cursor" doc:"nextCursor of the page before, with the same sort"`
}

// RotateKey is the body of POST /apikey/keys/{id}/rotate.
type RotateKey struct {
	Grace      *int64 `json:"grace,omitzero" doc:"seconds for which the replaced raw key works, and those before it at most; default 0, which ends all of them"`
	WithSecret *bool  `json:"withSecret,omitzero" doc:"make a new secret too, for all raw keys of the key; default false"`
	ExpiresIn  *int64 `json:"expiresIn,omitzero" min:"1" doc:"seconds from now; default: the expiry stays"`
}

// VerifyKey is the body of POST /apikey/verify.
type VerifyKey struct {
	Key         string          `json:"key" doc:"the raw key"`
	Secret      *string         `json:"secret,omitzero" doc:"checked where it is given"`
	Permissions key.Permissions `json:"permissions,omitzero" doc:"required ones: map {\"files\":[\"read\"]} or list [\"files:read\"]"`
	Cost        *int64          `json:"cost,omitzero" doc:"credits and rate slots; default 1"`
	DryRun      *bool           `json:"dryRun,omitzero" doc:"decide without counting; default false"`
	IP          *string         `json:"ip,omitzero" doc:"client address; without it allowedIps is not checked"`
	ConfigID    *string         `json:"configId,omitzero" doc:"refuse keys of other configurations"`
}

// ListOwners is the query of GET /apikey/owners.
type ListOwners struct {
	Limit  *int64  `query:"limit" min:"1" max:"500" doc:"default 50"`
	Cursor *string `query:"cursor" doc:"nextCursor of the page before"`
}

// ListAudit is the query of GET /apikey/audit. Nil does not narrow.
type ListAudit struct {
	KeyID  *string   `query:"keyId" min:"1" max:"255"`
	UserID *string   `query:"userId" min:"1" max:"255"`
	Actor  *string   `query:"actor" min:"1" max:"255" doc:"kind, id or name of the actor"`
	Action *string   `query:"action" min:"1" max:"64" doc:"such as key.rotated"`
	Since  *api.Time `query:"since" doc:"not before this time"`
	Until  *api.Time `query:"until" doc:"before this time"`
	Limit  *int64    `query:"limit" min:"1" max:"500" doc:"default 50"`
	Cursor *string   `query:"cursor" doc:"nextCursor of the page before"`
}

// ListDeliveries is the query of GET /apikey/webhooks. Nil does not narrow.
type ListDeliveries struct {
	State  *string `query:"state" enum:"pending|dead"`
	Limit  *int64  `query:"limit" min:"1" max:"500" doc:"default 50"`
	Cursor *string `query:"cursor" doc:"nextCursor of the page before"`
}

// Report is the query of GET /apikey/report.
type Report struct {
	OlderThan *int64  `query:"olderThan" doc:"seconds after which a raw key is not_rotated; default 7776000 (90 days)"`
	Idle      *int64  `query:"idle" doc:"seconds after which a key that is not used is idle, and one that is not asked for a permission has an unused_permission; default 7776000 (90 days)"`
	Rule      *string `query:"rule" enum:"no_expiry|not_rotated|idle|no_limit|unused_permission|in_grace|above_tier" doc:"findings of this rule alone"`
	Limit     *int64  `query:"limit" min:"1" max:"500" doc:"how many keys to look at; a page may look at fewer; default 50"`
	Cursor    *string `query:"cursor" doc:"nextCursor of the page before"`
}

// UsageQuery is the query of both usage calls.
type UsageQuery struct {
	Days *int64 `query:"days" min:"1" max:"366" doc:"how many days to list, today included; default 30"`
}

// PutOwner is the body of PUT /apikey/owners/{userId}. What is absent stays.
type PutOwner struct {
	Tier    api.Optional[string] `json:"tier,omitzero" doc:"one of those that are configured; null is the default tier"`
	Enabled api.Optional[bool]   `json:"enabled,omitzero" null:"no" doc:"default true"`
}

// IsImmutable implements api.Immutable.
func (PatchKey) IsImmutable(name string) bool {
	return api.HasField[CreateKey](name) || api.HasField[IssuedKey](name)
}
