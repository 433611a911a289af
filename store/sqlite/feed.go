package sqlite

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/caddy-apikey/caddy-apikey/store"
)

// feed tells subscribers of changes. Only the writer publishes.
type feed struct {
	mu          sync.Mutex
	last        int
	subscribers map[int]func([]store.Change)

	// committing are the changes that are being committed, from before anybody can read
	// them until the subscribers know of them, or nil.
	committing atomic.Pointer[commit]
}

// commit is a transaction with changes.
type commit struct {
	first int64         // the lowest revision
	ended chan struct{} // closed when the subscribers know of the changes, or there are none
}

// begin notes that changes are about to be committed.
func (f *feed) begin(changes []store.Change) {
	if len(changes) > 0 {
		f.committing.Store(&commit{first: changes[0].Revision, ended: make(chan struct{})})
	}
}

// end is called when the changes are published, or were not committed.
func (f *feed) end() {
	if c := f.committing.Swap(nil); c != nil {
		close(c.ended)
	}
}

// published returns what was read once the subscribers know of all changes that the read may
// have seen, so that whoever sees a change can rely on it: what the admin API shows as
// revoked, no gate lets in.
func published[T any](ctx context.Context, s *Store, read T, err error) (T, error) {
	if failure := s.untilPublished(ctx); failure != nil {
		var none T
		return none, failure
	}
	return read, err
}

// untilPublished waits until the changes are published that can be read already. It waits
// for no disk: changes that cannot be read yet were not seen.
func (s *Store) untilPublished(ctx context.Context) error {
	c := s.writer.feed.committing.Load()
	if c == nil {
		return nil
	}
	var last int64
	if err := s.readRow(ctx, "reading the revision", `SELECT last FROM {p}revision`, nil, &last); err != nil || last < c.first {
		return err
	}
	select {
	case <-c.ended:
		return nil
	case <-ctx.Done():
		return unavailable("waiting for a change to be known: %w", ctx.Err())
	}
}

// Subscribe implements store.Store.
func (s *Store) Subscribe(f func([]store.Change)) (cancel func()) {
	fd := &s.writer.feed
	fd.mu.Lock()
	defer fd.mu.Unlock()
	if fd.subscribers == nil {
		fd.subscribers = map[int]func([]store.Change){}
	}
	fd.last++
	id := fd.last
	fd.subscribers[id] = f
	return func() {
		fd.mu.Lock()
		defer fd.mu.Unlock()
		delete(fd.subscribers, id)
	}
}

// publish calls the subscribers with changes that are durable.
func (f *feed) publish(changes []store.Change) {
	if len(changes) == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, subscriber := range f.subscribers {
		subscriber(changes)
	}
}

// revisions takes n revisions for changes of this transaction and returns the first.
func (c *writerConn) revisions(n int) (first int64, err error) {
	if n == 0 {
		return 0, nil
	}
	err = c.row(`UPDATE {p}revision SET last = last + ?1 RETURNING last - ?1 + 1`, []any{n}, &first)
	return first, failed("taking a revision", err)
}

// changed notes a change, which is published when the transaction is durable.
func (c *writerConn) changed(change store.Change) store.Change {
	c.changes = append(c.changes, change)
	return change
}

// changedKey notes what a key is now.
func (c *writerConn) changedKey(e store.Entry) store.Change {
	return c.changed(store.Change{Revision: e.Key.Revision, Subject: store.OfKey(e.Key.ID), Entry: &e})
}

// changedOwner notes what an owner is now.
func (c *writerConn) changedOwner(o store.OwnerInfo) store.Change {
	return c.changed(store.Change{Revision: o.Revision, Subject: store.OfOwner(o.UserID), Owner: &o})
}

// deletedKeys gives the deletions of keys their revisions, and notes them.
func (c *writerConn) deletedKeys(gone []store.Change) error {
	first, err := c.revisions(len(gone))
	if err != nil {
		return err
	}
	for i := range gone {
		gone[i].Revision = first + int64(i)
		c.changed(gone[i])
	}
	return nil
}
