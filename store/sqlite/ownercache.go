package sqlite

import (
	"hash/maphash"
	"slices"
	"sync"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// cachedOwners bounds the owners in memory, of about 80 bytes each.
const cachedOwners = 1 << 17

// ownerCache keeps owners by their number, for look-ups of their keys. What it holds is
// no older than the last change of an owner that was told to anybody.
type ownerCache struct {
	mu      sync.Mutex
	changed uint64 // grows with each change
	records map[int64]ownerRecord
	tiers   map[string]*string // each once
}

// ownerRecord is a key.Owner whose user ID is known from its keys.
type ownerRecord struct {
	user                           uint64 // hash of the user ID
	createdAt, updatedAt, revision int64
	tier                           *string
	enabled, deleted               bool
}

var userSeed = maphash.MakeSeed()

func hashOfUser(userID string) uint64 { return maphash.String(userSeed, userID) }

// of returns the owner as that of a key whose document names userID, unless it is
// another one.
func (r *ownerRecord) of(userID string) (o key.Owner, ok bool) {
	if r.revision == 0 || r.user != hashOfUser(userID) {
		return o, false
	}
	return key.Owner{
		UserID: userID, Tier: r.tier, Enabled: r.enabled,
		CreatedAt: r.createdAt, UpdatedAt: r.updatedAt, Revision: r.revision,
	}, true
}

// changes returns a count to be taken before an owner is read.
func (c *ownerCache) changes() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

func (c *ownerCache) get(num int64) (r ownerRecord, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok = c.records[num]
	return r, ok
}

// put keeps an owner that was read since, unless it may be from before a change.
func (c *ownerCache) put(num int64, r *ownerRecord, since uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.changed != since {
		return
	}
	if c.records == nil || len(c.records) >= cachedOwners {
		c.records, c.tiers = map[int64]ownerRecord{}, map[string]*string{}
	}
	if r.tier != nil {
		if same := c.tiers[*r.tier]; same != nil {
			r.tier = same
		} else {
			c.tiers[*r.tier] = r.tier
		}
	}
	c.records[num] = *r
}

// forget is called when owners have changed, before anybody hears of it.
func (c *ownerCache) forget(nums []int64) {
	if len(nums) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changed++
	if slices.Contains(nums, allOwners) {
		clear(c.records)
	}
	for _, num := range nums {
		delete(c.records, num)
	}
}

const (
	// allOwners stands for the numbers of all owners.
	allOwners = 0
	// manyOwners is how many changed owners are looked up by a transaction: of more,
	// forgetting all is cheaper.
	manyOwners = 64
)

// noteOwners notes which owners the changes are about, but for those that are deleted
// (see DeleteOwner).
func (c *writerConn) noteOwners(changes []store.Change) error {
	for i := range changes {
		if changes[i].Kind != store.KindOwner || changes[i].Deleted() {
			continue
		}
		if len(c.owners) >= manyOwners {
			c.owners = append(c.owners[:0], allOwners)
			return nil
		}
		num, err := numberOf(c, changes[i].Subject)
		if err != nil {
			return failed("reading the number of an owner", err)
		}
		c.owners = append(c.owners, num)
	}
	return nil
}
