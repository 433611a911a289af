package apikey

import (
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// trace shows what gates decided in the span of the request, where Caddy traces it. Of
// several gates the last one that decides counts.
func (s *requestState) trace(r *http.Request) {
	if span := trace.SpanFromContext(r.Context()); span.IsRecording() {
		annotate(span, s.knownKey(), s.outcome())
	}
}

// traceRefusal is trace for the self-service API, which keeps no refusals in the state.
func traceRefusal(r *http.Request, d *keyring.Decision) {
	if span := trace.SpanFromContext(r.Context()); span.IsRecording() {
		annotate(span, d.Key(), d.Outcome.Label())
	}
}

func annotate(span trace.Span, k *key.Key, outcome string) {
	var keyID, config string
	if k != nil {
		keyID, config = k.ID, k.ConfigID
	}
	span.SetAttributes(
		attribute.String("apikey.key_id", keyID),
		attribute.String("apikey.outcome", outcome),
		attribute.String("apikey.config", config),
	)
}
