package ratelimit

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"
)

// allAlgorithms are those that a key can have. The tables of this file run over all of them.
var allAlgorithms = func() (all []Algorithm) {
	for i := range algorithms {
		if !algorithms[i].ours {
			all = append(all, Algorithm(i))
		}
	}
	return all
}()

const (
	today    = 1_750_000_000_000
	year9999 = 253_402_300_799_999
)

func TestAlgorithmNames(t *testing.T) {
	for _, a := range allAlgorithms {
		if b, err := ParseAlgorithm(a.String()); err != nil || b != a {
			t.Errorf("%v is read as %v, %v", a, b, err)
		}
	}
	if _, err := ParseAlgorithm("FIXED_WINDOW"); err == nil {
		t.Error("accepts another case")
	}
	if got := Algorithm(9).String(); got != "Algorithm(9)" {
		t.Error(got)
	}
}

// TestK8_Edges burns the maximum on both sides of the window's end.
func TestK8_Edges(t *testing.T) {
	const (
		w    = 60_000
		cell = 953               // ⌈w/63⌉
		base = 1_749_999_999_334 // starts a cell
	)
	if (base+1<<62)%cell != 0 {
		t.Fatal("base lies within a cell")
	}
	type step struct{ at, n, pass int64 } // of n single requests, so many pass
	for _, c := range []struct {
		name  string
		a     Algorithm
		max   int64
		steps []step
	}{
		{"starts with the first request", FixedWindow, 10, []step{{777, 11, 10}, {777 + w - 1, 1, 0}, {777 + w, 11, 10}, {777 + 2*w - 1, 1, 0}, {777 + 2*w, 1, 1}}},
		{"a gap", FixedWindow, 10, []step{{0, 1, 1}, {5*w + 3, 11, 10}, {6*w + 2, 1, 0}, {6*w + 3, 1, 1}}},
		{"twice the maximum across the edge", FixedWindow, 10, []step{{0, 1, 1}, {w - 1, 20, 9}, {w, 20, 10}, {w + 1, 1, 0}}},
		{"burst", SlidingWindow, 10, []step{{5, 11, 10}, {5 + w - 1, 1, 0}, {5 + w, 11, 10}, {5 + w + 1, 1, 0}}},
		{"no more than the maximum across any edge", SlidingWindow, 10, []step{{0, 1, 1}, {w - 1, 20, 9}, {w, 20, 1}, {w + 1, 20, 0}, {2*w - 2, 1, 0}, {2*w - 1, 20, 9}, {2 * w, 2, 1}}},
		{"exact with 64", SlidingWindow, 64, []step{{0, 50, 50}, {1, 15, 14}, {w - 1, 1, 0}, {w, 51, 50}, {w + 1, 15, 14}}},
		{"burst over the exact log", SlidingWindow, 1000, []step{{5, 1001, 1000}, {5 + w - 1, 1, 0}, {5 + w, 1001, 1000}, {5 + w + 1, 1, 0}}},
		{"cells leave with their newest", SlidingWindow, 100, []step{{0, 50, 50}, {cell - 1, 30, 30}, {cell, 21, 20}, {w, 1, 0}, {w + cell - 2, 1, 0}, {w + cell - 1, 81, 80}, {w + cell, 21, 20}}},
		{"full, then evenly", TokenBucket, 10, []step{{0, 11, 10}, {5999, 1, 0}, {6000, 2, 1}, {11_999, 1, 0}, {12_000, 2, 1}, {12_000 + w - 1, 10, 9}, {12_000 + w, 2, 1}}},
		{"thirds", TokenBucket, 3 * w, []step{{0, 3*w + 1, 3 * w}, {1, 4, 3}, {3, 7, 6}}},
		{"less than one in a millisecond", TokenBucket, 7, []step{{0, 8, 7}, {8571, 1, 0}, {8572, 2, 1}, {17_142, 1, 0}, {17_143, 2, 1}, {25_714, 1, 0}, {25_715, 2, 1}}},
	} {
		t.Run(c.a.String()+"/"+c.name, func(t *testing.T) {
			s, p := &State{}, Policy{Algorithm: c.a, Max: c.max, Window: w}
			for _, step := range c.steps {
				var pass int64
				for range step.n {
					if checkVerdict(t, s, p, base+step.at, 1).OK {
						pass++
					}
					s.Take(p, base+step.at, 1)
				}
				if pass != step.pass {
					t.Errorf("at %d: %d of %d pass, want %d", step.at, pass, step.n, step.pass)
				}
			}
		})
	}
}

