// Package caller is what the self-service APIs know of who calls them. How a
// caller is found is the business of the root package: the dialects ask for it
// when their order of checks says so, and only then is a key charged.
package caller

import (
	"net/http"
	"strconv"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// The actions on the resource "api" that the self-service APIs know.
const (
	Read  = "read"
	Write = "write"
	Admin = "admin"
)

// Caller is who calls: the holder of a key, or a person whom another handler has
// identified.
type Caller struct {
	UserID string
	// Organization is the one that a person acts for, and Role what the person is
	// there; several roles are separated by commas or blanks. A key acts for none.
	Organization, Role string
	// Permissions are what the caller may do.
	Permissions key.Permissions
	// Decision let the caller's key in; nil for a person.
	Decision *keyring.Decision
	// Bounds are what the caller may pass on.
	Bounds *keyring.Bounds
	// Withdraw takes back what the call was charged, for a call that is refused
	// after all, and has statistics count it as refused for the reason that is
	// given. It may be called once.
	Withdraw func(keyring.Outcome)
}

// May reports whether the caller has an action on the resource "api", or all of
// them as admin.
func (c *Caller) May(action string) bool { return May(c.Permissions, action) }

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

// Grantable returns what somebody with these permissions may grant: the same, and
// with Admin every action that is known here.
func Grantable(p key.Permissions) key.Permissions {
	if !May(p, Admin) {
		return p
	}
	return p.Union(key.Permissions{key.DefaultResource: {Read, Write, Admin}})
}

// Answer is what asking for the caller gave.
type Answer struct {
	// Caller is nil where nobody was found or the caller was refused.
	Caller *Caller
	// Refusal says why: Missing where the request carries no identity at all.
	Refusal keyring.Decision
	// Challenge is the value of WWW-Authenticate that belongs to a 401.
	Challenge string
	// Foreign: a browser would change something here for a page of another origin.
	Foreign bool
	// NotJSON: a browser might change something here for a form, which cannot send
	// JSON.
	NotJSON bool
}

// Refused gives back what a call was charged that ends with a status, where that
// status costs nothing: a refusal, or a store that cannot be asked.
func (c *Caller) Refused(status int) {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		c.Withdraw(keyring.Forbidden)
	case http.StatusServiceUnavailable:
		c.Withdraw(keyring.Unavailable)
	}
}

// SetHeaders sets the headers that belong to a refusal.
func (a *Answer) SetHeaders(h http.Header) {
	if a.Refusal.Outcome.Status() == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", a.Challenge)
	}
	if a.Refusal.Waitable {
		h.Set("Retry-After", strconv.FormatInt(max(1, (a.Refusal.Wait+999)/1000), 10))
	}
}

// Identify finds who makes a request, and refuses who lacks the action that is
// needed on the resource "api"; empty is none. A key that the request carries is
// verified and charged, once, however often it is asked; rate headers go to w.
// Errors of the store are logged where it is implemented.
type Identify func(w http.ResponseWriter, r *http.Request, need string) Answer
