package keyring

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

func (g *rig) keyUsage(id string, days int) Usage {
	g.t.Helper()
	u, err := g.KeyUsage(context.Background(), id, days)
	if err != nil {
		g.t.Fatal(err)
	}
	return u
}

func (g *rig) ownerUsage(userID string, days int) Usage {
	g.t.Helper()
	u, err := g.OwnerUsage(context.Background(), userID, days)
	if err != nil {
		g.t.Fatal(err)
	}
	return u
}

// today returns what is counted for a key today.
func (g *rig) today(id string) store.Uses {
	g.t.Helper()
	return g.keyUsage(id, 1).Days[0].Uses
}

func (g *rig) wantToday(id string, allowed, limited, denied int64) {
	g.t.Helper()
	if got, want := g.today(id), (store.Uses{Allowed: allowed, Limited: limited, Denied: denied}); got != want {
		g.t.Errorf("got %+v, want %+v", got, want)
	}
}

func (g *rig) flush() {
	g.t.Helper()
	if err := g.engine.flush(context.Background(), g.engine.store.Load()); err != nil {
		g.t.Fatal(err)
	}
}

// again asks as a second gate does.
func (g *rig) again(d *Decision, q Request, want Outcome) {
	g.t.Helper()
	got, err := g.more(context.Background(), d, &q)
	if err != nil || got.Outcome != want {
		g.t.Fatalf("outcome %q, %v, want %q", got.Outcome.Code(), err, want.Code())
	}
}

// TestK11_outcomes: each decision counts where it belongs, in memory and in the
// store alike.
func TestK11_outcomes(t *testing.T) {
	files := []key.Permission{{Resource: "files", Action: "read"}}
	for _, test := range []struct {
		name  string
		draft Draft
		patch *Patch
		later time.Duration
		q     Request
		want  Outcome
		uses  store.Uses
	}{
		{name: "allowed", q: Request{Cost: 1}, want: Allowed, uses: store.Uses{Allowed: 1}},
		{name: "allowed for nothing", want: Allowed, uses: store.Uses{Allowed: 1}},
		{name: "dry run", q: Request{Cost: 1, DryRun: true}, want: Allowed},
		{name: "refused dry run", q: Request{Require: files, DryRun: true}, want: Forbidden},
		{name: "disabled", patch: &Patch{Enabled: to(false)}, want: Disabled, uses: store.Uses{Denied: 1}},
		{name: "disabled, with a rate limit", draft: Draft{RateLimitMax: ptr(int64(1)), RateLimitTimeWindow: ptr(int64(60_000))}, patch: &Patch{Enabled: to(false)}, want: Disabled, uses: store.Uses{Denied: 1}},
		{name: "expired", draft: Draft{ExpiresIn: to(int64(60))}, later: time.Minute, want: Expired, uses: store.Uses{Denied: 1}},
		{name: "secret", q: Request{RequireSecret: true}, want: InvalidSecret, uses: store.Uses{Denied: 1}},
		{name: "address", draft: Draft{AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}, q: Request{CheckIP: true}, want: IPNotAllowed, uses: store.Uses{Denied: 1}},
		{name: "permission", q: Request{Require: files}, want: Forbidden, uses: store.Uses{Denied: 1}},
		{name: "rate limit", draft: Draft{RateLimitMax: ptr(int64(1)), RateLimitTimeWindow: ptr(int64(60_000))}, q: Request{Cost: 2}, want: RateLimited, uses: store.Uses{Limited: 1}},
		{name: "credits", draft: Draft{Remaining: ptr(int64(0))}, q: Request{Cost: 1}, want: UsageExceeded, uses: store.Uses{Limited: 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := newRig(t)
			k := g.create(test.draft)
			if test.patch != nil {
				g.update(k.Key.ID, *test.patch)
			}
			g.clock.advance(test.later)
			g.want(k.Raw, test.want, test.q)
			if got := g.today(k.Key.ID); got != test.uses {
				t.Errorf("in memory: %+v, want %+v", got, test.uses)
			}
			g.flush()
			if got := g.today(k.Key.ID); got != test.uses {
				t.Errorf("in the store: %+v, want %+v", got, test.uses)
			}
			g.restart()
			if got := g.ownerUsage("alice", 1).Days[0].Uses; got != test.uses {
				t.Errorf("after a restart: %+v, want %+v", got, test.uses)
			}
		})
	}
}

