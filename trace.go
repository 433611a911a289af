package apikey

import (
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
)

// trace adds what gates decided to the span of the request, where Caddy traces it. Of
// several gates the last one that decides counts.
func (s *requestState) trace(r *http.Request) {
	span := trace.SpanFromContext(r.Context())
	if !span.IsRecording() {
		return
	}
	var keyID, config string
	if k := s.knownKey(); k != nil {
		keyID, config = k.ID, k.ConfigID
	}
	span.SetAttributes(
		attribute.String("apikey.key_id", keyID),
		attribute.String("apikey.outcome", s.outcome()),
		attribute.String("apikey.config", config),
	)
}
