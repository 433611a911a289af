package admin

import (
	"net/http"
	"net/url"
	"reflect"
	"strings"
)

// route is one call of the API. Requests are decoded by its types, and the
// OpenAPI document is made from it.
type route struct {
	name, method, pattern, summary string

	status     int   // of the good answer
	static     bool  // needs no running keyring
	mayBeEmpty bool  // the body may be empty
	unhealthy  bool  // a 503 is an Unhealthy
	conflict   bool  // may answer 409
	maxBody    int64 // default 64 KiB

	end
	segments                []string
	queryFields, bodyFields []field
}

// end is the function behind a route, with its types.
type end struct {
	query, body, answer reflect.Type // none where there is none
	serve               func(c *call, query, body any) (any, error)
}

// none stands for a query, a body or an answer that is not there.
type none struct{}

var noneType = reflect.TypeFor[none]()

// routes returns the table. Fixed paths stand before variable ones.
func routes() []*route {
	const get, post, put, patch, remove = http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete
	all := []*route{
		{name: "createKey", method: post, pattern: "/apikey/keys", status: 201, conflict: true, end: withBody(createKey), summary: "Make a key"},
		{name: "listKeys", method: get, pattern: "/apikey/keys", status: 200, end: withQuery(listKeys), summary: "List keys"},
		{name: "deleteExpired", method: post, pattern: "/apikey/keys/delete-expired", status: 200, mayBeEmpty: true, end: plain(deleteExpired), summary: "Delete all keys whose time is over"},
		{name: "importKeys", method: post, pattern: "/apikey/keys/import", status: 200, maxBody: MaxImportBody, end: withBody(importKeys), summary: "Import keys and owners as they were elsewhere"},
		{name: "exportKeys", method: get, pattern: "/apikey/keys/export", status: 200, end: plain(exportKeys), summary: "Export all owners and keys, with their hashes"},
		{name: "getKey", method: get, pattern: "/apikey/keys/{id}", status: 200, end: plain(getKey), summary: "Show a key"},
		{name: "patchKey", method: patch, pattern: "/apikey/keys/{id}", status: 200, conflict: true, end: withBody(patchKey), summary: "Change a key"},
		{name: "deleteKey", method: remove, pattern: "/apikey/keys/{id}", status: 204, end: plain(deleteKey), summary: "Delete a key"},
		{name: "rotateKey", method: post, pattern: "/apikey/keys/{id}/rotate", status: 200, conflict: true, mayBeEmpty: true, end: withBody(rotateKey), summary: "Give a key a new raw key"},
		{name: "keyUsage", method: get, pattern: "/apikey/keys/{id}/usage", status: 200, end: withQuery(keyUsage), summary: "Show what a key has used"},
		{name: "verifyKey", method: post, pattern: "/apikey/verify", status: 200, end: withBody(verifyKey), summary: "Verify a raw key, and count it as a use"},
		{name: "listOwners", method: get, pattern: "/apikey/owners", status: 200, end: withQuery(listOwners), summary: "List owners"},
		{name: "getOwner", method: get, pattern: "/apikey/owners/{userId}", status: 200, end: plain(getOwner), summary: "Show an owner"},
		{name: "putOwner", method: put, pattern: "/apikey/owners/{userId}", status: 200, end: withBody(putOwner), summary: "Make or change an owner"},
		{name: "deleteOwner", method: remove, pattern: "/apikey/owners/{userId}", status: 204, end: plain(deleteOwner), summary: "Delete an owner with all keys"},
		{name: "ownerUsage", method: get, pattern: "/apikey/owners/{userId}/usage", status: 200, end: withQuery(ownerUsage), summary: "Show what the keys of an owner have used, deleted ones included"},
		{name: "listTiers", method: get, pattern: "/apikey/tiers", status: 200, end: plain(listTiers), summary: "List the configured tiers"},
		{name: "health", method: get, pattern: "/apikey/health", status: 200, static: true, unhealthy: true, end: plain(health), summary: "Ask the store whether it works"},
		{name: "openapi", method: get, pattern: "/apikey/openapi.json", status: 200, static: true, end: plain(openAPI), summary: "This document"},
	}
	for _, rt := range all {
		rt.segments = strings.Split(rt.pattern, "/")
		rt.queryFields = fieldsOf(rt.query, "query")
		rt.bodyFields = fieldsOf(rt.body, "json")
	}
	return all
}

func plain[A any](f func(*call) (A, error)) end {
	return end{noneType, noneType, reflect.TypeFor[A](), func(c *call, _, _ any) (any, error) {
		return answerOf(f(c))
	}}
}

func withQuery[Q, A any](f func(*call, Q) (A, error)) end {
	return end{reflect.TypeFor[Q](), noneType, reflect.TypeFor[A](), func(c *call, query, _ any) (any, error) {
		return answerOf(f(c, query.(Q)))
	}}
}

func withBody[B, A any](f func(*call, B) (A, error)) end {
	return end{noneType, reflect.TypeFor[B](), reflect.TypeFor[A](), func(c *call, _, body any) (any, error) {
		return answerOf(f(c, body.(B)))
	}}
}

// answerOf makes no answer nil.
func answerOf[A any](a A, err error) (any, error) {
	if _, ok := any(a).(none); ok || err != nil {
		return nil, err
	}
	return a, nil
}

// matches compares an escaped path, cut at its slashes, with the pattern, and
// returns the variable segment.
func (rt *route) matches(path []string) (arg string, ok bool) {
	if len(path) != len(rt.segments) {
		return "", false
	}
	for i, want := range rt.segments {
		got, err := url.PathUnescape(path[i])
		switch {
		case err != nil:
			return "", false
		case strings.HasPrefix(want, "{"):
			if arg = got; arg == "" {
				return "", false
			}
		case got != want:
			return "", false
		}
	}
	return arg, true
}

// variable returns the name of the variable segment, or "".
func (rt *route) variable() string {
	for _, s := range rt.segments {
		if strings.HasPrefix(s, "{") {
			return strings.Trim(s, "{}")
		}
	}
	return ""
}

// missing is the code where what the path names does not exist.
func (rt *route) missing() string {
	if rt.variable() == "userId" {
		return codeOwnerNotFound
	}
	return codeKeyNotFound
}
