package betterauth

import (
	"slices"
	"strings"

	"github.com/caddy-apikey/caddy-apikey/key"
)

// What a role may be allowed to do with the keys of its organization.
const (
	actionCreate = "create"
	actionRead   = "read"
	actionUpdate = "update"
	actionDelete = "delete"
)

// Actions are what a role may be allowed to do with the keys of its organization.
var Actions = []string{actionCreate, actionRead, actionUpdate, actionDelete}

// Organization says which keys belong to organizations, and who may do what with
// them. Nil: none do.
type Organization struct {
	// Configs are the configurations whose keys belong to organizations.
	Configs []string
	// Allow are the actions by role.
	Allow map[string][]string
	// CreatorRole may do everything.
	CreatorRole string
}

// has reports whether new keys of a configuration belong to organizations.
func (o *Organization) has(configID string) bool {
	return o != nil && slices.Contains(o.Configs, configID)
}

// isOrganization reports whether a key belongs to an organization.
func isOrganization(k *key.Key) bool {
	_, ok := key.OrganizationOf(k.UserID)
	return ok
}

// allows reports whether one of some roles, separated by commas or blanks, may do
// something.
func (o *Organization) allows(roles, action string) bool {
	return o != nil && slices.ContainsFunc(strings.FieldsFunc(roles, isSeparator), func(role string) bool {
		return role == o.CreatorRole || slices.Contains(o.Allow[role], action)
	})
}

func isSeparator(r rune) bool { return r == ',' || r == ' ' }

// isMember reports whether the caller acts for an organization.
func (c *call) isMember(id string) bool { return id != "" && c.Caller.Organization == id }

// actFor reports why the caller may not do something for an organization.
func (c *call) actFor(id, action string) error {
	switch {
	case !c.isMember(id):
		return errNoMember
	case !c.Organization.allows(c.Caller.Role, action):
		return errRole
	}
	return nil
}
