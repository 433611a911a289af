package keyring

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/store"
)

// This file tests what goes on while the store is away, and that it takes bounded memory.

// recover does what the background work does once a second.
func (g *rig) recover() error {
	return g.engine.flushAndRecover(context.Background(), g.engine.store.Load())
}

// unavailable asks for a request that must be told to come again.
func (g *rig) unavailable(raw string, q ...Request) {
	g.t.Helper()
	request := Request{Cost: 1}
	if len(q) > 0 {
		request = q[0]
	}
	d, err := g.Verify(context.Background(), raw, &request)
	if d.Outcome != Unavailable || !errors.Is(err, store.ErrUnavailable) || !d.Waitable || d.Wait <= 0 {
		g.t.Fatalf("outcome %q, wait %d, %v, want it to be unavailable", d.Outcome.Code(), d.Wait, err)
	}
	if !g.ToldAsDegraded(err) {
		g.t.Errorf("nobody is told of: %v", err)
	}
}

// TestF5_parts: while a part does not work, requests that need it are unavailable, never
// invalid, and all others go on. It is told once, and once when it works again.
func TestF5_parts(t *testing.T) {
	minute := Draft{RateLimitMax: ptr(int64(3)), RateLimitTimeWindow: ptr(int64(60_000))}
	for _, test := range []struct {
		name  string
		part  Part
		draft Draft // of the key whose requests need the part
		cold  bool  // it is not in memory
		warm  int64 // how often it was used before
		away  func(g *rig)
		mend  func(g *rig)
	}{
		{
			name: "a key that is not in memory", part: PartIdentity, cold: true,
			away: func(g *rig) { g.spy.failReads.Store(true) },
			mend: func(g *rig) { g.spy.failReads.Store(false) },
		},
		{
			name: "credits", part: PartCredits, draft: Draft{Remaining: ptr(int64(2))},
			away: func(g *rig) { g.spy.failTake = store.ErrUnavailable },
			mend: func(g *rig) { g.spy.failTake = nil },
		},
		{
			name: "the limits of an owner that are not in memory", part: PartLimits,
			away: func(g *rig) {
				g.spy.failReads.Store(true)
				g.with(tier("free", per(Month, 100)))
			},
			mend: func(g *rig) { g.spy.failReads.Store(false) },
		},
		{
			name: "limits for which there is no room", part: PartLimits, draft: minute,
			away: func(g *rig) { g.engine.queue.room.Store(0) },
			mend: func(g *rig) { g.engine.queue.resize(0) },
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			g, m := monitored(t, 0)
			g.still()
			g.engine.report = func(err error) { t.Errorf("told beside the monitor: %v", err) }
			other, needy := g.create(Draft{UserID: "bob"}), g.create(test.draft)
			limited := g.create(minute)
			g.want(other.Raw, Allowed)
			if !test.cold {
				g.want(needy.Raw, Allowed)
			}
			if test.part != PartLimits {
				g.want(limited.Raw, Allowed)
			}
			g.flush()
			alone := g.Editor // under the configuration without tiers
			test.away(g)
			for range 3 {
				g.unavailable(needy.Raw)
			}
			if got := g.engine.Degraded(); !slices.Contains(got, test.part) {
				t.Errorf("%v are degraded", got)
			}
			g.Editor, alone = alone, g.Editor
			g.want(other.Raw, Allowed)
			if test.part != PartLimits { // which go on in memory
				g.want(limited.Raw, Allowed)
				g.want(limited.Raw, Allowed)
				g.want(limited.Raw, RateLimited)
			}
			g.Editor = alone
			test.mend(g)
			if err := g.recover(); err != nil {
				t.Fatal(err)
			}
			g.want(needy.Raw, Allowed)
			for _, line := range []string{fmt.Sprint(test.part, " true"), fmt.Sprint(test.part, " false")} {
				if n := strings.Count(strings.Join(m.parts, ", "), line); n != 1 {
					t.Errorf("%q was told %d times: %q", line, n, m.parts)
				}
			}
			if got := g.engine.Degraded(); len(got) != 0 {
				t.Errorf("%v are degraded", got)
			}
		})
	}
}

