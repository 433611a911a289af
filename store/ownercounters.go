package store

import "github.com/caddy-apikey/caddy-apikey/key"

// OwnerCounter is what the keys of an owner have used together of one unit, such
// as "day".
type OwnerCounter struct {
	Unit  string
	State []byte // an encoded ratelimit.State, not empty
}

// OwnerCounted is an OwnerCounter on its way to the store.
type OwnerCounted struct {
	UserID string
	OwnerCounter
}

// OwnerEntry is all that is stored of an owner, but for its usage.
type OwnerEntry struct {
	key.Owner
	Counters []OwnerCounter
}
