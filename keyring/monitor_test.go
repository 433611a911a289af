package keyring

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/store"
)

// ear writes down what a Monitor is told.
type ear struct {
	mu      sync.Mutex
	calls   map[string]int
	credits map[Movement]int64
	parts   []string
	dropped int64
	heads   []store.AuditPoint
}

func (m *ear) StoreCalled(operation string, _ time.Duration, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls[operation]++
	if err != nil {
		m.calls[operation+" failed"]++
	}
}

func (m *ear) CreditsMoved(what Movement, n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.credits[what] += n
}

func (m *ear) StatisticsDropped(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dropped += n
}

func (m *ear) Degraded(p Part, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.parts = append(m.parts, fmt.Sprint(p, " ", err != nil))
}

func (m *ear) AuditHead(p store.AuditPoint) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.heads = append(m.heads, p)
}

// monitored is a rig with an ear.
func monitored(t *testing.T, lease int64) (*rig, *ear) {
	m := &ear{calls: map[string]int{}, credits: map[Movement]int64{}}
	g := newRig(t).leasing(lease)
	g.listen(m)
	return g, m
}

// still ends the background work, for tests that do it themselves.
func (g *rig) still() {
	g.engine.stopping()
	g.engine.loops.Wait()
}

// listen sets the monitor of an engine that is open already.
func (g *rig) listen(m Monitor) {
	st := g.engine.store.Load()
	guard := st.Store.(guarded)
	guard.monitor = m
	g.engine.SetMonitor(m)
	g.engine.store.Store(&opened{guard, st.at})
}

// TestMonitor_credits: what requests take is told as they take it, from the store or from a
// lease, and once.
func TestMonitor_credits(t *testing.T) {
	for name, lease := range map[string]int64{"strict": 0, "lease": 100} {
		t.Run(name, func(t *testing.T) {
			g, m := monitored(t, lease)
			k := g.create(Draft{Remaining: ptr(int64(1000))})
			for range 10 {
				g.want(k.Raw, Allowed, Request{Cost: 3})
			}
			g.want(k.Raw, UsageExceeded, Request{Cost: 10_000})
			g.want(k.Raw, Allowed, Request{Cost: 3, DryRun: true})
			g.want(g.create(Draft{}).Raw, Allowed, Request{Cost: 3}) // unlimited
			d := g.want(k.Raw, Allowed, Request{Cost: 5})
			for range 2 {
				if err := g.Refund(context.Background(), &d); err != nil {
					t.Fatal(err)
				}
			}
			if m.credits[Taken] != 35 || m.credits[Refunded] != 5 {
				t.Errorf("%v", m.credits)
			}
			if i := g.get(k.Key.ID); i.Credits.Remaining != 970 {
				t.Errorf("%d remain", i.Credits.Remaining)
			}
		})
	}
}

// TestMonitor_degraded: each part that fails is told once, and once that it works again.
func TestMonitor_degraded(t *testing.T) {
	g, m := monitored(t, 0)
	g.still()
	known, unknown := g.create(Draft{Remaining: ptr(int64(1000))}), g.create(Draft{})
	g.want(known.Raw, Allowed)
	g.spy.panics.Store(true)
	for range 3 {
		for _, raw := range []string{known.Raw, unknown.Raw} {
			if d, _ := g.Verify(context.Background(), raw, &Request{Cost: 1}); d.Outcome != Unavailable {
				t.Fatal(d.Outcome.Code())
			}
		}
		if err := g.engine.flushAndRecover(context.Background(), g.engine.store.Load()); err == nil {
			t.Fatal("written")
		}
	}
	if got := g.engine.Degraded(); !slices.Equal(got, []Part{PartIdentity, PartCredits, PartStatistics}) {
		t.Errorf("%v are degraded", got)
	}
	if g.engine.Gauges().Backlog == 0 {
		t.Error("nothing waits")
	}
	g.spy.panics.Store(false)
	if err := g.engine.flushAndRecover(context.Background(), g.engine.store.Load()); err != nil {
		t.Fatal(err)
	}
	slices.Sort(m.parts)
	if got := strings.Join(m.parts, ", "); got != "credits false, credits true, identity false, identity true, statistics false, statistics true" {
		t.Error(got)
	}
	if got := g.engine.Degraded(); len(got) != 0 || g.engine.Gauges().Backlog != 0 {
		t.Errorf("%v are degraded, %d writes wait", got, g.engine.Gauges().Backlog)
	}
	if m.calls["find failed"] != 3 || m.calls["move_credits"] != 4 || m.calls["move_credits failed"] != 3 || m.calls["save_usage failed"] != 3 {
		t.Errorf("%v", m.calls)
	}
	// A client that goes away says nothing about the store.
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	g.evict()
	if d, _ := g.Verify(ctx, unknown.Raw, &Request{Cost: 1}); d.Outcome == Unavailable && len(g.engine.Degraded()) > 0 {
		t.Error("degraded by a client")
	}
}

