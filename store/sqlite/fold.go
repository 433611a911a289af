package sqlite

import (
	"context"
	"slices"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

const (
	// foldSize is how many items one transaction folds, which other writes wait for.
	foldSize = 2000
	// maxUnfolded is how many items the journal may hold before those who add to it have
	// to fold as well. Half of it wakes the folding.
	maxUnfolded = 200_000
)

// folding takes several transactions. Of its items, position many are in the tables: of
// days first, then of hours and of permissions.
type folding struct {
	last     int64 // number of the last batch
	days     []dayUses
	hours    []store.HourUses
	asked    []journalAsked
	position int
}

// begin puts what is to be folded in the order of the tables. The order follows from
// the batches alone: after a crash the position means the same.
func (u *unfolded) begin() *folding {
	f := &folding{last: u.last, days: make([]dayUses, 0, len(u.days)), hours: u.hours(), asked: u.permissions()}
	for of, uses := range u.days {
		f.days = append(f.days, dayUses{of, uses})
	}
	slices.SortFunc(f.days, func(a, b dayUses) int { return a.compare(b.subjectDay) })
	return f
}

func (f *folding) size() int { return len(f.days) + len(f.hours) + len(f.asked) }

// The rest of a folding is what is not in the tables yet.
func (f *folding) restOfDays() []dayUses {
	if f == nil {
		return nil
	}
	return f.days[min(f.position, len(f.days)):]
}

func (f *folding) restOfHours() []store.HourUses {
	if f == nil {
		return nil
	}
	return f.hours[min(max(f.position-len(f.days), 0), len(f.hours)):]
}

func (f *folding) restOfAsked() []journalAsked {
	if f == nil {
		return nil
	}
	return f.asked[min(max(f.position-len(f.days)-len(f.hours), 0), len(f.asked)):]
}

// makeRoom folds where the journal holds too much. While that fails, which tidy
// reports, the journal grows on: what is in it is safe.
func (s *Store) makeRoom(ctx context.Context) {
	n := s.unfolded.Load()
	if n > s.maxUnfolded/2 {
		wake(s.foldNow)
	}
	if n > s.maxUnfolded {
		_, _ = s.foldSome(ctx)
	}
}

// foldSome folds up to foldPart items in one transaction, and reports whether more wait.
func (s *Store) foldSome(ctx context.Context) (more bool, err error) {
	j, before := &s.usage, 0
	var f *folding
	err = s.submit(ctx, &job{
		run: func(w *writerConn) error {
			if j.folding == nil && j.next.last != 0 {
				j.folding, j.next = j.next.begin(), unfolded{}
			}
			if f = j.folding; f == nil {
				return nil
			}
			before = f.position
			// At once, so that nothing is seen twice by who reads after this in the
			// same transaction.
			f.position = min(before+s.foldPart, f.size())
			return failed("folding usage", f.write(w, before))
		},
		ended: func(err error) {
			switch {
			case f == nil:
			case err != nil:
				f.position = before
			case f.position == f.size():
				j.folding = nil
				more = j.next.last != 0 && f.size() >= s.foldPart
			default:
				more = true
			}
			s.unfolded.Store(j.size())
		},
	})
	return more, err
}

// write puts the items from a position into the tables, and notes how far it came.
func (f *folding) write(w *writerConn, from int) error {
	to := f.position
	part := func(before, n int) (first, end int) {
		return min(max(from-before, 0), n), min(max(to-before, 0), n)
	}
	first, end := part(0, len(f.days))
	if err := writeDays(w, f.days[first:end]); err != nil {
		return err
	}
	first, end = part(len(f.days), len(f.hours))
	for _, h := range f.hours[first:end] {
		const query = `INSERT INTO {p}usage_hours (hour, outcome, tier, n) VALUES (?1, ?2, ?3, max(?4, 0))
			ON CONFLICT (hour, outcome, tier) DO UPDATE SET n = min(max(n + ?4, 0), ?5)`
		if _, err := w.exec(query, h.Hour, h.Outcome, h.Tier, h.N, key.MaxCount); err != nil {
			return err
		}
	}
	first, end = part(len(f.days)+len(f.hours), len(f.asked))
	for _, a := range f.asked[first:end] {
		const query = `INSERT INTO {p}asked_permissions (key, permission)
			SELECT num, ?2 FROM {p}keys WHERE num = ?1 AND (SELECT count(*) FROM {p}asked_permissions WHERE key = ?1) < ?3
			ON CONFLICT DO NOTHING`
		if _, err := w.exec(query, a.key, a.permission, store.MaxAskedPermissions); err != nil {
			return err
		}
	}
	if f.position < f.size() {
		_, err := w.exec(`INSERT INTO {p}usage_fold (one, batch, position) VALUES (1, ?1, ?2)
			ON CONFLICT (one) DO UPDATE SET batch = ?1, position = ?2`, f.last, f.position)
		return err
	}
	if _, err := w.exec(`DELETE FROM {p}usage_journal WHERE num <= ?`, f.last); err != nil {
		return err
	}
	_, err := w.exec(`DELETE FROM {p}usage_fold`)
	return err
}

// writeDays adds what subjects did on days.
func writeDays(w *writerConn, some []dayUses) error {
	owners := map[int32][]int64{} // by day
	for i := range some {
		d := &some[i]
		if err := d.write(w); err != nil {
			return err
		}
		if d.kind() == store.KindOwner {
			owners[d.day] = append(owners[d.day], d.num)
		}
	}
	for day, nums := range owners {
		if err := writeTop(w, day, nums); err != nil {
			return err
		}
	}
	return nil
}

// writeTop brings the top owners of a day up to date after some have been used. Most are
// far from the top, and are only compared with the last one there.
func writeTop(w *writerConn, day int32, owners []int64) error {
	const top = `INSERT INTO {p}usage_top_owners (day, owner, n)
		SELECT u.day, u.subject, sum(u.n) FROM json_each(?2) j CROSS JOIN {p}usage u ON u.subject = j.value AND u.kind = 'owner' AND u.day = ?1
		GROUP BY u.subject
		HAVING sum(u.n) >= coalesce((SELECT n FROM {p}usage_top_owners WHERE day = ?1 ORDER BY n DESC, owner LIMIT 1 OFFSET ?3), 0)
			OR EXISTS (SELECT 1 FROM {p}usage_top_owners WHERE day = ?1 AND owner = u.subject)
		ON CONFLICT (day, owner) DO UPDATE SET n = excluded.n`
	if _, err := w.exec(top, day, jsonNumbers(owners), store.MaxTopOwners-1); err != nil {
		return err
	}
	const others = `DELETE FROM {p}usage_top_owners WHERE day = ?1 AND owner NOT IN (
		SELECT owner FROM {p}usage_top_owners WHERE day = ?1 ORDER BY n DESC, owner LIMIT ?2)`
	_, err := w.exec(others, day, store.MaxTopOwners)
	return err
}

// write adds what a subject did on a day. A subject that is gone is skipped.
func (d *dayUses) write(w *writerConn) (err error) {
	const keyExists = `EXISTS (SELECT 1 FROM {p}keys WHERE num = ?1) OR EXISTS (SELECT 1 FROM {p}past_keys WHERE num = ?1)`
	const ownerExists = `EXISTS (SELECT 1 FROM {p}owners WHERE num = ?1 AND user_id IS NOT NULL)`
	exists := keyExists
	if d.kind() == store.KindOwner {
		exists = ownerExists
	}
	query := `INSERT INTO {p}usage (subject, kind, day, what, n) SELECT ?1, ?2, ?3, ?4, max(?5, 0) WHERE ` + exists + `
		ON CONFLICT (subject, kind, day, what) DO UPDATE SET n = min(max(n + ?5, 0), ?6)`
	d.Each(func(what string, n *int64) {
		if *n != 0 && err == nil {
			_, err = w.exec(query, d.num, string(d.kind()), d.day, what, *n, key.MaxCount)
		}
	})
	return err
}
