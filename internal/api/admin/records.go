package admin

import (
	"encoding/base64"
	"encoding/hex"
	"net/netip"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring"
	"github.com/caddy-apikey/caddy-apikey/ratelimit"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// KeyRecord is all that is stored of a key, as it is exported and imported. It
// holds hashes, which no key object does. What is absent or null is none, or the
// default that is told.
type KeyRecord struct {
	ID           string              `json:"id" min:"1" max:"255"`
	ConfigID     *string             `json:"configId,omitzero" doc:"one of the configurations; default \"default\""`
	UserID       string              `json:"userId" min:"1" max:"255" doc:"owner"`
	Name         *string             `json:"name,omitzero"`
	Prefix       *string             `json:"prefix,omitzero"`
	Start        *string             `json:"start,omitzero" max:"12" doc:"first characters of the raw key"`
	Hash         string              `json:"hash" doc:"SHA-256 of the whole raw key: 64 hexadecimal digits, or 43 characters of base64url"`
	SecretHash   *string             `json:"secretHash,omitzero" doc:"SHA-256 of the secret, in the same form"`
	PreviousKeys []PreviousKeyRecord `json:"previousKeys,omitzero" max:"5" doc:"raw keys that rotation replaced, in their grace, the oldest first"`
	Checksummed  *bool               `json:"checksummed,omitzero" doc:"whether the raw key ends in the checksum; default false"`
	Enabled      *bool               `json:"enabled,omitzero" doc:"default true"`
	DisabledBy   *string             `json:"disabledBy,omitzero" enum:"owner|operator|leak" doc:"who disabled the key; default operator where enabled is false"`
	Permissions  key.Permissions     `json:"permissions,omitzero" doc:"map {\"files\":[\"read\"]} or list [\"files:read\"]"`
	Attributes
	AllowedIPs          []string  `json:"allowedIps,omitzero" max:"100" doc:"addresses or networks; default everywhere"`
	ExpiresAt           *api.Time `json:"expiresAt,omitzero" doc:"default never"`
	CreatedAt           *api.Time `json:"createdAt,omitzero" doc:"default the time of the import"`
	UpdatedAt           *api.Time `json:"updatedAt,omitzero" doc:"default createdAt"`
	RotatedAt           *api.Time `json:"rotatedAt,omitzero" doc:"default never"`
	RateLimitEnabled    *bool     `json:"rateLimitEnabled,omitzero" doc:"default true"`
	RateLimitMax        *int64    `json:"rateLimitMax,omitzero" min:"1" doc:"requests in a window"`
	RateLimitTimeWindow *int64    `json:"rateLimitTimeWindow,omitzero" min:"1" doc:"milliseconds"`
	RateLimitAlgorithm  *string   `json:"rateLimitAlgorithm,omitzero" enum:"{algorithms}"`
	LastRequest         *api.Time `json:"lastRequest,omitzero"`
	RequestCount        *int64    `json:"requestCount,omitzero" doc:"requests in the current window, which is taken to begin at lastRequest; not beside rateState"`
	RateState           *string   `json:"rateState,omitzero" doc:"what an export holds of the current window"`
	Remaining           *int64    `json:"remaining,omitzero" doc:"credits; default unlimited"`
	RefillAmount        *int64    `json:"refillAmount,omitzero" min:"1" doc:"credits after a refill"`
	RefillInterval      *int64    `json:"refillInterval,omitzero" min:"1" doc:"milliseconds"`
	RefillFrom          *api.Time `json:"refillFrom,omitzero" doc:"from when the intervals are counted; default lastRefillAt, else createdAt"`
	LastRefillAt        *api.Time `json:"lastRefillAt,omitzero"`
	Peak                *int64    `json:"peak,omitzero" doc:"the last refill amount, or the most credits held since; default remaining"`
	Spent               *int64    `json:"spent,omitzero" doc:"credits spent so far; default 0"`
	Forfeited           *int64    `json:"forfeited,omitzero" doc:"credits lost so far; default 0"`
}

// PreviousKeyRecord is a raw key that rotation replaced.
type PreviousKeyRecord struct {
	Hash        string    `json:"hash" doc:"as that of the key"`
	Start       *string   `json:"start,omitzero" max:"12" doc:"as that of the key"`
	Until       api.Time  `json:"until" doc:"when it stops working"`
	LastRequest *api.Time `json:"lastRequest,omitzero" doc:"default never"`
	Checksummed *bool     `json:"checksummed,omitzero" doc:"as that of the key; default false"`
}

// OwnerRecord is all that is stored of an owner, but for its usage.
type OwnerRecord struct {
	UserID    string         `json:"userId" min:"1" max:"255"`
	Tier      *string        `json:"tier,omitzero" min:"1" max:"255" doc:"default the default tier; one that is not configured is kept too"`
	Enabled   *bool          `json:"enabled,omitzero" doc:"default true"`
	CreatedAt *api.Time      `json:"createdAt,omitzero" doc:"default the time of the import"`
	UpdatedAt *api.Time      `json:"updatedAt,omitzero" doc:"default createdAt"`
	Windows   []WindowRecord `json:"windows,omitzero" max:"100" doc:"what the owner's keys have used of the limits of tiers"`
}

// WindowRecord is the current window of one limit.
type WindowRecord struct {
	Unit  string `json:"unit"`
	State string `json:"state" doc:"as it was exported"`
}

// parseHash reads a hash in either form.
func parseHash(field, text string) (h key.Hash, err error) {
	var b []byte
	switch len(text) {
	case hex.EncodedLen(len(h)):
		b, err = hex.DecodeString(text)
	case base64.RawURLEncoding.EncodedLen(len(h)):
		b, err = base64.RawURLEncoding.Strict().DecodeString(text)
	}
	if err != nil || len(b) != len(h) {
		return h, api.Invalid(field, "must be a SHA-256 of 64 hexadecimal digits or 43 characters of base64url")
	}
	return key.Hash(b), nil
}

// parseSecret is parseHash for one that may be absent.
func parseSecret(field string, text *string) (*key.Hash, error) {
	if text == nil {
		return nil, nil
	}
	h, err := parseHash(field, *text)
	return &h, err
}

func (r *KeyRecord) entry(now int64) (e store.Entry, err error) {
	created := millis(r.CreatedAt, now)
	k := &key.Key{
		ID: r.ID, ConfigID: api.Or(r.ConfigID, key.DefaultConfig), UserID: r.UserID,
		Name: r.Name, Prefix: r.Prefix, Start: r.Start,
		Checksummed: api.Or(r.Checksummed, false), Enabled: api.Or(r.Enabled, true),
		Permissions: r.Permissions,
		DisabledBy:  key.DisabledBy(api.Or(r.DisabledBy, "")),
		CreatedAt:   created, UpdatedAt: millis(r.UpdatedAt, created), RotatedAt: millis(r.RotatedAt, 0),
		RateLimitEnabled: api.Or(r.RateLimitEnabled, true),
		RateLimitMax:     api.Or(r.RateLimitMax, 0), RateLimitTimeWindow: api.Or(r.RateLimitTimeWindow, 0),
	}
	if r.ExpiresAt != nil {
		k.ExpiresAt = max(1, r.ExpiresAt.UnixMilli()) // 0 would be never
	}
	if err := r.hashes(k); err != nil {
		return e, err
	}
	if k.AllowedIPs, err = networks(r.AllowedIPs); err != nil {
		return e, err
	}
	if r.RateLimitAlgorithm != nil {
		if k.RateLimitAlgorithm, err = ratelimit.ParseAlgorithm(*r.RateLimitAlgorithm); err != nil {
			return e, err
		}
	}
	if err := r.values().Put(k, nil); err != nil {
		return e, err
	}
	e = store.Entry{Key: k, Credits: r.credits(created), LastRequest: millis(r.LastRequest, 0)}
	rate, err := r.rate()
	if len(rate) > 0 {
		e.Windows = []store.Window{{Unit: store.UnitRate, State: rate}}
	}
	return e, err
}

func (r *KeyRecord) hashes(k *key.Key) (err error) {
	if k.Hash, err = parseHash("hash", r.Hash); err != nil {
		return err
	}
	if k.SecretHash, err = parseSecret("secretHash", r.SecretHash); err != nil {
		return err
	}
	for _, p := range r.PreviousKeys {
		previous := key.PreviousKey{
			Start: api.Or(p.Start, ""), Until: p.Until.UnixMilli(), LastRequest: millis(p.LastRequest, 0), Checksummed: api.Or(p.Checksummed, false),
		}
		if previous.Hash, err = parseHash("previousKeys.hash", p.Hash); err != nil {
			return err
		}
		k.Previous = append(k.Previous, previous)
	}
	return nil
}

func (r *KeyRecord) credits(created int64) key.Credits {
	c := key.Credits{
		Limited: r.Remaining != nil, Remaining: api.Or(r.Remaining, 0),
		Peak: api.Or(r.Peak, 0), Spent: api.Or(r.Spent, 0), Forfeited: api.Or(r.Forfeited, 0),
		RefillAmount: api.Or(r.RefillAmount, 0), RefillInterval: api.Or(r.RefillInterval, 0),
		LastRefillAt: millis(r.LastRefillAt, 0),
	}
	if c.RefillAmount != 0 {
		c.RefillFrom = millis(r.RefillFrom, millis(r.LastRefillAt, created))
	}
	return c
}

// rate returns the state of the current window. Who does not know ours tells a
// count: it becomes a fixed window that began with the last request.
func (r *KeyRecord) rate() ([]byte, error) {
	if r.RateState != nil {
		b, err := base64.StdEncoding.Strict().DecodeString(*r.RateState)
		if err != nil || r.RequestCount != nil {
			return nil, api.Invalid("rateState", "must be an exported value, and cannot be combined with requestCount")
		}
		return b, nil
	}
	n := api.Or(r.RequestCount, 0)
	if n == 0 || r.LastRequest == nil || r.RateLimitTimeWindow == nil {
		return nil, nil
	}
	var s ratelimit.State
	s.Take(ratelimit.Policy{Max: key.MaxCount, Window: *r.RateLimitTimeWindow}, r.LastRequest.UnixMilli(), n)
	return s.AppendBinary(nil)
}

// recordOf is the reverse of KeyRecord.entry.
func recordOf(e store.Entry) KeyRecord {
	k, c := e.Key, e.Credits
	algorithm := k.RateLimitAlgorithm.String()
	r := KeyRecord{
		ID: k.ID, ConfigID: &k.ConfigID, UserID: k.UserID, Name: k.Name, Prefix: k.Prefix, Start: k.Start,
		Hash: hex.EncodeToString(k.Hash[:]), SecretHash: secretText(k.SecretHash),
		Checksummed: &k.Checksummed, Enabled: &k.Enabled, Permissions: k.Permissions, Attributes: attributesOf(k),
		AllowedIPs: networkTexts(k.AllowedIPs), DisabledBy: api.MaybeText(string(k.DisabledBy)), RotatedAt: api.MaybeTime(k.RotatedAt),
		ExpiresAt: api.MaybeTime(k.ExpiresAt), CreatedAt: some(api.TimeOf(k.CreatedAt)), UpdatedAt: some(api.TimeOf(k.UpdatedAt)),
		RateLimitEnabled: &k.RateLimitEnabled, RateLimitMax: api.MaybeCount(k.RateLimitMax),
		RateLimitTimeWindow: api.MaybeCount(k.RateLimitTimeWindow), RateLimitAlgorithm: &algorithm,
		LastRequest: api.MaybeTime(e.LastRequest), RefillAmount: api.MaybeCount(c.RefillAmount),
		RefillInterval: api.MaybeCount(c.RefillInterval), RefillFrom: api.MaybeTime(c.RefillFrom), LastRefillAt: api.MaybeTime(c.LastRefillAt),
		Spent: api.MaybeCount(min(c.Spent, key.MaxCount)), Forfeited: api.MaybeCount(min(c.Forfeited, key.MaxCount)),
	}
	if c.Limited {
		r.Remaining, r.Peak = &c.Remaining, &c.Peak
	}
	if rate := e.Window(store.UnitRate); len(rate) > 0 {
		r.RateState = some(base64.StdEncoding.EncodeToString(rate))
	}
	for _, p := range k.Previous {
		r.PreviousKeys = append(r.PreviousKeys, PreviousKeyRecord{
			Hash: hex.EncodeToString(p.Hash[:]), Start: api.MaybeText(p.Start), Until: api.TimeOf(p.Until),
			LastRequest: api.MaybeTime(p.LastRequest), Checksummed: &p.Checksummed,
		})
	}
	return r
}

func (r *OwnerRecord) owner(now int64) (keyring.OwnerRecord, error) {
	created := millis(r.CreatedAt, now)
	o := keyring.OwnerRecord{Owner: key.Owner{
		UserID: r.UserID, Tier: r.Tier, Enabled: api.Or(r.Enabled, true),
		CreatedAt: created, UpdatedAt: millis(r.UpdatedAt, created),
	}}
	for _, w := range r.Windows {
		b, err := base64.StdEncoding.Strict().DecodeString(w.State)
		if err != nil {
			return o, api.Invalid("windows", "must be exported values")
		}
		o.Windows = append(o.Windows, store.Window{Unit: w.Unit, State: b})
	}
	return o, nil
}

// ownerRecordOf is the reverse of OwnerRecord.owner.
func ownerRecordOf(o keyring.OwnerRecord) OwnerRecord {
	r := OwnerRecord{
		UserID: o.UserID, Tier: o.Tier, Enabled: &o.Enabled,
		CreatedAt: some(api.TimeOf(o.CreatedAt)), UpdatedAt: some(api.TimeOf(o.UpdatedAt)),
	}
	for _, c := range o.Windows {
		r.Windows = append(r.Windows, WindowRecord{c.Unit, base64.StdEncoding.EncodeToString(c.State)})
	}
	return r
}

func networkTexts(list []netip.Prefix) []string {
	if list == nil {
		return nil
	}
	texts := make([]string, len(list))
	for i, network := range list {
		texts[i] = network.String()
	}
	return texts
}

func secretText(h *key.Hash) *string {
	if h == nil {
		return nil
	}
	return some(hex.EncodeToString(h[:]))
}

func millis(t *api.Time, otherwise int64) int64 {
	if t == nil {
		return otherwise
	}
	return t.UnixMilli()
}

func some[T any](v T) *T { return &v }