// TestMonitor_dropped: what cannot be written at the end is lost, and told.
func TestMonitor_dropped(t *testing.T) {
	g, m := monitored(t, 0)
	g.still()
	k := g.create(Draft{})
	g.want(k.Raw, Allowed)
	g.flush()
	for range 5 {
		g.want(k.Raw, Allowed)
	}
	g.want("ak_unknown", Invalid)
	g.spy.panics.Store(true)
	for range 2 { // the first makes a batch
		if err := g.engine.flush(context.Background(), g.engine.store.Load()); err == nil {
			t.Fatal("written")
		}
		g.want("ak_unknown", Invalid)
	}
	if err := g.engine.flushLast(g.engine.store.Load()); err == nil || m.dropped != 8 {
		t.Errorf("%v, %d requests", err, m.dropped)
	}
	g.spy.panics.Store(false)
}

// TestFigures: they are counted when somebody asks, and not again while they are fresh.
func TestFigures(t *testing.T) {
	g, m := monitored(t, 0)
	ctx := context.Background()
	for range 3 {
		g.create(Draft{ExpiresIn: to(int64(3 * 24 * 60 * 60))})
	}
	g.create(Draft{Enabled: ptr(false)})
	f := g.engine.Figures(ctx)
	if f == nil || f.Active != 3 || f.Disabled != 1 || !slices.Equal(f.Expiring, []int64{0, 3, 3}) {
		t.Fatalf("%+v", f)
	}
	g.clock.advance(4 * 24 * time.Hour)
	if f = g.engine.Figures(ctx); f.Active != 0 || f.Expired != 3 || f.Expiring[2] != 0 {
		t.Fatalf("%+v", f)
	}
	if m.calls["find failed"] != 0 {
		t.Errorf("%v", m.calls)
	}
	// Who does not wait gets those that are there.
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if f := g.engine.Figures(ended); f == nil {
		t.Error("none")
	}
	for g.engine.Figures(ctx) == nil {
		runtime.Gosched()
	}
}

// TestDecided_lookedUp: an observer learns whether the store was asked, and which rules hold.
func TestDecided_lookedUp(t *testing.T) {
	g := newRig(t)
	w := new(told)
	set := &Settings{Rules: DefaultRules(), Observers: []Observer{w}}
	g.use(set)
	k := g.create(Draft{})
	g.want(k.Raw, Allowed)
	g.want(k.Raw, Allowed)
	g.want("ak_unknown", Invalid)
	g.Refused(&Decision{Outcome: Missing}, &Request{})
	g.evict()
	g.flush()
	g.evict()
	g.want(k.Raw, Allowed)
	want := []string{"default true true", "default true false", " true false", " false false", "default true true"}
	if !slices.Equal(w.all, want) {
		t.Errorf("%q, want %q", w.all, want)
	}
}

type told struct{ all []string }

func (w *told) Decided(d Decided) {
	w.all = append(w.all, fmt.Sprint(d.Config, " ", d.Verified, " ", d.LookedUp))
}

func (w *told) Changed(Actor, []store.Change) {}

// TestAuditHead: the newest entry of the audit log is told, once there is one.
func TestAuditHead(t *testing.T) {
	g, m := monitored(t, 0)
	tell := func() {
		t.Helper()
		if err := g.engine.tellAuditHead(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	tell()
	if len(m.heads) != 0 {
		t.Errorf("%+v of an empty log", m.heads)
	}
	g.create(Draft{})
	k := g.create(Draft{})
	tell()
	if last := g.audit(1)[0]; len(m.heads) != 1 || m.heads[0] != last.Point() || last.KeyID != k.Key.ID {
		t.Errorf("%+v, the last entry is %+v", m.heads, last)
	}
}
