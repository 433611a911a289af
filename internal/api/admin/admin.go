// Package admin is the admin API: its table of routes, wire types, handlers, and its
// client. It does not know Caddy.
//
// The struct tags of the wire types are the only place where a field and its limits
// are written; decoding, the OpenAPI document and the client follow from them:
//
//	json     name in a body or an answer; omitempty and omitzero: may be absent
//	query    name in the query
//	min, max range of an integer (default 0 and 2^53-1) or length of a string or list
//	enum     allowed strings, separated by "|"; or {algorithms}: the names of rate-limit algorithms
//	null     "no": null is refused
//	doc      description for the OpenAPI document
//
// In answers a pointer is null where there is no value. In bodies a pointer is
// optional, and null is the same as leaving the field out; an [api.Optional] tells
// the two apart.
package admin

import (
	"net/http"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// Base is the path in front of all calls.
const Base = "/apikey"

const introduction = `Keys and owners of caddy-apikey, on Caddy's admin endpoint. ` +
	`Bodies are JSON objects of at most 64 KiB, those of imports of at most 4 MiB. Names are case-sensitive; unknown and repeated ones are refused, in the query too. ` +
	`Integers are written without fraction and exponent. An error names the field that is to blame and repeats no value.`

// Info is what the handler cannot know by itself.
type Info struct {
	// Version is the version of the plugin.
	Version string
	// Process is the process that answers.
	Process Process
	// Report receives the errors behind answers from 500 on. Default: they are dropped.
	Report func(error)
}

// server is what handlers need that is not in a call.
type server struct {
	service func() (*keyring.Service, error)
	version string
	process Process
}

// New returns the handler of all paths below [Base]. service is asked on each
// request, so that the answer comes from the configuration that is then in use.
func New(service func() (*keyring.Service, error), info Info) http.Handler {
	s := &server{service, info.Version, info.Process}
	return api.New(api.Mount{Base: Base, Keys: service, Report: info.Report}, api.Dialect{
		Title: "caddy-apikey admin API", Description: introduction, Version: info.Version,
		Error: s.errorBody, ErrorBody: Error{},
	}, s.routes())
}

// errorBody writes errors for operators, who may know what is wrong with the store.
func (s *server) errorBody(c *api.Call, e *api.Error) any {
	body := Error{Message: e.Message, Code: e.Code, Field: e.Field}
	if e.Status != http.StatusServiceUnavailable {
		return body
	}
	if e.Cause != nil {
		body.Message = e.Cause.Error()
	}
	if c.Route.Unavailable != nil {
		return Unhealthy{Status: "unavailable", Process: s.process, Version: s.version, Degraded: s.degraded(), Error: body}
	}
	return body
}

// owner returns the variable segment {userId}.
func owner(c *api.Call) (string, error) {
	userID := c.Arg()
	return userID, keyring.CheckUserID(userID)
}
