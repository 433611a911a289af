package storetest

import (
	"bytes"
	"fmt"
	"sync"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

var counterTests = []test{
	{"are stored, replaced and cleared", func(e *env) {
		id := e.create(limited(5), nil).Key.ID
		for _, c := range []store.Counters{
			keyCounters(id, t0, []byte{0, 1, 0xff}),
			keyCounters(id, t0-5, nil),
			keyCounters(id, 0, bytes.Repeat([]byte{7}, 5000)),
			keyCounters(id, key.MaxTime, []byte("x")),
			keyCounters(id, 0, nil),
		} {
			e.must(e.store.SaveCounters(e.ctx, []store.Counters{c}))
			got := e.get(id)
			if got.LastRequest != c.LastRequest || !bytes.Equal(got.Window(store.UnitRate), c.Windows[0].State) {
				e.Fatalf("%+v, want %+v", got, c)
			}
			e.sameEntry(e.dump()[id], got)
		}
		e.must(e.store.SaveCounters(e.ctx, nil))
	}},
	{"A6 touch no record", func(e *env) {
		full, err := e.storeCreate(fullKey(100), limited(5))
		e.must(err)
		var batch []store.Counters
		want := map[string]store.Entry{full.Key.ID: full}
		for range 20 {
			made := e.create(limited(5), nil)
			want[made.Key.ID] = made
		}
		i := int64(0)
		for id, entry := range want {
			i++
			c := keyCounters(id, t0+i, fmt.Appendf(nil, "%d", i))
			want[id] = counted(entry, c)
			batch = append(batch, c)
		}
		untouched := e.create(limited(5), nil)
		want[untouched.Key.ID] = untouched
		e.must(e.store.SaveCounters(e.ctx, batch))
		e.unchanged(want)
	}},
	{"hold the last uses of previous raw keys", func(e *env) {
		made := e.create(limited(5), func(k *key.Key) {
			k.Previous = []key.PreviousKey{{Hash: hash("old", 1), Until: t0}, {Hash: hash("old", 2), Until: t0, LastRequest: t0 - 1}}
		})
		other := e.create(limited(5), func(k *key.Key) { k.Previous = []key.PreviousKey{{Hash: hash("old", 3), Until: t0}} })
		save := func(last int64) {
			e.must(e.store.SaveCounters(e.ctx, []store.Counters{{
				Subject: store.OfKey(made.Key.ID), LastRequest: t0,
				Previous: []store.PreviousUse{{Hash: hash("old", 1), LastRequest: last}, {Hash: hash("old", 3), LastRequest: last}, {Hash: hash("gone", 1), LastRequest: last}},
			}}))
		}
		want := made
		want.LastRequest = t0
		for _, last := range []int64{t0, t0 - 5, 0, t0 + 1} { // a use may be taken back
			save(last)
			k := made.Key.Clone()
			k.Previous = []key.PreviousKey{{Hash: hash("old", 1), Until: t0, LastRequest: last}, made.Key.Previous[1]}
			want.Key = k
			e.unchanged(map[string]store.Entry{made.Key.ID: want, other.Key.ID: other})
		}
		want = e.change(made.Key.ID, func(k *key.Key) { k.Rotate(1000, t0+7, t0-500); k.Hash = hash("new", 1) })
		if n := len(want.Key.Previous); n != 3 || want.Key.Previous[0].LastRequest != t0+1 || want.Key.Previous[2].LastRequest != t0+7 {
			e.Fatalf("%+v", want.Key.Previous)
		}
		e.reopen()
		e.unchanged(map[string]store.Entry{made.Key.ID: want, other.Key.ID: other})
	}},
	{"C4 bring no deleted key back", func(e *env) {
		a, b := e.create(limited(5), nil), e.create(limited(5), nil)
		e.must(e.storeDelete(a.Key.ID))
		var batch []store.Counters
		for _, id := range []string{a.Key.ID, b.Key.ID, "nobody"} {
			batch = append(batch, keyCounters(id, t0, []byte("x")))
		}
		e.must(e.store.SaveCounters(e.ctx, batch))
		b = counted(b, batch[1])
		e.unchanged(map[string]store.Entry{b.Key.ID: b})
	}},
	{"C4 bring nothing back, under load", testC4},
}

// keyCounters are counters of a key with the window of its own limit.
func keyCounters(id string, lastRequest int64, state []byte) store.Counters {
	return store.Counters{Subject: store.OfKey(id), LastRequest: lastRequest, Windows: []store.Window{{Unit: store.UnitRate, State: state}}}
}

// counted returns the entry of a key with its counters.
func counted(e store.Entry, c store.Counters) store.Entry {
	e.LastRequest, e.Windows = c.LastRequest, c.Windows
	return e
}

// testC4 edits, spends and deletes while counters are written all the time.
func testC4(e *env) {
	const n = 60
	var ids []string
	for range n {
		ids = append(ids, e.create(limited(1000), func(k *key.Key) { k.Name = ptr("new") }).Key.ID)
	}
	stop := make(chan struct{})
	var flush sync.WaitGroup
	for w := range 2 {
		flush.Go(func() {
			for i := int64(1); ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				var batch []store.Counters
				for _, id := range ids {
					batch = append(batch, keyCounters(id, t0+i, []byte{byte(w)}))
				}
				if err := e.store.SaveCounters(e.ctx, batch); err != nil {
					e.Error(err)
					return
				}
			}
		})
	}
	end := sync.OnceFunc(func() { close(stop); flush.Wait() })
	defer end()
	e.parallel(n, func(i int) error { // in this order for each key
		for range 3 {
			if _, err := e.store.MoveCredits(e.ctx, store.OfKey(ids[i]), key.Move{Take: 1}, t0); err != nil {
				return err
			}
		}
		_, err := e.storeUpdate(ids[i], func(en *store.Entry) error {
			k := en.Key.Clone()
			k.Enabled, k.Name = false, ptr("revoked")
			en.Key = k
			return nil
		})
		if err != nil || i%2 == 1 {
			return err
		}
		return e.storeDelete(ids[i])
	})
	end()
	all := e.dump()
	for i, id := range ids {
		got, ok := all[id]
		if ok != (i%2 == 1) {
			e.Errorf("key %d: stored is %v", i, ok)
			continue
		}
		if ok && (got.Key.Enabled || *got.Key.Name != "revoked" || got.Credits.Remaining != 997) {
			e.Errorf("key %d: %+v, %d credits", i, got.Key, got.Credits.Remaining)
		}
	}
}
