// Package leaks is the call with which anybody reports a raw key that has leaked.
package leaks

import (
	"encoding/json"
	"net/http"
	"net/url"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
)

// DefaultPath is where reports are taken unless another path is configured.
const DefaultPath = "/.well-known/apikey/leak"

// maxBody is enough for the longest raw key, and for more members than a reporter may have
// to say.
const maxBody = 4 << 10

// Error is the body of an error.
type Error struct {
	Message string `json:"error" doc:"a sentence"`
	Code    string `json:"code"`
}

// New returns the API of reports at a path. Every report has the same answer, whatever it
// holds: else it would tell whoever has found something whether that is a key.
func New(m api.Mount, path string) *api.API {
	return api.New(m, api.Dialect{
		Title: "Reports of leaked keys", Version: "1", Description: "The call needs no key.",
		Owned: []string{path}, ErrorBody: Error{},
		Error: func(_ *api.Call, e *api.Error) any { return Error{e.Message, e.Code} },
	}, []*api.Route{{
		Method: http.MethodPost, Path: (&url.URL{Path: path}).EscapedPath(), Status: http.StatusAccepted,
		AnyBody: true, MaxBody: maxBody, Endpoint: api.Undecoded(report),
	}})
}

// report reads leniently: a member that is not known must not keep a key from being ended.
func report(c *api.Call) (any, error) {
	var body struct {
		Key string `json:"key"`
	}
	if json.Unmarshal(c.Body, &body) != nil {
		body.Key = ""
	}
	if err := c.Keys.ReportLeak(c.Context(), body.Key, c.Caller.ClientIP); err != nil {
		return nil, api.Unavailable(err)
	}
	return api.None{}, nil
}
