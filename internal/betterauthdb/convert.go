package betterauthdb

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"math"
	"slices"
	"strings"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
	"github.com/caddy-apikey/caddy-apikey/key"
)

// Key is a row, converted for an import.
type Key struct {
	Record admin.KeyRecord
	// Notes say what was not converted unchanged.
	Notes []Note
	// Refused says why the row cannot be imported. Nil: it can.
	Refused *Note
}

// Note says what happened to a field. It does not contain its value.
type Note struct {
	Field   string `json:"field"`
	Message string `json:"message"`
	Lost    bool   `json:"lost"` // data was left out
}

// row holds the values of a row by field: nil, int64, float64, string or []byte.
type row map[string]any

// conversion converts a row to a Key.
type conversion struct {
	row
	Key
	options *Options
}

func (o *Options) convert(r row) Key {
	c := conversion{row: r, options: o}
	c.lengths()
	c.identity()
	c.rawKey()
	c.times()
	c.rateLimit()
	c.credits()
	c.permissions()
	c.metadata()
	return c.Key
}

func (c *conversion) note(field, message string) {
	c.Notes = append(c.Notes, Note{field, message, false})
}

func (c *conversion) lose(field, message string) {
	c.Notes = append(c.Notes, Note{field, message, true})
}

func (c *conversion) refuse(field, message string) {
	if c.Refused == nil {
		c.Refused = &Note{field, message, true}
	}
}

// tooLong is the value of a field that was not read, because it is longer than maxField.
type tooLong struct{}

// lengths leaves out fields that are too long.
func (c *conversion) lengths() {
	for _, field := range fields {
		if _, long := c.row[field].(tooLong); !long {
			continue
		}
		c.row[field] = nil
		if field == "metadata" {
			c.lose(field, longMetadata)
		} else {
			c.refuse(field, "is longer than 256 KiB")
		}
	}
}

func (c *conversion) identity() {
	rec := &c.Record
	rec.ID, _ = c.text("id")
	rec.UserID, _ = c.text("referenceId")
	config, _ := c.text("configId")
	if config == "" {
		config = key.DefaultConfig
	}
	if slices.Contains(c.options.Organizations, config) {
		rec.UserID = key.OrganizationOwner(rec.UserID)
	}
	if other, ok := c.options.Configs[config]; ok {
		config = other
	}
	rec.ConfigID = &config
	if name, _ := c.text("name"); name != "" {
		rec.Name = &name
	}
	enabled := c.flag("enabled")
	rec.Enabled = &enabled
}

// rawKey converts the hash. A key that is stored without hashing is hashed here and
// kept nowhere.
func (c *conversion) rawKey() {
	rec := &c.Record
	stored, _ := c.text("key")
	start, _ := c.text("start")
	prefix, _ := c.text("prefix")
	hash, err := base64.RawURLEncoding.Strict().DecodeString(stored)
	isHash := err == nil && len(hash) == len(key.Hash{}) && !(start != "" && strings.HasPrefix(stored, start))
	switch {
	case stored == "":
		c.refuse("key", "is empty")
	case isHash && !c.options.PlainKeys:
		rec.Hash = hex.EncodeToString(hash)
	case key.CheckShape(stored, false) != nil:
		c.refuse("key", "has characters or a length that a raw key cannot have here")
	default:
		sum, fits := key.HashOf(stored), key.ChecksumFits(stored)
		rec.Hash, rec.Checksummed, start = hex.EncodeToString(sum[:]), &fits, key.Display(stored)
	}
	if start+prefix != "" && key.CheckShape(start+prefix, false) != nil {
		c.refuse("prefix", "has characters that a raw key cannot have here")
		return
	}
	if start != "" {
		start = key.Display(start)
		rec.Start = &start
	}
	switch {
	case len(prefix) > key.MaxPrefixLen:
		c.lose("prefix", "is longer than 32 characters: left out; the key works")
	case prefix != "":
		rec.Prefix = &prefix
	}
}

func (c *conversion) times() {
	rec := &c.Record
	var ok bool
	if rec.ExpiresAt, ok = c.time("expiresAt"); !ok {
		c.refuse("expiresAt", "is not a time from 1970 to 9999: it is unknown whether the key has expired")
	}
	for field, to := range map[string]**api.Time{
		"createdAt": &rec.CreatedAt, "updatedAt": &rec.UpdatedAt, "lastRequest": &rec.LastRequest, "lastRefillAt": &rec.LastRefillAt,
	} {
		if *to, ok = c.time(field); !ok {
			c.lose(field, "is not a time from 1970 to 9999: left out")
		}
	}
}

// rateLimit converts the limit as Better Auth applies it.
func (c *conversion) rateLimit() {
	rec := &c.Record
	enabled := c.flag("rateLimitEnabled")
	rec.RateLimitEnabled = &enabled
	limit, window := c.count("rateLimitMax"), c.count("rateLimitTimeWindow")
	switch {
	case limit == nil && window == nil:
		return
	case limit == nil || window == nil:
		c.note("rateLimitMax", "has no effect unless rateLimitMax and rateLimitTimeWindow are both set: left out")
		return
	case *window < 1:
		c.note("rateLimitTimeWindow", "is not above zero, which limited nothing: left out")
		return
	case *limit < 1:
		c.note("rateLimitMax", "is below 1, which allowed one request in a window: set to 1")
		*limit = 1
	}
	rec.RateLimitMax, rec.RateLimitTimeWindow = limit, window
	if n := c.count("requestCount"); n != nil && *n > 0 {
		rec.RequestCount = n
	}
}

