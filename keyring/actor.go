package keyring

import (
	"net/netip"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// ActorKind says what an Actor is.
type ActorKind string

const (
	// ActorOperator manages the server, as through Caddy's admin endpoint.
	ActorOperator ActorKind = "operator"
	// ActorKey is the holder of a key.
	ActorKey ActorKind = "key"
	// ActorPerson is somebody who has signed in.
	ActorPerson ActorKind = "person"
	// ActorSystem is the server itself, as when it deletes expired keys.
	ActorSystem ActorKind = "system"
)

// Actor is whoever changes something.
type Actor struct {
	Kind    ActorKind
	ID      string     // of the key or the person
	Name    string     // that an operator has given himself, for the audit log (see CheckActorName)
	Address netip.Addr // the zero value: not known
	// Scope is what the actor may grant. Nil: everything, as operators may.
	Scope *Scope
	// Only reports whether the actor may know of a key; any other is not found. It runs
	// while the key is being changed. Nil: all.
	Only func(*key.Key) bool
}

// Editor makes changes in the name of an actor.
type Editor struct {
	*Service
	actor Actor
}

// As returns an editor for an actor.
func (s *Service) As(a Actor) *Editor { return &Editor{s, a} }

// mayChange refuses an actor who may change nothing at all.
func (e *Editor) mayChange() error { return e.actor.Scope.mayChange() }

// recordsPerKey is how many keys of all states an owner may have for each that is enabled.
const recordsPerKey = 10

// keyLimit returns how many keys an owner may have after the actor has made one or had one
// work again.
func (e *Editor) keyLimit(r *Rules, now int64) store.KeyLimit {
	if e.actor.Scope == nil {
		return store.KeyLimit{}
	}
	return store.KeyLimit{Enabled: r.MaxKeys, All: r.MaxKeys * recordsPerKey, Now: now}
}

// knows returns store.ErrNotFound for a key that the actor may not know of.
func (e *Editor) knows(k *key.Key) error {
	if e.actor.Only != nil && !e.actor.Only(k) {
		return errUnknownKey
	}
	return nil
}

// record returns what is stored with a change that the actor makes, of which entries are
// the entries of the audit log.
func (e *Editor) record(entries noter) *recorded {
	return &recorded{set: e.set, entries: entries}
}

// changed tells the observers of changes that the actor has made.
func (e *Editor) changed(r *recorded, changes ...store.Change) {
	tellChanged(e.set, e.actor, changes, r.events)
}