// TestK8_WaitIsExact loads a thousand limits until they refuse, and waits.
func TestK8_WaitIsExact(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, a := range allAlgorithms {
		t.Run(a.String(), func(t *testing.T) {
			for done := 0; done < 1000; {
				s := &State{}
				p := Policy{Algorithm: a, Max: 1 + r.Int64N(1<<r.IntN(54)), Window: 1 + r.Int64N(1<<r.IntN(54))}
				p.Max, p.Window = min(p.Max, maxNumber), min(p.Window, maxNumber)
				now := r.Int64N(year9999)
				for range 300 {
					n := 1 + r.Int64N(min(p.Max, 1+r.Int64N(p.Max/10+1)))
					v := s.Take(p, now, n)
					if v.OK {
						now += r.Int64N(p.Window/20 + 2)
						if r.IntN(10) == 0 {
							now -= r.Int64N(min(p.Window, 5000) + 1)
						}
						continue
					}
					checkVerdict(t, s, p, now, n)
					if v := s.Take(p, now+v.Wait-1, n); v.OK {
						t.Fatalf("passes before: %+v", v)
					}
					if v := s.Take(p, now+v.Wait, n); !v.OK {
						t.Fatalf("%+v", v)
					}
					done++
					break
				}
			}
		})
	}
}

// TestK9_Steady sends at 95 % of the limit for 30 windows.
func TestK9_Steady(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, a := range allAlgorithms {
		for _, maximum := range []int64{1, 2, 3, 10, 19, 20, 64, 65, 66, 100, 1000, 10_007} {
			for _, window := range []int64{1000, 1001, 86_400_000} {
				for _, jitter := range []bool{false, true} {
					// A fixed window that starts anywhere cuts out one request more than
					// its share, two if they come irregularly.
					if jitter && maximum < 65 {
						continue
					}
					p := Policy{Algorithm: a, Max: maximum, Window: window}
					s := &State{}
					total := maximum * 30 * 95 / 100
					var denied int64
					for i := range total {
						at := float64(i)
						if jitter {
							at += r.Float64()
						}
						now := today + int64(at*float64(window)/(0.95*float64(maximum)))
						if !s.Take(p, now, 1).OK {
							denied++
						}
					}
					if denied > 0 {
						t.Errorf("%+v, jitter %v: %d of %d denied", p, jitter, denied, total)
					}
				}
			}
		}
	}
}

// TestBucketDoesNotDrift takes each token the millisecond it comes, through 10,000
// refills of a bucket whose interval is no whole number.
func TestBucketDoesNotDrift(t *testing.T) {
	p := Policy{Algorithm: TokenBucket, Max: 7, Window: 1000}
	s := &State{}
	s.Take(p, 0, 7)
	for k := int64(1); k <= 10_000; k++ {
		at := (k*1000 + 6) / 7
		if s.Take(p, at-1, 1).OK {
			t.Fatalf("token %d too early", k)
		}
		if !s.Take(p, at, 1).OK {
			t.Fatalf("token %d too late", k)
		}
	}
}

