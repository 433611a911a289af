// Package store says what persistence promises: the interface, its errors, and,
// in storetest, the suite that every store passes.
//
// # Promises
//
// A write that returned nil is durable: it survives the process and, as far as
// the disk tells the truth, a power loss. A write that returned an error changed
// nothing. Reads see every write that returned before they began.
//
// # Who may do what
//
// Stores speak SQL and know package key; they decide nothing about requests.
// The rules of credits are key.Credits: a store applies them inside its own
// transaction, guarded so that no two callers spend the same credit.
package store

import (
	"context"
	"errors"
	"io"

	"github.com/caddy-apikey/caddy-apikey/key"
)

var (
	// ErrNotFound is returned where the key or owner does not exist.
	ErrNotFound = errors.New("not found")
	// ErrKeyLimit is returned where an owner would have more keys than a KeyLimit allows.
	ErrKeyLimit = errors.New("the owner has as many keys as are allowed")
	// ErrExists is returned where a key with the same ID or hash exists.
	ErrExists = errors.New("already exists")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("store is closed")
	// ErrUnavailable wraps every failure of the storage itself: the request may
	// be right and should be tried again later.
	ErrUnavailable = errors.New("store is unavailable")
)

// Entry is all that is stored of one key.
type Entry struct {
	Key         *key.Key
	Credits     key.Credits // as stored: a refill that is due is not applied (see Credits.At)
	LastRequest int64       // by any raw key; 0: never
	Windows     []Window    // of the key, sorted by unit
	Owner       key.Owner

	// Limit is set by the change of an Update which must not be made where the limit would
	// not hold afterwards.
	Limit KeyLimit
}

// KeyLimit bounds the keys that an owner has in the configuration of a key. The zero value
// does not.
type KeyLimit struct {
	Enabled int64 // that are enabled and have not expired
	All     int64
	Now     int64 // in Unix milliseconds
}

// Window returns the state of a window of the key, or nil.
func (e *Entry) Window(unit string) []byte {
	for i := range e.Windows {
		if e.Windows[i].Unit == unit {
			return e.Windows[i].State
		}
	}
	return nil
}

// OwnerEntry is all that is stored of an owner, but for its usage.
type OwnerEntry struct {
	key.Owner
	Windows []Window
}

// Sort is an order of List.
type Sort string

const (
	SortCreatedAt   Sort = "createdAt"
	SortName        Sort = "name"
	SortLastRequest Sort = "lastRequest"
	SortExpiresAt   Sort = "expiresAt"
)

// State is what becomes of a key without any request. A gate checks in this order.
type State string

const (
	StateDisabled  State = "disabled"  // the key or its owner
	StateExpired   State = "expired"   // its time is over
	StateExhausted State = "exhausted" // no credits are left, and no refill is due
	StateActive    State = "active"
)

// Filter narrows List. Zero fields do not narrow.
type Filter struct {
	UserID   string
	ConfigID string
	Enabled  *bool
	Prefix   string // exactly this prefix
	Query    string // part of the name, the displayed start or the owner, whatever the case of ASCII letters

	Tier          *TierFilter
	Permission    *key.Permission // that the key has, be it by a wildcard
	State         State           // at Now
	Now           int64           // in Unix milliseconds, for State
	ExpiresBefore int64           // the key has an end, before this time
	UnusedSince   int64           // the key is from before this time, and so is its last use, if any
	CreatedBefore int64
	RotatedBefore int64 // the present raw key is from before this time
}

// TierFilter narrows List to keys whose owner is in a tier.
type TierFilter struct {
	Name string
	// Default: the tier is also that of owners which have none, or one that is not Known.
	Default bool
	Known   []string
}

// List asks for a page of keys. Pages follow a cursor, not an offset: a page is
// as cheap at the end as at the start, and no key is seen twice. Ties are broken
// by ID. Keys without a value (no name, never used) come last in ascending and in
// descending order.
type List struct {
	Filter  Filter
	Sort    Sort // default SortCreatedAt
	Reverse bool
	Limit   int
	Cursor  string // Page.Next of the page before; empty for the first
}

