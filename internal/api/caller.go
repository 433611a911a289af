package api

import (
	"net/http"
	"net/netip"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// The actions on the resource "api" that the self-service APIs know.
const (
	Read  = keyring.Read
	Write = keyring.Write
	Admin = keyring.Admin
)

// Caller makes a call: the holder of a key, or a person whom another handler has
// identified.
type Caller struct {
	UserID string
	// Organization is the one that a person acts for, and Role what the person is
	// there; several roles are separated by commas or blanks. A key acts for none.
	Organization, Role string
	// ClientIP is the address that the caller calls from. The zero value: not known.
	ClientIP netip.Addr
	// Permissions are what the caller may do.
	Permissions key.Permissions
	// Decision let the caller's key in; nil for a person.
	Decision *keyring.Decision
	// Session: the key stands for its owner, as far as its configuration and the
	// gates in front allow it.
	Session bool
	// Scope is what the caller may pass on.
	Scope *keyring.Scope
	// Cancel takes back what the call was charged, for a call that is refused
	// after all, and has statistics count it as refused for the given reason. It may
	// be called once.
	Cancel func(keyring.Outcome)
	// Spend takes a free call from the caller's budget of them. Its error is a *Refusal
	// where none is left. Nil: there is no budget.
	Spend func() error
}

// Actor returns who changes something by the caller's calls. only is that of
// keyring.Actor.
func (c *Caller) Actor(only func(*key.Key) bool) keyring.Actor {
	a := keyring.Actor{Kind: keyring.ActorPerson, ID: c.UserID, Address: c.ClientIP, Scope: c.Scope, Only: only}
	if c.Decision != nil {
		a.Kind, a.ID = keyring.ActorKey, c.Decision.Key().ID
	}
	return a
}

// Ask is what a call asks of its caller.
type Ask struct {
	// Needs is the action on the resource "api" that the caller must have, empty for
	// none.
	Needs string
	// Free charges nothing, and does not refuse for want of what would be charged.
	Free bool
	// Look decides without charging anything: the call will be asked for again. Only a
	// refusal is final.
	Look bool
}

// Identify finds the caller of a request. Its error is a *Refusal for a caller who
// may not make the call, also for want of the action that it needs; one with the
// outcome Missing says that the request carries no identity at all. Rate headers are
// set on w.
type Identify func(w http.ResponseWriter, r *http.Request, ask Ask) (*Caller, error)

// May reports whether the caller has an action on the resource "api", or all of
// them as admin.
func (c *Caller) May(action string) bool { return May(c.Permissions, action) }

// Refused gives back what a call was charged that ends with a status, where that is
// one of those that cost nothing: the caller, or the server, made no use of it.
func (c *Caller) Refused(status int) {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		c.Cancel(keyring.Forbidden)
	case http.StatusServiceUnavailable:
		c.Cancel(keyring.Unavailable)
	}
}

// May reports whether permissions give an action on the resource "api".
func May(p key.Permissions, action string) bool { return p.AllowsAny(Needs(action)) }

// Needs returns the permissions of which one is needed for an action on the
// resource "api".
func Needs(action string) []key.Permission {
	return []key.Permission{
		{Resource: key.DefaultResource, Action: action},
		{Resource: key.DefaultResource, Action: Admin},
	}
}

// Grantable returns what somebody with these permissions may grant.
func Grantable(p key.Permissions) key.Permissions { return keyring.Grantable(p) }