// TestK10_Extremes goes through every corner, and beyond it.
func TestK10_Extremes(t *testing.T) {
	numbers := []int64{1, 2, 63, 64, 65, 1 << 31, 1 << 32, maxNumber - 1, maxNumber}
	silly := []int64{math.MinInt64, -1, 0, 1 << 53, math.MaxInt64}
	times := []int64{0, 1, today, year9999, -1, math.MinInt64, math.MaxInt64, -maxTime, maxTime}
	for _, a := range append(slices.Clone(allAlgorithms), 77) {
		for _, maximum := range append(silly, numbers...) {
			for _, window := range append(silly, numbers...) {
				p := Policy{Algorithm: a, Max: maximum, Window: window}
				q := p.bounded()
				for _, first := range times {
					for _, second := range times {
						s := &State{}
						for _, n := range append(silly, numbers...) {
							for _, now := range []int64{first, second} {
								v := s.Take(p, now, n)
								if fits := n <= q.Max; !fits && (v.OK || !v.Never) || v.Remaining < 0 || v.Remaining > q.Max || v.Wait < 0 || v.Reset < 0 || (v.OK == (v.Wait > 0 || v.Never)) {
									t.Fatalf("%+v, %d at %d: %+v", p, n, now, v)
								}
								if c := s.Count(p, now); n <= 0 && !v.OK || c < 0 || c > q.Max {
									t.Fatalf("%+v, %d at %d: %+v, count %d", p, n, now, v, c)
								}
								clone(t, s)
							}
							s.Undo(p, second, n)
							s.Undo(p, first, n)
						}
					}
				}
			}
		}
	}
}

// TestK10_BucketArithmetic compares the 128-bit arithmetic with math/big.
func TestK10_BucketArithmetic(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	one := big.NewInt(1)
	mul := func(a, b int64) *big.Int { return new(big.Int).Mul(big.NewInt(a), big.NewInt(b)) }
	for range 100_000 {
		p := Policy{Algorithm: TokenBucket, Max: maxNumber - r.Int64N(1<<r.IntN(53)), Window: maxNumber - r.Int64N(1<<r.IntN(53))}
		s := &State{count: 1 + r.Int64N(p.Max), frac: r.Int64N(p.Window), scale: p.Window, kind: TokenBucket}

		elapsed := r.Int64N(p.Window)
		want := mul(s.count, p.Window) // in parts of 1/Window
		want.Sub(want, big.NewInt(s.frac)).Sub(want, mul(elapsed, p.Max))
		missing, frac := s.level(p, elapsed)
		got := new(big.Int).Sub(mul(missing, p.Window), big.NewInt(frac))
		if want.Sign() < 0 {
			want.SetInt64(0)
		}
		if got.Cmp(want) != 0 {
			t.Fatalf("%+v, %+v after %d: %d - %d", p, s, elapsed, missing, frac)
		}

		need := mul(s.count, p.Window)
		need.Sub(need, big.NewInt(s.frac)).Sub(need, one).Div(need, big.NewInt(p.Max)).Add(need, one)
		if ms := refillTime(p, s.count, s.frac); ms != need.Int64() {
			t.Fatalf("%+v, %+v: refilled in %d, want %d", p, s, ms, need)
		}
	}
}

func TestK10_LargeNumbersAreExact(t *testing.T) {
	const now = maxNumber // a multiple of the window, where one may begin
	for _, a := range allAlgorithms {
		p := Policy{Algorithm: a, Max: maxNumber, Window: maxNumber}
		s := &State{}
		if v := s.Take(p, now, maxNumber-1); !v.OK || v.Remaining != 1 {
			t.Fatalf("%v: %+v", a, v)
		}
		if v := s.Take(p, now, 2); v.OK || v.Never || v.Remaining != 1 {
			t.Fatalf("%v: %+v", a, v)
		}
		if v := s.Take(p, now, 1); !v.OK || v.Remaining != 0 || v.Reset != maxNumber {
			t.Fatalf("%v: %+v", a, v)
		}
		v := checkVerdict(t, s, p, now, maxNumber)
		if v.Wait != maxNumber {
			t.Fatalf("%v: %+v", a, v)
		}
		if v := s.Take(p, now, maxNumber+1); !v.Never {
			t.Fatalf("%v: %+v", a, v)
		}
	}
}

// TestNothingIsFree checks that a request of nothing passes whatever the state.
func TestNothingIsFree(t *testing.T) {
	for _, a := range allAlgorithms {
		s, p := &State{}, Policy{Algorithm: a, Max: 1, Window: 1000}
		if v := s.Take(p, today, 0); !v.OK || v.Remaining != 1 || v.Reset != 0 || *s != (State{}) {
			t.Errorf("%v, empty: %+v", a, v)
		}
		s.Take(p, today, 1)
		before := *s
		if v := s.Take(p, today+1, 0); !v.OK || v.Remaining != 0 || v.Reset != 999 || *s != before {
			t.Errorf("%v, full: %+v", a, v)
		}
	}
}

