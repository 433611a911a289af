package key

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
	"unique"
)

// Permissions are the actions that a key may do on each resource. The action
// "*" is every action of its resource; "*" of resource "*" is everything.
type Permissions map[string][]string

// Permission is one action on one resource, written "resource:action".
type Permission struct{ Resource, Action string }

const (
	// DefaultResource is the resource of a bare name: "read" is "api:read".
	DefaultResource = "api"
	// Wildcard as an action is every action, as a resource every resource.
	Wildcard       = "*"
	maxPermission  = 128 // bytes in a resource or an action
	maxPermissions = 1000
)

// compact returns a copy whose words are shared with all others.
func (p Permissions) compact() Permissions {
	if p == nil {
		return nil
	}
	c := make(Permissions, len(p))
	for resource, actions := range p {
		list := make([]string, len(actions))
		for i, action := range actions {
			list[i] = unique.Make(action).Value()
		}
		c[unique.Make(resource).Value()] = list
	}
	return c
}

// String returns "resource:action".
func (p Permission) String() string { return p.Resource + ":" + p.Action }

// ParsePermission reads "resource:action", or a bare action of DefaultResource. As
// text, a permission has no character by which somebody may mean several.
func ParsePermission(s string) (Permission, error) {
	if strings.Contains(s, "{args[") {
		return Permission{}, errors.New("must not contain {args[…]}: the snippet is imported without that argument")
	}
	if strings.ContainsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune(",/{}", r) }) {
		return Permission{}, errors.New(`must not contain blanks, commas, slashes, braces or placeholders: write each of several on its own, such as files:read files:write in a Caddyfile, ` +
			`--permission files:read --permission files:write on the command line, or ["files:read","files:write"] in JSON`)
	}
	resource, action, ok := strings.Cut(s, ":")
	if !ok {
		resource, action = DefaultResource, s
		if s == Wildcard {
			return Permission{}, errors.New(`a bare "*" is ambiguous: write "*:*" for everything or "api:*" for every action of "api"`)
		}
	}
	p := Permission{resource, action}
	return p, p.Check()
}

// Check reports why p cannot be a permission.
func (p Permission) Check() error {
	if err := checkWord(p.Resource); err != nil {
		return fmt.Errorf("resource: %w", err)
	}
	if err := checkWord(p.Action); err != nil {
		return fmt.Errorf("action: %w", err)
	}
	if strings.Contains(p.Resource, ":") {
		return errors.New(`resource: must not contain ":"`)
	}
	if p.Resource == Wildcard && p.Action != Wildcard {
		return errors.New(`resource "*" goes with action "*" only`)
	}
	return nil
}

// checkWord keeps permissions printable as one space-separated line.
func checkWord(s string) error {
	if s == "" || len(s) > maxPermission || !utf8.ValidString(s) {
		return fmt.Errorf("must be 1 to %d bytes of UTF-8", maxPermission)
	}
	if strings.ContainsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }) {
		return errors.New("must not contain blanks or control characters")
	}
	return nil
}

// ParsePermissions reads a list of "resource:action". Repetitions are dropped.
func ParsePermissions(list []string) (Permissions, error) {
	p := Permissions{}
	for _, s := range list {
		one, err := ParsePermission(s)
		if err != nil {
			return nil, err
		}
		p.add(one)
	}
	return p, p.checkSize()
}

// UnmarshalPermissions reads the JSON forms {"files":["read"]} and
// ["files:read"]; null is nil.
func UnmarshalPermissions(raw json.RawMessage) (Permissions, error) {
	var list []string
	if err := json.Unmarshal(raw, &list); err == nil {
		if list == nil {
			return nil, nil
		}
		return ParsePermissions(list)
	}
	var m map[string][]string
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, errors.New(`must be a map {"resource":["action"]} or a list ["resource:action"]`)
	}
	p := Permissions{}
	for resource, actions := range m {
		for _, action := range actions {
			one := Permission{resource, action}
			if err := one.Check(); err != nil {
				return nil, err
			}
			p.add(one)
		}
	}
	return p, p.checkSize()
}

func (p Permissions) checkSize() error {
	n := 0
	for _, actions := range p {
		n += len(actions)
	}
	if n > maxPermissions {
		return fmt.Errorf("must be at most %d permissions", maxPermissions)
	}
	return nil
}

func (p Permissions) add(one Permission) {
	if !slices.Contains(p[one.Resource], one.Action) {
		p[one.Resource] = append(p[one.Resource], one.Action)
	}
}

// Allows reports whether p grants want, by name or by Wildcard.
func (p Permissions) Allows(want Permission) bool {
	actions := p[want.Resource]
	return slices.Contains(actions, want.Action) || slices.Contains(actions, Wildcard) ||
		slices.Contains(p[Wildcard], Wildcard)
}

// AllowsAll reports whether p grants each of want.
func (p Permissions) AllowsAll(want []Permission) bool {
	for _, w := range want {
		if !p.Allows(w) {
			return false
		}
	}
	return true
}

// AllowsAny reports whether p grants one of want.
func (p Permissions) AllowsAny(want []Permission) bool {
	return slices.ContainsFunc(want, p.Allows)
}

// Covers reports whether o grants nothing that p does not grant.
func (p Permissions) Covers(o Permissions) bool {
	for resource, actions := range o {
		for _, action := range actions {
			if !p.Allows(Permission{resource, action}) {
				return false
			}
		}
	}
	return true
}

// Union returns what p or o grants.
func (p Permissions) Union(o Permissions) Permissions {
	all := Permissions{}
	for _, one := range []Permissions{p, o} {
		for resource, actions := range one {
			for _, action := range actions {
				all.add(Permission{resource, action})
			}
		}
	}
	return all
}

// Part returns what of o p grants too; nil stays nil.
func (p Permissions) Part(o Permissions) Permissions {
	if o == nil || p.Covers(o) {
		return o
	}
	part := Permissions{}
	for resource, actions := range o {
		for _, action := range actions {
			if one := (Permission{resource, action}); p.Allows(one) {
				part.add(one)
			} else if resource == Wildcard {
				return p // everything, cut down to what is here
			} else if action == Wildcard {
				for _, mine := range p[resource] {
					part.add(Permission{resource, mine})
				}
			}
		}
	}
	return part
}

// List returns p as sorted "resource:action" strings.
func (p Permissions) List() []string {
	list := []string{}
	for resource, actions := range p {
		for _, action := range actions {
			list = append(list, resource+":"+action)
		}
	}
	slices.Sort(list)
	return list
}