func (c *conversion) credits() {
	rec := &c.Record
	if rec.Remaining = c.count("remaining"); rec.Remaining != nil && *rec.Remaining < 0 {
		c.note("remaining", "is below zero: set to 0")
		*rec.Remaining = 0
	}
	amount, interval := c.count("refillAmount"), c.count("refillInterval")
	refills := amount != nil && *amount > 0 && interval != nil && *interval > 0
	switch {
	case refills:
		rec.RefillAmount, rec.RefillInterval = amount, interval
	case amount != nil || interval != nil:
		c.note("refillAmount", "has no effect unless refillAmount and refillInterval are both above zero: left out")
		rec.LastRefillAt = nil
	}
	if rec.Remaining != nil && *rec.Remaining == 0 && !refills {
		c.note("remaining", "is used up and never refilled: the key stays and is refused, where it would have been deleted")
	}
}

// permissions leaves out what has no exact counterpart. In Better Auth "*" is an
// action like any other; here it would allow everything.
func (c *conversion) permissions() {
	raw, ok := c.json("permissions")
	if raw == nil {
		if !ok {
			c.lose("permissions", "are not JSON: the key has none")
		}
		return
	}
	var all map[string][]string
	if json.Unmarshal(raw, &all) != nil {
		c.lose("permissions", "are not lists of actions by resource: the key has none")
		return
	}
	c.Record.Permissions = key.Permissions{}
	lost := false
	for resource, actions := range all {
		for _, action := range actions {
			if (key.Permission{Resource: resource, Action: action}).Check() != nil || resource == "*" || action == "*" {
				lost = true
				continue
			}
			if kept := c.Record.Permissions; !slices.Contains(kept[resource], action) {
				kept[resource] = append(kept[resource], action)
			}
		}
	}
	if lost {
		c.lose("permissions", `some have blanks, ":" in the resource, or "*", which was no wildcard: those are left out`)
	}
}

const (
	maxMetadata  = 16 << 10
	longMetadata = "is longer than 16 KiB: left out"
)

func (c *conversion) metadata() {
	raw, ok := c.json("metadata")
	switch {
	case !ok:
		c.lose("metadata", "is not JSON: left out")
	case raw == nil:
	case raw[0] != '{':
		c.lose("metadata", "is not an object: left out")
	case len(raw) > maxMetadata:
		c.lose("metadata", longMetadata)
	default:
		c.Record.Metadata = api.Some(raw)
	}
}

// maxNesting is how many times JSON may be encoded as a JSON string.
const maxNesting = 3

// json returns the JSON in a field, or nil if the field is empty or null. It is not ok
// if the field is not JSON.
func (c *conversion) json(field string) (raw json.RawMessage, ok bool) {
	text, found := c.text(field)
	if !found || text == "" {
		return nil, true
	}
	for range maxNesting {
		raw = json.RawMessage(strings.TrimSpace(text))
		if !json.Valid(raw) {
			return nil, false
		}
		if string(raw) == "null" {
			return nil, true
		}
		if raw[0] != '"' || json.Unmarshal(raw, &text) != nil {
			break
		}
	}
	return raw, true
}

// text returns a field as text. It is not ok for NULL.
func (c *conversion) text(field string) (s string, ok bool) {
	switch v := c.row[field].(type) {
	case string:
		return v, true
	case []byte:
		return string(v), true
	case int64:
		return jsonNumber(v), true
	}
	return "", false
}

func jsonNumber(n int64) string {
	b, _ := json.Marshal(n) // never fails
	return string(b)
}

// flag converts a boolean. NULL is true. A row with another value is refused, because
// it may have meant false.
func (c *conversion) flag(field string) bool {
	if c.row[field] == nil {
		return true
	}
	text, _ := c.text(field)
	switch strings.ToLower(text) {
	case "1", "true":
		return true
	case "0", "false":
	default:
		c.refuse(field, "is neither true nor false")
	}
	return false
}

// restrictions are the fields that restrict a key. Without one of them the key would
// allow more than before.
var restrictions = []string{"remaining", "rateLimitMax", "rateLimitTimeWindow"}

// count converts a number and rounds it up: a limit of 2.5 allowed three requests, and
// so did 2.5 credits.
func (c *conversion) count(field string) *int64 {
	v, ok := c.number(field)
	switch {
	case !ok && slices.Contains(restrictions, field):
		c.refuse(field, "is not a number: it is unknown how much the key may do")
		return nil
	case !ok:
		c.lose(field, "is not a number: left out")
		return nil
	case v == nil:
		return nil
	}
	n := min(max(math.Ceil(*v), -1), float64(key.MaxCount))
	switch {
	case *v != math.Trunc(*v):
		c.note(field, "is not a whole number from 0 to 2^53-1: rounded up within that range")
	case *v > n:
		c.note(field, "is above 2^53-1: set to that")
	}
	whole := int64(n)
	return &whole
}

// number returns a number, which may be written as text, or nil for NULL. It is not ok
// for anything else. A float64 is exact up to 2^53-1.
func (c *conversion) number(field string) (n *float64, ok bool) {
	switch v := c.row[field].(type) {
	case nil:
		return nil, true
	case float64:
		return &v, true
	}
	text, _ := c.text(field)
	err := json.Unmarshal([]byte(text), &n)
	return n, err == nil && n != nil
}
