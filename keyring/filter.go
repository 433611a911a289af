package keyring

import (
	"context"
	"encoding/binary"
	"fmt"
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
	room   int64         // hashes it is made for
	added  atomic.Int64
}

type filterBlock [8]atomic.Uint64

const (
	filterLeast       = 1 << 16 // hashes
	hashesPerBlock    = 32
	bytesOfBlockIndex = 8
)

func newFilter(hashes int64) *filter {
	room := int64(filterLeast)
	for room < hashes {
		room *= 2
	}
	return &filter{blocks: make([]filterBlock, room/hashesPerBlock), room: room}
}

// at returns the block of a hash, and the bits that pick one in each word.
func (f *filter) at(h *key.Hash) (*filterBlock, uint64) {
	block := binary.LittleEndian.Uint64(h[:bytesOfBlockIndex]) & uint64(len(f.blocks)-1)
	return &f.blocks[block], binary.LittleEndian.Uint64(h[bytesOfBlockIndex:])
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

// membership is the filter over all stored hashes. It is made in the background;
// until it is there, every hash may be stored.
type membership struct {
	current, next atomic.Pointer[filter]
	wake          chan struct{} // a new filter is needed

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
	f := m.current.Load()
	return f != nil && !f.has(h)
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
	f := newFilter(status.Keys * 2)
	m.next.Store(f)
	defer m.next.Store(nil)
	if err := st.EachHash(ctx, func(h key.Hash) { f.add(h) }); err != nil {
		return fmt.Errorf("reading the hashes of all keys: %w", err)
	}
	m.current.Store(f)
	return nil
}

// KeysAtOpen returns the number of keys that were stored when the store was opened.
// They are counted in the background, to build the filter over them; KeysAtOpen
// waits for that, until ctx ends.
func (r *Ring) KeysAtOpen(ctx context.Context) (int64, error) {
	select {
	case <-r.cache.members.counted:
		return r.cache.members.keys, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// keepMembership builds the filter at the start and when it has grown full.
func (r *Ring) keepMembership(ctx context.Context, st store.Store) {
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