// TestT3_ClockSteps asks for one a few times a window, with one step of the
// clock in the midst, and compares with the same load without.
func TestT3_ClockSteps(t *testing.T) {
	const second, hour, day = int64(1000), int64(3_600_000), int64(86_400_000)
	const tenYears = 3653 * day
	steps := map[string][]int64{
		"-1s": {-second}, "+1s": {second}, "-1h": {-hour}, "+1h": {hour}, "-1d": {-day}, "+1d": {day},
		"+10y": {tenYears}, "1970": {-today}, "+10y and back": {tenYears, -tenYears}, "-1h and back": {-hour, hour},
		"+1d and back": {day, -day}, "1970 and back": {-today, today},
	}
	for _, a := range allAlgorithms {
		for _, maximum := range []int64{5, 200} {
			for _, window := range []int64{100, second, 60 * second, 30 * day} {
				p := Policy{Algorithm: a, Max: maximum, Window: window}
				load := func(steps ...int64) (admitted int64) {
					s, clock := &State{}, today
					for i := range int64(6000) {
						if i%1000 == 500 && int(i/1000) < len(steps) {
							clock += int(steps[i/1000])
						}
						now := int64(clock) + i*window/1000
						v := s.Take(p, now, 1)
						if v.OK {
							admitted++
						} else if v.Wait > p.Window+max(p.Window, 1000) {
							t.Fatalf("%+v: locked for %d", p, v.Wait)
						} else if !clone(t, s).Take(p, now+v.Wait, 1).OK {
							t.Fatalf("%+v: locked after %d", p, v.Wait)
						}
					}
					return admitted
				}
				plain := load()
				for name, steps := range steps {
					forward := int64(0)
					for _, d := range steps {
						if d > 0 {
							forward += p.Max
						}
					}
					if got := load(steps...); got > plain+forward {
						t.Errorf("%+v, %s: %d admitted, %d without", p, name, got, plain)
					} else if got < plain-6*p.Max && len(steps) == 1 && forward > 0 {
						t.Errorf("%+v, %s: only %d admitted, %d without", p, name, got, plain)
					}
				}
			}
		}
	}
}

// TestT3_Disorder swaps neighbouring requests, as threads do that read the clock
// before they take a lock; time must not run faster for that.
func TestT3_Disorder(t *testing.T) {
	for _, a := range allAlgorithms {
		for _, window := range []int64{1, 10, 1000, 60_000} {
			p := Policy{Algorithm: a, Max: 10, Window: window}
			s := &State{}
			var admitted int64
			for i := range int64(100_000) {
				if s.Take(p, today+i/100-i%2*min(999, window*5), 1).OK {
					admitted++
				}
			}
			if most := p.Max + p.Max*(1000+window-1)/window; admitted > most {
				t.Errorf("%+v: %d admitted, at most %d", p, admitted, most)
			}
		}
	}
}

func TestT3_FarAheadAndBack(t *testing.T) {
	const tenYears = 3653 * 86_400_000
	for _, a := range allAlgorithms {
		p := Policy{Algorithm: a, Max: 5, Window: 50_000} // today is a multiple of the window, where one may begin
		s := &State{}
		s.Take(p, today+tenYears, 5)
		v := s.Peek(p, today, 5)
		if v.OK || v.Wait != p.Window {
			t.Errorf("%v: %+v", a, v)
		}
		if s.Take(p, today+p.Window-1, 5).OK || !s.Take(p, today+p.Window, 5).OK {
			t.Errorf("%v: a look does not start the wait", a)
		}
	}
}

