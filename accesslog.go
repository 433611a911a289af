package apikey

import (
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/key"
)

// log makes the access log show what gates decided about the request. The field is
// written when the log is, so that it shows the last decision.
func (s *requestState) log(r *http.Request) {
	if s.logged {
		return
	}
	if extra, ok := r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok {
		s.logged = true
		extra.Set(zap.Object("apikey", (*logField)(s)))
	}
}

// logField is the field "apikey" of the access log.
type logField requestState

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (f *logField) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	s := (*requestState)(f)
	var keyID, owner string
	if k := s.knownKey(); k != nil {
		keyID, owner = k.ID, k.UserID
	}
	enc.AddString("key_id", keyID)
	enc.AddString("owner", owner)
	enc.AddString("outcome", s.outcome())
	enc.AddString("limit", s.limit())
	return nil
}

// knownKey returns the key of the request, if it is known.
func (s *requestState) knownKey() *key.Key {
	if !s.admitted && !s.candidate {
		return nil
	}
	return s.decision.Key()
}

// outcome returns what gates decided, as logs, metrics and traces name it.
func (s *requestState) outcome() string {
	if s.failed {
		return strings.ToLower(api.CodeInternal)
	}
	return s.refusal.Label()
}

// Interface guard
var _ zapcore.ObjectMarshaler = (*logField)(nil)
