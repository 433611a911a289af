package apikey

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/internal/api/betterauth"
	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// Organization lets people act for the organization that they belong to. The keys
// that they create in its configurations are owned by the organization and identify
// no user. The owner of an organization with the ID "acme" is "org:acme".
type Organization struct {
	// ID is a placeholder that holds the ID of the organization of a person, or
	// nothing. Required.
	ID string `json:"id"`
	// Role is a placeholder that holds the roles of the person in the organization,
	// separated by commas or spaces. Required.
	Role string `json:"role"`
	// Configs are the configurations whose keys belong to organizations. Required.
	Configs []string `json:"configs"`
	// Allow lists the actions that each role may perform: create, read, update,
	// delete. Default: none.
	Allow map[string][]string `json:"allow,omitempty"`
	// CreatorRole is the role that may perform all actions. Default: "owner".
	CreatorRole string `json:"creator_role,omitempty"`
}

const defaultCreatorRole = "owner"

// actFor sets the organization that a person acts for. An organization that is
// disabled, or whose ID cannot be that of an owner, is ignored.
func (s *SelfService) actFor(ctx context.Context, c *api.Caller, value func(placeholder string) string) error {
	if s.Organization == nil {
		return nil
	}
	id := value(s.Organization.ID)
	userID := key.OrganizationOwner(id)
	if keyring.CheckUserID(userID) != nil {
		return nil //nolint:nilerr // ignored, as said above
	}
	owner, err := s.keys.Owner(ctx, userID)
	switch {
	case errors.Is(err, store.ErrNotFound): // one that has no key yet
	case err != nil:
		return err
	case !owner.Enabled:
		return nil
	}
	c.Organization, c.Role = id, value(s.Organization.Role)
	return nil
}

// configs returns the configurations whose keys belong to organizations.
func (o *Organization) configs() []string {
	if o == nil {
		return nil
	}
	return o.Configs
}

// rules returns the options of the dialect.
func (o *Organization) rules() *betterauth.Organization {
	if o == nil {
		return nil
	}
	r := &betterauth.Organization{Configs: o.Configs, Allow: o.Allow, CreatorRole: o.CreatorRole}
	if r.CreatorRole == "" {
		r.CreatorRole = defaultCreatorRole
	}
	return r
}

// check validates each field on its own.
func (o *Organization) check() error {
	if o == nil {
		return nil
	}
	if err := checkIdentityPlaceholder(o.ID); err != nil {
		return fmt.Errorf("organization: %w", err)
	}
	if o.Role != "" {
		if err := checkIdentityPlaceholder(o.Role); err != nil {
			return fmt.Errorf("organization: role: %w", err)
		}
	}
	if err := checkConfigList(o.Configs); err != nil {
		return fmt.Errorf("organization: %w", err)
	}
	for role, actions := range o.Allow {
		if role == "" || strings.ContainsAny(role, ", ") {
			return fmt.Errorf("organization: allow: %q is not a role: roles are separated by commas and spaces", role)
		}
		for _, action := range actions {
			if !slices.Contains(betterauth.Actions, action) {
				return fmt.Errorf("organization: allow: an action must be one of %s", strings.Join(betterauth.Actions, ", "))
			}
		}
	}
	return nil
}

// checkTogether validates the fields in combination with those of the API.
func (o *Organization) checkTogether(s *SelfService) error {
	switch {
	case o == nil:
		return nil
	case s.dialectName() != "better_auth":
		return errors.New("organization: only available with dialect better_auth")
	case s.User == "":
		return errors.New("organization: requires user, because people act for it")
	case o.Role == "":
		return errors.New("organization: requires role, because roles allow actions")
	case len(o.Configs) == 0:
		return errors.New("organization: requires config, the configurations whose keys belong to organizations")
	}
	for _, id := range o.Configs {
		if s.Configs != nil && !slices.Contains(s.Configs, id) {
			return fmt.Errorf("organization: config: %q must also be in the config list of the API", id)
		}
	}
	return nil
}
