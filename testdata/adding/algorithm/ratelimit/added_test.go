package ratelimit

import "testing"

func init() {
	models["clock_window"] = func() model { return &clockModel{} }
}

// clockModel is the law of clock_window: at most Max from one multiple of Window to the
// next. start is the time of the first request that counts.
type clockModel struct{ fixedModel }

func (m *clockModel) clone() model { c := *m; return &c }

func (m *clockModel) forget(p Policy, at int64) {
	if clockWindow(p, at) != clockWindow(p, m.start) {
		m.count = 0
	}
}

func (m *clockModel) room(p Policy, at int64) int64 {
	c := *m
	c.forget(p, at)
	return p.Max - c.count
}

func (m *clockModel) take(p Policy, at, n int64) {
	m.forget(p, at)
	m.fixedModel.take(p, at, n)
}

// clockWindow numbers the windows: ⌊t/Window⌋.
func clockWindow(p Policy, t int64) int64 {
	n := t / p.Window
	if n*p.Window > t { // division rounds towards zero
		n--
	}
	return n
}

// TestAdded: a window ends at a multiple of its length, whenever the first request came.
func TestAdded(t *testing.T) {
	a, err := ParseAlgorithm("clock_window")
	if err != nil {
		t.Fatal(err)
	}
	s, p := &State{}, Policy{Algorithm: a, Max: 2, Window: 1000}
	for _, step := range []struct{ at, pass int64 }{{today + 999, 2}, {today + 1000, 2}, {today + 1999, 0}, {today + 2000, 2}} {
		for n := range int64(3) {
			if checkVerdict(t, s, p, step.at, 1).OK != (n < step.pass) || s.Take(p, step.at, 1).OK != (n < step.pass) {
				t.Errorf("at %d: request %d of %d", step.at, n, step.pass)
			}
		}
	}
	s = &State{}
	v := s.Take(p, today+999, 2)
	s.Take(p, today+1000, 2)
	if s.Undo(p, v.At, 2); s.Count(p, today+1000) != 2 {
		t.Error("undoing a request changes a later window")
	}
}
