package apikey

import (
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
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
	if k := s.decision.Key(); k != nil && (s.admitted || s.candidate) {
		keyID, owner = k.ID, k.UserID
	}
	outcome := s.refusal.Label()
	if s.failed {
		outcome = strings.ToLower(api.CodeInternal)
	}
	enc.AddString("key_id", keyID)
	enc.AddString("owner", owner)
	enc.AddString("outcome", outcome)
	enc.AddString("limit", s.limit())
	return nil
}

// Interface guard
var _ zapcore.ObjectMarshaler = (*logField)(nil)
