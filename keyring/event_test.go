package keyring

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/store"
)

const (
	everyHook   = "https://example.com/all"
	creditsHook = "https://example.com/credits"
)

// eventText is an event without its time and the prefix that all have.
func eventText(e *Event) string {
	text := strings.TrimPrefix(string(e.Type), "apikey_") + " " + cmp.Or(e.KeyID, "-") + " " + e.UserID
	if e.Threshold != 0 {
		text += fmt.Sprint(" ", e.Threshold)
	}
	if e.Within != 0 {
		text += " " + within(e.Within)
	}
	return text
}

// subscribe uses settings with an observer and two webhooks, until the test ends.
func (g *rig) subscribe(w *watcher) {
	g.t.Helper()
	set := &Settings{
		Rules: DefaultRules(), Lease: g.lease, Observers: []Observer{w}, Listeners: []Listener{w},
		Events: Subscription{Thresholds: DefaultThresholds, Expiring: DefaultExpiring, Idle: DefaultIdle},
		Webhooks: []Webhook{
			{everyHook, Subscription{Thresholds: []int64{50}, Expiring: []int64{int64(time.Hour / time.Millisecond)}, Idle: msPerDay}},
			{creditsHook, Subscription{Events: []EventType{EventCreditsThreshold, EventKeyExhausted}, Thresholds: []int64{100}}},
		},
	}
	set.Rules.Expiration.Keep = KeepForever
	w.wants = set.Events
	g.use(set)
	g.t.Cleanup(g.engine.Attach(set))
}

// sent returns the events that wait for a webhook, the oldest first.
func (g *rig) sent(url string) (events []string) {
	g.t.Helper()
	q := store.DeliveryQuery{Limit: 500}
	for {
		page, err := g.Deliveries(context.Background(), q)
		if err != nil {
			g.t.Fatal(err)
		}
		for i := range page.Deliveries {
			d := &page.Deliveries[i]
			var body struct {
				Type EventType
				Data struct {
					KeyID, UserID, Within string
					Threshold             int64
				}
			}
			if err := json.Unmarshal(d.Body, &body); err != nil || string(body.Type) != d.Event || d.State != store.DeliveryPending {
				g.t.Errorf("%s: %v", d.Body, err)
			}
			if d.URL == url {
				text := eventText(&Event{Type: body.Type, KeyID: body.Data.KeyID, UserID: body.Data.UserID, Threshold: body.Data.Threshold})
				events = append(events, strings.TrimSpace(text+" "+body.Data.Within))
			}
		}
		if q.Cursor = page.Next; q.Cursor == "" {
			slices.Reverse(events)
			return events
		}
	}
}

func wantEvents(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n%q, want\n%q", what, got, want)
	}
}

