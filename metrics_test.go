package apikey

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// TestMetrics_allocations: a decision that is like an earlier one allocates nothing.
func TestMetrics_allocations(t *testing.T) {
	m := newMeters()
	d := keyring.Decided{Key: new(key.Key), Config: "default", Tier: "pro", Verified: true, Took: time.Microsecond}
	m.Decided(d)
	if n := testing.AllocsPerRun(1000, func() { m.Decided(d) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	m.CreditsMoved(keyring.Taken, 1)
	if n := testing.AllocsPerRun(1000, func() { m.CreditsMoved(keyring.Taken, 1) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestMetrics_cardinality: series are as many as outcomes, configurations and tiers make,
// whatever the keys.
func TestMetrics_cardinality(t *testing.T) {
	m := newMeters()
	for i := range 10_000 {
		m.Decided(keyring.Decided{
			Outcome: keyring.Outcome(i) % keyring.NumOutcomes, Config: fmt.Sprint(i % 3), Tier: fmt.Sprint(i % 2),
			Key: &key.Key{ID: fmt.Sprint(i), UserID: fmt.Sprint(i)}, Verified: true, LookedUp: i%2 == 0,
		})
	}
	if n := seriesOf(m.decisions); n != int(keyring.NumOutcomes)*3*2 {
		t.Errorf("%d series of decisions", n)
	}
	if n := seriesOf(m.seconds); n != 2 {
		t.Errorf("%d series of durations", n)
	}
}

func seriesOf(c prometheus.Collector) int {
	all := make(chan prometheus.Metric, 1000)
	c.Collect(all)
	return len(all)
}

// TestMetrics_labels: no metric has a label whose values grow with keys or owners.
func TestMetrics_labels(t *testing.T) {
	descs := make(chan *prometheus.Desc, 100)
	for _, c := range append(metrics.collectors(), gauges{}) {
		c.Describe(descs)
	}
	close(descs)
	known := []string{"outcome", "config", "tier", "looked_up", "operation", "state", "within", "what"}
	for d := range descs {
		_, labels, _ := strings.Cut(d.String(), "variableLabels: {")
		labels, _, _ = strings.Cut(labels, "}")
		for label := range strings.SplitSeq(labels, ",") {
			if label != "" && !slices.Contains(known, label) {
				t.Errorf("%v", d)
			}
		}
	}
}

// recording is a span that keeps its attributes.
type recording struct {
	noop.Span
	on         bool
	attributes map[attribute.Key]string
}

func (s *recording) IsRecording() bool { return s.on }

func (s *recording) SetAttributes(list ...attribute.KeyValue) {
	for _, a := range list {
		s.attributes[a.Key] = a.Value.AsString()
	}
}

// TestTrace: a span that is recorded shows the decision, and costs nothing where none is.
func TestTrace(t *testing.T) {
	span := &recording{on: true, attributes: map[attribute.Key]string{}}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	traced := r.WithContext(trace.ContextWithSpan(r.Context(), span))
	s := &requestState{refusal: keyring.Invalid}
	s.trace(traced)
	want := func(keyID, outcome, config string) {
		t.Helper()
		got := span.attributes
		if len(got) != 3 || got["apikey.key_id"] != keyID || got["apikey.outcome"] != outcome || got["apikey.config"] != config {
			t.Errorf("%v", got)
		}
	}
	want("", "invalid_api_key", "")
	s.failed = true
	s.trace(traced)
	want("", "internal", "")
	d := keyring.Refusal(keyring.Missing)
	traceRefusal(traced, &d)
	want("", "missing_api_key", "")

	span.on = false
	for name, r := range map[string]*http.Request{"no span": r, "not recording": traced} {
		if n := testing.AllocsPerRun(1000, func() { s.trace(r); traceRefusal(r, &d) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
