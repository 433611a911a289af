package betterauth

import (
	"cmp"
	"errors"
	"math"
	"slices"
	"strings"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring"
	"github.com/caddy-apikey/caddy-apikey/store"
)

func (c *call) get() (any, error) {
	info, err := c.find(c.KeyID(c.in.text("id")), actionRead)
	if err != nil {
		return nil, err
	}
	return objectOf(info), nil
}

// find returns a key of the caller or its organization, of the configuration that
// the call is about.
func (c *call) find(id, action string) (keyring.Info, error) {
	if keyring.CheckUserID(id) != nil { // some stores fail on such text instead of not finding it
		return keyring.Info{}, errNotFound
	}
	info, err := c.Keys.Get(c.Context(), id)
	if err != nil {
		return keyring.Info{}, err
	}
	if !c.visible(info.Key) {
		return keyring.Info{}, errNotFound
	}
	return info, c.allowed(info.Key, action)
}

// visible reports whether the call is about keys like k, and whether the caller may
// know of this one.
func (c *call) visible(k *key.Key) bool {
	if !c.covers(k.ConfigID) || k.ConfigID != c.config() && k.ConfigID != c.in.text("configId") {
		return false
	}
	if id, ok := key.OrganizationOf(k.UserID); ok {
		return c.Organization.has(k.ConfigID) && c.isMember(id)
	}
	return k.UserID == c.Caller.UserID
}

// allowed reports why the caller may not do something with a key that is visible.
func (c *call) allowed(k *key.Key, action string) error {
	if id, ok := key.OrganizationOf(k.UserID); ok {
		return c.actFor(id, action)
	}
	return nil
}

// listing is the answer to list.
type listing struct {
	APIKeys []*keyObject `json:"apiKeys"`
	Total   int64        `json:"total"`
	Limit   *int64       `json:"limit,omitempty"`
	Offset  *int64       `json:"offset,omitempty"`
}

func (c *call) list() (any, error) {
	owner, organization := c.Caller.UserID, c.in.text("organizationId")
	if organization != "" {
		owner = key.OrganizationOwner(organization)
		if err := c.actFor(organization, actionRead); err != nil {
			return nil, err
		}
	}
	id := c.in.text("configId")
	wanted := func(k *key.Key) bool {
		return k.UserID == owner && c.covers(k.ConfigID) && (organization == "" || c.Organization.has(k.ConfigID)) && (id == "" || id == k.ConfigID)
	}
	l := listing{APIKeys: []*keyObject{}, Limit: wholeOf(c.in, "limit"), Offset: wholeOf(c.in, "offset")}
	each := func(write func(any) error) error {
		return c.eachOf(owner, wanted, func(i keyring.Info) error {
			at := l.Total
			l.Total++
			if at < l.from() || at >= l.to() {
				return nil
			}
			return write(objectOf(i))
		})
	}
	if by := c.in.text("sortBy"); by != "" {
		each = func(write func(any) error) error {
			ids, err := c.sorted(owner, wanted, by)
			if err != nil {
				return err
			}
			l.Total = int64(len(ids))
			return c.eachByID(ids[min(l.from(), l.Total):min(l.to(), l.Total)], wanted, write)
		}
	}
	return api.List[listing]{Each: each, Answer: func() listing { return l }}, nil
}

// from and to are the places of the keys that are asked for.
func (l *listing) from() int64 { return api.Or(l.Offset, 0) }

func (l *listing) to() int64 {
	if l.Limit == nil || *l.Limit > math.MaxInt64-l.from() {
		return math.MaxInt64
	}
	return l.from() + *l.Limit
}

func wholeOf(in input, name string) *int64 {
	n := sent[float64](in, name)
	if n == nil {
		return nil
	}
	whole := int64(*n)
	return &whole
}

// listPage is how many keys are asked of the store at a time.
const listPage = 500

// eachOf calls f with the keys of an owner that are wanted, the oldest first.
func (c *call) eachOf(owner string, wanted func(*key.Key) bool, f func(keyring.Info) error) error {
	for q := (store.List{Filter: store.Filter{UserID: owner}, Limit: listPage}); ; {
		page, err := c.Keys.List(c.Context(), q)
		if err != nil {
			return err
		}
		for _, info := range page.Keys {
			if !wanted(info.Key) {
				continue
			}
			if err := f(info); err != nil {
				return err
			}
		}
		if q.Cursor = page.Next; q.Cursor == "" {
			return nil
		}
	}
}

