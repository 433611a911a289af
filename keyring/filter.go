package keyring

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// filter knows which hashes are certainly not stored, so that a flood of made-up
// keys does not reach the store. It is a split block Bloom filter, as Parquet
// has it: a hash picks a block of eight words and one bit in each word. At 16
// bits a hash, about one unknown hash in 2,000 looks known. The hashes are
// SHA-256, so their own bits are as good as any hash of them.
//
// Nothing is ever removed; a filter that has grown full is replaced.
type filter struct {
	blocks []filterBlock // a power of two
	shift  int           // of a prefix, for the index of its block
	room   int64         // hashes it is made for
	added  atomic.Int64
}

type filterBlock [8]atomic.Uint64

const (
	filterLeast = 1 << 16 // hashes
	// hashesApart is after how many hashes the position of the reading is told.
	hashesApart    = 256
	hashesPerBlock = 32
	prefixLen      = 8
)

func newFilter(hashes int64) *filter {
	room := int64(filterLeast)
	for room < hashes {
		room *= 2
	}
	n := uint64(room / hashesPerBlock)
	return &filter{blocks: make([]filterBlock, n), shift: 65 - bits.Len64(n), room: room}
}

// positionOf returns the beginning of a hash, which sorts as hashes do.
func positionOf(h *key.Hash) uint64 { return binary.BigEndian.Uint64(h[:prefixLen]) }

// at returns the block of a hash, and the bits that pick one in each word. The blocks are
// in the order of hashes, so that hashes in ascending order are quickly added.
func (f *filter) at(h *key.Hash) (*filterBlock, uint64) {
	return &f.blocks[positionOf(h)>>f.shift], binary.LittleEndian.Uint64(h[prefixLen:])
}

func (f *filter) add(h key.Hash) {
	block, bits := f.at(&h)
	for i := range block {
		block[i].Or(1 << (bits >> (6 * i) & 63))
	}
	f.added.Add(1)
}

// has reports false only for hashes that were never added.
func (f *filter) has(h key.Hash) bool {
	block, bits := f.at(&h)
	for i := range block {
		if block[i].Load()&(1<<(bits>>(6*i)&63)) == 0 {
			return false
		}
	}
	return true
}

func (f *filter) full() bool { return f.added.Load() > f.room }

// building is a filter that all stored hashes are read into, in ascending order.
type building struct {
	*filter
	// below is how far the reading has come: hashes with a lower prefix have been read.
	below atomic.Uint64
}

// read adds the hashes that it is called with. Where they are in no order, which a store
// must not do, no position says anything.
func (b *building) read() func(key.Hash) {
	n, last, ordered := 0, uint64(0), true
	return func(h key.Hash) {
		at := positionOf(&h)
		if at < last && ordered {
			ordered = false
			b.below.Store(0)
		}
		last = at
		if n++; n%hashesApart == 0 && ordered {
			b.below.Store(at) // all that come before this one have been added
		}
		b.add(h)
	}
}

// excludes reports whether a hash is certainly not stored, as far as that is known.
func (b *building) excludes(h key.Hash) bool {
	return positionOf(&h) < b.below.Load() && !b.has(h)
}

// membership is the filter over all stored hashes. It is made in the background;
// until it is there, every hash may be stored that has not been reached yet.
type membership struct {
	current atomic.Pointer[filter]
	next    atomic.Pointer[building]
	wake    chan struct{} // a new filter is needed

	counting sync.Once
	counted  chan struct{} // closed when keys is set
	keys     int64         // stored when the first filter was built
}

func (m *membership) init() {
	m.wake = make(chan struct{}, 1)
	m.counted = make(chan struct{})
}

// excludes reports whether a hash is certainly not stored.
func (m *membership) excludes(h key.Hash) bool {
	if f := m.current.Load(); f != nil {
		return !f.has(h)
	}
	next := m.next.Load()
	return next != nil && next.excludes(h)
}

// add is called when a hash has been stored, before anybody hears of it.
func (m *membership) add(h key.Hash) {
	// In this order: build swaps current in before it drops next, so that a hash
	// which misses the one reaches the other.
	if f := m.next.Load(); f != nil {
		f.add(h)
	}
	if f := m.current.Load(); f != nil {
		f.add(h)
		if f.full() {
			m.rebuild()
		}
	}
}

func (m *membership) rebuild() {
	select {
	case m.wake <- struct{}{}:
	default: // it is coming
	}
}

// build makes a new filter. What is stored while it reads is added by add, which
// it has been told of before the reading begins.
func (m *membership) build(ctx context.Context, st store.Store) error {
	status, err := st.Health(ctx)
	if err != nil {
		return fmt.Errorf("counting keys: %w", err)
	}
	m.counting.Do(func() {
		m.keys = status.Keys
		close(m.counted)
	})
	next := &building{filter: newFilter(status.Keys * 2)}
	m.next.Store(next)
	defer m.next.Store(nil)
	if err := st.EachHash(ctx, next.read()); err != nil {
		return fmt.Errorf("reading the hashes of all keys: %w", err)
	}
	m.current.Store(next.filter)
	return nil
}

// KeysAtOpen returns the number of keys that were stored when the store was opened.
// They are counted in the background, to build the filter over them; KeysAtOpen
// waits for that, until ctx ends.
func (r *Engine) KeysAtOpen(ctx context.Context) (int64, error) {
	select {
	case <-r.cache.members.counted:
		return r.cache.members.keys, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// keepMembership builds the filter at the start and when it has grown full.
func (r *Engine) keepMembership(ctx context.Context, st store.Store) {
	r.cache.members.rebuild()
	r.loops.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-r.cache.members.wake:
			}
			if err := r.cache.members.build(ctx, st); err != nil && ctx.Err() == nil {
				r.report(fmt.Errorf("unknown keys cost a look-up each: %w", err))
			}
		}
	})
}
