package apikey

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/caddy-apikey/caddy-apikey/keyring"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// Caddy makes a registry for each configuration. What counts is made once per process and
// registered with each of them, so that it goes on counting; what shows the state of an
// engine belongs to the configuration that uses it. docs/metrics.md describes each metric.

const namespace, subsystem = "caddy", "apikey"

// metrics are the collectors of this process. They observe all configurations and monitor
// all engines.
var metrics = newMeters()

// meters count what happens.
type meters struct {
	decisions   *prometheus.CounterVec
	seconds     *prometheus.HistogramVec
	storeTime   *prometheus.HistogramVec
	storeErrors *prometheus.CounterVec
	credits     *prometheus.CounterVec
	dropped     prometheus.Counter

	moved map[keyring.Movement]prometheus.Counter // of credits

	// What a request touches is found without a lock, and without allocating.
	quick, lookedUp prometheus.Observer // of seconds
	known           atomic.Pointer[map[decisionLabels]prometheus.Counter]
	adding          sync.Mutex // of who adds to known
}

// decisionLabels are the labels of decisions. There are few: outcomes times configured tiers
// and configurations.
type decisionLabels struct {
	outcome      keyring.Outcome
	config, tier string
}

func newMeters() *meters {
	counter := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help}
	}
	histogram := func(name, help string, buckets []float64) prometheus.HistogramOpts {
		return prometheus.HistogramOpts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help, Buckets: buckets}
	}
	m := &meters{
		decisions: prometheus.NewCounterVec(counter("decisions_total", "Decisions about requests."), []string{"outcome", "config", "tier"}),
		seconds: prometheus.NewHistogramVec(histogram("decision_seconds", "Time to decide about a key.",
			[]float64{5e-6, 25e-6, 100e-6, 500e-6, 2.5e-3, 10e-3, 50e-3, 250e-3, 1}), []string{"looked_up"}),
		storeTime: prometheus.NewHistogramVec(histogram("store_seconds", "Time of a call of the store.",
			[]float64{100e-6, 500e-6, 1e-3, 5e-3, 25e-3, 100e-3, 500e-3, 2.5, 10}), []string{"operation"}),
		storeErrors: prometheus.NewCounterVec(counter("store_errors_total", "Calls of the store that failed because it was not available."), []string{"operation"}),
		credits:     prometheus.NewCounterVec(counter("credits_total", "Credits that requests took or got back, and that crashes lost."), []string{"what"}),
		dropped:     prometheus.NewCounter(counter("statistics_dropped_total", "Requests that the usage statistics will never show.")),
	}
	m.quick, m.lookedUp = m.seconds.WithLabelValues("false"), m.seconds.WithLabelValues("true")
	m.moved = map[keyring.Movement]prometheus.Counter{}
	for _, what := range keyring.Movements {
		m.moved[what] = m.credits.WithLabelValues(string(what))
	}
	m.known.Store(&map[decisionLabels]prometheus.Counter{})
	return m
}

func (m *meters) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.decisions, m.seconds, m.storeTime, m.storeErrors, m.credits, m.dropped}
}

// Decided implements keyring.Observer.
func (m *meters) Decided(d keyring.Decided) {
	m.decision(decisionLabels{d.Outcome, d.Config, d.Tier}).Inc()
	switch {
	case !d.Verified:
	case d.LookedUp:
		m.lookedUp.Observe(d.Took.Seconds())
	default:
		m.quick.Observe(d.Took.Seconds())
	}
}

// Changed implements keyring.Observer.
func (*meters) Changed(keyring.Actor, []store.Change) {}

func (m *meters) decision(l decisionLabels) prometheus.Counter {
	if c, ok := (*m.known.Load())[l]; ok {
		return c
	}
	m.adding.Lock()
	defer m.adding.Unlock()
	more := maps.Clone(*m.known.Load())
	more[l] = m.decisions.WithLabelValues(l.outcome.Label(), l.config, l.tier)
	m.known.Store(&more)
	return more[l]
}

