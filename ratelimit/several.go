package ratelimit

// Limit is one of several limits on the same request. No two share a State.
type Limit struct {
	State  *State
	Policy Policy
	// Ahead is how many milliseconds the clock of this limit is ahead of the time
	// that PeekAll and TakeAll are told: calendars follow another clock than
	// windows do.
	Ahead int64

	// Verdict is set by PeekAll and TakeAll. Where another limit refused, one that
	// did not is shown as it is without this request.
	Verdict Verdict
}

// PeekAll says what TakeAll would, and takes nothing.
func PeekAll(limits []Limit, now, n int64) (refused int, v Verdict) {
	refused = -1
	for i := range limits {
		l := &limits[i]
		l.Verdict = l.State.Peek(l.Policy, now+l.Ahead, n)
		if !l.Verdict.OK && (refused < 0 || longer(l.Verdict, v)) {
			refused, v = i, l.Verdict
		}
	}
	if refused < 0 {
		return refused, tightest(limits, now)
	}
	for i := range limits {
		if l := &limits[i]; l.Verdict.OK {
			l.Verdict = l.State.Peek(l.Policy, now+l.Ahead, 0)
		}
	}
	return refused, v
}

// TakeAll takes n of every limit, or of none.
//
// When all have room, refused is -1 and v the verdict that leaves the fewest. Else
// refused is the limit that has to be waited for longest, or the first that n is
// over the maximum of, and v its verdict: after v.Wait all of them pass, since no
// limit gets fuller by waiting, and a millisecond earlier this one does not.
func TakeAll(limits []Limit, now, n int64) (refused int, v Verdict) {
	refused, v = PeekAll(limits, now, n)
	if refused < 0 {
		for i := range limits {
			l := &limits[i]
			l.Verdict = l.State.Take(l.Policy, now+l.Ahead, n)
		}
	}
	return refused, v
}

// UndoAll gives back n that TakeAll has taken of these limits, as Undo does.
func UndoAll(limits []Limit, n int64) {
	for i := range limits {
		l := &limits[i]
		l.State.Undo(l.Policy, l.Verdict.At, n)
	}
}

func longer(a, b Verdict) bool {
	return !b.Never && (a.Never || a.Wait > b.Wait)
}

func tightest(limits []Limit, now int64) Verdict {
	if len(limits) == 0 {
		return Verdict{OK: true, Remaining: maxNumber, At: boundedTime(now)}
	}
	v := limits[0].Verdict
	for i := range limits {
		if w := limits[i].Verdict; w.Remaining < v.Remaining {
			v = w
		}
	}
	return v
}
