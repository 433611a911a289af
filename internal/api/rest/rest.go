// Package rest is the self-service API in the dialect "rest": callers create, list
// and revoke the keys of their owner, and see what the owner has used. It does not
// know Caddy.
//
// Answers have exactly the fields of this package's wire types; an error is a
// sentence and a code, and never repeats a value that was sent.
package rest

import (
	"cmp"
	"net/http"
	"slices"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

const introduction = `The keys of the caller's owner. The caller is the holder of a valid key, or a person who is signed in at the site. ` +
	`Bodies are JSON objects; names are case-sensitive, and unknown ones are refused.`

const defaultMessage = "Keep the key and the secret in a safe place: they are shown only once."

// Error is the body of every answer that is an error.
type Error struct {
	Message string `json:"error" doc:"a sentence"`
	Code    string `json:"code"`
}

// handler is what the routes need beside a call.
type handler struct {
	message string
	configs []string // the configurations that the API serves; nil: all
}

// New returns the API. message is the sentence in the answer to creating a key;
// empty is the default.
func New(m api.Mount, message string) *api.API {
	h := &handler{cmp.Or(message, defaultMessage), m.Configs}
	return api.New(m, api.Dialect{
		Title: "API keys", Description: introduction, Version: "1", ExtraParameters: true,
		Error: errorBody, ErrorBody: Error{},
	}, h.routes())
}

// Routes returns the table of all calls, by their paths below the base.
func Routes() []*api.Route { return (&handler{}).routes() }

func (h *handler) routes() []*api.Route {
	return []*api.Route{
		{Name: "createKey", Method: http.MethodPost, Path: "/api-keys", Needs: api.Write, Status: http.StatusCreated, OptionalBody: true, Endpoint: api.WithBody(h.create), Summary: "Create a key"},
		{Name: "listKeys", Method: http.MethodGet, Path: "/api-keys", Status: http.StatusOK, Endpoint: api.Plain(h.list), Summary: "List the owner's keys"},
		{Name: "revokeKey", Method: http.MethodDelete, Path: "/api-keys/{id}", Needs: api.Write, Status: http.StatusOK, Endpoint: api.Plain(h.revoke), Summary: "Disable a key"},
		{Name: "usage", Method: http.MethodGet, Path: "/usage", Status: http.StatusOK, Endpoint: api.Plain(usage), Summary: "Show what the owner's keys have used"},
		{Name: "openapi", Method: http.MethodGet, Path: "/api-keys/openapi.json", Status: http.StatusOK, Public: true, Endpoint: api.Document(), Summary: "This document"},
	}
}

// errorBody words an error.
func errorBody(_ *api.Call, e *api.Error) any {
	if r := e.Refused; r != nil && r.Outcome == keyring.Disabled {
		return Error{"The API key, or its owner, is disabled.", e.Code}
	}
	return Error{e.Message, e.Code}
}

// serves reports whether a key is one that a caller may know of here.
func (h *handler) serves(c *api.Call, userID, configID string) bool {
	return userID == c.Caller.UserID && (h.configs == nil || slices.Contains(h.configs, configID))
}
