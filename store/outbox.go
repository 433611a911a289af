package store

import "context"

// DeliveryState is what becomes of a Delivery.
type DeliveryState string

const (
	DeliveryPending DeliveryState = "pending" // it is tried until it succeeds
	DeliveryDead    DeliveryState = "dead"    // it has failed for too long
)

// Delivery is an event on its way to a webhook. It holds IDs, and no raw key, secret or hash.
type Delivery struct {
	ID          string // the same at each attempt
	Event       string // such as "apikey_key_created"
	URL         string
	Body        []byte // JSON
	State       DeliveryState
	Attempts    int64
	NextAttempt int64 // in Unix milliseconds; while it is being sent, when it is taken for lost
	LastStatus  int   // of HTTP; 0: none was tried, or nothing was answered
	CreatedAt   int64
}

// DeliveryQuery asks for a page of the outbox, the newest deliveries first.
type DeliveryQuery struct {
	State  DeliveryState // empty: any
	Limit  int
	Cursor string // DeliveryPage.Next of the page before; empty for the first
}

// DeliveryPage is a page of the outbox.
type DeliveryPage struct {
	Deliveries []Delivery
	Next       string // URL-safe; empty on the last page
}

// Spent tells that an account has used so much of its credits that it is reported.
type Spent struct {
	Subject
	UserID  string  // the owner
	Reached []int64 // the thresholds, in percent, ascending
}

// Spending says which use of credits is reported. Its methods run while other writes wait:
// they must be quick, and not call the store.
type Spending interface {
	// Thresholds are in percent of key.Credits.Peak, ascending.
	Thresholds() []int64
	// Report returns what is stored with the movement that has reached thresholds.
	Report(Spent) []Delivery
}

// Moment is what may happen to a key when its time comes.
type Moment string

const (
	MomentExpiry  Moment = "expiry"   // a key that is enabled expires
	MomentLastUse Moment = "last_use" // the hour of the last use of an enabled key
	MomentUnused  Moment = "unused"   // the creation of an enabled key that was never used
)

// Mark is a place in the order of a Moment: a time, and what comes first of those at the same
// time.
type Mark struct {
	At int64
	ID string
}

// Passed is a key of whose Moment the time has come.
type Passed struct {
	Mark   Mark
	KeyID  string
	UserID string
}

// Outbox keeps events until webhooks have them.
type Outbox interface {
	// ClaimDeliveries returns up to limit deliveries to a URL that are due, those that have
	// waited longest first, for the caller alone to send: until then nobody else is
	// given them. An attempt is counted for each. next is when a delivery to the URL is due that
	// is not now, at the latest; 0: none is there.
	ClaimDeliveries(ctx context.Context, url string, now, until int64, limit int) (claimed []Delivery, next int64, err error)
	// EndDeliveries removes those that were delivered, and stores State, Attempts, NextAttempt
	// and LastStatus of those that were not. Some that are gone are passed over.
	EndDeliveries(ctx context.Context, delivered []string, failed []Delivery) error
	// RetryDelivery has one tried again, now and as if it were new. It returns ErrNotFound
	// where there is none.
	RetryDelivery(ctx context.Context, id string, now int64) (Delivery, error)
	// Deliveries returns a page.
	Deliveries(ctx context.Context, q DeliveryQuery) (DeliveryPage, error)
	// ExpireDeliveries gives up to limit up that are from before pending, and removes up to
	// limit that are dead and from before dead. It returns how many were changed.
	ExpireDeliveries(ctx context.Context, pending, dead int64, limit int) (int, error)

	// Mark returns a mark by its name, and false where it was never set.
	Mark(ctx context.Context, name string) (m Mark, ok bool, err error)
	// SetMark sets a mark, and stores what is sent for the keys before it with that.
	SetMark(ctx context.Context, name string, m Mark, outbox []Delivery) error
	// Passed returns up to limit keys of whose moment the time has come after a mark and not
	// after a time, the earliest first.
	Passed(ctx context.Context, m Moment, after Mark, until int64, limit int) ([]Passed, error)

	// ReportSpending says from now on which use of credits is reported; nil: none.
	ReportSpending(s Spending)
}
