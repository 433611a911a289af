// Package rest is the self-service API in the dialect "rest": callers make, list
// and revoke the keys of their owner, and see what the owner has used. It knows
// nothing of Caddy.
//
// Each call is a [Route] of one table. Answers have exactly the fields that stand in
// this package's wire types; an error is a sentence and a code, and never repeats a
// value that was sent.
package rest

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/caddy-apikey/caddy-apikey/internal/caller"
	"github.com/caddy-apikey/caddy-apikey/internal/strictjson"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// Options are what a configuration says about the API.
type Options struct {
	// Base is the path in front, without a slash at its end.
	Base string
	// Message is the sentence in the answer to creating a key. Default: see below.
	Message string
	// Configs are the configurations whose keys the API is about; those that people
	// make belong to the first. Nil: all, and "default".
	Configs []string
	// Report gets the errors behind answers from 500 on.
	Report func(error)
}

const defaultMessage = "Keep the key and the secret in a safe place: they are shown only once."

// Handler is the API.
type Handler struct {
	keys   *keyring.Service
	o      Options
	routes []*Route
}

// New returns the API over the keys of a configuration.
func New(keys *keyring.Service, o Options) *Handler {
	if o.Message == "" {
		o.Message = defaultMessage
	}
	return &Handler{keys: keys, o: o, routes: Routes(o.Base)}
}

// Serve answers a request for one of the API's paths.
func (h *Handler) Serve(w http.ResponseWriter, r *http.Request, identify caller.Identify) {
	found, arg := h.at(r)
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	i := slices.IndexFunc(found, func(rt *Route) bool { return rt.Method == method })
	if i < 0 {
		w.Header().Set("Allow", strings.Join(methodsOf(found), ", "))
		h.write(w, errMethod.status, errMethod.body)
		return
	}
	h.run(w, r, found[i], arg, identify)
}

// run takes a request to its route. The body is read before the caller is judged: who
// sends it slowly must not stay as good as he was when he began.
func (h *Handler) run(w http.ResponseWriter, r *http.Request, rt *Route, arg string, identify caller.Identify) {
	c := &call{Request: r, Handler: h, arg: arg}
	var err error
	if rt.Method == http.MethodPost {
		c.body, err = strictjson.ReadBody(w, r, strictjson.MaxBody)
	}
	answer := identify(w, r, rt.Needs)
	if answer.Caller == nil {
		h.refuse(w, &answer)
		return
	}
	c.caller = answer.Caller
	var out any
	if err == nil {
		out, err = rt.serve(c)
	}
	if err != nil {
		h.fail(w, r, rt, c.caller, err)
		return
	}
	h.write(w, rt.Status, out)
}

// refuse answers who may not call.
func (h *Handler) refuse(w http.ResponseWriter, a *caller.Answer) {
	switch {
	case a.Foreign:
		h.write(w, errForeign.status, errForeign.body)
	case a.NotJSON:
		h.write(w, errMediaType.status, errMediaType.body)
	default:
		a.SetHeaders(w.Header())
		o := a.Refusal.Outcome
		h.write(w, o.Status(), Error{Message: sentenceOf(o), Code: o.Code()})
	}
}

// fail answers with an error.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, rt *Route, c *caller.Caller, err error) {
	f := failureOf(err)
	if f.cause != nil && r.Context().Err() == nil { // what a caller who left has cancelled is no failure
		h.o.Report(fmt.Errorf("%s %s: %w", rt.Method, rt.Path, f.cause))
	}
	c.Refused(f.status)
	if f.status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	h.write(w, f.status, f.body)
}

func (h *Handler) write(w http.ResponseWriter, status int, body any) {
	b, err := strictjson.MarshalLine(body)
	if err != nil {
		h.o.Report(fmt.Errorf("writing an answer: %w", err))
		status, b = http.StatusInternalServerError, []byte(`{"error":"the answer cannot be written","code":"INTERNAL"}`)
	}
	head := w.Header()
	head.Set("Content-Type", "application/json")
	head.Set("Content-Length", strconv.Itoa(len(b)))
	head.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	w.Write(b) // who has left needs no answer
}

var errNoKey = errors.New("there is no such key")
