package apikey

import (
	"context"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// requestState is what the gates and the self-service API know of one request. It
// stays with the request through rewrites, retries and error routes, so that the
// request is verified and charged once.
type requestState struct {
	vars     map[string]any // the variables of the request
	keyed    bool           // a gate has found a key, good or bad, and may have removed it
	secret   string         // the last that was found, and may have been removed
	admitted bool           // decision has admitted the request
	// candidate: the request was refused, and decision tells with which key.
	candidate bool
	decision  keyring.Decision
	keys      *keyring.Service // of the gate that admitted the request
	counted   keyring.Counted
	session   bool            // http.auth.user.* is the identity of the key
	ambient   bool            // the key came from a source that browsers fill by themselves
	refusal   keyring.Outcome // why a gate has refused the request; Allowed: none has
	failed    bool            // a gate could not decide, because its configuration is wrong
	logged    bool            // the access log will show the state
	cleaned   identity        // the headers that gates have removed before they set their own
}

// stateVar is the request variable that holds the state.
const stateVar = "apikey.state"

const (
	userPrefix      = "http.auth.user."
	candidatePrefix = "http.auth.candidate."
	metadataPrefix  = "metadata."
	codeName        = "http.apikey.error.code"
	limitName       = "http.apikey.error.limit"
)

// stateOf returns the state of a request, and creates it for the first handler.
func stateOf(r *http.Request, repl *caddy.Replacer) *requestState {
	vars := r.Context().Value(caddyhttp.VarsCtxKey).(map[string]any)
	if s, ok := vars[stateVar].(*requestState); ok {
		return s
	}
	s := &requestState{vars: vars}
	vars[stateVar] = s
	repl.Map(s.placeholder)
	return s
}

// clientIP is the address of the client, as far as Caddy trusts what it was told.
func (s *requestState) clientIP() netip.Addr {
	text, _ := s.vars[caddyhttp.ClientIPVarKey].(string)
	ip, _ := netip.ParseAddr(text) // what is no address is in no network
	return ip
}

// clean records that a gate has removed what the client sent as these headers.
func (s *requestState) clean(id identity) {
	if s.cleaned == nil {
		s.cleaned = id
		return
	}
	if more := id.without(s.cleaned); more != nil {
		s.cleaned = append(slices.Clip(s.cleaned), more...)
	}
}

// severalSecrets stands for more than one secret. It fits no key.
const severalSecrets = "\x00"

// findSecret remembers the secret that the request carries in its header, or beside
// the key: a gate removes it before a later one asks for it.
func (s *requestState) findSecret(r *http.Request, beside string) {
	found := r.Header[secretHeader]
	switch {
	case len(found) > 1, len(found) == 1 && beside != "" && found[0] != beside:
		s.secret = severalSecrets
	case len(found) == 1:
		s.secret = found[0]
	case beside != "":
		s.secret = beside
	}
}

// verify decides about a raw key. Where an earlier gate has admitted the request, its
// decision holds, and only what q adds to it is checked and taken.
func (s *requestState) verify(ctx context.Context, keys *keyring.Service, raw string, q *keyring.Request, d *keyring.Decision) error {
	if s.admitted {
		return keys.Extend(ctx, &s.decision, q, d)
	}
	return keys.VerifyInto(ctx, raw, q, d)
}

// admit records that a decision has admitted the request. ambient: see sources.
func (s *requestState) admit(repl *caddy.Replacer, keys *keyring.Service, d *keyring.Decision, session, ambient bool) {
	s.admitted, s.decision, s.refusal, s.keys = true, *d, keyring.Allowed, keys
	s.candidate, s.failed = false, false
	s.ambient = s.ambient || ambient
	if !session || s.session {
		return
	}
	s.session = true
	// What an authenticator in front of the gate has set must not remain beside the
	// identity of the key.
	repl.DeleteByPrefix(userPrefix)
}

// reject records that a gate refuses the request, and takes back what earlier gates
// have charged and counted. Nobody is identified any more: if the key is known, it is
// the candidate, and the identity that another authenticator has set is removed too.
func (s *requestState) reject(r *http.Request, keys *keyring.Service, log *zap.Logger, d *keyring.Decision) {
	admitted := s.admitted
	s.cancel(r, keys, log, d.Outcome)
	s.refusal, s.failed = d.Outcome, false
	switch {
	case d.Key() != nil:
		s.decision, s.candidate = *d, true
	case !admitted && d.Outcome != keyring.Missing && d.Outcome != keyring.Ambiguous:
		s.decision, s.candidate = *d, false // this is another key, and an unknown one
	}
	if s.candidate {
		repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
		repl.DeleteByPrefix(userPrefix)
		repl.DeleteByPrefix(candidatePrefix)
	}
}

// repeat writes the refusal of an earlier gate into d, if there was one: in an error route,
// a gate meets the request again, whose key has been removed.
func (s *requestState) repeat(d *keyring.Decision) bool {
	if !s.keyed || s.refusal == keyring.Allowed {
		return false
	}
	if s.candidate || s.decision.Outcome == s.refusal {
		*d = s.decision
		d.Outcome = s.refusal
	} else {
		*d = keyring.Refusal(s.refusal)
	}
	return true
}

// cancel takes back what was charged and counted for a request that is refused after
// all, with the outcome o.
func (s *requestState) cancel(r *http.Request, keys *keyring.Service, log *zap.Logger, o keyring.Outcome) {
	if !s.admitted {
		return
	}
	s.admitted, s.session, s.candidate, s.refusal = false, false, true, o
	keys.Reclassify(&s.counted, o)
	if err := keys.Cancel(context.WithoutCancel(r.Context()), &s.decision); err != nil {
		log.Error("credits were not given back", zap.Error(err), zap.String("key_id", s.decision.Key().ID))
	}
}

// placeholder provides the placeholders of the gate. What another authenticator has
// set takes precedence.
func (s *requestState) placeholder(name string) (any, bool) {
	switch name {
	case codeName:
		return s.refusal.Code(), true
	case limitName:
		return s.limit(), true
	}
	if field, ok := strings.CutPrefix(name, candidatePrefix); ok {
		return s.candidateField(field)
	}
	field, ok := strings.CutPrefix(name, userPrefix)
	if !ok {
		return nil, false
	}
	if metadata, ok := strings.CutPrefix(field, metadataPrefix); ok {
		if !s.session {
			return "", true
		}
		return s.keys.Metadata(context.Background(), &s.decision, metadata), true
	}
	read, ok := userFields[field]
	if !ok {
		return nil, false
	}
	if !s.session {
		return "", true
	}
	return read(&s.decision), true
}

// limit returns the name of the limit that has refused the request, if one has.
func (s *requestState) limit() string {
	if s.decision.Outcome == s.refusal {
		return s.decision.Limit
	}
	return ""
}

// candidateFields are the userFields that are also below http.auth.candidate.
var candidateFields = []string{"id", "organization", "key_id", "key_name", "tier", "config"}

func (s *requestState) candidateField(field string) (any, bool) {
	switch {
	case !slices.Contains(candidateFields, field):
		return nil, false
	case !s.candidate:
		return "", true
	}
	return userFields[field](&s.decision), true
}

// userFields are the placeholders below http.auth.user. A new one is a row.
var userFields = map[string]func(*keyring.Decision) string{
	"id": func(d *keyring.Decision) string {
		if _, ok := key.OrganizationOf(d.Key().UserID); ok {
			return "" // no user
		}
		return d.Key().UserID
	},
	"organization": func(d *keyring.Decision) string {
		id, ok := key.OrganizationOf(d.Key().UserID)
		if !ok {
			return ""
		}
		return id
	},
	"key_id": func(d *keyring.Decision) string { return d.Key().ID },
	"key_name": func(d *keyring.Decision) string {
		if name := d.Key().Name; name != nil {
			return *name
		}
		return ""
	},
	"tier":        (*keyring.Decision).Tier,
	"config":      func(d *keyring.Decision) string { return d.Key().ConfigID },
	"permissions": (*keyring.Decision).Permissions,
}

// String keeps the state out of {http.vars.*}.
func (*requestState) String() string { return "" }
