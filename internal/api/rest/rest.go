// Package rest is the self-service API in the dialect "rest": callers create, list
// and revoke the keys of their owner, and see what the owner has used. The extended
// dialect adds fields and calls, and changes none. The package does not know Caddy.
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

// Options are what a mount of this dialect says beside an [api.Mount].
type Options struct {
	// Message is the sentence in the answer to creating a key. Empty is the default.
	Message string
	// Extended serves more calls, and more fields.
	Extended bool
}

// handler is what the routes need beside a call.
type handler struct {
	Options
	configs []string // the configurations that the API serves; nil: all
}

// New returns the API.
func New(m api.Mount, o Options) *api.API {
	o.Message = cmp.Or(o.Message, defaultMessage)
	h := &handler{o, m.Configs}
	return api.New(m, api.Dialect{
		Title: "API keys", Description: introduction, Version: "1", ExtraParameters: true, Owned: []string{keysPath, usagePath},
		Error: errorBody, ErrorBody: Error{},
	}, h.routes())
}

// Routes returns the table of all calls, by their paths below the base.
func Routes(extended bool) []*api.Route {
	return (&handler{Options: Options{Extended: extended}}).routes()
}

const (
	keysPath  = "/api-keys"
	keyPath   = keysPath + "/{id}"
	usagePath = "/usage"
)

func (h *handler) routes() []*api.Route {
	create, list, show := api.WithBody(h.create), api.Plain(h.list), api.Plain(usage)
	if h.Extended {
		create, list, show = api.WithBody(h.createExtended), api.WithQuery(h.listExtended), api.Plain(usageExtended)
	}
	routes := []*api.Route{
		{Name: "createKey", Method: http.MethodPost, Path: keysPath, Needs: api.Write, Status: http.StatusCreated, OptionalBody: true, Endpoint: create, Summary: "Create a key"},
		{Name: "listKeys", Method: http.MethodGet, Path: keysPath, Free: true, Status: http.StatusOK, Endpoint: list, Summary: "List the owner's keys"},
		{Name: "revokeKey", Method: http.MethodDelete, Path: keyPath, Needs: api.Write, Free: true, Ends: (*api.Call).Arg, Status: http.StatusOK, Endpoint: api.Plain(h.revoke), Summary: "Disable a key"},
		{Name: "usage", Method: http.MethodGet, Path: usagePath, Free: true, Status: http.StatusOK, Endpoint: show, Summary: "Show what the owner's keys have used"},
		{Name: "openapi", Method: http.MethodGet, Path: keysPath + "/openapi.json", Status: http.StatusOK, Public: true, Endpoint: api.Document(), Summary: "This document"},
	}
	if h.Extended {
		routes = append(routes,
			&api.Route{Name: "updateKey", Method: http.MethodPatch, Path: keyPath, Needs: api.Write, Status: http.StatusOK, Endpoint: api.WithBody(h.update), Summary: "Rename, disable or enable a key"},
			&api.Route{Name: "rotateKey", Method: http.MethodPost, Path: keyPath + "/rotate", Needs: api.Write, Status: http.StatusOK, OptionalBody: true, Endpoint: api.WithBody(h.rotate), Summary: "Replace the raw key of a key"},
		)
	}
	return routes
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
