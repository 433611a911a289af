package apikey

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/internal/api/betterauth"
	"github.com/caddy-apikey/caddy-apikey/keyring"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// Organization lets people act for the organization that they belong to. Keys of its
// configurations have an organization for their owner, and stand for no user.
type Organization struct {
	// ID is a placeholder that holds the organization of a person, empty for none.
	ID string `json:"id"`
	// Role is a placeholder that holds the roles that a person has there, separated by
	// commas or blanks.
	Role string `json:"role"`
	// Configs are the configurations whose keys belong to organizations.
	Configs []string `json:"configs"`
	// Allow says what each role may do: create, read, update, delete. Default: nothing.
	Allow map[string][]string `json:"allow,omitempty"`
	// CreatorRole may do everything. Default: "owner".
	CreatorRole string `json:"creator_role,omitempty"`
}

const defaultCreatorRole = "owner"

// actFor says which organization a person acts for: none that is disabled, or that no
// owner can be called.
func (s *SelfService) actFor(ctx context.Context, c *api.Caller, told func(placeholder string) string) error {
	if s.Organization == nil {
		return nil
	}
	id := told(s.Organization.ID)
	if keyring.CheckUserID(id) != nil {
		return nil
	}
	owner, err := s.keys.Owner(ctx, id)
	switch {
	case errors.Is(err, store.ErrNotFound): // one that has no key yet
	case err != nil:
		return err
	case !owner.Enabled:
		return nil
	}
	c.Organization, c.Role = id, told(s.Organization.Role)
	return nil
}

// has reports whether keys of a configuration belong to organizations.
func (o *Organization) has(configID string) bool {
	return o != nil && slices.Contains(o.Configs, configID)
}

// rules are what the dialect has to know.
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

// check reports what could never work.
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
			return fmt.Errorf("organization: allow: %q is no role: commas and blanks separate roles", role)
		}
		for _, action := range actions {
			if !slices.Contains(betterauth.Actions, action) {
				return fmt.Errorf("organization: allow: an action must be one of %s", strings.Join(betterauth.Actions, ", "))
			}
		}
	}
	return nil
}

// checkWhole reports what is missing, once all options are known.
func (o *Organization) checkWhole(s *SelfService) error {
	switch {
	case o == nil:
		return nil
	case s.dialectName() != "better_auth":
		return errors.New("organization: is for the dialect better_auth only")
	case s.User == "":
		return errors.New("organization: people act for it, so it needs user")
	case o.Role == "":
		return errors.New("organization: needs role: without one, nobody may do anything")
	case len(o.Configs) == 0:
		return errors.New("organization: needs config: the configurations whose keys belong to organizations")
	}
	for _, id := range o.Configs {
		if s.Configs != nil && !slices.Contains(s.Configs, id) {
			return fmt.Errorf("organization: config: %q is none of the configurations that this API is about", id)
		}
	}
	return nil
}