func TestUndo(t *testing.T) {
	const w = 1000
	t.Run("a replaced window", func(t *testing.T) {
		s, p := &State{}, Policy{Algorithm: FixedWindow, Max: 5, Window: w}
		v := s.Take(p, 0, 3)
		s.Take(p, w, 2)
		if s.Undo(p, v.At, 3); s.Count(p, w) != 2 {
			t.Error("changed the next window")
		}
	})
	t.Run("more than was taken", func(t *testing.T) {
		for _, a := range allAlgorithms {
			for _, maximum := range []int64{5, 500} {
				s, p := &State{}, Policy{Algorithm: a, Max: maximum, Window: w}
				v := s.Take(p, 0, 3)
				s.Undo(p, v.At, maxNumber)
				if v := s.Peek(p, 0, 0); v.Remaining != maximum || v.Reset != 0 {
					t.Errorf("%v: %+v", a, v)
				}
			}
		}
	})
	t.Run("behind the state", func(t *testing.T) { // counted later than asked
		for _, a := range allAlgorithms {
			s, p := &State{}, Policy{Algorithm: a, Max: 5, Window: w}
			s.Take(p, today, 1)
			v := s.Take(p, today-500, 1)
			if s.Undo(p, v.At, 1); v.At != today || s.Count(p, today) != 1 {
				t.Errorf("%v: %+v, count %d", a, v, s.Count(p, today))
			}
		}
	})
	t.Run("before the clock was found far behind", func(t *testing.T) {
		for _, a := range allAlgorithms {
			s, p := &State{}, Policy{Algorithm: a, Max: 5, Window: w}
			v := s.Take(p, 2*today, 2)
			s.Take(p, today, 1)
			if s.Undo(p, v.At, 2); s.Count(p, today) != 3 {
				t.Errorf("%v: count %d", a, s.Count(p, today))
			}
		}
	})
	t.Run("another algorithm", func(t *testing.T) {
		s := &State{}
		v := s.Take(Policy{Algorithm: FixedWindow, Max: 5, Window: w}, 0, 3)
		p := Policy{Algorithm: TokenBucket, Max: 5, Window: w}
		if s.Undo(p, v.At, 3); s.Count(p, 0) != 3 {
			t.Error("gave back")
		}
	})
	t.Run("refilled since", func(t *testing.T) {
		for n, want := range map[int64]int64{5: 5, 6: 5, 8: 5, 10: 5} {
			s, p := &State{}, Policy{Algorithm: TokenBucket, Max: 10, Window: w}
			v := s.Take(p, 0, n)
			s.Take(p, 500, 5)
			if s.Undo(p, v.At, n); s.Count(p, 500) != want {
				t.Errorf("of %d, %d left, want %d", n, s.Count(p, 500), want)
			}
		}
	})
}

func TestTakeAll(t *testing.T) {
	var minute, day, bucket State
	limits := []Limit{
		{State: &minute, Policy: Policy{Algorithm: FixedWindow, Max: 3, Window: 60_000}},
		{State: &day, Policy: Policy{Algorithm: SlidingWindow, Max: 5, Window: 86_400_000}},
		{State: &bucket, Policy: Policy{Algorithm: TokenBucket, Max: 4, Window: 1000}},
	}
	take := func(now, n int64, refused int, want Verdict) {
		t.Helper()
		var before, after [3]Verdict
		for i, l := range limits {
			before[i] = l.State.Peek(l.Policy, now, 0)
		}
		peeked, p := PeekAll(limits, now, n)
		got, v := TakeAll(limits, now, n)
		if got != refused || v != want || peeked != got || p != v {
			t.Errorf("%d at %d: %d, %+v, and peeked %d, %+v", n, now, got, v, peeked, p)
		}
		for i, l := range limits {
			after[i] = l.State.Peek(l.Policy, now, 0)
			if l.Verdict.OK && (l.Verdict.Remaining != after[i].Remaining || l.Verdict.Reset != after[i].Reset) {
				t.Errorf("%d at %d: limit %d says %+v, is %+v", n, now, i, l.Verdict, after[i])
			}
		}
		if refused >= 0 && before != after {
			t.Errorf("%d at %d: refused, but took", n, now)
		}
	}
	take(0, 1, -1, Verdict{OK: true, Remaining: 2, Reset: 60_000})
	take(0, 2, -1, Verdict{OK: true, Remaining: 0, Reset: 60_000})
	take(0, 2, 0, Verdict{Remaining: 0, Reset: 60_000, Wait: 60_000}) // the bucket waits 250 only
	take(0, 4, 0, Verdict{Remaining: 0, Reset: 60_000, Never: true})
	take(0, 5, 0, Verdict{Remaining: 0, Reset: 60_000, Never: true}) // of several, the first
	take(59_999, 1, 0, Verdict{Remaining: 0, Reset: 1, Wait: 1})
	take(60_000, 2, -1, Verdict{OK: true, Remaining: 0, Reset: 86_400_000, At: 60_000})
	take(60_000, 2, 1, Verdict{Remaining: 0, Reset: 86_400_000, Wait: 86_340_000})
	take(86_399_999, 2, 1, Verdict{Remaining: 0, Reset: 60_001, Wait: 1})
	take(86_400_000, 2, -1, Verdict{OK: true, Remaining: 1, Reset: 60_000, At: 86_400_000})
	UndoAll(limits, 2)
	take(86_400_000, 3, -1, Verdict{OK: true, Remaining: 0, Reset: 60_000, At: 86_400_000})

	if refused, v := TakeAll(nil, 7, 5); refused != -1 || !v.OK || v.Remaining != maxNumber {
		t.Errorf("no limits: %d, %+v", refused, v)
	}
}