// TestK11_gates: a request that meets several gates is counted once: as allowed
// if all let it in, else as what the first refusal was, whatever was written in
// between.
func TestK11_gates(t *testing.T) {
	files := Request{Cost: 1, Require: []key.Permission{{Resource: "files", Action: "read"}}}
	for _, flush := range []bool{false, true} {
		t.Run(fmt.Sprintf("flush %v", flush), func(t *testing.T) {
			g := newRig(t)
			between := func() {
				if flush {
					g.flush()
				}
			}
			k := g.create(Draft{RateLimitMax: ptr(int64(3)), RateLimitTimeWindow: ptr(int64(60_000))})
			gate := func(c *Counted) Request { return Request{Cost: 1, Counted: c} }

			c := new(Counted)
			d := g.want(k.Raw, Allowed, gate(c))
			between()
			g.again(&d, gate(c), Allowed)
			g.wantToday(k.Key.ID, 1, 0, 0)

			q := files
			q.Counted = c
			g.again(&d, q, Forbidden)
			g.wantToday(k.Key.ID, 0, 0, 1)
			between()
			g.again(&d, q, Forbidden)
			g.again(&d, gate(c), Allowed) // a refusal stands
			g.wantToday(k.Key.ID, 0, 0, 1)

			c = new(Counted)
			d = g.want(k.Raw, Allowed, gate(c))
			between()
			more := gate(c)
			more.Cost = 9
			g.again(&d, more, RateLimited)
			g.wantToday(k.Key.ID, 0, 1, 1)

			c = new(Counted) // refused at once, then asked again by an error route
			q.Counted = c
			g.want(k.Raw, Forbidden, q)
			between()
			g.want(k.Raw, Allowed, gate(c))
			g.wantToday(k.Key.ID, 0, 1, 2)
			g.flush()
			g.wantToday(k.Key.ID, 0, 1, 2)

			k = g.create(Draft{})
			c = new(Counted) // let in, and refused by what is behind the gate
			g.want(k.Raw, Allowed, gate(c))
			between()
			for range 2 { // the second time changes nothing
				g.Reclassify(c, Forbidden)
				g.wantToday(k.Key.ID, 0, 0, 1)
			}
			c = new(Counted)
			g.want(k.Raw, Allowed, gate(c))
			between()
			g.Reclassify(c, Unavailable)
			g.flush()
			g.wantToday(k.Key.ID, 0, 0, 1)
		})
	}
}

// TestK11_unknown: what opens no key is counted nowhere.
func TestK11_unknown(t *testing.T) {
	g := newRig(t)
	k := g.create(Draft{})
	other := g.create(Draft{})
	if err := g.Delete(context.Background(), other.Key.ID); err != nil {
		t.Fatal(err)
	}
	for _, raw := range []string{"", "x", k.Raw[:60], other.Raw} {
		g.want(raw, Invalid)
	}
	g.flush()
	if got := g.ownerUsage("alice", 1).Days[0].Uses; got != (store.Uses{}) {
		t.Errorf("%+v", got)
	}
}

// TestK11_clean_stop sends many requests for many keys while everything is
// written all the time, stops, and looks whether each was counted once.
func TestK11_clean_stop(t *testing.T) {
	const keys, workers = 200, 8
	requests := times(200_000, 1_000_000)
	g := newRig(t)
	var made [keys]Issued
	for i := range made {
		made[i] = g.create(Draft{UserID: fmt.Sprint("owner ", i%10)})
	}
	var work sync.WaitGroup
	end := g.repeat(g.flush)
	var want [workers][keys]store.Uses
	for w := range workers {
		work.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 11))
			for range requests / workers {
				i := r.IntN(keys)
				q := Request{Cost: 1}
				if r.IntN(10) == 0 {
					q.RequireSecret = true
					want[w][i].Denied++
				} else {
					want[w][i].Allowed++
				}
				if _, err := g.Verify(context.Background(), made[i].Raw, &q); err != nil {
					t.Error(err)
				}
			}
		})
	}
	work.Wait()
	end()
	g.restart()
	owners := map[string]store.Uses{}
	for i, k := range made {
		var sum store.Uses
		for w := range workers {
			sum.Add(want[w][i])
		}
		u := g.keyUsage(k.Key.ID, 2)
		if u.Days[1].Uses != sum || u.Today != sum.Allowed || u.Month != sum.Allowed {
			t.Errorf("key %d: %+v, want %+v", i, u, sum)
		}
		all := owners[k.Key.UserID]
		all.Add(sum)
		owners[k.Key.UserID] = all
	}
	for userID, want := range owners {
		if got := g.ownerUsage(userID, 1).Days[0].Uses; got != want {
			t.Errorf("%s: %+v, want %+v", userID, got, want)
		}
	}
}

