// Package caller is what the self-service APIs know of who calls them. How a
// caller is found is the business of the root package: the dialects ask for it
// when their order of checks says so, and only then is a key charged.
package caller

import (
	"net/http"

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
	// Permissions are what the caller may do, and the most it may grant.
	Permissions key.Permissions
	// Decision let the caller's key in; nil for a person.
	Decision *keyring.Decision
	// Bounds are what the caller may pass on.
	Bounds *keyring.Bounds
}

// May reports whether the caller has an action on the resource "api", or all of
// them as admin.
func (c *Caller) May(action string) bool {
	return c.Permissions.Allows(key.Permission{Resource: key.DefaultResource, Action: action}) || c.IsAdmin()
}

// IsAdmin reports whether the caller has the action Admin.
func (c *Caller) IsAdmin() bool {
	return c.Permissions.Allows(key.Permission{Resource: key.DefaultResource, Action: Admin})
}

// Answer is what asking for the caller gave.
type Answer struct {
	// Caller is nil where nobody was found or the caller was refused.
	Caller *Caller
	// Refusal says why: Missing where the request carries no identity at all.
	Refusal keyring.Decision
	// Foreign: a person's browser would change something for a page of another
	// origin.
	Foreign bool
}

// Identify finds who makes a request. A key that the request carries is verified
// and charged, once, however often it is asked; rate headers go to w. Errors of
// the store are logged where it is implemented.
type Identify func(w http.ResponseWriter, r *http.Request) Answer