// TestSqueeze fills an exact log and then widens the policy, so that the old cells
// and those of the new grid do not fit together.
func TestSqueeze(t *testing.T) {
	s, p := &State{}, Policy{Algorithm: SlidingWindow, Max: 64, Window: 1000}
	for i := range int64(64) {
		s.Take(p, today+i*15, 1)
	}
	p.Max, p.Window = 1000, 10_000
	for i := range int64(63) {
		now := today + 1000 + i*141
		s.Take(p, now, 2)
		if got, want := s.Count(p, now), 64+2*(i+1); got != want || len(s.log.list) > maxCells {
			t.Fatalf("count %d in %d cells, want %d", got, len(s.log.list), want)
		}
	}
	// What was squeezed together leaves late, but by less than a cell of the new grid.
	if got := s.Count(p, today+10_000+63*15); got > 2*63+16 {
		t.Errorf("count %d", got)
	}

	// Requests that lie close are squeezed first, the others keep their times.
	s, p = &State{}, Policy{Algorithm: SlidingWindow, Max: 64, Window: 1000}
	for i := range int64(32) {
		s.Take(p, today+i*20, 1)
	}
	for i := range int64(32) {
		s.Take(p, today+700+i, 1)
	}
	p.Max, p.Window = 1000, 10_000
	for i := range int64(20) {
		s.Take(p, today+1000+i*160, 1)
	}
	for i := range int64(32) {
		if got := s.Count(p, today+10_000+i*20); got != 84-i-1 {
			t.Errorf("count %d after %d have left", got, i+1)
		}
	}
}

// TestSize holds the memory of a limit, whatever is asked of it.
func TestSize(t *testing.T) {
	if size := unsafe.Sizeof(State{}); size > 48 {
		t.Errorf("State has %d bytes", size)
	}
	r := rand.New(rand.NewPCG(5, 6))
	s := &State{}
	var now int64
	for range 20_000 {
		p := Policy{Algorithm: SlidingWindow, Max: 1 + r.Int64N(1<<r.IntN(20)), Window: 1 + r.Int64N(1<<r.IntN(20))}
		for range r.IntN(200) {
			now += r.Int64N(p.Window/64 + 2)
			s.Take(p, now, 1)
		}
		if now%7 == 0 {
			now -= 1 << 21
		}
	}
	if n := cap(s.log.list); n > maxCells {
		t.Errorf("%d cells", n)
	}
}

