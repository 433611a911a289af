package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// Usage comes as many small increments all over the tables. To write each at once
// costs a page or two; so they are appended to a journal, kept in memory as well, and
// folded into the tables in the background, sorted as the tables are.

const (
	// foldSize is how many items one transaction folds, which other writes wait for.
	foldSize = 2000
)

// subject is a key or an owner by its number.
type subject struct {
	num  int64
	kind store.Kind
}

// journalBatch is a store.UsageBatch with numbers instead of IDs.
type journalBatch struct {
	used  []journalUse
	hours []store.HourUses
	asked []journalAsked
}

type journalUse struct {
	key, owner int64 // key is 0 where it was never stored
	day        int32
	store.Uses
}

type journalAsked struct {
	key        int64
	permission string
}

// unfolded is the sum of batches that are in the journal only.
type unfolded struct {
	last    int64 // number of the last batch
	days    map[subject][]store.DayUses
	byHour  map[store.HourUses]int64 // by a key without N
	allowed map[journalAsked]struct{}
}

func (u *unfolded) add(num int64, b *journalBatch) {
	u.last = num
	if u.days == nil {
		u.days, u.byHour, u.allowed = map[subject][]store.DayUses{}, map[store.HourUses]int64{}, map[journalAsked]struct{}{}
	}
	for _, one := range b.used {
		d := store.DayUses{Day: one.day, Uses: one.Uses}
		if one.key != 0 {
			k := subject{one.key, store.KindKey}
			u.days[k] = addDays(u.days[k], d)
		}
		o := subject{one.owner, store.KindOwner}
		u.days[o] = addDays(u.days[o], d)
	}
	for _, h := range b.hours {
		n := h.N
		h.N = 0
		u.byHour[h] += n
	}
	for _, a := range b.asked {
		u.allowed[a] = struct{}{}
	}
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

// usageJournal is what the writer knows of usage that is not folded. Only its
// goroutine uses it, in jobs.
type usageJournal struct {
	next    unfolded // since the folding that is under way began
	folding *folding // nil: none is
}

// folding takes several transactions. Of its items, position many are in the tables.
type folding struct {
	unfolded
	items    []foldItem
	position int
}

// foldItem is one of: the uses of a subject on a day, an hour, a permission.
type foldItem struct {
	subject subject
	day     store.DayUses
	hour    *store.HourUses
	asked   *journalAsked
}

// begin puts what is to be folded in the order of the tables. The order follows from
// the batches alone: after a crash the position means the same.
func (u unfolded) begin() *folding {
	f := &folding{unfolded: u}
	for _, s := range slices.SortedFunc(maps.Keys(u.days), func(a, b subject) int {
		return cmp.Or(cmp.Compare(a.num, b.num), cmp.Compare(a.kind, b.kind))
	}) {
		for _, d := range u.days[s] {
			f.items = append(f.items, foldItem{subject: s, day: d})
		}
	}
	for _, h := range slices.SortedFunc(maps.Keys(u.byHour), compareHours) {
		h.N = u.byHour[h]
		f.items = append(f.items, foldItem{hour: &h})
	}
	for _, a := range slices.SortedFunc(maps.Keys(u.allowed), func(a, b journalAsked) int {
		return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.permission, b.permission))
	}) {
		f.items = append(f.items, foldItem{asked: &a})
	}
	return f
}

func compareHours(a, b store.HourUses) int {
	return cmp.Or(cmp.Compare(a.Hour, b.Hour), cmp.Compare(a.Outcome, b.Outcome), cmp.Compare(a.Tier, b.Tier))
}

// rest are the items that are not in the tables yet.
func (f *folding) rest() []foldItem {
	if f == nil {
		return nil
	}
	return f.items[f.position:]
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
		j.folding.position = min(position, len(j.folding.items))
	}
	return err
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
			f.position = min(before+s.foldPart, len(f.items))
			return failed("folding usage", f.write(w, before))
		},
		ended: func(err error) {
			switch {
			case f == nil:
			case err != nil:
				f.position = before
			case f.position == len(f.items):
				j.folding = nil
				more = j.next.last != 0 && len(f.items) >= s.foldPart
			default:
				more = true
			}
		},
	})
	return more, err
}