// TestK11_lost_answers: a store that fails, or that writes and then fails, makes
// no count wrong.
func TestK11_lost_answers(t *testing.T) {
	g := newRig(t)
	k := g.create(Draft{})
	failing := &lossy{Store: g.engine.store.Load().Store}
	r := rand.New(rand.NewPCG(1, 2))
	for i := range int64(300) {
		g.want(k.Raw, Allowed)
		failing.before, failing.after = r.IntN(3) == 0, r.IntN(3) == 0
		err := g.engine.flush(context.Background(), failing)
		if (err != nil) != (failing.before || failing.after) {
			t.Fatalf("flush: %v", err)
		}
		g.wantToday(k.Key.ID, i+1, 0, 0)
	}
	g.restart()
	g.wantToday(k.Key.ID, 300, 0, 0)
}

var errLossy = errors.New("the disk is on fire")

type lossy struct {
	store.Store
	before, after bool
}

func (s *lossy) SaveUsage(ctx context.Context, b store.UsageBatch) error {
	if s.before {
		return errLossy
	}
	err := s.Store.SaveUsage(ctx, b)
	if s.after {
		return errLossy
	}
	return err
}

// TestK11_reading_while_writing: whoever reads the usage sees every request that
// was answered before, once, whatever is on its way to the store.
func TestK11_reading_while_writing(t *testing.T) {
	g := newRig(t)
	k := g.create(Draft{})
	g.repeat(g.flush)
	for i := range int64(2000) {
		g.want(k.Raw, Allowed)
		g.wantToday(k.Key.ID, i+1, 0, 0)
	}
}

// TestK11_allocations: counting a warm request costs no memory.
func TestK11_allocations(t *testing.T) {
	g := newRig(t)
	k := g.create(Draft{})
	d := g.want(k.Raw, Allowed)
	c := new(Counted)
	q := &Request{Counted: c, Require: []key.Permission{{Resource: "a", Action: "b"}}}
	if n := testing.AllocsPerRun(1000, func() {
		*c = Counted{}
		g.count(&d, q)
	}); n > 0.01 {
		t.Errorf("%v allocations", n)
	}
}

// TestT2_history: deletion of a key keeps usage history, deletion of the owner
// does not.
func TestT2_history(t *testing.T) {
	g := newRig(t)
	ctx := context.Background()
	short := g.create(Draft{ExpiresIn: to(int64(60))})
	gone, stays := g.create(Draft{}), g.create(Draft{})
	for _, k := range []Issued{short, gone, gone, stays, stays, stays} {
		g.want(k.Raw, Allowed)
	}
	if err := g.Delete(ctx, gone.Key.ID); err != nil { // before anything was written
		t.Fatal(err)
	}
	g.clock.advance(time.Hour)
	if n, err := g.DeleteExpired(ctx); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if _, err := g.KeyUsage(ctx, gone.Key.ID, 1); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("usage of a deleted key: %v", err)
	}
	for range 2 {
		if u := g.ownerUsage("alice", 1); u.Today != 6 || u.Month != 6 {
			t.Errorf("%+v", u)
		}
		g.restart()
	}
	g.want(stays.Raw, Allowed)
	if err := g.DeleteOwner(ctx, "alice"); err != nil {
		t.Fatal(err)
	}
	if _, err := g.OwnerUsage(ctx, "alice", 1); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("usage of a deleted owner: %v", err)
	}
	g.create(Draft{}) // alice again
	for range 2 {
		if u := g.ownerUsage("alice", 1); u.Today != 0 {
			t.Errorf("a new owner has the usage of an old one: %+v", u)
		}
		g.restart()
	}
}