func TestNoAllocations(t *testing.T) {
	for _, a := range allAlgorithms {
		for _, maximum := range []int64{50, 5000} {
			s, p := &State{}, Policy{Algorithm: a, Max: maximum, Window: 1000}
			now := int64(today)
			for range 5000 { // a sliding window's log has its size then
				now += 7
				s.Take(p, now, 1)
			}
			limits := []Limit{{State: s, Policy: p}, {State: &State{}, Policy: Policy{Algorithm: FixedWindow, Max: 10, Window: 10}}}
			if got := testing.AllocsPerRun(1000, func() {
				now += 7
				s.Peek(p, now, 1)
				v := s.Take(p, now, 1)
				s.Count(p, now)
				s.Idle(p, now)
				s.Undo(p, v.At, 1)
				TakeAll(limits, now, 1)
			}); got != 0 {
				t.Errorf("%+v: %v allocations", p, got)
			}
		}
	}
}

func TestBinary(t *testing.T) {
	good := map[string]*State{"empty": {}}
	for _, a := range allAlgorithms {
		for _, maximum := range []int64{50, 5000, maxNumber} {
			s := &State{}
			for i := range int64(200) {
				s.Take(Policy{Algorithm: a, Max: maximum, Window: 1000}, today+i*17, maximum/50)
			}
			good[fmt.Sprint(a, maximum)] = s
		}
	}
	for name, s := range good {
		b, err := s.AppendBinary([]byte("before"))
		if err != nil || string(b[:6]) != "before" {
			t.Fatal(name, err)
		}
		b = b[6:]
		clone(t, s)
		for i := range b {
			// One byte alone is the empty state.
			if err := new(State).UnmarshalBinary(b[:i]); err == nil && i != 1 {
				t.Errorf("%s: accepts the first %d of %d bytes", name, i, len(b))
			}
		}
		before := clone(t, s)
		if err := before.UnmarshalBinary(append(b, 0)); err == nil {
			t.Errorf("%s: accepts a byte more", name)
		}
		if again, _ := before.AppendBinary(nil); string(again) != string(b) {
			t.Errorf("%s: changed by an error", name)
		}
		b[0] = 2
		if err := before.UnmarshalBinary(b); err == nil {
			t.Errorf("%s: accepts another version", name)
		}
	}
}

// TestBinaryGarbage breaks one rule at a time of what a state can be.
func TestBinaryGarbage(t *testing.T) {
	state := func(a Algorithm, at int64, numbers ...int64) []byte {
		b := binary.AppendVarint(append([]byte{binaryVersion, byte(len(a.String()))}, a.String()...), at)
		return appendNumbers(b, numbers...)
	}
	// count; gone, prev, last, cells; then time and number of each
	const t0 = 1000
	for name, c := range map[string]struct {
		b    []byte
		good bool
	}{
		"fixed":                     {state(FixedWindow, t0, 5), true},
		"nothing counted":           {state(FixedWindow, t0, 0), false},
		"count over the range":      {state(FixedWindow, t0, maxNumber+1), false},
		"time over the range":       {state(FixedWindow, maxTime+1, 5), false},
		"time under the range":      {state(FixedWindow, -maxTime-1, 5), false},
		"algorithm":                 {state(3, t0, 5), false},
		"bucket":                    {state(TokenBucket, t0, 5, 6, 7), true},
		"a whole token as fraction": {state(TokenBucket, t0, 5, 7, 7), false},
		"no scale":                  {state(TokenBucket, t0, 5, 0, 0), false},
		"sliding":                   {state(SlidingWindow, t0, 5, 9, 0, 2, 2, 8, 3, 0, 2), true},
		"younger once":              {state(SlidingWindow, t0, 5, 9, 7, 1, 2, 8, 3, 0, 2), true},
		"sum too low":               {state(SlidingWindow, t0, 6, 9, 0, 2, 2, 8, 3, 0, 2), false},
		"sum too high":              {state(SlidingWindow, t0, 4, 9, 0, 2, 2, 8, 3, 0, 2), false},
		"an empty cell":             {state(SlidingWindow, t0, 5, 9, 0, 2, 3, 8, 3, 4, 0, 0, 2), false},
		"no cells":                  {state(SlidingWindow, t0, 5, 9, 0, 2, 0), false},
		"too many cells":            {state(SlidingWindow, t0, 5, 9, 0, 2, maxCells+1), false},
		"backwards":                 {state(SlidingWindow, t0, 5, 9, 0, 2, 3, 5, 2, 6, 1, 0, 2), false},
		"twice the same time":       {state(SlidingWindow, t0, 5, 9, 0, 2, 3, 5, 2, 5, 1, 0, 2), false},
		"the last is not the end":   {state(SlidingWindow, t0, 5, 9, 1, 2, 2, 8, 3, 1, 2), false},
		"a cell that is gone":       {state(SlidingWindow, t0, 5, 8, 0, 2, 2, 8, 3, 0, 2), false},
		"younger than the one before": {
			state(SlidingWindow, t0, 5, 9, 8, 1, 2, 8, 3, 0, 2), false,
		},
		"younger than what is gone": {state(SlidingWindow, t0, 5, 9, 9, 1, 1, 0, 5), false},
		"more than the last cell":   {state(SlidingWindow, t0, 5, 9, 0, 3, 2, 8, 3, 0, 2), false},
	} {
		s := &State{}
		if err := s.UnmarshalBinary(c.b); (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		} else if err != nil && *s != (State{}) {
			t.Errorf("%s: an error, and a state", name)
		}
	}
}