// Page is one page of List. It may hold fewer keys than were asked for, even none, while
// there is a next one: what no index serves is looked for in a bounded number of keys, and
// records are read up to a bounded size.
type Page struct {
	Entries []Entry
	// Total is how many keys pass the filter, on all pages; UnknownTotal where neither an
	// index counts them nor few come into question.
	Total int64
	Next  string // URL-safe; empty on the last page
}

// UnknownTotal is the Total of a Page that is not known.
const UnknownTotal int64 = -1

// ErrCursor is returned for a cursor that List did not make, or made for another order.
var ErrCursor = errors.New("cursor does not belong to this list")

// OwnerInfo is an owner with the number of its keys.
type OwnerInfo struct {
	key.Owner
	KeyCount int64
}

// OwnerPage is one page of owners, sorted by UserID.
type OwnerPage struct {
	Owners []OwnerInfo
	Next   string
}

// Taken is the answer to MoveCredits.
type Taken struct {
	key.Moved
	Credits key.Credits // after the call, the due refill applied
	// Spent is what the movement was reported for, alone or with others that shared its
	// transaction; nil: as nearly always.
	Spent *Spent
}

// Lease is what a holder has of an account.
type Lease struct {
	key.Holder
	Amount int64
}

// Forfeit is what an account has lost.
type Forfeit struct {
	Subject
	Amount int64
}

// Account is the balance of a key or an owner.
type Account struct {
	Credits key.Credits // as stored: a refill that is due is not applied
	Leases  []Lease     // sorted by holder and epoch; Credits.Leased is their sum
}

// ForfeitNote makes the entries of the audit log for what accounts have lost, as a Note does.
type ForfeitNote func([]Forfeit) ([]AuditEntry, error)

// Expired says what DeleteExpired removes.
type Expired struct {
	// Before returns a time for a configuration: those of its keys go whose expiry
	// is not 0 and before that time. It runs while other writes wait: it must not
	// call the store.
	Before func(configID string) int64
	// Disabled is Before for keys that their owner has disabled: those go that were changed
	// last before that time. Nil: none go.
	Disabled func(configID string) int64
	// Previous raw keys go whose grace ended before this time.
	Previous int64
}

// Change is an administrative change of a key or an owner. Each has a revision, which
// grows over the whole store and is never used again.
type Change struct {
	Revision int64
	Subject
	Entry *Entry     // what a key is now
	Owner *OwnerInfo // what an owner is now
	Keys  int64      // of an owner that is gone: how many keys went with it

	// Of a key that is gone:
	UserID  string // its owner
	Expired bool   // DeleteExpired has removed it because its time was over
}

// Deleted reports whether the key or owner is gone.
func (c Change) Deleted() bool { return c.Entry == nil && c.Owner == nil }

// Status is what Health found.
type Status struct {
	Kind     string // "sqlite"
	Version  string // of the engine
	Schema   int64  // of the tables
	Database string // which database it is, without a password: for SQLite the path of the file
	Keys     int64
	Revision int64      // of the last change
	Audit    AuditPoint // the newest entry of the audit log
	Backlog  int        // writes that wait
}

