package sqlite

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/caddy-apikey/caddy-apikey/store"
)

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
	if r.err == nil && (size <= 0 || n > uint64(len(r.b)-size)) { //nolint:gosec // not negative: Uvarint has read no more than there is
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
