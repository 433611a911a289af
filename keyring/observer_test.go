package keyring

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// watcher writes down what it is told.
type watcher struct {
	mu      sync.Mutex
	decided []string
	changed []string
	events  []string
	wants   Subscription // of events
}

func (w *watcher) Happened(events []Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range events {
		if !w.wants.Wants(&events[i]) {
			continue
		}
		w.events = append(w.events, eventText(&events[i]))
	}
}

// happened returns the events, and forgets them.
func (w *watcher) happened() (events []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	events, w.events = w.events, nil
	return events
}

func (w *watcher) Decided(d Decided) {
	w.mu.Lock()
	defer w.mu.Unlock()
	owner := "-"
	if d.Key != nil {
		owner = d.Key.UserID
	}
	w.decided = append(w.decided, fmt.Sprintf("%s %s %s %s %d", d.Outcome.Label(), owner, d.Tier, d.Limit, d.Cost))
}

func (w *watcher) Changed(by Actor, changes []store.Change) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range changes {
		w.changed = append(w.changed, fmt.Sprintf("%s %s %s %t %d", by.Kind, by.ID, c.Kind, c.Deleted(), c.Keys))
	}
}

// TestObserver: every decision and every change is told once, with who made it.
func TestObserver(t *testing.T) {
	g := newRig(t)
	ctx := context.Background()
	w := new(watcher)
	set := &Settings{Rules: DefaultRules(), Tiers: []Tier{tier("free", per(minute, 2))}, DefaultTier: "free", Observers: []Observer{w}}
	set.Rules.Expiration.Keep = 0
	g.use(set)
	defer g.engine.Attach(set)()
	k := g.create(Draft{ExpiresIn: to(int64(60))})
	g.want(k.Raw, Allowed)
	first := g.want(k.Raw, Allowed, Request{Cost: 1})
	if _, err := g.more(ctx, &first, &Request{Cost: 2}); err != nil {
		t.Fatal(err)
	}
	g.want("ak_unknown", Invalid)
	g.want(k.Raw, RateLimited, Request{Cost: 1})
	g.want(k.Raw, RateLimited, Request{Cost: 1, DryRun: true}) // not told
	g.Refused(&Decision{Outcome: Missing}, &Request{})
	if want := []string{
		"allowed alice free  1", "allowed alice free  1", "rate_limited alice free minute 0",
		"invalid_api_key -   0", "rate_limited alice free minute 0", "missing_api_key -   0",
	}; !slices.Equal(w.decided, want) {
		t.Errorf("%q\nwant %q", w.decided, want)
	}

	person := g.As(Actor{Kind: ActorPerson, ID: "alice", Scope: &Scope{}})
	if _, err := person.Update(ctx, k.Key.ID, Patch{Enabled: to(false)}); err != nil {
		t.Fatal(err)
	}
	if _, err := person.Update(ctx, k.Key.ID, Patch{UserID: to("bob")}); err == nil {
		t.Fatal("beyond the scope")
	}
	if _, err := g.As(Actor{Kind: ActorKey, ID: k.Key.ID}).Rotate(ctx, k.Key.ID, Rotation{}); err != nil {
		t.Fatal(err)
	}
	if _, err := g.PutOwner(ctx, "alice", OwnerPatch{Tier: to("free")}); err != nil {
		t.Fatal(err)
	}
	e, _ := g.foreign(1)
	g.imports(false, []store.Entry{e, e}, "created", "exists")
	for range 370 { // an hour after it expired
		g.clock.advance(10 * time.Second)
		if err := g.engine.deleteKept(ctx, g.engine.store.Load()); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.DeleteOwner(ctx, "alice"); err != nil {
		t.Fatal(err)
	}
	if want := []string{
		"operator  key false 0", "person alice key false 0", "key " + k.Key.ID + " key false 0", "operator  owner false 0",
		"operator  key false 0", "system  key true 0", "operator  owner true 1",
	}; !slices.Equal(w.changed, want) {
		t.Errorf("%q\nwant %q", w.changed, want)
	}
}

// hours returns what the store tells of an hour.
func (g *rig) hours(at time.Time) map[string]int64 {
	g.t.Helper()
	g.flush()
	hour := at.UnixMilli() / hourMillis
	list, err := g.spy.Store.(store.Statistics).Hours(context.Background(), hour, hour)
	if err != nil {
		g.t.Fatal(err)
	}
	all := map[string]int64{}
	for _, h := range list {
		all[h.Outcome+" "+h.Tier] += h.N
	}
	return all
}

// TestHours: requests are counted by hour, outcome and tier, each once, whatever gates
// they meet.
func TestHours(t *testing.T) {
	g := newRig(t).with(tier("free", per(minute, 3)))
	ctx := context.Background()
	k := g.create(Draft{})
	began := g.clock.now()
	want := func(at time.Time, want map[string]int64) {
		t.Helper()
		if got := g.hours(at); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%v, want %v", got, want)
		}
	}
	g.want(k.Raw, Allowed)
	var c Counted
	d := g.want(k.Raw, Allowed, Request{Cost: 1, Counted: &c})
	if _, err := g.more(ctx, &d, &Request{Cost: 1, Counted: &c}); err != nil { // the second gate
		t.Fatal(err)
	}
	want(began, map[string]int64{"allowed free": 2})
	g.Reclassify(&c, Forbidden)
	want(began, map[string]int64{"allowed free": 1, "insufficient_permissions free": 1})
	g.want("ak_unknown", Invalid)
	g.Refused(&Decision{Outcome: Missing}, &Request{})
	g.want(k.Raw, Allowed)
	g.want(k.Raw, RateLimited)
	g.want(k.Raw, RateLimited, Request{Cost: 1, DryRun: true})
	want(began, map[string]int64{
		"allowed free": 2, "insufficient_permissions free": 1, "invalid_api_key ": 1, "missing_api_key ": 1, "rate_limited free": 1,
	})
	g.clock.advance(time.Hour)
	g.want(k.Raw, Allowed)
	want(g.clock.now(), map[string]int64{"allowed free": 1})
	g.restart()
	want(began, map[string]int64{
		"allowed free": 2, "insufficient_permissions free": 1, "invalid_api_key ": 1, "missing_api_key ": 1, "rate_limited free": 1,
	})
}