// Store keeps keys. A note makes what is stored with what a method changes; it is not called
// where nothing is changed. All methods are safe for concurrent use. Times are Unix
// milliseconds. A cancelled context may end a read; a write that has begun runs
// to its end, and its result is then unknown to the caller.
type Store interface {
	// Find returns the key that has hash as its present or a previous raw key,
	// whether or not the grace of a previous one has ended.
	Find(ctx context.Context, hash key.Hash) (Entry, error)
	// Get returns a key by its ID.
	Get(ctx context.Context, id string) (Entry, error)
	// List returns a page of keys.
	List(ctx context.Context, q List) (Page, error)

	// Create adds a key, with its credits, and its owner where that is new
	// (enabled, no tier, made at the key's CreatedAt). It sets Version to 1. ErrKeyLimit is
	// returned, and nothing stored, where the limit would not hold afterwards.
	Create(ctx context.Context, k *key.Key, c key.Credits, limit KeyLimit, note Note) (Change, error)
	// Import adds keys as Create does, each with its last use and its windows, all in one
	// transaction. A key whose ID or one of whose hashes exists is left out with
	// its owner, and nothing of what exists is changed: its place in changes is empty.
	// Any other error is that of all, and nothing is stored.
	Import(ctx context.Context, batch []Entry, note Note) (changes []Change, err error)
	// Update runs change on a key inside one transaction and stores what it
	// left in the entry: change may replace Entry.Key (by a changed Clone) and
	// Entry.Credits, nothing else. Of what is leased it may settle all or nothing: where
	// nothing is leased afterwards, the leases are gone. Version grows by one if the
	// credits changed; where nothing changed nothing is written, and the revision is
	// that of the last change. An error
	// of change is returned as it is and nothing is stored. Changing UserID
	// moves the key, and makes the owner where that is new. change runs while
	// other writes wait: it must not call the store, or it waits for itself.
	Update(ctx context.Context, id string, change func(*Entry) error, note Note) (Change, error)
	// Delete removes a key with all that belongs to it, but for its usage.
	Delete(ctx context.Context, id string, note Note) (Change, error)
	// DeleteExpired removes up to limit keys that have been expired for long
	// enough. Previous raw keys go too, which changes the keys that had them.
	DeleteExpired(ctx context.Context, x Expired, limit int, note Note) ([]Change, error)

	// MoveCredits makes a movement of an account's credits, as key.Credits.Move says.
	// It is durable when it returns. A refusal writes nothing, not even a refill
	// that is due, unless something was settled or given back. key.ErrNotLeased
	// is returned, and nothing changed, where more is settled than the holder has
	// leased, and key.ErrNotHeld where more is settled than is held.
	MoveCredits(ctx context.Context, account Subject, m key.Move, now int64) (Taken, error)
	// ForfeitLeases gives up all that a holder has leased, in every epoch
	// (key.Credits.Forfeit). A process calls it before it leases anything: what was
	// leased under its name and did not come back is lost, because nobody knows how
	// much of it was spent. It returns how many credits that were.
	ForfeitLeases(ctx context.Context, holder string, note ForfeitNote) (int64, error)
	// Account returns the balance of a key or an owner with its leases. One that never
	// had credits is unlimited.
	Account(ctx context.Context, account Subject) (Account, error)
	// UpdateAccount runs change on the credits of a key or an owner inside one
	// transaction and stores what it left. It must not change what is leased.
	UpdateAccount(ctx context.Context, account Subject, change func(*key.Credits) error) (Account, error)

	// SaveCounters writes counters and nothing else. Subjects and previous raw keys
	// that are gone are skipped.
	SaveCounters(ctx context.Context, batch []Counters) error
	// Windows returns the windows of a subject, sorted by unit; none for one that does
	// not exist.
	Windows(ctx context.Context, s Subject) ([]Window, error)

	// SaveUsage adds a batch of increments to what is stored, unless a batch with
	// that number or a higher one was written by the same writer before. A count
	// never falls below zero. Owners that are gone are skipped, and keys that never
	// were; keys that are gone are not: their usage is kept.
	SaveUsage(ctx context.Context, b UsageBatch) error
	// Usage returns the days from first to last, both included, on which a subject was
	// used, the oldest first. For an owner that is all that keys did while they were
	// the owner's. A key that is gone may have some.
	Usage(ctx context.Context, s Subject, first, last int32) ([]DayUses, error)

	// Owner returns an owner.
	Owner(ctx context.Context, userID string) (OwnerInfo, error)
	// Owners returns a page of owners.
	Owners(ctx context.Context, limit int, cursor string) (OwnerPage, error)
	// PutOwner runs change on an owner inside one transaction and stores the
	// result; an owner that does not exist begins enabled, with both times now.
	// Where nothing changed nothing is written, as in Update.
	PutOwner(ctx context.Context, userID string, now int64, change func(*key.Owner) error, note Note) (Change, error)
	// ImportOwners adds owners, each with its windows, all in one transaction. An owner
	// that exists is left out and stays as it is: its place in changes is empty. Any
	// error is that of all, and nothing is stored.
	ImportOwners(ctx context.Context, batch []OwnerEntry, note Note) (changes []Change, err error)
	// DeleteOwner removes an owner with its keys, its windows and its usage. Its keys have
	// no changes of their own: there may be very many. They are gone when DeleteOwner
	// returns, however long it takes to clear their rows away.
	DeleteOwner(ctx context.Context, userID string, note Note) (Change, error)

	// Audit returns a page of the audit log, which the notes of changes and AppendAudit
	// have written. Entries that are added meanwhile may be on the page and newer than Head.
	Audit(ctx context.Context, q AuditQuery) (AuditPage, error)
	// AppendAudit adds what belongs to no change.
	AppendAudit(ctx context.Context, noted Noted) error
	// TrimAudit removes up to limit entries, the oldest first, while they are from before a
	// time, and returns how many. The last one removed becomes the anchor.
	TrimAudit(ctx context.Context, before int64, limit int) (int, error)

	Outbox

	// Subscribe has f called with all changes from now on, until cancel is called: in
	// the order of their revisions, each after it is durable and before the write that
	// made it returns. No call of Get, List, Owner, Owners or Audit shows a change that f has
	// still to be told of, and no Find leaves a key out for one. f must be quick, and must not
	// call the store.
	Subscribe(f func([]Change)) (cancel func())

	// EachHash calls f with the hash of every present and previous raw key that was
	// stored before the call, in ascending order: whatever was stored before the call
	// below the last hash has been told. It may also tell of keys that were stored during
	// the call, and of some that were deleted.
	EachHash(ctx context.Context, f func(key.Hash)) error
	// HasPlainKeys reports whether a raw key without a checksum is stored, be it a
	// present or a previous one.
	HasPlainKeys(ctx context.Context) (bool, error)
	// Health asks the storage itself, now.
	Health(ctx context.Context) (Status, error)
	// Close ends the store after the writes that have begun. Later calls return ErrClosed.
	Close() error
}