// TestEvents: each change is told as the event that it is, to observers and to the webhooks that
// want it, and a change that was not made is not told.
func TestEvents(t *testing.T) {
	g, w, ctx := newRig(t), new(watcher), context.Background()
	g.subscribe(w)
	k := g.create(Draft{ExpiresIn: to(int64(60))})
	id := k.Key.ID
	g.update(id, Patch{Name: to("other")}) // tells nothing
	g.rotate(id, Rotation{Grace: 60})
	g.update(id, Patch{Enabled: to(false)})
	g.update(id, Patch{Enabled: to(true)})
	if _, err := g.Update(ctx, id, Patch{RemainingDelta: to(int64(1))}); err == nil {
		t.Error("a change that cannot be made was made")
	}
	for _, enabled := range []bool{false, true} {
		if _, err := g.PutOwner(ctx, "alice", OwnerPatch{Enabled: to(enabled)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.Delete(ctx, id); err != nil {
		t.Fatal(err)
	}
	if err := g.Delete(ctx, id); err == nil {
		t.Error("deleted twice")
	}
	other := g.create(Draft{UserID: "bob", ExpiresIn: to(int64(1))}).Key.ID
	g.clock.advance(2 * time.Second)
	if n, err := g.DeleteExpired(ctx); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	want := []string{
		"key_created " + id + " alice", "key_rotated " + id + " alice", "key_revoked " + id + " alice",
		"owner_disabled - alice", "key_deleted " + id + " alice", "key_created " + other + " bob", "key_deleted " + other + " bob",
	}
	wantEvents(t, "observer", w.happened(), want...)
	wantEvents(t, "webhook", g.sent(everyHook), want...)
	wantEvents(t, "webhook for credits", g.sent(creditsHook))
}

// TestEvents_body: what a webhook is sent has IDs and nothing else of a key.
func TestEvents_body(t *testing.T) {
	set := &Settings{Webhooks: []Webhook{{everyHook, Subscription{Thresholds: []int64{80}}}}}
	at := time.Date(2026, 11, 27, 8, 9, 10, 0, time.UTC).UnixMilli()
	list := set.deliveries([]Event{
		{Type: EventCreditsThreshold, At: at, KeyID: "k1", UserID: "alice", Threshold: 80},
		{Type: EventOwnerDisabled, At: at, UserID: "bob"},
	})
	want := []string{
		`{"type":"apikey_credits_threshold","timestamp":"2026-11-27T08:09:10.000Z","data":{"keyId":"k1","threshold":80,"userId":"alice"}}`,
		`{"type":"apikey_owner_disabled","timestamp":"2026-11-27T08:09:10.000Z","data":{"userId":"bob"}}`,
	}
	if len(list) != 2 || string(list[0].Body) != want[0] || string(list[1].Body) != want[1] || list[0].ID == list[1].ID {
		t.Errorf("%+v", list)
	}
	if got := fmt.Sprint((&Event{KeyID: "k1", UserID: "alice", Within: 3 * msPerDay}).Data()); got != "map[keyId:k1 userId:alice within:3d]" {
		t.Error(got)
	}
	if got := within(90 * 60 * 1000); got != "1h30m0s" {
		t.Error(got)
	}
}

// TestEvents_credits: each threshold is told once per refill, in the mode strict and when
// leases are settled, and the last credit is told to everybody.
func TestEvents_credits(t *testing.T) {
	for _, lease := range []int64{0, 20} {
		t.Run(fmt.Sprint("lease ", lease), func(t *testing.T) {
			g, w := newRig(t), new(watcher)
			g.lease = lease
			g.subscribe(w)
			k := g.create(Draft{Remaining: to(int64(100)).Value, RefillAmount: to(int64(100)).Value, RefillInterval: to(msPerDay).Value})
			id := k.Key.ID
			for round := range 2 {
				w.happened()
				before := len(g.sent(everyHook))
				for range 100 {
					g.want(k.Raw, Allowed)
				}
				g.want(k.Raw, UsageExceeded)
				if err := g.engine.accounts.Close(g.engine.store.Load()); err != nil { // settles
					t.Fatal(err)
				}
				wantEvents(t, "observer", w.happened(), "credits_threshold "+id+" alice 80", "credits_threshold "+id+" alice 100", "key_exhausted "+id+" alice")
				wantEvents(t, "webhook", g.sent(everyHook)[before:], "credits_threshold "+id+" alice 50", "key_exhausted "+id+" alice")
				if got := g.sent(creditsHook); len(got) != 2*(round+1) {
					t.Errorf("%q", got)
				}
				g.clock.advance(24 * time.Hour)
			}
		})
	}
}

// TestNotices: keys that expire, have expired or are not used are told once, over restarts
// too.
func TestNotices(t *testing.T) {
	g, w, ctx := newRig(t), new(watcher), context.Background()
	g.subscribe(w)
	look := func() {
		t.Helper()
		g.engine.keeping.look(g.engine.clock())
		if err := g.engine.notice(ctx, g.engine.store.Load()); err != nil {
			t.Fatal(err)
		}
	}
	past := g.create(Draft{UserID: "past", ExpiresIn: to(int64(5 * 86400))}).Key.ID
	look()
	k := g.create(Draft{ExpiresIn: to(int64(20 * 86400))})
	id := k.Key.ID
	used := g.create(Draft{UserID: "used"})
	uid := used.Key.ID
	off := g.create(Draft{UserID: "off", ExpiresIn: to(int64(20 * 86400)), Enabled: to(false).Value}).Key.ID
	w.happened()
	created := len(g.sent(everyHook))
	step := func(d time.Duration, want ...string) {
		t.Helper()
		g.clock.advance(d)
		look()
		look()
		got := w.happened()
		slices.Sort(got) // of those at the same moment the order is that of their IDs
		slices.Sort(want)
		wantEvents(t, fmt.Sprint("after ", d), got, want...)
	}
	step(3*24*time.Hour, "key_expiring "+past+" past 3d")
	use := func() {
		t.Helper()
		g.want(used.Raw, Allowed)
		if err := g.engine.flush(ctx, g.engine.store.Load()); err != nil {
			t.Fatal(err)
		}
	}
	use()
	step(3*24*time.Hour, "key_expired "+past+" past", "key_expiring "+id+" alice 14d")
	g.restart()
	g.subscribe(w)
	step(time.Minute)
	step(11*24*time.Hour - 2*time.Minute)
	step(time.Minute, "key_expiring "+id+" alice 3d")    // to the minute
	g.update(id, Patch{ExpiresIn: to(int64(4 * 86400))}) // and once more for its new end
	step(time.Hour)
	step(24*time.Hour, "key_expiring "+id+" alice 3d")
	step(3*24*time.Hour, "key_expired "+id+" alice")
	step(80*24*time.Hour, "key_idle "+uid+" used 90d", "key_idle "+past+" past 90d", "key_idle "+id+" alice 90d")
	use()
	g.update(off, Patch{Enabled: to(true)})
	step(90*24*time.Hour+2*time.Hour, "key_idle "+uid+" used 90d")

	var hourly []string
	for _, e := range g.sent(everyHook)[created:] {
		if strings.HasPrefix(e, "key_expir") {
			hourly = append(hourly, e)
		}
	}
	wantEvents(t, "webhook", hourly, "key_expired "+past+" past", "key_expired "+id+" alice")
}

// TestNotices_many: many keys that expire at the same moment are all told, each once,
// where a crash comes between.
func TestNotices_many(t *testing.T) {
	g, w, ctx := newRig(t), new(watcher), context.Background()
	g.subscribe(w)
	if err := g.engine.notice(ctx, g.engine.store.Load()); err != nil {
		t.Fatal(err)
	}
	end := g.clock.now().Add(time.Hour).UnixMilli()
	var batch []store.Entry
	for i := range 2*noticeBatch + 7 {
		e, _ := g.foreign(i)
		e.Key.ExpiresAt = end
		batch = append(batch, e)
	}
	if _, err := g.Import(ctx, batch, false); err != nil {
		t.Fatal(err)
	}
	g.clock.advance(2 * time.Hour)
	stop, cancel := context.WithCancel(ctx)
	looks := 0
	g.spy.onPassed(func() {
		if looks++; looks == 2 { // the first part is told, the second one is not
			cancel()
		}
	})
	if err := g.engine.notice(stop, g.engine.store.Load()); err == nil {
		t.Error("not stopped")
	}
	g.spy.onPassed(nil)
	if n := len(w.happened()); n != noticeBatch {
		t.Errorf("%d were told before the crash", n)
	}
	g.restart()
	g.subscribe(w)
	if err := g.engine.notice(ctx, g.engine.store.Load()); err != nil {
		t.Fatal(err)
	}
	all := g.sent(everyHook)
	all = slices.DeleteFunc(all, func(e string) bool { return !strings.HasPrefix(e, "key_expired") })
	slices.Sort(all)
	if n := len(slices.Compact(slices.Clone(all))); n != len(batch) || len(all) != n {
		t.Errorf("%d events about %d of %d keys", len(all), n, len(batch))
	}
}

// TestNotices_clock: a clock that is ahead for a while has nothing told, and one that was set
// back goes on telling.
func TestNotices_clock(t *testing.T) {
	var k keeping
	second := int64(1000)
	for i := range int64(400) {
		k.look(instant{wall: i * 10 * second, monotonic: i * 10 * second})
	}
	now := 4000 * second
	for _, test := range []struct {
		name string
		wall int64
		want int64
	}{
		{"right", now, now},
		{"ahead", now + 60*msPerDay, now},
		{"set back", now - msPerDay, now - msPerDay},
	} {
		if got := k.steady(instant{wall: test.wall, monotonic: now}); got != test.want {
			t.Errorf("%s: %d, want %d", test.name, got, test.want)
		}
	}
	for i := range int64(400) { // ahead for more than an hour: that is the time now
		k.look(instant{wall: now + msPerDay + i*10*second, monotonic: now + i*10*second})
	}
	if got := k.steady(instant{wall: now + msPerDay + 4000*second, monotonic: now + 4000*second}); got != now+msPerDay+4000*second {
		t.Errorf("ahead for good: %d", got)
	}

	g, ctx := newRig(t), context.Background()
	n := notices{}
	st := g.engine.store.Load()
	mark := func(until int64) int64 {
		t.Helper()
		m, err := n.mark(ctx, st, "test", until)
		if err != nil {
			t.Fatal(err)
		}
		return m.At
	}
	if at := mark(90 * msPerDay); at != 90*msPerDay+1 {
		t.Errorf("a new search begins at %d", at)
	}
	if at := mark(90*msPerDay - second); at != 90*msPerDay+1 {
		t.Errorf("a second back: %d", at)
	}
	if at := mark(10 * msPerDay); at != 10*msPerDay+1 {
		t.Errorf("80 days back: %d", at)
	}
}

// TestDeliveriesExpire: what nobody sends for a day is dead, and what is dead for 30 days goes.
func TestDeliveriesExpire(t *testing.T) {
	g, w, ctx := newRig(t), new(watcher), context.Background()
	g.subscribe(w)
	g.create(Draft{})
	for _, test := range []struct {
		advance time.Duration
		state   store.DeliveryState
	}{{23 * time.Hour, store.DeliveryPending}, {2 * time.Hour, store.DeliveryDead}, {28 * 24 * time.Hour, store.DeliveryDead}, {2 * 24 * time.Hour, ""}} {
		g.clock.advance(test.advance)
		if err := g.engine.expireDeliveries(ctx, g.engine.store.Load()); err != nil {
			t.Fatal(err)
		}
		page, err := g.Deliveries(ctx, store.DeliveryQuery{})
		var state store.DeliveryState
		if len(page.Deliveries) > 0 {
			state = page.Deliveries[0].State
		}
		if err != nil || state != test.state {
			t.Errorf("after %v: %q, want %q, %v", test.advance, state, test.state, err)
		}
	}
}
