package keyring

import (
	"context"
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// purse is one key's credits as a child would keep them: a number, and a
// calendar of refills.
type purse struct {
	limited        bool
	left           int64
	amount, period int64
	next           int64 // the next refill; 0: none
	held, debt     int64
}

func (p *purse) refill(now int64) {
	if !p.limited || p.next == 0 || now < p.next {
		return
	}
	p.add(max(0, p.amount-p.left-p.held)) // once, however many were missed
	p.next += (now-p.next)/p.period*p.period + p.period
}

// add adds n, of which a debt is paid first.
func (p *purse) add(n int64) {
	paid := min(n, p.debt)
	p.left, p.debt = p.left+n-paid, p.debt-paid
}

func (p purse) at(now int64) purse {
	p.refill(now)
	return p
}

// ledgerMachine drives one key through an engine, beside a purse.
type ledgerMachine struct {
	g     *rig
	k     Issued
	p     purse
	spent []Decision // that may be refunded
	holds []hold
}

func (m *ledgerMachine) now() int64 { return m.g.clock.now().UnixMilli() }

func (m *ledgerMachine) request(t *rapid.T) {
	n := rapid.Int64Range(0, 40).Draw(t, "cost")
	if rapid.Bool().Draw(t, "one") {
		n = 1
	}
	dry := rapid.IntRange(0, 9).Draw(t, "dry") == 0
	p := m.p.at(m.now())
	want := Allowed
	if p.limited && p.left < n {
		want = UsageExceeded
	}
	d := m.g.verify(m.k.Raw, Request{Cost: n, DryRun: dry})
	if d.Outcome != want {
		t.Fatalf("cost %d of %+v: %q", n, p, d.Outcome.Code())
	}
	m.checkWait(t, p, &d)
	if want == Allowed && n > 0 && !dry && p.limited {
		p.left -= n
		m.p = p
		m.spent = append(m.spent, d)
	}
	if p.limited && d.Limits[len(d.Limits)-1].Remaining != p.left {
		t.Fatalf("the header says %d, left are %+v", d.Limits[len(d.Limits)-1].Remaining, p)
	}
}

func (m *ledgerMachine) checkWait(t *rapid.T, p purse, d *Decision) {
	if d.Outcome == UsageExceeded && d.Waitable && m.now()+d.Wait != p.next {
		t.Fatalf("wait %d, the next refill is in %d", d.Wait, p.next-m.now())
	}
}

// burst is many requests of one credit, as it takes to lease.
func (m *ledgerMachine) burst(t *rapid.T) {
	for range rapid.IntRange(1, 60).Draw(t, "requests") {
		m.one(t)
		if rapid.IntRange(0, 3).Draw(t, "land") == 0 {
			m.g.land()
		}
	}
	m.bounded(t)
}

// bounded checks how much is out after a request. Before one it may be more, where
// another configuration has leased it, or a hold of that time has come back.
func (m *ledgerMachine) bounded(t *rapid.T) {
	m.g.land()
	if out := m.g.out(m.k.Key.ID); m.g.lease > 0 && out > m.g.lease {
		t.Fatalf("%d are out, at most %d may be", out, m.g.lease)
	}
}

func (m *ledgerMachine) one(t *rapid.T) {
	d := m.g.verify(m.k.Raw)
	p := m.p.at(m.now())
	if passes := !p.limited || p.left > 0; passes != (d.Outcome == Allowed) {
		t.Fatalf("%q with %+v", d.Outcome.Code(), p)
	} else if passes && p.limited {
		p.left--
		m.p = p
	}
}

func (m *ledgerMachine) refund(t *rapid.T) {
	if len(m.spent) == 0 {
		return
	}
	i := rapid.IntRange(0, len(m.spent)-1).Draw(t, "which")
	d := m.spent[i]
	m.spent = append(m.spent[:i], m.spent[i+1:]...)
	for range 2 { // the second one gives nothing
		if err := m.g.Refund(context.Background(), &d); err != nil {
			t.Fatal(err)
		}
	}
	if m.p.limited {
		m.p.refill(m.now())
		m.p.left += d.Cost
	}
}

// hold sets credits aside, as a request does whose cost is known later.
func (m *ledgerMachine) hold(t *rapid.T) {
	n := rapid.Int64Range(1, 40).Draw(t, "hold")
	e, done := m.g.pin(m.k.Key.ID)
	defer done()
	r, err := m.g.ledger.Hold(context.Background(), m.g.spy, e.ensureAccount(), n)
	if err != nil {
		t.Fatal(err)
	}
	p := m.p.at(m.now())
	switch {
	case !p.limited:
		if r.result != paid || r.hold != (hold{}) {
			t.Fatalf("held %+v of an unlimited key", r)
		}
		return
	case p.left < n:
		if r.result != short {
			t.Fatalf("held %d of %+v", n, p)
		}
		return
	case r.result != paid || r.hold.n != n:
		t.Fatalf("hold of %d of %+v: %+v", n, p, r)
	}
	p.left, p.held = p.left-n, p.held+n
	if r.credits.Remaining != p.left || r.credits.Held != p.held {
		t.Fatalf("receipt %+v of %+v", r.credits, p)
	}
	m.p = p
	m.holds = append(m.holds, r.hold)
}

// settle ends a hold with more or less than was held. It is settled before a refill that
// is due, which the store makes in the same step; what is leased is settled in memory, and
// leaves the refill to the next step of the store.
func (m *ledgerMachine) settle(t *rapid.T) {
	if len(m.holds) == 0 {
		return
	}
	m.g.land()
	i := rapid.IntRange(0, len(m.holds)-1).Draw(t, "which")
	h := m.holds[i]
	m.holds = append(m.holds[:i], m.holds[i+1:]...)
	cost := rapid.OneOf(rapid.Int64Range(0, h.n), rapid.Int64Range(0, 100)).Draw(t, "bill")
	e, done := m.g.pin(m.k.Key.ID)
	defer done()
	if err := m.g.ledger.Settle(context.Background(), m.g.spy, e.ensureAccount(), h, cost); err != nil {
		t.Fatal(err)
	}
	m.p.held -= h.n
	if m.p.limited {
		m.p.left += h.n
		spent := min(cost, m.p.left)
		m.p.left -= spent
		m.p.debt += cost - spent
	}
}

func (m *ledgerMachine) patch(t *rapid.T) {
	var p Patch
	now := m.now()
	next := m.p.at(now)
	var want error
	switch rapid.IntRange(0, 4).Draw(t, "what") {
	case 0:
		n := rapid.Int64Range(0, 500).Draw(t, "remaining")
		p.Remaining, next.limited, next.left, next.debt = to(n), true, max(0, n-next.held), 0
	case 1:
		if !next.limited {
			return
		}
		n := rapid.Int64Range(-200, 200).Draw(t, "delta")
		p.RemainingDelta = to(n)
		if n >= 0 {
			next.add(n)
		} else if next.left += n; next.left < 0 {
			want = ErrTooFewCredits
		}
	case 2:
		p.Remaining, next.limited, next.left, next.debt = cleared[int64](), false, 0, 0
	case 3:
		amount, period := rapid.Int64Range(1, 300).Draw(t, "amount"), rapid.Int64Range(1, 5000).Draw(t, "period")
		p.RefillAmount, p.RefillInterval = to(amount), to(period)
		if next.amount == 0 || next.period != period { // only another interval starts another grid
			next.period, next.next = period, now+period
		}
		next.amount = amount
	case 4:
		p.Name = to("x")
	}
	_, err := m.g.Update(context.Background(), m.k.Key.ID, p)
	if !errors.Is(err, want) || want == nil && err != nil {
		t.Fatalf("%v, want %v", err, want)
	}
	if err != nil {
		return
	}
	if next.next != 0 { // a new balance does not move the grid, but an unlimited key skips refills
		for now >= next.next {
			next.next += next.period
		}
	}
	m.p = next
}

// crash loses what is leased. A refill that is due and was not made durable comes
// after that.
func (m *ledgerMachine) crash(*rapid.T) {
	m.g.land()
	lost := m.g.out(m.k.Key.ID)
	before := m.g.stored(m.k.Key.ID)
	m.p.left -= lost
	m.spent, m.holds = nil, nil
	m.p.held = before.Held // who settles it is gone
	m.g.crash()
}

// restart spends what is held of a lease.
func (m *ledgerMachine) restart(*rapid.T) {
	m.g.land()
	m.g.stop()
	m.g.start()
	m.p.held = m.g.stored(m.k.Key.ID).Held
	m.spent, m.holds = nil, nil
}

func (m *ledgerMachine) check(t *rapid.T) {
	id := m.k.Key.ID
	want := m.p.at(m.now())
	if c := m.g.get(id).Credits; c.Limited != want.limited || c.Limited && (c.Remaining != want.left || c.Held != want.held || c.Debt != want.debt) {
		t.Fatalf("%+v remain, want %+v", c, want)
	}
	m.g.land()
	row, out := m.g.stored(id), m.g.out(id)
	if row.Due(m.now()) == 0 {
		m.p = want // the store has made the refill, be it in the background
	}
	if row.Limited && row.Leased < out {
		t.Fatalf("%d are out, the store knows of %d", out, row.Leased)
	}
	if out > 0 && !row.Limited {
		t.Fatalf("%d are out of an unlimited key", out)
	}
}

// TestLedgerMachine takes a key through requests, refunds, changes, refills,
// clock steps, modes, restarts and crashes, beside a naive model. After every
// step the answers, the row in the database and what is leased must agree.
func TestLedgerMachine(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		g := newRig(t)
		defer g.stop()
		g.leasing(rapid.SampledFrom([]int64{0, 3, 50, 1000}).Draw(rt, "lease"))
		amount, period := rapid.Int64Range(1, 300).Draw(rt, "amount"), rapid.Int64Range(1, 5000).Draw(rt, "period")
		start := rapid.Int64Range(0, 500).Draw(rt, "start")
		m := &ledgerMachine{g: g}
		m.k = g.create(Draft{Remaining: &start, RefillAmount: &amount, RefillInterval: &period})
		m.p = purse{limited: true, left: start, amount: amount, period: period, next: m.now() + period}
		rt.Repeat(map[string]func(*rapid.T){
			"request": m.request,
			"burst":   m.burst,
			"burst2":  m.burst,
			"refund":  m.refund,
			"patch":   m.patch,
			"crash":   m.crash,
			"restart": m.restart,
			"hold":    m.hold,
			"settle":  m.settle,
			"wait": func(t *rapid.T) {
				g.clock.advance(time.Duration(rapid.Int64Range(0, 3000).Draw(t, "ms")) * time.Millisecond)
			},
			"tend": func(t *rapid.T) {
				if err := g.engine.accounts.Reclaim(g.spy); err != nil {
					t.Fatal(err)
				}
			},
			"mode": func(t *rapid.T) {
				g.land()
				g.leasing(rapid.SampledFrom([]int64{0, 3, 50, 1000}).Draw(t, "lease"))
				m.one(t)
				m.bounded(t)
			},
			"": m.check,
		})
	})
}