// TestK11_dropped: where what is counted cannot be written, and there is no room for more of
// it, requests are dropped from the statistics. Those that are, and only those, are missing
// in all of them afterwards, and each was told once.
func TestK11_dropped(t *testing.T) {
	const keys, room, rounds = 60, 100, 20
	g, m := monitored(t, 0)
	g.still()
	var all []Issued
	for i := range keys {
		d := Draft{UserID: fmt.Sprint("owner ", i%7)}
		if i%2 == 0 {
			d.RateLimitMax, d.RateLimitTimeWindow = ptr(int64(5)), ptr(int64(60_000))
		}
		all = append(all, g.create(d))
	}
	g.engine.queue.room.Store(room)
	var sent atomic.Int64
	use := func() {
		var work sync.WaitGroup
		for range workers {
			work.Go(func() {
				for range rounds {
					for i, k := range all {
						var c Counted
						d, err := g.Verify(context.Background(), k.Raw, &Request{Cost: 1, Counted: &c})
						if err != nil && !errors.Is(err, errNoRoom) {
							t.Error(err)
						}
						sent.Add(1)
						if d.Outcome != Allowed {
							continue
						}
						switch i % 3 { // what a later gate says
						case 0:
							g.Reclassify(&c, Forbidden)
						case 1:
							if _, err := g.more(context.Background(), &d, &Request{Cost: 1, Counted: &c}); err != nil {
								t.Error(err)
							}
						}
					}
				}
			})
		}
		work.Wait()
	}
	count := func() (ofKeys, ofHours int64) {
		for _, k := range all {
			ofKeys += g.keyUsage(k.Key.ID, 1).Days[0].Sum()
		}
		for _, n := range g.hours(g.clock.now()) {
			ofHours += n
		}
		return ofKeys, ofHours
	}
	check := func() {
		t.Helper()
		if ofKeys, ofHours := count(); ofKeys+m.dropped != sent.Load() || ofHours != ofKeys {
			t.Errorf("%d requests, %d dropped: %d are in the days of keys and %d in the hours", sent.Load(), m.dropped, ofKeys, ofHours)
		}
	}

	g.spy.failWrites.Store(true)
	for range 3 {
		use()
		if err := g.recover(); !errors.Is(err, store.ErrUnavailable) {
			t.Fatal(err)
		}
		if n := g.engine.Gauges().Backlog; n > room+workers {
			t.Errorf("%d wait to be written, and there is room for %d", n, room)
		}
	}
	if m.dropped == 0 || m.dropped == sent.Load() {
		t.Fatalf("%d of %d requests were dropped", m.dropped, sent.Load())
	}
	if got := g.engine.Degraded(); !slices.Contains(got, PartStatistics) {
		t.Errorf("%v are degraded", got)
	}
	g.spy.failWrites.Store(false)
	if err := g.recover(); err != nil {
		t.Fatal(err)
	}
	check()

	// Statistics go on where they are written as they come.
	g.engine.queue.resize(0)
	before, dropped := sent.Load(), m.dropped
	use()
	if sent.Load() == before || m.dropped != dropped {
		t.Errorf("%d more requests, of which %d were dropped", sent.Load()-before, m.dropped-dropped)
	}
	check()
	if err := g.recover(); err != nil || len(g.engine.Degraded()) > 0 {
		t.Errorf("%v, %v are degraded", err, g.engine.Degraded())
	}
}

// TestK11_droppedAtALaterGate: a request that an earlier gate has counted, for which a later
// gate has no room, is dropped from all statistics, whatever was written in between.
func TestK11_droppedAtALaterGate(t *testing.T) {
	g, m := monitored(t, 0)
	g.still()
	k := g.create(Draft{})
	var c Counted
	g.Refused(&Decision{Outcome: Missing}, &Request{Counted: &c})
	g.flush()
	g.engine.queue.room.Store(1) // of which statistics have half
	if d, err := g.Verify(context.Background(), k.Raw, &Request{Cost: 1, Counted: &c}); err != nil || d.Outcome != Allowed {
		t.Fatal(d.Outcome, err)
	}
	if got := g.engine.Degraded(); !slices.Equal(got, []Part{PartStatistics}) {
		t.Errorf("%v are degraded", got)
	}
	g.Reclassify(&c, Forbidden) // changes nothing that is not counted
	g.engine.queue.resize(0)
	g.again(&Decision{hash: g.entry(k.Key.ID).rec.Load().key.Hash}, Request{Cost: 1, Counted: &c}, Allowed)
	for what, n := range g.hours(g.clock.now()) {
		if n != 0 {
			t.Errorf("%d requests are counted as %q", n, what)
		}
	}
	g.wantToday(k.Key.ID, 0, 0, 0)
	if m.dropped != 1 {
		t.Errorf("%d requests were dropped", m.dropped)
	}
}

