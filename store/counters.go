package store

import "github.com/caddy-apikey/caddy-apikey/key"

// Kind tells keys and owners apart. Kinds are stored by name.
type Kind string

const (
	KindKey   Kind = "key"
	KindOwner Kind = "owner"
)

// Subject is what windows and usage belong to: a key or an owner.
type Subject struct {
	Kind Kind
	ID   string
}

// OfKey returns the subject that is a key.
func OfKey(id string) Subject { return Subject{KindKey, id} }

// OfOwner returns the subject that is an owner.
func OfOwner(userID string) Subject { return Subject{KindOwner, userID} }

// UnitRate is the unit of the window of a key's own rate limit.
const UnitRate = "rate"

// Window is what a subject has used of one limit, such as that of a "day".
type Window struct {
	Unit  string
	State []byte // an encoded ratelimit.State; none: it has used nothing
}

// Counters are what use has changed of a subject, on their way to the store. They
// are written behind the requests, never with the record.
type Counters struct {
	Subject
	// Windows that are named are replaced; others of the subject stay as they are.
	Windows []Window
	// LastRequest is the last use of a key by any raw key; 0: never. Not for owners.
	LastRequest int64
	// Previous are the uses of a key's previous raw keys that have changed.
	Previous []PreviousUse
}

// PreviousUse is the last use of a previous raw key.
type PreviousUse struct {
	Hash        key.Hash
	LastRequest int64
}
