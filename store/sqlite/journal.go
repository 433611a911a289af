package sqlite

import (
	"cmp"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"

	"github.com/caddy-apikey/caddy-apikey/store"
)

// Usage comes as many small increments all over the tables. To write each at once
// costs a page or two; so they are appended to a journal, kept in memory as well, and
// folded into the tables in the background, sorted as the tables are (see fold.go).

// subject is a key or an owner by its number.
type subject struct {
	num  int64
	kind store.Kind
}

// subjectDay is a subject on a day, without pointers: there are many.
type subjectDay struct {
	num   int64
	day   int32
	owner bool // else a key
}

func (d subjectDay) kind() store.Kind {
	if d.owner {
		return store.KindOwner
	}
	return store.KindKey
}

func dayOf(of subject, day int32) subjectDay {
	return subjectDay{of.num, day, of.kind == store.KindOwner}
}

// compare puts subjects and their days in the order of the tables, keys before owners.
func (d subjectDay) compare(other subjectDay) int {
	switch {
	case d.num != other.num:
		return cmp.Compare(d.num, other.num)
	case d.owner == other.owner:
		return cmp.Compare(d.day, other.day)
	case d.owner:
		return 1
	default:
		return -1
	}
}

// dayUses is what a subject did on a day.
type dayUses struct {
	subjectDay
	store.Uses
}

// unfolded is the sum of batches that are in the journal only.
type unfolded struct {
	last   int64   // number of the last batch
	dates  []int32 // of days, few
	days   map[subjectDay]store.Uses
	byHour map[store.HourUses]int64 // by a key without N
	asked  map[journalAsked]struct{}
}

func (u *unfolded) add(num int64, b *journalBatch) {
	u.last = num
	if u.days == nil {
		u.days, u.byHour, u.asked = map[subjectDay]store.Uses{}, map[store.HourUses]int64{}, map[journalAsked]struct{}{}
	}
	for _, one := range b.used {
		if one.key != 0 {
			u.addDay(subjectDay{one.key, one.day, false}, one.Uses)
		}
		u.addDay(subjectDay{one.owner, one.day, true}, one.Uses)
	}
	for _, h := range b.hours {
		n := h.N
		h.N = 0
		u.byHour[h] += n
	}
	for _, a := range b.asked {
		u.asked[a] = struct{}{}
	}
}

func (u *unfolded) addDay(of subjectDay, more store.Uses) {
	uses := u.days[of]
	uses.Add(more)
	u.days[of] = uses
	if !slices.Contains(u.dates, of.day) {
		u.dates = append(u.dates, of.day)
	}
}

func (u *unfolded) size() int { return len(u.days) + len(u.byHour) + len(u.asked) }

// hours returns the hours, sorted.
func (u *unfolded) hours() []store.HourUses {
	all := make([]store.HourUses, 0, len(u.byHour))
	for h, n := range u.byHour {
		h.N = n
		all = append(all, h)
	}
	slices.SortFunc(all, compareHours)
	return all
}

// permissions returns the permissions that were asked for, sorted.
func (u *unfolded) permissions() []journalAsked {
	return slices.SortedFunc(maps.Keys(u.asked), func(a, b journalAsked) int {
		return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.permission, b.permission))
	})
}

// addDays adds uses to days, which are sorted.
func addDays(days []store.DayUses, more ...store.DayUses) []store.DayUses {
	for _, d := range more {
		i, there := slices.BinarySearchFunc(days, d.Day, func(a store.DayUses, day int32) int { return cmp.Compare(a.Day, day) })
		if there {
			days[i].Add(d.Uses)
		} else {
			days = slices.Insert(days, i, d)
		}
	}
	return days
}

func compareHours(a, b store.HourUses) int {
	return cmp.Or(cmp.Compare(a.Hour, b.Hour), cmp.Compare(a.Outcome, b.Outcome), cmp.Compare(a.Tier, b.Tier))
}

// usageJournal is what the writer knows of usage that is not folded. Only its
// goroutine uses it, in jobs.
type usageJournal struct {
	next    unfolded // since the folding that is under way began
	folding *folding // nil: none is
}

// size is how many items are in the journal only.
func (j *usageJournal) size() int64 {
	n := j.next.size()
	if f := j.folding; f != nil {
		n += f.size() - f.position
	}
	return int64(n)
}

// load reads the journal that an earlier process left.
func (j *usageJournal) load(w *writerConn) error {
	var batch int64
	var position int
	err := w.row(`SELECT batch, position FROM {p}usage_fold`, nil, &batch, &position)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	var begun unfolded
	err = w.rows(`SELECT num, batch FROM {p}usage_journal ORDER BY num`, nil, func(rows *sql.Rows) error {
		var num int64
		var raw []byte
		if err := rows.Scan(&num, &raw); err != nil {
			return err
		}
		b, err := decodeBatch(raw)
		if err != nil {
			return fmt.Errorf("batch %d: %w", num, err)
		}
		if num <= batch {
			begun.add(num, b)
		} else {
			j.next.add(num, b)
		}
		return nil
	})
	if begun.last != 0 {
		j.folding = begun.begin()
		j.folding.position = min(position, j.folding.size())
	}
	return err
}