// TestK11_new_owner: what a key did stays with the owner it did it for.
func TestK11_new_owner(t *testing.T) {
	g := newRig(t)
	k := g.create(Draft{})
	for range 3 {
		g.want(k.Raw, Allowed)
	}
	g.update(k.Key.ID, Patch{UserID: to("bob")})
	for range 5 {
		g.want(k.Raw, Allowed)
	}
	for range 2 {
		if a, b, all := g.ownerUsage("alice", 1).Today, g.ownerUsage("bob", 1).Today, g.keyUsage(k.Key.ID, 1).Today; a != 3 || b != 5 || all != 8 {
			t.Errorf("alice %d, bob %d, the key %d", a, b, all)
		}
		g.restart()
	}
}

func TestUsageDays(t *testing.T) {
	g := newRig(t)
	k := g.create(Draft{})
	for _, days := range []int{-1, 0, 367} {
		var bad *FieldError
		if _, err := g.KeyUsage(context.Background(), k.Key.ID, days); !errors.As(err, &bad) || bad.Field != "days" {
			t.Errorf("%d days: %v", days, err)
		}
	}
	for _, days := range []int{1, 30, 366} {
		u := g.keyUsage(k.Key.ID, days)
		if len(u.Days) != days || u.Days[days-1].Date != "2026-11-21" {
			t.Errorf("%d days: %d, the last %v", days, len(u.Days), u.Days[len(u.Days)-1])
		}
	}
	if d := g.keyUsage(k.Key.ID, 30).Days[0].Date; d != "2026-10-23" {
		t.Errorf("the first of 30 days is %s", d)
	}
}

// TestK11_counted_while_taken: what is counted at the moment at which a batch is
// made is in that batch or in the next, though nothing is counted after it.
func TestK11_counted_while_taken(t *testing.T) {
	q, taken := new(queue), new(sums)
	flush := func() {
		if err := q.flush(context.Background(), taken, func([]counted) {}); err != nil {
			t.Error(err)
		}
	}
	in := &dayCounts{keyID: "01a2003356af858777c3a24b", userID: "alice", day: 20261121}
	count := func() {
		in.n[allowed].Add(1)
		q.add(in)
	}
	const rounds = 20_000
	var done, begun atomic.Int64
	var work sync.WaitGroup
	defer work.Wait()
	defer begun.Store(rounds)
	work.Go(func() {
		for i := range int64(rounds) {
			for begun.Load() <= i {
				runtime.Gosched()
			}
			for j := range i % 200 { // a little later in each round
				_ = j
			}
			count()
			done.Add(1)
		}
	})
	for i := range int64(rounds) {
		count() // so that there is something to take
		begun.Add(1)
		flush()
		for done.Load() <= i {
			runtime.Gosched()
		}
		flush()
		if taken.allowed != 2*(i+1) {
			t.Fatalf("%d of %d are taken", taken.allowed, 2*(i+1))
		}
	}
}

// sums is a store that adds up what was allowed.
type sums struct {
	store.Store
	allowed int64
}

func (s *sums) SaveUsage(_ context.Context, b store.UsageBatch) error {
	for _, u := range b.Used {
		s.allowed += u.Allowed
	}
	return nil
}

// TestK11_reading_waits: nobody reads while a batch is on its way, and no batch
// is sent while somebody reads. Else an increment would be seen twice or not at all.
func TestK11_reading_waits(t *testing.T) {
	g := newRig(t)
	k := g.create(Draft{})
	g.want(k.Raw, Allowed)
	watching := &lockWatch{g.engine.store.Load().Store, t, &g.engine.queue}
	if err := g.engine.flush(context.Background(), watching); err != nil {
		t.Fatal(err)
	}
	g.want(k.Raw, Allowed)
	g.engine.store.Store(&opened{watching, g.clock.now()})
	g.wantToday(k.Key.ID, 2, 0, 0)
}

type lockWatch struct {
	store.Store
	t     *testing.T
	queue *queue
}

func (s *lockWatch) locked() {
	if s.queue.mu.TryLock() {
		s.queue.mu.Unlock()
		s.t.Error("the queue is not locked")
	}
}

func (s *lockWatch) SaveUsage(ctx context.Context, b store.UsageBatch) error {
	s.locked()
	return s.Store.SaveUsage(ctx, b)
}

func (s *lockWatch) Usage(ctx context.Context, of store.Subject, first, last int32) ([]store.DayUses, error) {
	s.locked()
	return s.Store.Usage(ctx, of, first, last)
}