// TestQ37_storeAway: while nothing can be written, keys that are used one after the other
// take bounded memory. Those without a limit go on, no limit lets more through than its
// maximum, and once all is written nothing of it is left in memory.
func TestQ37_storeAway(t *testing.T) {
	const keys, room, most, rounds = 300, 120, 2, 4
	for _, tiers := range [][]Tier{nil, {tier("free", per(Month, most))}} {
		t.Run(fmt.Sprint(len(tiers), " tiers"), func(t *testing.T) {
			g, _ := monitored(t, 0)
			g.still()
			g.engine.report = func(error) {}
			var limited, free []Issued
			for i := range keys {
				d := Draft{UserID: fmt.Sprint("owner ", i)}
				if tiers == nil {
					free = append(free, g.create(d))
					d.RateLimitMax, d.RateLimitTimeWindow = ptr(int64(most)), ptr(int64(60_000))
				}
				limited = append(limited, g.create(d))
			}
			g.with(tiers...)
			g.evict()
			g.engine.queue.room.Store(room)
			g.spy.failWrites.Store(true)
			passed := map[string]int64{}
			refused := 0
			use := func() {
				for _, k := range limited {
					d, err := g.Verify(context.Background(), k.Raw, &Request{Cost: 1})
					switch {
					case d.Outcome == Allowed:
						passed[k.Key.ID]++
					case errors.Is(err, errNoRoom):
						refused++
					case d.Outcome != RateLimited:
						t.Fatalf("%q, %v", d.Outcome.Code(), err)
					}
					g.evict()
				}
			}
			for range rounds {
				rand.Shuffle(len(limited), func(i, j int) { limited[i], limited[j] = limited[j], limited[i] })
				use()
				for _, k := range free {
					g.want(k.Raw, Allowed)
					g.evict()
				}
				if inMemory, owners := g.inMemory(); inMemory+owners > room {
					t.Errorf("%d keys and %d owners stay in memory, where %d may wait", inMemory, owners, room)
				}
				if err := g.recover(); err == nil {
					t.Fatal("written")
				}
			}
			if len(passed) == 0 || refused == 0 {
				t.Errorf("%d keys have passed, %d requests had no room", len(passed), refused)
			}
			g.spy.failWrites.Store(false)
			g.flush()
			if inMemory, owners := g.inMemory(); inMemory+owners != 0 {
				t.Errorf("%d keys and %d owners stay in memory", inMemory, owners)
			}
			g.engine.queue.resize(0)
			for range rounds {
				use()
				g.flush()
			}
			wrong := map[int64]int{}
			for _, k := range limited {
				if n := passed[k.Key.ID]; n != most {
					wrong[n]++
				}
			}
			if len(wrong) > 0 {
				t.Errorf("the limit is %d; keys by how many requests have passed: %v", most, wrong)
			}
		})
	}
}

// TestDegraded_oneLine: the background work tells of a store that is away once, through the
// monitor, and of anything else each time.
func TestDegraded_oneLine(t *testing.T) {
	g, _ := monitored(t, 0)
	g.still()
	other := errors.New("another failure")
	if g.ToldAsDegraded(store.ErrUnavailable) || g.ToldAsDegraded(other) {
		t.Error("nothing was told")
	}
	g.want(g.create(Draft{}).Raw, Allowed)
	g.spy.failWrites.Store(true)
	err := g.recover()
	if err == nil || !g.ToldAsDegraded(err) || g.ToldAsDegraded(other) {
		t.Errorf("%v, %v", err, g.engine.Degraded())
	}
	var told []error
	g.engine.report = func(err error) { told = append(told, err) }
	for range 2 {
		g.engine.workFailed(err)
		g.engine.workFailed(other)
	}
	if len(told) != 2 || told[0] != other {
		t.Errorf("told %v", told)
	}
	g.spy.failWrites.Store(false)
	if err := g.recover(); err != nil || g.ToldAsDegraded(store.ErrUnavailable) {
		t.Errorf("%v, %v", err, g.engine.Degraded())
	}
}