// StoreCalled implements keyring.Monitor.
func (m *meters) StoreCalled(operation string, took time.Duration, err error) {
	m.storeTime.WithLabelValues(operation).Observe(took.Seconds())
	failures := m.storeErrors.WithLabelValues(operation) // shows 0 before the first
	if errors.Is(err, store.ErrUnavailable) {
		failures.Inc()
	}
}

// CreditsMoved implements keyring.Monitor.
func (m *meters) CreditsMoved(what keyring.Movement, n int64) {
	m.moved[what].Add(float64(n))
}

// StatisticsDropped implements keyring.Monitor. Requests that turned out to be refused may
// make the number negative for a moment.
func (m *meters) StatisticsDropped(requests int64) { m.dropped.Add(float64(max(0, requests))) }

// Degraded implements keyring.Monitor. It asks for the logger each time, as report does.
func (*meters) Degraded(p keyring.Part, err error) {
	log := caddy.Log().Named("apikey")
	if err != nil {
		log.Warn("degraded while the store is away", zap.String("what", string(p)), zap.Error(err))
		return
	}
	log.Info("not degraded any more", zap.String("what", string(p)))
}

// AuditHead implements keyring.Monitor.
func (*meters) AuditHead(head store.AuditPoint) { logHead(caddy.Log().Named("apikey"), head) }

// gauges show the state of an engine when they are collected.
type gauges struct{ engine *keyring.Engine }

// figuresWait is for how long a scrape waits for figures that have to be counted.
const figuresWait = time.Second

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(namespace, subsystem, name), help, labels, nil)
}

var (
	backlogDesc  = describe("backlog", "Writes that wait for the store.")
	keysDesc     = describe("keys", "Keys in the whole store.", "state")
	expiringDesc = describe("keys_expiring", "Keys in the whole store that expire soon.", "within")
	leasedDesc   = describe("leased_credits", "Credits in the whole store that are leased.")
	entriesDesc  = describe("cache_entries", "Raw keys in memory.")
	bytesDesc    = describe("cache_bytes", "Memory that they take.")
	degradedDesc = describe("degraded", "Whether a part does not work because the store is away.", "what")
)

// Describe implements prometheus.Collector.
func (gauges) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{backlogDesc, keysDesc, expiringDesc, leasedDesc, entriesDesc, bytesDesc, degradedDesc} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (g gauges) Collect(to chan<- prometheus.Metric) {
	send := func(d *prometheus.Desc, n int64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), labels...)
	}
	now := g.engine.Gauges()
	send(backlogDesc, int64(now.Backlog))
	send(entriesDesc, int64(now.CacheEntries))
	send(bytesDesc, now.CacheBytes)
	degraded := g.engine.Degraded()
	for _, p := range keyring.Parts {
		n := int64(0)
		if slices.Contains(degraded, p) {
			n = 1
		}
		send(degradedDesc, n, string(p))
	}
	ctx, cancel := context.WithTimeout(context.Background(), figuresWait)
	defer cancel()
	f := g.engine.Figures(ctx)
	if f == nil {
		return
	}
	send(leasedDesc, f.Leased)
	send(keysDesc, f.Active, string(store.StateActive))
	send(keysDesc, f.Disabled, string(store.StateDisabled))
	send(keysDesc, f.Expired, string(store.StateExpired))
	send(keysDesc, f.Exhausted, string(store.StateExhausted))
	for i, d := range keyring.Within {
		send(expiringDesc, f.Expiring[i], strconv.Itoa(int(d/(24*time.Hour)))+"d")
	}
}

// registerMetrics adds the metrics to the registry of a configuration.
func (a *App) registerMetrics(ctx caddy.Context) error {
	for _, c := range append(metrics.collectors(), gauges{a.engine}) {
		var known prometheus.AlreadyRegisteredError
		if err := ctx.GetMetricsRegistry().Register(c); err != nil && !errors.As(err, &known) {
			return fmt.Errorf("registering metrics: %w", err)
		}
	}
	return nil
}

// Interface guards
var (
	_ keyring.Observer     = (*meters)(nil)
	_ keyring.Monitor      = (*meters)(nil)
	_ prometheus.Collector = gauges{}
)
