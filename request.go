package apikey

import (
	"context"
	"net/http"
	"net/netip"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// visit is what the gates and the self-service API know of one request. It lives
// with the request through rewrites, retries and error routes, so that the request
// is charged once.
type visit struct {
	vars     map[string]any // the variables of the request
	admitted bool           // decision let it in
	decision keyring.Decision
	counted  keyring.Counted
	keyed    bool            // a gate has found a key, good or bad, and may have removed it
	session  bool            // http.auth.user.* speaks of the key
	ambient  bool            // the key came from where browsers put it by themselves
	refusal  keyring.Outcome // why a gate refused it; Allowed: none did
	secret   string
}

// visitVar is the request variable that holds the visit.
const visitVar = "apikey.visit"

const (
	userPrefix     = "http.auth.user."
	metadataPrefix = "metadata."
	codeName       = "http.apikey.error.code"
)

// visitOf returns the visit of a request, and begins one where there is none.
func visitOf(r *http.Request, repl *caddy.Replacer) *visit {
	vars := r.Context().Value(caddyhttp.VarsCtxKey).(map[string]any)
	if v, ok := vars[visitVar].(*visit); ok {
		return v
	}
	v := &visit{vars: vars}
	vars[visitVar] = v
	repl.Map(v.placeholder)
	return v
}

// clientIP is who calls, as far as Caddy trusts what it was told.
func (v *visit) clientIP() netip.Addr {
	s, _ := v.vars[caddyhttp.ClientIPVarKey].(string)
	ip, _ := netip.ParseAddr(s) // what is no address is in no network
	return ip
}

// presented says what can be told before a key is looked at: Missing, Ambiguous
// where there are several, else Allowed. A gate may have found, and removed, the
// key before.
func (v *visit) presented(f found) keyring.Outcome {
	switch {
	case f.count > 1 || f.count == 1 && v.admitted && !v.decision.Opens(f.raw):
		return keyring.Ambiguous
	case f.count == 0 && !v.admitted:
		return keyring.Missing
	}
	return keyring.Allowed
}

// ask asks the keyring. Where a gate has let the request in before, its decision
// holds, and only what is new in q is checked and taken.
func (v *visit) ask(ctx context.Context, keys *keyring.Service, f found, q *keyring.Request, d *keyring.Decision) error {
	if v.admitted {
		return keys.Again(ctx, &v.decision, q, d)
	}
	return keys.VerifyInto(ctx, f.raw, q, d)
}

// withdraw takes back what was charged and counted for a request that is refused
// after all, as o says.
func (v *visit) withdraw(r *http.Request, keys *keyring.Service, log *zap.Logger, o keyring.Outcome) {
	if !v.admitted {
		return
	}
	v.admitted = false
	keys.Recount(&v.counted, o)
	if err := keys.Withdraw(context.WithoutCancel(r.Context()), &v.decision); err != nil {
		log.Error("credits were not given back", zap.Error(err), zap.String("key_id", v.decision.Key().ID))
	}
}

// admit notes that a gate has let the request in. ambient: see places.
func (v *visit) admit(repl *caddy.Replacer, d *keyring.Decision, session, ambient bool) {
	v.admitted, v.decision, v.refusal = true, *d, keyring.Allowed
	v.ambient = v.ambient || ambient
	if !session || v.session {
		return
	}
	v.session = true
	// What an authenticator in front of the gate has set must not stand beside
	// the identity of the key.
	repl.DeleteByPrefix(userPrefix)
}

// twoSecrets stands for more than one secret, which is none: it fits no key.
const twoSecrets = "\x00"

// secretOf returns the secret that the request carries, also after a gate has
// removed it.
func (v *visit) secretOf(r *http.Request) string {
	switch s := r.Header[secretHeader]; len(s) {
	case 0:
	case 1:
		v.secret = s[0]
	default:
		return twoSecrets
	}
	return v.secret
}

// placeholder provides the placeholders of the gate. Those of another
// authenticator are set apart and win.
func (v *visit) placeholder(name string) (any, bool) {
	if name == codeName {
		return v.refusal.Code(), true
	}
	field, ok := strings.CutPrefix(name, userPrefix)
	if !ok {
		return nil, false
	}
	if metadata, ok := strings.CutPrefix(field, metadataPrefix); ok {
		if !v.session {
			return "", true
		}
		return v.decision.Metadata(metadata), true
	}
	return v.field(field)
}

func (v *visit) field(name string) (any, bool) {
	switch name {
	case "id", "key_id", "key_name", "tier", "config", "permissions":
	default:
		return nil, false
	}
	if !v.session {
		return "", true
	}
	k := v.decision.Key()
	switch name {
	case "id":
		return k.UserID, true
	case "key_id":
		return k.ID, true
	case "key_name":
		if k.Name == nil {
			return "", true
		}
		return *k.Name, true
	case "config":
		return k.ConfigID, true
	case "permissions":
		return v.decision.Permissions(), true
	default: // tier
		return v.decision.Tier(), true
	}
}

// String keeps the visit out of {http.vars.*}.
func (*visit) String() string { return "" }
