package store

const (
	// MaxTopOwners is how many owners are kept of each day.
	MaxTopOwners = 100
	// MaxAskedPermissions is how many permissions are kept of each key.
	MaxAskedPermissions = 64
)

// Uses counts requests by what became of them.
type Uses struct {
	Allowed int64
	Limited int64 // refused because a limit was reached
	Denied  int64 // refused for any other reason
}

// usesNames are the names by which stores write the counts of Uses. A new count is a
// field and a line here.
var usesNames = [...]struct {
	name string
	of   func(*Uses) *int64
}{
	{"allowed", func(u *Uses) *int64 { return &u.Allowed }},
	{"limited", func(u *Uses) *int64 { return &u.Limited }},
	{"denied", func(u *Uses) *int64 { return &u.Denied }},
}

// Each calls f with the name of every count and where it is.
func (u *Uses) Each(f func(what string, n *int64)) {
	for i := range usesNames {
		f(usesNames[i].name, usesNames[i].of(u))
	}
}

// Named returns the count of a name, or nil for a name that is not known.
func (u *Uses) Named(what string) *int64 {
	for i := range usesNames {
		if usesNames[i].name == what {
			return usesNames[i].of(u)
		}
	}
	return nil
}

// Add adds the counts of b.
func (u *Uses) Add(b Uses) {
	u.Each(func(what string, n *int64) { *n += *b.Named(what) })
}

// Sum returns all counts together.
func (u Uses) Sum() (sum int64) {
	u.Each(func(_ string, n *int64) { sum += *n })
	return sum
}

// Used is what a key did for an owner on a day, as an increment. It may be
// negative: a request that was counted as one thing turned out to be another.
type Used struct {
	KeyID, UserID string
	Day           int32 // YYYYMMDD, in the time zone of the configuration
	Uses
}

// HourUses are the requests of an hour with the same outcome and tier.
type HourUses struct {
	Hour    int64  // of Unix time: milliseconds / 3,600,000
	Outcome string // by name
	Tier    string // empty: none
	N       int64  // may be negative in a batch
}

// Asked is a permission that a request asked a key for.
type Asked struct{ KeyID, Permission string }

// UsageBatch is written whole and once. Writer names the process that counted,
// and Number grows by one with each of its batches: a batch whose answer was lost
// is sent again under the same number, and changes nothing if it had been written.
type UsageBatch struct {
	Writer string
	Number int64 // from 1 on
	Used   []Used
	Hours  []HourUses
	Asked  []Asked
}

// DayUses is one day of usage.
type DayUses struct {
	Day int32 // YYYYMMDD
	Uses
}

// OwnerUses is what an owner's keys did on a day.
type OwnerUses struct {
	UserID string
	Uses
}

// KeyCount is a number of keys.
type KeyCount struct {
	ConfigID string
	Enabled  bool
	N        int64
}