// sorted returns the IDs of the keys of an owner that are wanted. Nothing else of the keys
// stays in memory while the answer is written.
func (c *call) sorted(owner string, wanted func(*key.Key) bool, by string) ([]string, error) {
	var keys []*keyObject
	err := c.eachOf(owner, wanted, func(i keyring.Info) error {
		keys = append(keys, brief(objectOf(i)))
		return nil
	})
	if err != nil {
		return nil, err
	}
	sortKeys(keys, by, c.in.text("sortDirection") == "desc")
	ids := make([]string, len(keys))
	for i, k := range keys {
		ids[i] = k.ID
	}
	return ids, nil
}

// brief returns what keys are sorted by. The texts of a record are parts of all of it.
func brief(o *keyObject) *keyObject {
	o.Metadata, o.Permissions = nil, nil
	for _, s := range []*string{&o.ID, &o.ConfigID, &o.ReferenceID} {
		*s = strings.Clone(*s)
	}
	for _, s := range []**string{&o.Name, &o.Start, &o.Prefix} {
		if *s != nil {
			*s = new(strings.Clone(**s))
		}
	}
	return o
}

// eachByID writes the keys with these IDs, but for those that have changed meanwhile so
// that they are not wanted any more.
func (c *call) eachByID(ids []string, wanted func(*key.Key) bool, write func(any) error) error {
	for _, id := range ids {
		info, err := c.Keys.Get(c.Context(), id)
		if errors.Is(err, store.ErrNotFound) || err == nil && !wanted(info.Key) {
			continue
		}
		if err == nil {
			err = write(objectOf(info))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// orders compare keys by a field. Keys without a value come first.
var orders = map[string]func(a, b *keyObject) int{
	"id":                  func(a, b *keyObject) int { return cmp.Compare(a.ID, b.ID) },
	"configId":            func(a, b *keyObject) int { return cmp.Compare(a.ConfigID, b.ConfigID) },
	"name":                func(a, b *keyObject) int { return compare(a.Name, b.Name) },
	"start":               func(a, b *keyObject) int { return compare(a.Start, b.Start) },
	"referenceId":         func(a, b *keyObject) int { return cmp.Compare(a.ReferenceID, b.ReferenceID) },
	"prefix":              func(a, b *keyObject) int { return compare(a.Prefix, b.Prefix) },
	"refillInterval":      func(a, b *keyObject) int { return compare(a.RefillInterval, b.RefillInterval) },
	"refillAmount":        func(a, b *keyObject) int { return compare(a.RefillAmount, b.RefillAmount) },
	"lastRefillAt":        func(a, b *keyObject) int { return compare(a.LastRefillAt, b.LastRefillAt) },
	"enabled":             func(a, b *keyObject) int { return compareBool(a.Enabled, b.Enabled) },
	"rateLimitEnabled":    func(a, b *keyObject) int { return compareBool(a.RateLimitEnabled, b.RateLimitEnabled) },
	"rateLimitTimeWindow": func(a, b *keyObject) int { return compare(a.RateLimitTimeWindow, b.RateLimitTimeWindow) },
	"rateLimitMax":        func(a, b *keyObject) int { return compare(a.RateLimitMax, b.RateLimitMax) },
	"requestCount":        func(a, b *keyObject) int { return cmp.Compare(a.RequestCount, b.RequestCount) },
	"remaining":           func(a, b *keyObject) int { return compare(a.Remaining, b.Remaining) },
	"lastRequest":         func(a, b *keyObject) int { return compare(a.LastRequest, b.LastRequest) },
	"expiresAt":           func(a, b *keyObject) int { return compare(a.ExpiresAt, b.ExpiresAt) },
	"createdAt":           func(a, b *keyObject) int { return cmp.Compare(a.CreatedAt, b.CreatedAt) },
	"updatedAt":           func(a, b *keyObject) int { return cmp.Compare(a.UpdatedAt, b.UpdatedAt) },
}

// sortable are the fields that a list may be sorted by: all that have an order.
var sortable = func() (names []string) {
	for name := range orders {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}()

// sortKeys sorts keys that come the oldest first; those that are equal stay so.
func sortKeys(keys []*keyObject, by string, descending bool) {
	order := orders[by]
	slices.SortStableFunc(keys, func(a, b *keyObject) int {
		if descending {
			return order(b, a)
		}
		return order(a, b)
	})
}

func compare[T cmp.Ordered](a, b *T) int {
	switch {
	case a == nil && b == nil:
		return 0
	case a == nil:
		return -1
	case b == nil:
		return 1
	}
	return cmp.Compare(*a, *b)
}

func compareBool(a, b bool) int { return strings.Compare(yesNo(a), yesNo(b)) }

func yesNo(b bool) string {
	if b {
		return "1"
	}
	return "0"
}
