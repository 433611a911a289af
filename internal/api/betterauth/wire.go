package betterauth

import (
	"encoding/json"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// keyObject is a key as the plugin shows it, its fields in the plugin's order.
type keyObject struct {
	ConfigID            string          `json:"configId"`
	Name                *string         `json:"name"`
	Start               *string         `json:"start"`
	ReferenceID         string          `json:"referenceId"`
	Prefix              *string         `json:"prefix"`
	Key                 string          `json:"key,omitempty"` // only in the answer to create
	RefillInterval      *int64          `json:"refillInterval"`
	RefillAmount        *int64          `json:"refillAmount"`
	LastRefillAt        *date           `json:"lastRefillAt"`
	Enabled             bool            `json:"enabled"`
	RateLimitEnabled    bool            `json:"rateLimitEnabled"`
	RateLimitTimeWindow *int64          `json:"rateLimitTimeWindow"`
	RateLimitMax        *int64          `json:"rateLimitMax"`
	RequestCount        int64           `json:"requestCount"`
	Remaining           *int64          `json:"remaining"`
	LastRequest         *date           `json:"lastRequest"`
	ExpiresAt           *date           `json:"expiresAt"`
	CreatedAt           date            `json:"createdAt"`
	UpdatedAt           date            `json:"updatedAt"`
	Permissions         key.Permissions `json:"permissions"`
	Metadata            json.RawMessage `json:"metadata"`
	ID                  string          `json:"id"`
}

func objectOf(i keyring.Info) *keyObject {
	k, credits := i.Key, i.Credits
	reference, ok := key.OrganizationOf(k.UserID)
	if !ok {
		reference = k.UserID
	}
	o := &keyObject{
		ConfigID: k.ConfigID, Name: k.Name, Start: i.Start, ReferenceID: reference, Prefix: k.Prefix,
		RefillInterval: api.MaybeCount(credits.RefillInterval), RefillAmount: api.MaybeCount(credits.RefillAmount),
		LastRefillAt: dateOf(credits.LastRefillAt), Enabled: k.Enabled, RateLimitEnabled: k.RateLimitEnabled,
		RateLimitTimeWindow: api.MaybeCount(k.RateLimitTimeWindow), RateLimitMax: api.MaybeCount(k.RateLimitMax),
		RequestCount: i.RequestCount, LastRequest: dateOf(i.LastRequest), ExpiresAt: dateOf(k.ExpiresAt),
		CreatedAt: date(k.CreatedAt), UpdatedAt: date(k.UpdatedAt),
		Permissions: k.Permissions, Metadata: k.Metadata, ID: k.ID,
	}
	if credits.Limited {
		o.Remaining = &credits.Remaining
	}
	return o
}

// date is a time in Unix milliseconds, written as JavaScript writes it.
type date int64

// MarshalJSON implements json.Marshaler.
func (d date) MarshalJSON() ([]byte, error) {
	return api.TimeOf(int64(d)).MarshalJSON()
}

func dateOf(ms int64) *date {
	if ms == 0 {
		return nil
	}
	d := date(ms)
	return &d
}
