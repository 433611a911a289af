package betterauth

import (
	"cmp"
	"slices"
	"strings"

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
	Total   int          `json:"total"`
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
	keys, err := c.keysOf(owner, func(k *key.Key) bool {
		id := c.in.text("configId")
		return c.covers(k.ConfigID) && (organization == "" || c.Organization.has(k.ConfigID)) && (id == "" || id == k.ConfigID)
	})
	if err != nil {
		return nil, err
	}
	if by := c.in.text("sortBy"); by != "" {
		sortKeys(keys, by, c.in.text("sortDirection") == "desc")
	}
	l := listing{Total: len(keys), Limit: wholeOf(c.in, "limit"), Offset: wholeOf(c.in, "offset"), APIKeys: keys}
	if l.Offset != nil {
		l.APIKeys = l.APIKeys[min(*l.Offset, int64(len(keys))):]
	}
	if l.Limit != nil {
		l.APIKeys = l.APIKeys[:min(*l.Limit, int64(len(l.APIKeys)))]
	}
	return l, nil
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

// keysOf returns the keys of an owner that are wanted, the oldest first.
func (c *call) keysOf(owner string, wanted func(*key.Key) bool) ([]*keyObject, error) {
	keys := []*keyObject{}
	for q := (store.List{Filter: store.Filter{UserID: owner}, Limit: listPage}); ; {
		page, err := c.Keys.List(c.Context(), q)
		if err != nil {
			return nil, err
		}
		for _, info := range page.Keys {
			if wanted(info.Key) {
				keys = append(keys, objectOf(info))
			}
		}
		if q.Cursor = page.Next; q.Cursor == "" {
			return keys, nil
		}
	}
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