// unfoldedDays calls f with what is in the journal only of a subject.
func (j *usageJournal) unfoldedDays(of subject, f func(store.DayUses)) {
	rest := j.folding.restOfDays()
	first := dayOf(of, 0)
	for i := sort.Search(len(rest), func(i int) bool { return rest[i].compare(first) >= 0 }); i < len(rest); i++ {
		if d := &rest[i]; d.num == of.num && d.kind() == of.kind {
			f(store.DayUses{Day: d.day, Uses: d.Uses})
		} else {
			break
		}
	}
	for _, day := range j.next.dates {
		if uses, ok := j.next.days[dayOf(of, day)]; ok {
			f(store.DayUses{Day: day, Uses: uses})
		}
	}
}

// days returns what a subject did, sorted by day.
func (j *usageJournal) days(w *writerConn, of subject, first, last int32) (days []store.DayUses, err error) {
	err = w.rows(usageDays, []any{of.num, string(of.kind), first, last}, func(rows *sql.Rows) error {
		var d store.DayUses
		var what string
		var n int64
		if err := rows.Scan(&d.Day, &what, &n); err != nil {
			return err
		}
		count := d.Named(what)
		if count == nil {
			return fmt.Errorf("usage of the unknown kind %q", what)
		}
		*count = n
		days = addDays(days, d)
		return nil
	})
	if err != nil {
		return nil, err
	}
	j.unfoldedDays(of, func(d store.DayUses) {
		if first <= d.Day && d.Day <= last {
			days = addDays(days, d)
		}
	})
	for i := range days {
		days[i].Each(func(_ string, n *int64) { *n = max(*n, 0) })
	}
	return days, nil
}

func (j *usageJournal) hours(w *writerConn, first, last int64) (all []store.HourUses, err error) {
	sums := map[store.HourUses]int64{}
	err = w.rows(usageHours, []any{first, last}, func(rows *sql.Rows) error {
		var h store.HourUses
		var n int64
		err := rows.Scan(&h.Hour, &h.Outcome, &h.Tier, &n)
		sums[h] = n
		return err
	})
	for _, h := range slices.Concat(j.folding.restOfHours(), j.next.hours()) {
		if first <= h.Hour && h.Hour <= last {
			sums[store.HourUses{Hour: h.Hour, Outcome: h.Outcome, Tier: h.Tier}] += h.N
		}
	}
	for _, h := range slices.SortedFunc(maps.Keys(sums), compareHours) {
		if h.N = sums[h]; h.N > 0 {
			all = append(all, h)
		}
	}
	return all, err
}

func (j *usageJournal) topOwners(w *writerConn, day int32) (all []store.OwnerUses, err error) {
	owners := map[int64]struct{}{}
	err = w.rows(topOwners, []any{day}, func(rows *sql.Rows) error {
		var num int64
		err := rows.Scan(&num)
		owners[num] = struct{}{}
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, d := range j.folding.restOfDays() {
		if d.owner && d.day == day {
			owners[d.num] = struct{}{}
		}
	}
	for d := range j.next.days {
		if d.owner && d.day == day {
			owners[d.num] = struct{}{}
		}
	}
	for num := range owners {
		var o store.OwnerUses
		err := w.row(`SELECT user_id FROM {p}owners WHERE num = ? AND user_id IS NOT NULL`, []any{num}, &o.UserID)
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		if err != nil {
			return nil, err
		}
		days, err := j.days(w, subject{num, store.KindOwner}, day, day)
		if err != nil {
			return nil, err
		}
		if len(days) == 1 && days[0].Sum() > 0 {
			o.Uses = days[0].Uses
			all = append(all, o)
		}
	}
	slices.SortFunc(all, func(a, b store.OwnerUses) int {
		return cmp.Or(cmp.Compare(b.Sum(), a.Sum()), cmp.Compare(a.UserID, b.UserID))
	})
	return all[:min(len(all), store.MaxTopOwners)], nil
}

func (j *usageJournal) askedPermissions(w *writerConn, id string) ([]string, error) {
	num, err := numberOf(w, store.OfKey(id))
	if err != nil || num == 0 {
		return nil, err
	}
	all, err := w.ids(askedOf, num)
	if err != nil {
		return nil, err
	}
	for _, a := range slices.Concat(j.folding.restOfAsked(), j.next.permissions()) {
		if a.key == num && !slices.Contains(all, a.permission) && len(all) < store.MaxAskedPermissions {
			all = append(all, a.permission)
		}
	}
	slices.Sort(all)
	return all, nil
}
