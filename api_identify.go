package apikey

import (
	"errors"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// identify implements api.Identify: a key decides alone where one was presented, else
// the person whom another handler has identified.
func (s *SelfService) identify(w http.ResponseWriter, r *http.Request, ask api.Ask) (*api.Caller, error) {
	repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	state := stateOf(r, repl)
	// A token that does not look like a key is taken for the person's.
	c := state.choose(r.Context(), s.keys, s.sources.find(r, repl, nil), s.person(r, repl) != "")
	state.findSecret(r, c.secret)
	if c.outcome != keyring.Missing {
		return s.identifyKey(w, r, repl, state, &c, ask)
	}
	// In an error route, a gate may have refused and removed a key. The caller is then
	// neither the holder of that key nor the person beside it.
	if o := state.refusal; o != keyring.Allowed && o != keyring.Missing {
		return nil, s.refuse(r, o)
	}
	if state.keyed {
		return nil, s.refuse(r, keyring.Missing)
	}
	return s.identifyPerson(w, r, repl, ask)
}

// person returns the identity that another handler has set.
func (s *SelfService) person(r *http.Request, repl *caddy.Replacer) string {
	if s.User == "" {
		return ""
	}
	return s.trusted(r, repl, s.User)
}

// trusted returns the value of a placeholder that identifies a person. One that reads
// a client certificate is empty unless the server has verified the certificate: else
// the client could have written anything into it.
func (s *SelfService) trusted(r *http.Request, repl *caddy.Replacer, placeholder string) string {
	value := repl.ReplaceAll(placeholder, "")
	if value == "" || !strings.HasPrefix(placeholder, "{"+certificatePrefix) || r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		return value
	}
	s.alarms.Warn("a placeholder reads a client certificate that the server has not verified: set the mode of client_auth to verify_if_given or require_and_verify",
		zap.String("placeholder", placeholder))
	return ""
}

func (s *SelfService) identifyKey(w http.ResponseWriter, r *http.Request, repl *caddy.Replacer, state *requestState, c *choice, ask api.Ask) (*api.Caller, error) {
	cancel := func(o keyring.Outcome) { state.cancel(r, s.keys, s.alarms, o) }
	if c.outcome != keyring.Allowed {
		cancel(c.outcome)
		d := keyring.Refusal(c.outcome)
		s.keys.Refused(&d, &keyring.Request{ClientIP: state.clientIP(), CountGuess: true, Counted: &state.counted})
		writeRateHeaders(w.Header(), rateDraft, &d, false)
		return nil, s.refused(r, d, c.err)
	}
	if s.sources.ambient() || state.ambient {
		if err := s.origins.CheckForged(r); err != nil {
			cancel(keyring.Forbidden)
			return nil, err
		}
	}
	var d keyring.Decision
	err := s.judge(r, state, c.raw, ask, &d)
	if ask.Look && d.Outcome != keyring.Allowed && d.Outcome != keyring.TooEarly {
		// The call ends here, so that its refusal is counted.
		ask.Look, d = false, keyring.Decision{}
		err = s.judge(r, state, c.raw, ask, &d)
	}
	writeRateHeaders(w.Header(), rateDraft, &d, state.admitted)
	if d.Outcome != keyring.Allowed {
		cancel(d.Outcome)
		return nil, s.refused(r, d, err)
	}
	if ask.Look {
		return new(api.Caller), nil
	}
	state.admit(repl, s.keys, &d, s.hasSession(state, &d), s.sources.ambient())
	state.trace(r)
	k, scope := d.Key(), s.keys.ScopeOf(&d)
	scope.Permissions = api.Grantable(scope.Permissions)
	return &api.Caller{
		UserID: k.UserID, ClientIP: state.clientIP(), Permissions: k.Permissions, Decision: &state.decision, Session: state.session, Scope: scope, Cancel: cancel,
		Spend: func() error { return s.spend(w, r, &state.decision, "", cancel) },
	}, nil
}

// judge decides about a key.
func (s *SelfService) judge(r *http.Request, state *requestState, raw string, ask api.Ask, d *keyring.Decision) error {
	early := isEarlyChange(r)
	q := keyring.Request{
		Cost: 1, CheckIP: true, ClientIP: state.clientIP(), EarlyData: isEarlyData(r), Counted: &state.counted, ConfigIDs: s.Configs,
		RecordOnly: ask.Free, DryRun: ask.Look, CountGuess: !ask.Look,
	}
	if s.Secret != "" {
		q.CheckSecret, q.RequireSecret, q.Secret = true, s.Secret == secretRequired, state.secret
	}
	if ask.Needs != "" {
		q.RequireAny = [][]key.Permission{api.Needs(ask.Needs)}
	}
	if early {
		q.Cost, q.DryRun = 0, true // nothing is charged for a call that is not made
	}
	err := state.verify(r.Context(), s.keys, raw, &q, d)
	if early && d.Outcome == keyring.Allowed {
		*d = keyring.Refusal(keyring.TooEarly)
	}
	return err
}

