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

// identify implements api.Identify: a key decides alone where one was presented,
// else the person whom another handler has identified.
func (s *SelfService) identify(w http.ResponseWriter, r *http.Request, need string) (*api.Caller, error) {
	repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	v := visitOf(r, repl)
	f := s.find(r, repl, v)
	if v.presented(f) != keyring.Missing {
		return s.identifyKey(w, r, repl, v, f, need)
	}
	// A gate may have refused, and removed, a key; this is an error route then. Neither
	// what it knows of the key nor the person beside it is who calls.
	if o := v.refusal; o != keyring.Allowed && o != keyring.Missing {
		return nil, s.refusal(r, keyring.Decision{Outcome: o}, nil)
	}
	if v.keyed {
		return nil, s.refusal(r, keyring.Decision{Outcome: keyring.Missing}, nil)
	}
	return s.identifyPerson(r, repl, need)
}

// find looks for the key. A Bearer token that cannot be one is taken for that of
// the person, where there is one.
func (s *SelfService) find(r *http.Request, repl *caddy.Replacer, v *visit) found {
	f := s.places.find(r, repl, v.admitted)
	if f.count == 1 && f.bearer && key.CheckShape(f.raw, false) != nil && s.person(r, repl) != "" {
		return found{}
	}
	return f
}

// person returns the identity that another handler has set.
func (s *SelfService) person(r *http.Request, repl *caddy.Replacer) string {
	if s.User == "" {
		return ""
	}
	return s.told(r, repl, s.User)
}

// told returns what a placeholder tells of a person: nothing where it reads a
// certificate that nobody has verified, in which clients write what they like.
func (s *SelfService) told(r *http.Request, repl *caddy.Replacer, placeholder string) string {
	value := repl.ReplaceAll(placeholder, "")
	if value == "" || !strings.HasPrefix(placeholder, "{"+certificatePrefix) || r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		return value
	}
	s.alarms.Warn("a placeholder reads a client certificate that the server has not verified: set the mode of client_auth to verify_if_given or require_and_verify",
		zap.String("placeholder", placeholder))
	return ""
}

func (s *SelfService) identifyKey(w http.ResponseWriter, r *http.Request, repl *caddy.Replacer, v *visit, f found, need string) (*api.Caller, error) {
	if o := v.presented(f); o != keyring.Allowed {
		v.withdraw(r, s.keys, s.alarms, o)
		return nil, s.refusal(r, keyring.Decision{Outcome: o}, nil)
	}
	if s.places.ambient() || v.ambient {
		if err := s.origins.CheckForged(r); err != nil {
			v.withdraw(r, s.keys, s.alarms, keyring.Forbidden)
			return nil, err
		}
	}
	q := keyring.Request{Cost: 1, CheckIP: true, ClientIP: v.clientIP(), Counted: &v.counted, ConfigIDs: s.Configs}
	if s.Secret != "" {
		q.CheckSecret, q.RequireSecret, q.Secret = true, s.Secret == secretRequired, v.secretOf(r)
	}
	if need != "" {
		q.RequireAny = [][]key.Permission{api.Needs(need)}
	}
	var d keyring.Decision
	err := v.ask(r.Context(), s.keys, f, &q, &d)
	writeRateHeaders(w.Header(), rateDraft, d.Limits, v.admitted)
	if d.Outcome != keyring.Allowed {
		v.withdraw(r, s.keys, s.alarms, d.Outcome)
		return nil, s.refusal(r, d, err)
	}
	v.admit(repl, &d, s.stands(v, &d), s.places.ambient())
	k, bounds := d.Key(), s.keys.BoundsOf(&d)
	bounds.Permissions = api.Grantable(bounds.Permissions)
	return &api.Caller{
		UserID: k.UserID, Permissions: k.Permissions, Decision: &v.decision, Session: v.session, Bounds: bounds,
		Withdraw: func(o keyring.Outcome) { v.withdraw(r, s.keys, s.alarms, o) },
	}, nil
}

// stands reports whether a key stands for its owner: where a gate has let it in, that
// is the gate's to say, and a key of an organization has no user for its owner.
func (s *SelfService) stands(v *visit, d *keyring.Decision) bool {
	return d.Session() && (v.session || !v.admitted) && !s.Organization.has(d.Key().ConfigID)
}

// identifyPerson finds the person. Nothing is counted for people.
func (s *SelfService) identifyPerson(r *http.Request, repl *caddy.Replacer, need string) (*api.Caller, error) {
	userID := s.person(r, repl)
	if userID == "" {
		return nil, s.refusal(r, keyring.Decision{Outcome: keyring.Missing}, nil)
	}
	if keyring.CheckUserID(userID) != nil {
		s.alarms.Warn("the placeholder of user holds what no owner can be called", zap.String("user", s.User))
		return nil, s.refusal(r, keyring.Decision{Outcome: keyring.Missing}, nil)
	}
	if err := s.origins.CheckForged(r); err != nil {
		return nil, err
	}
	owner, err := s.keys.Owner(r.Context(), userID)
	switch {
	case errors.Is(err, store.ErrNotFound): // one who has no key yet
	case err != nil:
		return nil, s.refusal(r, keyring.Unreachable(), err)
	case !owner.Enabled:
		return nil, s.refusal(r, keyring.Decision{Outcome: keyring.Disabled}, nil)
	}
	if need != "" && !api.May(s.grant, need) {
		return nil, s.refusal(r, keyring.Decision{Outcome: keyring.Forbidden}, nil)
	}
	c := &api.Caller{
		UserID: userID, Permissions: s.grant, Bounds: &keyring.Bounds{Permissions: s.grant}, Withdraw: func(keyring.Outcome) {},
	}
	told := func(placeholder string) string { return s.told(r, repl, placeholder) }
	if err := s.actFor(r.Context(), c, told); err != nil {
		return nil, s.refusal(r, keyring.Unreachable(), err)
	}
	return c, nil
}

func (s *SelfService) refusal(r *http.Request, d keyring.Decision, err error) *api.Refusal {
	logRefusal(r, s.logger, s.alarms, &d, err)
	return &api.Refusal{Decision: d, Challenge: s.places.challenge(d.Outcome)}
}

// certificatePrefix begins the placeholders that read a client's certificate.
const certificatePrefix = "http.request.tls.client."

// checkIdentityPlaceholder refuses placeholders that hold what a client writes. What
// is in a certificate can only be judged with the request: see told.
func checkIdentityPlaceholder(s string) error {
	if !isPlaceholder(s) {
		return errors.New("must be a placeholder such as {http.auth.user.id}")
	}
	name := s[1 : len(s)-1]
	if strings.HasPrefix(name, "http.request.") && !strings.HasPrefix(name, certificatePrefix) || strings.HasPrefix(name, "http.regexp.") {
		return errors.New("must be what another handler has found out, such as {http.auth.user.id}, not what the client says of itself")
	}
	return nil
}