// TestAskedPermissions: what a key is asked for is kept, each permission once.
func TestAskedPermissions(t *testing.T) {
	g := newRig(t)
	k := g.create(Draft{Permissions: key.Permissions{"files": {"read"}, "x": {"*"}}})
	read, write := key.Permission{Resource: "files", Action: "read"}, key.Permission{Resource: "files", Action: "write"}
	want := func(want ...string) {
		t.Helper()
		g.flush()
		got, err := g.spy.Store.(store.Statistics).AskedPermissions(context.Background(), k.Key.ID)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
	}
	g.want(k.Raw, Allowed, Request{Require: []key.Permission{read}})
	want("files:read")
	list := key.Permission{Resource: "x", Action: "list"}
	g.want(k.Raw, Forbidden, Request{Require: []key.Permission{write}})
	g.want(k.Raw, Allowed, Request{Require: []key.Permission{list}, DryRun: true})
	want("files:read")
	g.want(k.Raw, Allowed, Request{RequireAny: [][]key.Permission{{write, read, list}}})
	want("files:read", "x:list")
	g.forget(k.Key.ID)
	g.want(k.Raw, Allowed, Request{Require: []key.Permission{read}})
	for _, raw := range []string{k.Raw, g.create(Draft{}).Raw} { // in the wrong field
		g.want(k.Raw, Allowed, Request{Require: []key.Permission{{Resource: "x", Action: raw}}})
	}
	want("files:read", "x:list")
	for n := range 2 * store.MaxAskedPermissions {
		g.want(k.Raw, Allowed, Request{Require: []key.Permission{{Resource: "x", Action: fmt.Sprint(n)}}})
	}
	g.flush()
	if got, err := g.spy.Store.(store.Statistics).AskedPermissions(context.Background(), k.Key.ID); err != nil || len(got) != store.MaxAskedPermissions {
		t.Errorf("%d, %v", len(got), err)
	}
	if n := len(g.entry(k.Key.ID).asked.Load().list); n > store.MaxAskedPermissions {
		t.Errorf("%d are in memory", n)
	}
}