// spend takes a free call from the budget of a key or a person.
func (s *SelfService) spend(w http.ResponseWriter, r *http.Request, before *keyring.Decision, person string, cancel func(keyring.Outcome)) error {
	d := s.keys.Spend(before, person)
	if h := w.Header(); d.Outcome != keyring.Allowed || h["Ratelimit"] == nil { // a gate in front has said what it took
		writeRateHeaders(h, rateDraft, &d, true)
	}
	if d.Outcome == keyring.Allowed {
		return nil
	}
	cancel(d.Outcome)
	return s.refused(r, d, nil)
}

// isEarlyChange reports whether a request came in TLS early data and may change
// something: it could be a replay of one that has done so.
func isEarlyChange(r *http.Request) bool {
	return isEarlyData(r) && r.Method != http.MethodGet && r.Method != http.MethodHead
}

// hasSession reports whether a key represents its owner. Where a gate has admitted
// it, the gate decides that. A key of an organization represents no user.
func (s *SelfService) hasSession(state *requestState, d *keyring.Decision) bool {
	_, organization := key.OrganizationOf(d.Key().UserID)
	return d.Session() && (state.session || !state.admitted) && !organization
}

// identifyPerson finds the person, who has no key that would be charged.
func (s *SelfService) identifyPerson(w http.ResponseWriter, r *http.Request, repl *caddy.Replacer, ask api.Ask) (*api.Caller, error) {
	userID := s.person(r, repl)
	if userID == "" {
		return nil, s.refuse(r, keyring.Missing)
	}
	if _, organization := key.OrganizationOf(userID); organization || keyring.CheckUserID(userID) != nil {
		s.alarms.Warn("the value of the option user is not a valid owner", zap.String("user", s.User))
		return nil, s.refuse(r, keyring.Missing)
	}
	if err := s.origins.CheckForged(r); err != nil {
		return nil, err
	}
	owner, err := s.keys.Owner(r.Context(), userID)
	switch {
	case errors.Is(err, store.ErrNotFound): // a person without a key
	case err != nil:
		return nil, s.refused(r, keyring.Refusal(keyring.Unavailable), err)
	case !owner.Enabled:
		return nil, s.refusePerson(r, keyring.Disabled, userID)
	}
	if ask.Needs != "" && !api.May(s.grant, ask.Needs) {
		return nil, s.refusePerson(r, keyring.Forbidden, userID)
	}
	if isEarlyChange(r) {
		return nil, s.refusePerson(r, keyring.TooEarly, userID)
	}
	c := &api.Caller{
		UserID: userID, ClientIP: stateOf(r, repl).clientIP(), Permissions: s.grant, Scope: &keyring.Scope{Permissions: s.grant}, Cancel: func(keyring.Outcome) {},
		Spend: func() error { return s.spend(w, r, nil, userID, func(keyring.Outcome) {}) },
	}
	value := func(placeholder string) string { return s.trusted(r, repl, placeholder) }
	if err := s.actFor(r.Context(), c, value); err != nil {
		return nil, s.refused(r, keyring.Refusal(keyring.Unavailable), err)
	}
	return c, nil
}

func (s *SelfService) refuse(r *http.Request, o keyring.Outcome) *api.Refusal {
	d := keyring.Refusal(o)
	s.keys.Refused(&d, &keyring.Request{})
	return s.refused(r, d, nil)
}

func (s *SelfService) refusePerson(r *http.Request, o keyring.Outcome, userID string) *api.Refusal {
	refusal := s.refuse(r, o)
	refusal.By.Kind, refusal.By.ID = keyring.ActorPerson, userID
	return refusal
}

func (s *SelfService) refused(r *http.Request, d keyring.Decision, err error) *api.Refusal {
	traceRefusal(r, &d)
	logRefusal(r, s.keys, s.logger, s.alarms, &d, err)
	by := keyring.Actor{Address: stateOf(r, r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)).clientIP()}
	if k := d.Key(); k != nil {
		by.Kind, by.ID = keyring.ActorKey, k.ID
	}
	return &api.Refusal{Decision: d, Challenges: s.sources.appendChallenges(nil, d.Outcome), By: by}
}

// certificatePrefix begins the placeholders that read a client's certificate.
const certificatePrefix = "http.request.tls.client."

// checkIdentityPlaceholder refuses placeholders that hold what a client writes. What
// is in a certificate can only be judged with the request: see trusted.
func checkIdentityPlaceholder(s string) error {
	if !isPlaceholder(s) {
		return errors.New("must be a placeholder such as {http.auth.user.id}")
	}
	name := s[1 : len(s)-1]
	if strings.HasPrefix(name, "http.request.") && !strings.HasPrefix(name, certificatePrefix) || hasClientPlaceholder(s) {
		return errors.New("must be a placeholder that another handler sets, such as {http.auth.user.id}, not one that holds what the client sends")
	}
	return nil
}