func FuzzUnmarshal(f *testing.F) {
	for _, a := range allAlgorithms {
		for _, maximum := range []int64{3, 50, 5000} {
			s := &State{}
			for i := range int64(10) {
				s.Take(Policy{Algorithm: a, Max: maximum, Window: 1000}, i*17, maximum/50+1)
				b, _ := s.AppendBinary(nil)
				f.Add(b, int64(a), maximum, int64(1000), i*17+3, int64(1))
			}
		}
	}
	f.Add([]byte{}, int64(0), int64(1), int64(1), int64(0), int64(1))
	f.Fuzz(func(t *testing.T, b []byte, a, maximum, window, now, n int64) {
		s := &State{}
		if err := s.UnmarshalBinary(b); err != nil {
			if *s != (State{}) {
				t.Fatal("an error, and a state")
			}
			return
		}
		p := Policy{Algorithm: allAlgorithms[int(uint8(a))%len(allAlgorithms)], Max: max(maximum, 1), Window: window}.bounded()
		now, n = boundedTime(now)/2, min(max(n, 0), maxNumber)
		for range 3 {
			checkVerdict(t, s, p, now, n)
			v := s.Take(p, now, n)
			clone(t, s)
			if v.OK && n&1 == 1 {
				s.Undo(p, now, n)
				clone(t, s)
			}
			now += p.Window / 3
			if n&1 == 1 {
				p.Algorithm = allAlgorithms[(slices.Index(allAlgorithms, p.Algorithm)+1)%len(allAlgorithms)]
			}
		}
	})
}

func BenchmarkTake(b *testing.B) {
	for _, a := range allAlgorithms {
		for _, maximum := range []int64{60, 6000} {
			b.Run(fmt.Sprint(a, "/", maximum), func(b *testing.B) {
				s, p := &State{}, Policy{Algorithm: a, Max: maximum, Window: 60_000}
				now := int64(today)
				b.ReportAllocs()
				for b.Loop() {
					now += 60_000 / maximum
					s.Take(p, now, 1)
				}
			})
		}
	}
}

func BenchmarkTakeRefused(b *testing.B) {
	for _, a := range allAlgorithms {
		b.Run(a.String(), func(b *testing.B) {
			s, p := &State{}, Policy{Algorithm: a, Max: 60, Window: 1 << 40}
			for i := range int64(60) {
				s.Take(p, today+i, 1)
			}
			b.ReportAllocs()
			for b.Loop() {
				s.Take(p, today+100, 60)
			}
		})
	}
}

func BenchmarkTakeAll(b *testing.B) {
	limits := []Limit{
		{State: &State{}, Policy: Policy{Algorithm: FixedWindow, Max: 100, Window: 60_000}},
		{State: &State{}, Policy: Policy{Algorithm: FixedWindow, Max: 1000, Window: 3_600_000}},
		{State: &State{}, Policy: Policy{Algorithm: TokenBucket, Max: 100, Window: 1000}},
	}
	now := int64(today)
	b.ReportAllocs()
	for b.Loop() {
		now += 7
		TakeAll(limits, now, 1)
	}
}
