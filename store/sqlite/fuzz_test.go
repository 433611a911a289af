package sqlite

import (
	"bytes"
	"cmp"
	"reflect"
	"slices"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/store"
)

// FuzzCursor: a cursor that is accepted is the one that its row would get.
func FuzzCursor(f *testing.F) {
	for _, o := range []order{orderCreatedAt, orderName, orderLastRequest, orderOwners, orderExpiresAt, orderAudit} {
		for _, c := range []cursorPoint{{id: "k", value: numberValue(5)}, {id: "k"}, {id: "k", null: true}, {id: "k", value: []byte("name")}} {
			f.Add(c.encode(o, false), byte(o), false)
			f.Add(c.encode(o, true), byte(o), true)
		}
	}
	f.Add("", byte(1), false)
	f.Add("AQD_____________AQ", byte(1), false)
	f.Fuzz(func(t *testing.T, text string, number byte, reverse bool) {
		o := order(number)
		c, err := parseCursor(text, o, reverse)
		if err != nil {
			if err != store.ErrCursor {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		if c.id == "" {
			t.Errorf("%q has no ID", text)
		}
		if o >= orderCreatedAt && o <= orderAudit && o != orderOwners && !c.null {
			c.sql(o)
		}
		again, err := parseCursor(c.encode(o, reverse), o, reverse)
		if err != nil || again.id != c.id || again.null != c.null || !bytes.Equal(again.value, c.value) {
			t.Errorf("%q is %+v, read again %+v: %v", text, c, again, err)
		}
	})
}

// FuzzBatch: a batch of usage that is read is written as the same.
func FuzzBatch(f *testing.F) {
	full := journalBatch{
		used:  []journalUse{{key: 1, owner: 2, day: 20261121, Uses: store.Uses{Allowed: 1, Limited: 2}}, {key: 9, owner: 1, day: 20261120, Uses: store.Uses{Denied: 3}}},
		hours: []store.HourUses{{Hour: 500_000, Outcome: "allowed", Tier: "gold", N: 3}},
		asked: []journalAsked{{1, "files:read"}},
	}
	for _, b := range [][]byte{nil, {batchVersion}, full.encode(), new(journalBatch).encode(), full.encode()[:20]} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := decodeBatch(raw)
		if err != nil {
			return
		}
		want := *b
		want.used = slices.Clone(b.used)
		again, err := decodeBatch(b.encode()) // which sorts
		if err != nil {
			t.Fatalf("%x: %v", raw, err)
		}
		slices.SortStableFunc(want.used, func(x, y journalUse) int { return cmp.Compare(x.key, y.key) })
		if !reflect.DeepEqual(*again, want) {
			t.Errorf("%x is\n%+v, written and read again\n%+v", raw, want, *again)
		}
	})
}