// write puts the items from a position into the tables, and notes how far it came.
func (f *folding) write(w *writerConn, from int) error {
	days := map[int32]struct{}{}
	for i := range f.items[from:f.position] {
		it := &f.items[from+i]
		var err error
		switch {
		case it.hour != nil:
			const query = `INSERT INTO {p}usage_hours (hour, outcome, tier, n) VALUES (?1, ?2, ?3, max(?4, 0))
				ON CONFLICT (hour, outcome, tier) DO UPDATE SET n = min(max(n + ?4, 0), ?5)`
			h := it.hour
			_, err = w.exec(query, h.Hour, h.Outcome, h.Tier, h.N, key.MaxCount)
		case it.asked != nil:
			const query = `INSERT INTO {p}asked_permissions (key, permission)
				SELECT num, ?2 FROM {p}keys WHERE num = ?1 AND (SELECT count(*) FROM {p}asked_permissions WHERE key = ?1) < ?3
				ON CONFLICT DO NOTHING`
			_, err = w.exec(query, it.asked.key, it.asked.permission, store.MaxAskedPermissions)
		default:
			err = it.writeDay(w, days)
		}
		if err != nil {
			return err
		}
	}
	for day := range days {
		const query = `DELETE FROM {p}usage_top_owners WHERE day = ?1 AND owner NOT IN (
			SELECT owner FROM {p}usage_top_owners WHERE day = ?1 ORDER BY n DESC, owner LIMIT ?2)`
		if _, err := w.exec(query, day, store.MaxTopOwners); err != nil {
			return err
		}
	}
	if f.position < len(f.items) {
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

// writeDay adds what a subject did on a day. A subject that is gone is skipped.
func (it *foldItem) writeDay(w *writerConn, days map[int32]struct{}) (err error) {
	const keyExists = `EXISTS (SELECT 1 FROM {p}keys WHERE num = ?1) OR EXISTS (SELECT 1 FROM {p}past_keys WHERE num = ?1)`
	const ownerExists = `EXISTS (SELECT 1 FROM {p}owners WHERE num = ?1)`
	exists := keyExists
	if it.subject.kind == store.KindOwner {
		exists = ownerExists
	}
	query := `INSERT INTO {p}usage (subject, kind, day, what, n) SELECT ?1, ?2, ?3, ?4, max(?5, 0) WHERE ` + exists + `
		ON CONFLICT (subject, kind, day, what) DO UPDATE SET n = min(max(n + ?5, 0), ?6)`
	it.day.Each(func(what string, n *int64) {
		if *n != 0 && err == nil {
			_, err = w.exec(query, it.subject.num, string(it.subject.kind), it.day.Day, what, *n, key.MaxCount)
		}
	})
	if err != nil || it.subject.kind != store.KindOwner {
		return err
	}
	days[it.day.Day] = struct{}{}
	const top = `INSERT INTO {p}usage_top_owners (day, owner, n)
		SELECT day, subject, sum(n) FROM {p}usage WHERE subject = ? AND kind = 'owner' AND day = ? GROUP BY day, subject
		ON CONFLICT (day, owner) DO UPDATE SET n = excluded.n`
	_, err = w.exec(top, it.subject.num, it.day.Day)
	return err
}

// each calls f for every item that is in the journal only.
func (j *usageJournal) each(f func(it *foldItem)) {
	rest := j.folding.rest()
	for i := range rest {
		f(&rest[i])
	}
	more := j.next.begin().items
	for i := range more {
		f(&more[i])
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
	within := func(d store.DayUses) bool { return first <= d.Day && d.Day <= last }
	for _, it := range j.folding.rest() {
		if it.subject == of && within(it.day) {
			days = addDays(days, it.day)
		}
	}
	for _, d := range j.next.days[of] {
		if within(d) {
			days = addDays(days, d)
		}
	}
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
	j.each(func(it *foldItem) {
		if h := it.hour; h != nil && first <= h.Hour && h.Hour <= last {
			sums[store.HourUses{Hour: h.Hour, Outcome: h.Outcome, Tier: h.Tier}] += h.N
		}
	})
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
	j.each(func(it *foldItem) {
		if it.subject.kind == store.KindOwner && it.day.Day == day {
			owners[it.subject.num] = struct{}{}
		}
	})
	for num := range owners {
		var o store.OwnerUses
		err := w.row(`SELECT user_id FROM {p}owners WHERE num = ?`, []any{num}, &o.UserID)
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
	all, err := w.ids(askedOf, id)
	if err != nil {
		return nil, err
	}
	num, err := numberOf(w, store.OfKey(id))
	if err != nil {
		return nil, err
	}
	j.each(func(it *foldItem) {
		if a := it.asked; a != nil && a.key == num && !slices.Contains(all, a.permission) && len(all) < store.MaxAskedPermissions {
			all = append(all, a.permission)
		}
	})
	slices.Sort(all)
	return all, nil
}

// The form of a batch: a version, the names of the counts, and then the parts, each
// with its length. Numbers are varints, and those of neighbours differences.
const batchVersion = 1

var errBatch = errors.New("not a batch of usage")

func (b *journalBatch) encode() []byte {
	out := []byte{batchVersion}
	var names []string
	new(store.Uses).Each(func(what string, _ *int64) { names = append(names, what) })
	out = binary.AppendUvarint(out, uint64(len(names)))
	for _, name := range names {
		out = appendString(out, name)
	}
	slices.SortStableFunc(b.used, func(x, y journalUse) int { return cmp.Compare(x.key, y.key) })
	out = binary.AppendUvarint(out, uint64(len(b.used)))
	var last journalUse
	for i := range b.used {
		u := &b.used[i]
		out = binary.AppendVarint(out, u.key-last.key)
		out = binary.AppendVarint(out, u.owner-last.owner)
		out = binary.AppendVarint(out, int64(u.day-last.day))
		u.Each(func(_ string, n *int64) { out = binary.AppendVarint(out, *n) })
		last = *u
	}
	out = binary.AppendUvarint(out, uint64(len(b.hours)))
	for _, h := range b.hours {
		out = binary.AppendVarint(out, h.Hour)
		out = appendString(appendString(out, h.Outcome), h.Tier)
		out = binary.AppendVarint(out, h.N)
	}
	out = binary.AppendUvarint(out, uint64(len(b.asked)))
	for _, a := range b.asked {
		out = appendString(binary.AppendVarint(out, a.key), a.permission)
	}
	return out
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// batchReader reads until something is wrong, and zeros from then on.
type batchReader struct {
	b   []byte
	err error
}

func decodeBatch(raw []byte) (*journalBatch, error) {
	if len(raw) == 0 || raw[0] != batchVersion {
		return nil, errBatch
	}
	r := batchReader{b: raw[1:]}
	var names []string
	for range r.count() {
		names = append(names, r.text())
	}
	b := &journalBatch{}
	var last journalUse
	for range r.count() {
		u := journalUse{key: last.key + r.number(), owner: last.owner + r.number(), day: last.day + int32(r.number())} //nolint:gosec // as it was written
		for _, name := range names {
			n := r.number()
			if count := u.Named(name); count != nil {
				*count = n
			} else if r.err == nil {
				r.err = fmt.Errorf("usage of the unknown kind %q", name)
			}
		}
		b.used = append(b.used, u)
		last = u
	}
	for range r.count() {
		b.hours = append(b.hours, store.HourUses{Hour: r.number(), Outcome: r.text(), Tier: r.text(), N: r.number()})
	}
	for range r.count() {
		b.asked = append(b.asked, journalAsked{r.number(), r.text()})
	}
	if r.err == nil && len(r.b) > 0 {
		r.err = errBatch
	}
	return b, r.err
}

// count reads the length of a part, whose elements have a byte at least.
func (r *batchReader) count() int {
	n, size := binary.Uvarint(r.b)
	if r.err == nil && (size <= 0 || n > uint64(len(r.b)-size)) {
		r.err = errBatch
	}
	if r.err != nil {
		return 0
	}
	r.b = r.b[size:]
	return int(n) //nolint:gosec // at most len(r.b)
}

func (r *batchReader) number() int64 {
	n, size := binary.Varint(r.b)
	if r.err == nil && size <= 0 {
		r.err = errBatch
	}
	if r.err != nil {
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *batchReader) text() string {
	n := r.count()
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}
