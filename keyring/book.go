package keyring

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"

	"github.com/caddy-apikey/caddy-apikey/store"
)

// usageBatch is how many increments go into one transaction, which other writes
// wait for.
const usageBatch = 500

// book takes the tallies to the store, each increment exactly once. What a
// tally has counted since it was last asked goes into a numbered batch, and the
// batch stays here until the store has it: if the answer is an error, or is lost
// on its way, the same batch is sent again under the same number, and the store
// drops it if it has it already.
type book struct {
	shards [shardCount]struct {
		mu sync.Mutex
		l  []*tally
	}

	// mu is held while a batch is on its way and while usage is read, so that a
	// reader finds each increment either in the store or here.
	mu     sync.Mutex
	writer string
	number int64
	unsent *store.UsageBatch // made, and not known to be stored
}

func (b *book) init() { b.writer = rand.Text() }

// queue notes that a tally has something to write. It is in the list once, so
// that a busy key takes the lock once a second.
func (b *book) queue(t *tally) {
	if t.queued.Load() || !t.queued.CompareAndSwap(false, true) {
		return
	}
	b.put(t)
}

func (b *book) put(t *tally) {
	sh := &b.shards[shardOf(t.keyID)]
	sh.mu.Lock()
	sh.l = append(sh.l, t)
	sh.mu.Unlock()
}

// drain empties the list.
func (b *book) drain() (all []*tally) {
	for i := range b.shards {
		sh := &b.shards[i]
		sh.mu.Lock()
		all = append(all, sh.l...)
		sh.l = nil
		sh.mu.Unlock()
	}
	return all
}

// flush writes what is counted. What could not be written stays, for the next time.
func (b *book) flush(ctx context.Context, st store.Store) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.send(ctx, st); err != nil {
		return err
	}
	all := b.drain()
	for len(all) > 0 {
		n := min(len(all), usageBatch)
		b.fill(all[:n])
		all = all[n:]
		if err := b.send(ctx, st); err != nil {
			for _, t := range all { // they are still marked as queued
				b.put(t)
			}
			return err
		}
	}
	return nil
}

// fill makes a batch of what some tallies have counted.
func (b *book) fill(some []*tally) {
	batch := store.UsageBatch{Writer: b.writer, Number: b.number + 1}
	for _, t := range some {
		// Before the values are read: what is counted after that queues it again.
		t.queued.Store(false)
		if u := t.take(); u != (store.Uses{}) {
			batch.Used = append(batch.Used, store.Used{KeyID: t.keyID, UserID: t.userID, Day: int32(t.day), Uses: u})
		}
	}
	if batch.Used != nil {
		b.number, b.unsent = batch.Number, &batch
	}
}

// send writes the batch that waits, if there is one.
func (b *book) send(ctx context.Context, st store.Store) error {
	if b.unsent == nil {
		return nil
	}
	if err := st.SaveUsage(ctx, *b.unsent); err != nil {
		return fmt.Errorf("writing usage: %w", err)
	}
	b.unsent = nil
	return nil
}

// with runs read, which asks the store for usage, and adds what is counted and
// not yet stored to the days it returns.
func (b *book) with(ctx context.Context, st store.Store, read func() ([]store.DayUses, error), ours func(keyID, userID string) bool) (map[date]store.Uses, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	// Of a batch whose answer was lost only a second try tells where it is. Where
	// that fails too, it is most likely not stored.
	_ = b.send(ctx, st)
	stored, err := read()
	if err != nil {
		return nil, err
	}
	sums := make(map[date]store.Uses)
	add := func(day date, u store.Uses) {
		sum := sums[day]
		sum.Add(u)
		sums[day] = sum
	}
	for _, d := range stored {
		add(date(d.Day), d.Uses)
	}
	if b.unsent != nil {
		for _, u := range b.unsent.Used {
			if ours(u.KeyID, u.UserID) {
				add(date(u.Day), u.Uses)
			}
		}
	}
	b.each(func(t *tally) {
		if ours(t.keyID, t.userID) {
			add(t.day, t.rest())
		}
	})
	return sums, nil
}

// each calls f for every tally that waits.
func (b *book) each(f func(*tally)) {
	for i := range b.shards {
		sh := &b.shards[i]
		sh.mu.Lock()
		for _, t := range sh.l {
			f(t)
		}
		sh.mu.Unlock()
	}
}

// forget runs remove, which deletes an owner from the store, and drops what is
// counted for it here: nothing of it may come to a new owner of the same name.
func (b *book) forget(userID string, remove func() error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := remove(); err != nil {
		return err
	}
	if b.unsent != nil {
		kept := slices.DeleteFunc(slices.Clone(b.unsent.Used), func(u store.Used) bool { return u.UserID == userID })
		b.unsent = &store.UsageBatch{Writer: b.unsent.Writer, Number: b.unsent.Number, Used: kept}
	}
	b.each(func(t *tally) {
		if t.userID == userID {
			t.take()
		}
	})
	return nil
}

// shardOf spreads keys: IDs end in random hexadecimal digits.
func shardOf(id string) uint {
	return (uint(id[len(id)-1])*16 + uint(id[max(0, len(id)-2)])) % shardCount
}
