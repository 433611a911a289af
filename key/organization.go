package key

import "strings"

// organizationPrefix begins the owner of the keys of an organization, so that a user
// of the same name is another owner.
const organizationPrefix = "org:"

// OrganizationOwner returns the owner of the keys of an organization.
func OrganizationOwner(id string) string { return organizationPrefix + id }

// OrganizationOf returns the ID of the organization that an owner is; ok is false for
// a user.
func OrganizationOf(owner string) (id string, ok bool) {
	return strings.CutPrefix(owner, organizationPrefix)
}
