package ratelimit

import (
	"fmt"
	"math/big"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// The models do the obvious with unlimited memory and numbers, and are told the
// state's own time. They share no code with the package.

type event struct{ t, n int64 }

type model interface {
	newest() (t int64, ok bool) // false: nothing was ever taken
	shift(d int64)
	room(p Policy, at int64) int64
	take(p Policy, at, n int64)
	forget(p Policy, at int64) // what no longer counts
	clone() model
}

type fixedModel struct{ start, count int64 }

func (m *fixedModel) newest() (int64, bool) { return m.start, m.count > 0 }
func (m *fixedModel) shift(d int64)         { m.start += d }
func (m *fixedModel) clone() model          { c := *m; return &c }

func (m *fixedModel) forget(p Policy, at int64) {
	if m.count > 0 && at >= m.start+p.Window {
		m.count = 0
	}
}

func (m *fixedModel) room(p Policy, at int64) int64 {
	if m.count > 0 && at < m.start+p.Window {
		return p.Max - m.count
	}
	return p.Max
}

func (m *fixedModel) take(p Policy, at, n int64) {
	m.forget(p, at)
	if m.count == 0 {
		m.start = at
	}
	m.count += n
}

type slidingModel struct{ log []event }

func (m *slidingModel) shift(d int64) {
	for i := range m.log {
		m.log[i].t += d
	}
}
func (m *slidingModel) clone() model { return &slidingModel{slices.Clone(m.log)} }

func (m *slidingModel) newest() (int64, bool) {
	if len(m.log) == 0 {
		return 0, false
	}
	return m.log[len(m.log)-1].t, true
}

func (m *slidingModel) forget(p Policy, at int64) {
	m.log = slices.DeleteFunc(m.log, func(e event) bool { return e.t <= at-p.Window })
}

func (m *slidingModel) since(after int64) (n int64) {
	for _, e := range m.log {
		if e.t > after {
			n += e.n
		}
	}
	return n
}

func (m *slidingModel) room(p Policy, at int64) int64 { return p.Max - m.since(at-p.Window) }

func (m *slidingModel) take(p Policy, at, n int64) {
	m.forget(p, at)
	m.log = append(m.log, event{at, n})
}

type bucketModel struct {
	t       int64
	missing *big.Rat
}

func (m *bucketModel) newest() (int64, bool) { return m.t, m.missing.Sign() > 0 }
func (m *bucketModel) shift(d int64)         { m.t += d }
func (m *bucketModel) clone() model          { return &bucketModel{m.t, new(big.Rat).Set(m.missing)} }

func (m *bucketModel) at(p Policy, at int64) *big.Rat {
	come := new(big.Rat).SetFrac(
		new(big.Int).Mul(big.NewInt(at-m.t), big.NewInt(p.Max)), big.NewInt(p.Window))
	left := new(big.Rat).Sub(m.missing, come)
	if m.missing.Sign() == 0 || left.Sign() < 0 {
		return new(big.Rat)
	}
	return left
}

func (m *bucketModel) forget(p Policy, at int64) { m.missing, m.t = m.at(p, at), at }

func (m *bucketModel) room(p Policy, at int64) int64 {
	have := new(big.Rat).Sub(new(big.Rat).SetInt64(p.Max), m.at(p, at))
	return new(big.Int).Div(have.Num(), have.Denom()).Int64() // rounds down
}

func (m *bucketModel) take(p Policy, at, n int64) {
	m.forget(p, at)
	m.missing.Add(m.missing, new(big.Rat).SetInt64(n))
}

// models are the laws of the algorithms, by their names.
var models = map[string]func() model{
	"fixed_window":   func() model { return &fixedModel{} },
	"sliding_window": func() model { return &slidingModel{} },
	"token_bucket":   func() model { return &bucketModel{missing: new(big.Rat)} },
}

func newModel(t fataler, a Algorithm) model {
	t.Helper()
	if models[a.String()] == nil {
		t.Fatalf("%v has no model", a)
	}
	return models[a.String()]()
}

// ownTime is the documented clock rule.
func ownTime(m model, p Policy, now int64) int64 {
	t, ok := m.newest()
	switch {
	case !ok || now >= t:
		return now
	case t-now > max(p.Window, 1000):
		m.shift(now - t)
		return now
	default:
		return t
	}
}

type fataler interface {
	Helper()
	Fatalf(string, ...any)
}

func clone(t fataler, s *State) *State {
	t.Helper()
	b, err := s.AppendBinary(nil)
	if err != nil {
		t.Fatalf("%v", err)
	}
	c := &State{}
	if err := c.UnmarshalBinary(b); err != nil {
		t.Fatalf("%x: %v", b, err)
	}
	if again, _ := c.AppendBinary(nil); !slices.Equal(b, again) {
		t.Fatalf("%x read and written is %x", b, again)
	}
	return c
}

// checkVerdict holds a verdict of Peek against what the state then does.
func checkVerdict(t fataler, s *State, p Policy, now, n int64) Verdict {
	t.Helper()
	v := s.Peek(p, now, n)
	fail := func(what string) {
		t.Helper()
		t.Fatalf("%s: %+v, now %d, n %d: %+v of %+v", what, p, now, n, v, s)
	}
	taken := clone(t, s)
	w := taken.Take(p, now, n)
	if v != w {
		fail(fmt.Sprintf("Take says %+v", w))
	}
	if v.OK != (v.Wait == 0 && !v.Never) || v.Wait < 0 || v.Never != (!v.OK && n > p.Max) {
		fail("senseless")
	}
	if v.Remaining < 0 || !taken.Peek(p, now, v.Remaining).OK || taken.Peek(p, now, v.Remaining+1).OK {
		fail("Remaining")
	}
	if c := clone(t, taken); c.Count(p, now+v.Reset) != 0 || !c.Idle(p, now+v.Reset) || c.Peek(p, now+v.Reset, p.Max).Remaining != 0 {
		fail("Reset is too early")
	}
	if c := clone(t, taken); v.Reset > 0 && (c.Count(p, now+v.Reset-1) == 0 || c.Peek(p, now+v.Reset-1, p.Max).OK) {
		fail("Reset is too late")
	}
	if !v.OK && !v.Never {
		if !clone(t, s).Take(p, now+v.Wait, n).OK {
			fail("Wait is too short")
		}
		if clone(t, s).Take(p, now+v.Wait-1, n).OK {
			fail("Wait is too long")
		}
	}
	return v
}

func drawPolicy(t *rapid.T, a Algorithm) Policy {
	number := rapid.OneOf(
		rapid.Int64Range(1, 5),
		rapid.Int64Range(1, 300),
		rapid.Int64Range(1, 100_000),
		rapid.SampledFrom([]int64{63, 64, 65, 1000, maxNumber - 1, maxNumber}),
		rapid.Int64Range(1, maxNumber),
	)
	return Policy{Algorithm: a, Max: number.Draw(t, "max"), Window: number.Draw(t, "window")}
}

func drawStep(t *rapid.T, p Policy) int64 {
	w := p.Window
	return rapid.OneOf(
		rapid.SampledFrom([]int64{0, 0, 0, 1, 1, 2, w - 1, w, w + 1, w / p.Max, w/p.Max + 1, w / 63, w / 10, w / 2}),
		rapid.Int64Range(0, w/50+1),
		rapid.Int64Range(0, w+w/2),
	).Draw(t, "step")
}

func drawN(t *rapid.T, p Policy, room int64) int64 {
	return rapid.OneOf(
		rapid.SampledFrom([]int64{0, 1, 1, 1, 2, p.Max, p.Max + 1, max(room, 0), max(room, 0) + 1, maxNumber}),
		rapid.Int64Range(1, p.Max/10+1),
	).Draw(t, "n")
}

// TestModel lets each algorithm and its model run side by side: requests, undone
// requests and a clock that goes every way.
func TestModel(t *testing.T) {
	for _, a := range allAlgorithms {
		t.Run(a.String(), rapid.MakeCheck(func(t *rapid.T) { runModel(t, a) }))
	}
}

func runModel(t *rapid.T, a Algorithm) {
	p := drawPolicy(t, a)
	s, m := &State{}, newModel(t, a)
	now := rapid.SampledFrom([]int64{1_750_000_000_000, 0, 253_402_300_799_999, -5}).Draw(t, "start")
	grain := p.grain()
	exact := a != SlidingWindow || grain == 1
	shifted := false       // the grid of cells has moved: more is merged than is promised
	all := &slidingModel{} // since it was idle; m forgets what has left the window

	take := func(t *rapid.T) {
		at := ownTime(m, p, now)
		room := m.room(p, at)
		n := drawN(t, p, room)
		v := checkVerdict(t, s, p, now, n)
		fits := n == 0 || n <= room
		switch {
		case v.OK && !fits:
			t.Fatalf("over the limit: %d at %d with room for %d, %+v", n, now, room, p)
		case !v.OK && fits && exact:
			t.Fatalf("denied: %d at %d with room for %d, %+v", n, now, room, p)
		case !v.OK && fits && !shifted && n <= p.Max-all.since(at-p.Window-grain+1):
			t.Fatalf("denied beyond the error: %d at %d, %+v", n, now, p)
		}
		if exact && v.OK && v.Remaining != max(room, 0)-n && n > 0 {
			t.Fatalf("remaining %d, room was %d, n %d", v.Remaining, room, n)
		}
		before := clone(t, s)
		if v.OK && n > 0 && s.Idle(p, now) {
			shifted, all.log = false, nil
		}
		if w := s.Take(p, now, n); w != v {
			t.Fatalf("%+v, then %+v", v, w)
		}
		if !v.OK || n == 0 {
			return
		}
		old := m.clone()
		m.take(p, at, n)
		all.log = append(all.log, event{at, n})
		if !rapid.SampledFrom([]bool{false, false, true}).Draw(t, "undo") {
			return
		}
		for range 2 { // neither looks nor refusals come between
			s.Peek(p, now, 1)
			s.Take(p, now, p.Max+1)
		}
		s.Undo(p, v.At, n)
		m = old
		all.log = all.log[:len(all.log)-1]
		m.forget(p, at)
		for _, d := range []int64{0, 1, p.Window / 100, p.Window / 63, p.Window / 2, p.Window - 1, p.Window} {
			for _, k := range []int64{1, n, p.Max} {
				v, w := before.Peek(p, at+d, k), s.Peek(p, at+d, k)
				if v != w {
					t.Fatalf("%+v: undone %+v, never taken %+v, at +%d of %+v and %+v", p, w, v, d, s, before)
				}
			}
		}
	}
	t.Repeat(map[string]func(*rapid.T){
		"take":  take,
		"take2": func(t *rapid.T) { now += drawStep(t, p); take(t) },
		"wait":  func(t *rapid.T) { now += s.Peek(p, now, 1).Wait },
		"back": func(t *rapid.T) {
			now -= rapid.OneOf(rapid.Int64Range(1, 1000), rapid.Int64Range(1, p.Window), rapid.SampledFrom([]int64{
				p.Window, p.Window + 1, 1000, 1001, 5 * p.Window, 3_600_000, 86_400_000, now,
			})).Draw(t, "back")
			now = max(now, -1<<50)
			if newest, ok := m.newest(); ok && newest-now > max(p.Window, 1000) {
				shifted = true
			}
		},
		"restart": func(t *rapid.T) { s = clone(t, s) },
		"": func(t *rapid.T) {
			at := ownTime(m, p, now)
			if c, want := s.Count(p, now), p.Max-m.room(p, at); c != want && (exact || c < want) {
				t.Fatalf("count %d, want %d", c, want)
			}
			if s.Idle(p, now) {
				fresh := &State{}
				var then int64
				for range 3 {
					then += drawStep(t, p)
					n := drawN(t, p, p.Max)
					if v, w := clone(t, s).Peek(p, now+then, n), fresh.Peek(p, now+then, n); v != w {
						t.Fatalf("idle, but %+v, forgotten %+v", v, w)
					}
				}
			}
		},
	})
}

// TestUndoLate undoes requests long after, in any order: what is left must keep the
// law, and where the count is exact, it is as if the undone had never been there.
func TestUndoLate(t *testing.T) {
	t.Run("sliding_window", rapid.MakeCheck(func(t *rapid.T) {
		p := drawPolicy(t, SlidingWindow)
		s, m := &State{}, &slidingModel{}
		var now int64
		t.Repeat(map[string]func(*rapid.T){
			"take": func(t *rapid.T) {
				now += drawStep(t, p)
				room := m.room(p, now)
				n := drawN(t, p, room)
				v := s.Take(p, now, n)
				if n > 0 && v.OK && n > room || p.grain() == 1 && n > 0 && n <= room != v.OK {
					t.Fatalf("%+v at %d with room for %d of %d", v, now, room, n)
				}
				if v.OK && n > 0 {
					m.log = append(m.log, event{now, n})
				}
			},
			"undo": func(t *rapid.T) {
				if len(m.log) == 0 {
					t.Skip()
				}
				i := rapid.IntRange(0, len(m.log)-1).Draw(t, "i")
				s.Undo(p, m.log[i].t, m.log[i].n)
				m.log = slices.Delete(m.log, i, i+1)
			},
			"restart": func(t *rapid.T) { s = clone(t, s) },
		})
	}))
	t.Run("token_bucket", rapid.MakeCheck(func(t *rapid.T) {
		p := Policy{Algorithm: TokenBucket, Max: rapid.Int64Range(1, 30).Draw(t, "max"), Window: rapid.Int64Range(1, 300).Draw(t, "window")}
		s := &State{}
		var now int64
		var log []event
		t.Repeat(map[string]func(*rapid.T){
			"take": func(t *rapid.T) {
				now += drawStep(t, p)
				n := max(drawN(t, p, p.Max), 1)
				if s.Take(p, now, n).OK {
					log = append(log, event{now, n})
				}
			},
			"undo": func(t *rapid.T) {
				if len(log) == 0 {
					t.Skip()
				}
				i := rapid.IntRange(max(0, len(log)-4), len(log)-1).Draw(t, "i")
				s.Undo(p, log[i].t, log[i].n)
				log = slices.Delete(log, i, i+1)
			},
			"": func(t *rapid.T) { // any interval
				for i := range log {
					var sum int64
					for _, e := range log[i:] {
						if sum += e.n; (sum-p.Max)*p.Window > (e.t-log[i].t)*p.Max {
							t.Fatalf("%d from %d to %d, %+v", sum, log[i].t, e.t, p)
						}
					}
				}
			},
		})
	}))
}

// TestPolicyChanges changes maximum and window under way.
func TestPolicyChanges(t *testing.T) {
	for _, a := range []Algorithm{FixedWindow, SlidingWindow} {
		t.Run(a.String(), rapid.MakeCheck(func(t *rapid.T) {
			p := drawPolicy(t, a)
			s, m := &State{}, newModel(t, a)
			var now int64
			t.Repeat(map[string]func(*rapid.T){
				"max":    func(t *rapid.T) { p.Max = drawPolicy(t, a).Max },
				"window": func(t *rapid.T) { p.Window = drawPolicy(t, a).Window },
				"take": func(t *rapid.T) {
					now = min(now+drawStep(t, p), 1<<58)
					room := m.room(p, now)
					n := max(drawN(t, p, room), 1)
					v := checkVerdict(t, s, p, now, n)
					if v.OK && n > room || a == FixedWindow && v.OK != (n <= room) {
						t.Fatalf("%+v with room for %d of %d", v, room, n)
					}
					if s.Take(p, now, n); v.OK {
						m.take(p, now, n)
					}
					if s.log != nil && cap(s.log.list) > maxCells {
						t.Fatalf("%d cells", cap(s.log.list))
					}
				},
			})
		}))
	}
	t.Run("token_bucket", rapid.MakeCheck(func(t *rapid.T) {
		p := drawPolicy(t, TokenBucket)
		s := &State{}
		var now int64
		t.Repeat(map[string]func(*rapid.T){
			"max": func(t *rapid.T) {
				s.Take(p, now, 1) // so that the refill up to now is by the old rate
				if s.t != now {
					t.Skip()
				}
				used := s.count
				p.Max = drawPolicy(t, TokenBucket).Max
				if r, want := s.Peek(p, now, 0).Remaining, max(p.Max-used, 0); r != want {
					t.Fatalf("remaining %d, want %d", r, want)
				}
			},
			"window": func(t *rapid.T) { p.Window = drawPolicy(t, TokenBucket).Window },
			"take": func(t *rapid.T) {
				now = min(now+drawStep(t, p), 1<<58)
				n := drawN(t, p, p.Max)
				v := checkVerdict(t, s, p, now, n)
				if w := s.Take(p, now, n); v != w {
					t.Fatalf("%+v, then %+v", v, w)
				}
			},
		})
	}))
	t.Run("algorithm", rapid.MakeCheck(func(t *rapid.T) {
		p := drawPolicy(t, FixedWindow)
		s := &State{}
		var now int64
		t.Repeat(map[string]func(*rapid.T){
			"change": func(t *rapid.T) {
				used := s.Count(p, now)
				p.Algorithm = rapid.SampledFrom(allAlgorithms).Draw(t, "algorithm")
				if got := s.Count(p, now); got != used {
					t.Fatalf("%d counted, %d carried over", used, got)
				}
			},
			"take": func(t *rapid.T) {
				now = min(now+drawStep(t, p), 1<<58)
				n := drawN(t, p, p.Max)
				checkVerdict(t, s, p, now, n)
				s.Take(p, now, n)
			},
		})
	}))
}