// Statistics is what a store may tell beside Store. What SaveUsage has added is in it.
type Statistics interface {
	// KeyCounts returns how many keys there are, by configuration and state.
	KeyCounts(ctx context.Context) ([]KeyCount, error)
	// Hours returns the requests of the hours from first to last, both included,
	// sorted by hour, outcome and tier.
	Hours(ctx context.Context, first, last int64) ([]HourUses, error)
	// TopOwners returns the owners with the most requests on a day, at most
	// MaxTopOwners, the busiest first.
	TopOwners(ctx context.Context, day int32) ([]OwnerUses, error)
	// AskedPermissions returns the permissions that requests asked a key for, sorted,
	// at most MaxAskedPermissions: those that came first.
	AskedPermissions(ctx context.Context, id string) ([]string, error)
	// Figures counts over the whole store, as it is at now: the keys that expire after now,
	// up to each time of until, among others. That may take a while where there are very many
	// keys; nothing must have to wait for it.
	Figures(ctx context.Context, now int64, until []int64) (Figures, error)
	// Backlog returns how many writes wait. It asks nobody, so that it answers while the
	// storage does not.
	Backlog() int
}

// Figures are numbers of the whole store.
type Figures struct {
	// Active, Disabled, Expired and Exhausted are how many keys are in each State.
	Active, Disabled, Expired, Exhausted int64
	// Expiring has a number for each time that was asked for, of keys in any State.
	Expiring []int64
	Leased   int64 // credits that are out with holders
}

// Backuper is what a store may implement beside Store.
type Backuper interface {
	// Backup returns a copy of the store at one moment, with every write that returned
	// before the call. Other calls go on while it is made and read. The caller closes it.
	Backup(ctx context.Context) (*Backup, error)
}

// Backup is a copy of a store, as an SQLite database.
type Backup struct {
	io.ReadCloser
	Size int64 // in bytes
}

// Opener opens a store when it is first needed. Making one touches nothing, so
// that a configuration can be checked beside a running server.
type Opener interface {
	// Identity tells stores apart: two openers with the same identity name the
	// same data, whatever their options. It is logged, so it contains the kind of
	// the store and its location, such as "sqlite:/var/lib/keys.db", and no password.
	Identity() string
	// Open locks, creates or opens, and migrates. It returns an error that names
	// the file or server and says what to do.
	Open(ctx context.Context) (Store, error)
}
